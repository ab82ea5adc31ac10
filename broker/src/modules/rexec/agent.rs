//! How is the shell of a job started on this node, and how is its end noticed?
//!
//! The execution service sends one request per rank: a line of JSON ([`StartHeader`]) and the tail of the
//! shell's input document, the same bytes for all ranks. The shell gets the document as a sealed memory file
//! on standard input; its standard output and error go to a memory file of their own that is read when it ends.
//! Nothing of the shell hangs on a pipe to this broker.
//!
//! ```text
//! job-exec-agent.start ──> {pid}          the shell runs
//!                      ──> error ENODATA  it ended; the text is JSON: {status, output?}
//!                      ──> other errors   it could not be started
//! ```

use super::Rexec;
use super::wait::Watched;
use crate::service::{Cx, RpcError, Service};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_process::{Command, ProcessGroup, Signal, SpawnError, WaitStatus, memfd_sealed};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Service name of the agent.
pub const SERVICE: &str = "job-exec-agent";
/// Where shells start; tasks change to the job's own directory.
pub const DEFAULT_CWD: &str = "/tmp";
/// Most bytes of a shell's own output that are reported.
const OUTPUT_MAX: u64 = 16 * 1024;

/// First line of a start request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StartHeader {
    /// The job.
    pub id: JobId,
    /// Program and arguments.
    pub argv: Vec<String>,
}

/// Kill request.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct KillRequest {
    /// The job.
    pub id: JobId,
    /// Signal number.
    pub signum: i32,
}

/// How a shell ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShellEnd {
    /// Wait status.
    pub status: i32,
    /// What it wrote to its standard output and error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// What the agent says of one shell.
#[derive(Clone, Debug)]
pub enum ShellReport {
    /// It runs.
    Started,
    /// It ended; nothing follows.
    Ended(ShellEnd),
    /// It could not be started, or the node is lost; nothing follows.
    Failed(RpcError),
}

/// Who is told of a shell.
enum Reply {
    Local(Deliver),
    Remote(Message),
}

/// Takes each report of a shell of this broker.
type Deliver = Box<dyn FnMut(&mut Cx<'_>, ShellReport)>;

impl Reply {
    fn send(&mut self, cx: &mut Cx<'_>, report: ShellReport) {
        match self {
            Reply::Local(deliver) => deliver(cx, report),
            Reply::Remote(request) => match report {
                ShellReport::Started => cx.respond(request, &serde_json::json!({})),
                ShellReport::Ended(end) => {
                    let text = serde_json::to_string(&end).unwrap_or_default();
                    cx.fail(request, errno::ENODATA, &text);
                }
                ShellReport::Failed(err) => cx.fail_with(request, &err),
            },
        }
    }
}

/// One running shell.
struct Shell {
    pid: u32,
    process: Watched,
    output: OwnedFd,
    reply: Reply,
}

/// The shells of this node.
#[derive(Default)]
pub(super) struct Shells {
    running: HashMap<JobId, Shell>,
    env: Option<Vec<(OsString, OsString)>>,
}

impl std::fmt::Debug for Shells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shells")
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}

/// Builds the body of start requests from the header and the document without its first members.
///
/// # Errors
/// Those of `serde_json`.
pub fn start_body(header: &StartHeader, rest: &impl Serialize) -> Result<Bytes, serde_json::Error> {
    let mut body = Vec::with_capacity(8192);
    serde_json::to_writer(&mut body, header)?;
    body.push(b'\n');
    serde_json::to_writer(&mut body, rest)?;
    Ok(Bytes::from(body))
}

/// Starts a shell on this rank; `each` gets its reports.
pub fn start_local<S: Service>(
    cx: &mut Cx<'_>,
    body: Bytes,
    each: impl FnMut(&mut S, &mut Cx<'_>, ShellReport) + 'static,
) {
    let slot = cx.slot();
    let each = Rc::new(RefCell::new(each));
    let mut deliver: Deliver = Box::new(move |cx, report| {
        let each = each.clone();
        cx.to_slot::<S>(slot, move |me, cx| {
            // never entered twice: the hub runs one call at a time
            if let Ok(mut each) = each.try_borrow_mut() {
                each(me, cx, report);
            }
        });
    });
    if cx.provides(SERVICE) {
        cx.to::<Rexec>(SERVICE, move |me, cx| {
            me.start_shell(cx, &body, Reply::Local(deliver))
        });
    } else {
        deliver(cx, ShellReport::Failed(RpcError::bare(errno::ENOSYS)));
    }
}

/// Starts a shell on another rank; `each` gets its reports. Losing the node is a failure with EHOSTUNREACH.
pub fn start_remote<S: Service>(
    cx: &mut Cx<'_>,
    rank: u32,
    body: Bytes,
    mut each: impl FnMut(&mut S, &mut Cx<'_>, ShellReport) + 'static,
) {
    let req = Message::request(
        flux_formats::msg::Topic::from_static("job-exec-agent.start"),
        rank,
        Some(body),
    );
    cx.rpc_stream(req, move |me: &mut S, cx, result| {
        let report = match result {
            Ok(_) => ShellReport::Started,
            Err(err) if err.errnum == errno::ENODATA => {
                ShellReport::Ended(serde_json::from_str(&err.text).unwrap_or_default())
            }
            Err(err) => ShellReport::Failed(err),
        };
        each(me, cx, report);
    });
}

/// Sends a signal to the shell of a job on a rank. A shell that is gone is no error.
pub fn kill(cx: &mut Cx<'_>, rank: u32, id: JobId, signum: i32) {
    if rank == cx.rank() {
        cx.to::<Rexec>(SERVICE, move |me, cx| me.kill_shell(cx, id, signum));
        return;
    }
    let req = cx.request("job-exec-agent.kill", rank, &KillRequest { id, signum });
    cx.notify(req);
}

impl Rexec {
    pub(super) fn on_agent_start(&mut self, cx: &mut Cx<'_>, req: Message) {
        if !cx.require_streaming(&req) {
            return;
        }
        let body = req.payload.clone().unwrap_or_default();
        self.start_shell(cx, &body, Reply::Remote(Message { payload: None, ..req }));
    }

    pub(super) fn on_agent_kill(&mut self, cx: &mut Cx<'_>, req: &Message) {
        if let Some(body) = cx.decode::<KillRequest>(req) {
            self.kill_shell(cx, body.id, body.signum);
            cx.respond_empty(req);
        }
    }

    fn start_shell(&mut self, cx: &mut Cx<'_>, body: &Bytes, mut reply: Reply) {
        match self.spawn_shell(cx, body) {
            Ok((id, pid, process, output)) => {
                let task = process.clone();
                cx.spawn(task.wait(), move |me: &mut Rexec, cx, status| {
                    me.on_shell_end(cx, id, pid, status)
                });
                reply.send(cx, ShellReport::Started);
                self.shells.running.insert(
                    id,
                    Shell {
                        pid,
                        process,
                        output,
                        reply,
                    },
                );
            }
            Err(err) => reply.send(cx, ShellReport::Failed(err)),
        }
    }

    fn spawn_shell(&mut self, cx: &Cx<'_>, body: &Bytes) -> Result<(JobId, u32, Watched, OwnedFd), RpcError> {
        let protocol = || RpcError::new(errno::EPROTO, "malformed shell start request");
        let newline = body.iter().position(|byte| *byte == b'\n').ok_or_else(protocol)?;
        let (line, rest) = body.split_at(newline);
        let header: StartHeader = serde_json::from_slice(line).map_err(|_| protocol())?;
        if self.shells.running.contains_key(&header.id) {
            return Err(RpcError::new(
                errno::EEXIST,
                format!("a shell of job {} runs already", header.id),
            ));
        }
        let io_error = |err: std::io::Error| {
            let errnum = err
                .raw_os_error()
                .and_then(|code| u32::try_from(code).ok())
                .unwrap_or(errno::EIO);
            RpcError::new(errnum, err.to_string())
        };
        // the document is `{`, what is of this rank, and what is the same for all ranks
        let rest = rest.get(2..).ok_or_else(protocol)?;
        let mut document = format!(
            "{{\"version\":1,\"id\":{},\"broker_rank\":{},\"jobid_path\":{},",
            header.id.0,
            cx.rank(),
            serde_json::Value::from(cx.attrs.get("jobid-path").unwrap_or("/"))
        )
        .into_bytes();
        document.extend_from_slice(rest);
        let input = memfd_sealed(c"flux-shell-input", &document).map_err(io_error)?;
        let output =
            memfd_create(c"flux-shell-output", MFdFlags::MFD_CLOEXEC).map_err(|err| io_error(err.into()))?;
        let mut argv = header.argv.into_iter();
        let mut command = Command::new(argv.next().ok_or_else(protocol)?);
        command
            .args(argv)
            .cwd(DEFAULT_CWD)
            .group(ProcessGroup::Session)
            .fd(0, input);
        command
            .fd(1, output.try_clone().map_err(io_error)?)
            .fd(2, output.try_clone().map_err(io_error)?);
        let base = self
            .shells
            .env
            .get_or_insert_with(|| base_env(cx))
            .iter()
            .cloned();
        let namespace = (
            OsString::from("FLUX_KVS_NAMESPACE"),
            OsString::from(header.id.guest_namespace()),
        );
        command.env(base.chain([namespace]));
        let child = command.spawn().map_err(|err| spawn_error(&err))?;
        let (pid, pidfd) = child.into_parts();
        let process = Watched::new(pidfd).map_err(io_error)?;
        Ok((header.id, pid, process, output))
    }

    fn on_shell_end(&mut self, cx: &mut Cx<'_>, id: JobId, pid: u32, status: std::io::Result<WaitStatus>) {
        if self.shells.running.get(&id).is_none_or(|shell| shell.pid != pid) {
            return;
        }
        let Some(mut shell) = self.shells.running.remove(&id) else {
            return;
        };
        // reaped by nobody else: an error here means that the kernel lost the process
        let status = status.unwrap_or(WaitStatus::exited(1));
        if status.signal().is_some() {
            // a shell that was killed cannot have ended its tasks
            kill_session(pid);
        }
        let output = read_output(shell.output).unwrap_or_default();
        shell.reply.send(
            cx,
            ShellReport::Ended(ShellEnd {
                status: status.0,
                output,
            }),
        );
        self.check_stopped(cx);
    }

    fn kill_shell(&mut self, cx: &mut Cx<'_>, id: JobId, signum: i32) {
        let Some(signal) = Signal::new(signum) else { return };
        let Some(shell) = self.shells.running.get(&id) else {
            return;
        };
        if let Err(err) = shell.process.pidfd().send_signal(signal) {
            cx.log_as_me(4, &format!("{id}: signal {signum} to shell {}: {err}", shell.pid));
        }
    }

    /// Kills all shells, when the broker leaves.
    pub(super) fn kill_shells(&self) {
        for shell in self.shells.running.values() {
            if let Err(err) = shell.process.pidfd().send_signal(Signal::SIGKILL) {
                tracing::debug!(pid = shell.pid, err = %err, "shell not killed");
            }
        }
    }

    /// Returns the shells as `rexec.list` shows processes.
    pub(super) fn list_shells(&self) -> impl Iterator<Item = serde_json::Value> {
        self.shells.running.iter().map(|(id, shell)| {
            serde_json::json!({ "pid": shell.pid, "cmd": format!("flux-shell {}", id.0), "label": "", "state": "R" })
        })
    }

    /// Returns the number of running shells.
    pub(super) fn shell_count(&self) -> usize {
        self.shells.running.len()
    }
}

/// Returns the environment of all shells: the broker's, without what belongs to the broker's own job.
fn base_env(cx: &Cx<'_>) -> Vec<(OsString, OsString)> {
    const DROPPED: &[&str] = &[
        "FLUX_JOB_ID",
        "FLUX_JOB_ID_PATH",
        "FLUX_JOB_SIZE",
        "FLUX_JOB_NNODES",
        "FLUX_JOB_TMPDIR",
        "FLUX_JOB_CC",
        "FLUX_TASK_RANK",
        "FLUX_TASK_LOCAL_ID",
        "FLUX_KVS_NAMESPACE",
        "FLUX_PROXY_REMOTE",
        "FLUX_START_URI",
        "FLUX_URI",
        "PMI_FD",
        "PMI_RANK",
        "PMI_SIZE",
        "PMI_SPAWNED",
        "NOTIFY_SOCKET",
    ];
    let keep = |name: &OsString| name.to_str().is_none_or(|name| !DROPPED.contains(&name));
    let mut env: Vec<_> = std::env::vars_os().filter(|(name, _)| keep(name)).collect();
    let uri = cx.attrs.get("local-uri").unwrap_or_default();
    env.push(("FLUX_URI".into(), uri.into()));
    env
}

/// Says what went wrong, with the number that tells missing programs from forbidden ones.
fn spawn_error(err: &SpawnError) -> RpcError {
    let errnum = u32::try_from(err.errnum()).unwrap_or(errno::EIO);
    RpcError::new(errnum, format!("{err}: {}", errno::strerror(errnum)))
}

fn read_output(output: OwnedFd) -> std::io::Result<String> {
    let mut file = File::from(output);
    file.rewind()?;
    let mut text = Vec::new();
    file.take(OUTPUT_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Kills every process of a session whose leader has died: the tasks that a killed shell left behind.
fn kill_session(session: u32) {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return;
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.filter(|pid| session_of(*pid) == Some(session)) {
        let Ok(target) = flux_process::PidFd::open(pid) else {
            continue;
        };
        // looked at again: the number may have been given to another process since
        if session_of(pid) == Some(session)
            && let Err(err) = target.send_signal(Signal::SIGKILL)
        {
            tracing::debug!(pid, err = %err, "task of a lost shell not killed");
        }
    }
}

fn session_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // fields after the command, which may hold blanks and parentheses: state ppid pgrp session
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}
