//! What does this node know of its shells: those it started, and those that it found when it came back?
//!
//! ```text
//!                        start                     ended
//!   (nothing) ─────────────────────────▶ running ────────▶ reported
//!        │    attach: the shell's claim     ▲
//!        └──────────────────────────────────┘
//! ```
//! A broker that leaves kills its shells, except those that outlive it: they stay, and its successor finds their
//! claims ([`super::claims`]) when the execution service asks for them. What nobody asks for any more is ended.

use super::Rexec;
use super::agent::{AttachRequest, DEFAULT_CWD, KillRequest, ShellEnd, ShellReport, StartHeader};
use super::claims::{self, Claim, Claims};
use super::wait::Watched;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::job_exec as rpc;
use flux_process::identity::kill_session;
use flux_process::{
    Command, EnvBlock, Identity, PidFd, ProcessGroup, Signal, SpawnError, WaitStatus, memfd_sealed,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Most bytes of a shell's own output that are reported.
const OUTPUT_MAX: u64 = 16 * 1024;
/// What stands for SIGKILL to an IMP: killed itself, the original's could not end what it started.
const IMP_KILL: Signal = Signal::SIGUSR1;
/// Time between two attempts to tell the execution service what was found.
const HELLO_RETRY: Duration = Duration::from_secs(1);

/// Who is told of a shell.
pub(super) enum Reply {
    /// A service of this broker.
    Local(Deliver),
    /// A request from another broker.
    Remote(Message),
}

/// Takes each report of a shell of this broker.
pub(super) type Deliver = Box<dyn FnMut(&mut Cx<'_>, ShellReport)>;

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
    /// What it says on standard output and error; of a shell that was found nobody knows.
    output: Option<OwnedFd>,
    reply: Reply,
    /// It stays when this broker leaves.
    outlives: bool,
    /// The process is an IMP; the shell and its tasks are another user's.
    imp: bool,
    /// It was told to end: it has nothing to stay for.
    ending: bool,
}

/// How a process came to run a shell.
#[derive(Clone, Copy)]
struct Kind {
    outlives: bool,
    imp: bool,
}

/// The shells of this node.
#[derive(Default)]
pub(super) struct Shells {
    running: HashMap<JobId, Shell>,
    claims: Claims,
    env: Option<EnvBlock>,
    /// No shell may stay when this broker leaves.
    take_along: bool,
}

impl std::fmt::Debug for Shells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shells")
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}

impl Shells {
    /// Returns the shells of a broker; there may be some from before it came.
    pub(super) fn new(rundir: &str, rank: u32) -> Self {
        Shells {
            claims: Claims::new(rundir, rank),
            ..Shells::default()
        }
    }
}

fn io_error(err: std::io::Error) -> RpcError {
    let errnum = err
        .raw_os_error()
        .and_then(|code| u32::try_from(code).ok())
        .unwrap_or(errno::EIO);
    RpcError::new(errnum, err.to_string())
}

impl Rexec {
    pub(super) fn on_agent_start(&mut self, cx: &mut Cx<'_>, req: Message) {
        if !cx.require_streaming(&req) {
            return;
        }
        let body = req.payload.clone().unwrap_or_default();
        self.start_shell(cx, &body, Reply::Remote(Message { payload: None, ..req }));
    }

    pub(super) fn on_agent_attach(&mut self, cx: &mut Cx<'_>, req: Message) {
        if cx.require_streaming(&req)
            && let Some(AttachRequest { id }) = cx.decode(&req)
        {
            self.attach_shell(cx, id, Reply::Remote(Message { payload: None, ..req }));
        }
    }

    pub(super) fn on_agent_kill(&mut self, cx: &mut Cx<'_>, req: &Message) {
        if let Some(body) = cx.decode::<KillRequest>(req) {
            self.kill_shell(cx, body.id, body.signum);
            cx.respond_empty(req);
        }
    }

    // ---- start ------------------------------------------------------------------------------------------

    pub(super) fn start_shell(&mut self, cx: &mut Cx<'_>, body: &Bytes, mut reply: Reply) {
        match self.spawn_shell(cx, body) {
            Ok((header, pid, pidfd, output)) => {
                reply.send(cx, ShellReport::Started);
                let kind = Kind {
                    outlives: header.outlives,
                    imp: header.j.is_some(),
                };
                self.watch_shell(cx, header.id, (pid, pidfd), Some(output), reply, kind);
            }
            Err(err) => reply.send(cx, ShellReport::Failed(err)),
        }
    }

    /// Follows a shell to its end.
    fn watch_shell(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        (pid, pidfd): (u32, PidFd),
        output: Option<OwnedFd>,
        mut reply: Reply,
        kind: Kind,
    ) {
        let process = match Watched::new(pidfd) {
            Ok(process) => process,
            Err(err) => {
                kill_session(pid, |_| true);
                reply.send(cx, ShellReport::Failed(io_error(err)));
                return;
            }
        };
        let task = process.clone();
        cx.spawn(task.wait(), move |me: &mut Rexec, cx, status| {
            me.on_shell_end(cx, id, pid, status)
        });
        let shell = Shell {
            pid,
            process,
            output,
            reply,
            outlives: kind.outlives,
            imp: kind.imp,
            ending: false,
        };
        self.shells.running.insert(id, shell);
    }

    fn spawn_shell(
        &mut self,
        cx: &Cx<'_>,
        body: &Bytes,
    ) -> Result<(StartHeader, u32, PidFd, OwnedFd), RpcError> {
        let protocol = || RpcError::new(errno::EPROTO, "malformed shell start request");
        let newline = body.iter().position(|byte| *byte == b'\n').ok_or_else(protocol)?;
        let (line, rest) = body.split_at(newline);
        let mut header: StartHeader = serde_json::from_slice(line).map_err(|_| protocol())?;
        if self.shells.running.contains_key(&header.id) {
            return Err(RpcError::new(
                errno::EEXIST,
                format!("a shell of job {} runs already", header.id),
            ));
        }
        let document = self.document(cx, &header, rest)?;
        let input = memfd_sealed(c"flux-shell-input", &document).map_err(io_error)?;
        let output =
            memfd_create(c"flux-shell-output", MFdFlags::MFD_CLOEXEC).map_err(|err| io_error(err.into()))?;
        let mut argv = std::mem::take(&mut header.argv).into_iter();
        let mut command = Command::new(argv.next().ok_or_else(protocol)?);
        command
            .args(argv)
            .cwd(DEFAULT_CWD)
            .group(ProcessGroup::Session)
            .fd(0, input);
        command
            .fd(1, output.try_clone().map_err(io_error)?)
            .fd(2, output.try_clone().map_err(io_error)?);
        let base = match &self.shells.env {
            Some(base) => base,
            None => {
                let base = EnvBlock::new(base_env(cx)).map_err(|err| spawn_error(&err))?;
                self.shells.env.insert(base)
            }
        };
        command
            .env_block(base)
            .env([("FLUX_KVS_NAMESPACE", header.id.guest_namespace())]);
        let child = command.spawn().map_err(|err| spawn_error(&err))?;
        let (pid, pidfd) = child.into_parts();
        Ok((header, pid, pidfd, output))
    }

    /// Returns what a shell gets on standard input: `{`, what is of this rank, and what is the same for all ranks; before
    /// it the line for the IMP, if there is one.
    fn document(&mut self, cx: &Cx<'_>, header: &StartHeader, rest: &[u8]) -> Result<Vec<u8>, RpcError> {
        let protocol = || RpcError::new(errno::EPROTO, "malformed shell start request");
        let rest = rest.get(2..).ok_or_else(protocol)?;
        let mut text = String::new();
        let j = header.j.as_ref().map(|j| serde_json::Value::from(j.as_str()));
        if let Some(j) = &j {
            text.push_str(&format!("{{\"J\":{j},\"options\":{{}}}}\n"));
        }
        text.push_str(&format!(
            "{{\"version\":1,\"id\":{},\"broker_rank\":{},\"jobid_path\":{},",
            header.id.0,
            cx.rank(),
            serde_json::Value::from(cx.attrs.get("jobid-path").unwrap_or("/"))
        ));
        if let Some(j) = &j {
            text.push_str(&format!("\"J\":{j},"));
        }
        if header.outlives {
            let path = self.shells.claims.path(header.id).map_err(|err| {
                let err = io_error(err);
                RpcError::new(err.errnum, format!("directory of shells: {}", err.text))
            })?;
            let path = serde_json::to_string(&path.to_string_lossy()).map_err(|_| protocol())?;
            text.push_str(&format!("\"claim\":{path},"));
        }
        let mut document = text.into_bytes();
        document.extend_from_slice(rest);
        Ok(document)
    }

    // ---- found again ------------------------------------------------------------------------------------

    /// Finds the shell of a job that was started before, by this broker or an earlier one.
    pub(super) fn attach_shell(&mut self, cx: &mut Cx<'_>, id: JobId, mut reply: Reply) {
        if let Some(shell) = self.shells.running.get_mut(&id) {
            reply.send(cx, ShellReport::Started);
            shell.reply = reply;
            return;
        }
        match self.shells.claims.find(id) {
            Ok(Claim::Running(identity, pidfd)) => {
                cx.log_as_me(6, &format!("{id}: found shell {} again", identity.pid));
                reply.send(cx, ShellReport::Started);
                let kind = Kind {
                    outlives: true,
                    imp: false,
                };
                self.watch_shell(cx, id, (identity.pid, pidfd), None, reply, kind);
            }
            Ok(Claim::Ended(identity)) => {
                self.clean_up_after(id, &identity);
                reply.send(cx, ShellReport::Ended(ShellEnd::default()));
            }
            Ok(Claim::Nobody) => {
                let err = RpcError::new(errno::ENOENT, "no shell of this job runs here");
                reply.send(cx, ShellReport::Failed(err));
            }
            Err(err) => reply.send(cx, ShellReport::Failed(io_error(err))),
        }
    }

    /// Ends what a shell left behind that died without a broker to see it.
    fn clean_up_after(&mut self, id: JobId, shell: &Identity) {
        // the number of an empty session may have been given to another
        kill_session(shell.pid, |pid| claims::is_of_job(pid, id));
        self.shells.claims.remove(id);
    }

    /// Tells the execution service that this node is there, and which shells it found; those of jobs that are over
    /// are ended.
    pub(super) fn say_hello(&mut self, cx: &mut Cx<'_>) {
        let jobs = self.shells.claims.jobs();
        let some = !jobs.is_empty();
        let rank = cx.rank();
        let req = cx.request_any("job-exec.agent-hello", &rpc::AgentHelloRequest { rank, jobs });
        cx.rpc(req, move |me: &mut Rexec, cx, result| {
            match result.and_then(|msg| Ok(msg.payload_json::<rpc::AgentHelloResponse>()?)) {
                Ok(answer) => answer.stop.into_iter().for_each(|id| me.end_shell(cx, id)),
                // rank 0 is not that far yet; a node without shells has nothing to say
                Err(_) if some => {
                    cx.timer(HELLO_RETRY, |me: &mut Rexec, cx| me.say_hello(cx));
                }
                Err(_) => {}
            }
        });
    }

    /// Ends the shell of a job that is over.
    fn end_shell(&mut self, cx: &mut Cx<'_>, id: JobId) {
        if self.shells.running.contains_key(&id) {
            self.kill_shell(cx, id, 9);
            return;
        }
        match self.shells.claims.find(id) {
            Ok(Claim::Running(identity, pidfd)) => {
                cx.log_as_me(
                    4,
                    &format!("{id}: ending shell {}: the job is over", identity.pid),
                );
                // it may end at this moment
                drop(pidfd.send_signal(Signal::SIGKILL));
                self.clean_up_after(id, &identity);
            }
            Ok(Claim::Ended(identity)) => self.clean_up_after(id, &identity),
            Ok(Claim::Nobody) => {}
            Err(err) => cx.log_as_me(3, &format!("{id}: looking for its shell: {err}")),
        }
    }

    // ---- end --------------------------------------------------------------------------------------------

    fn on_shell_end(&mut self, cx: &mut Cx<'_>, id: JobId, pid: u32, status: std::io::Result<WaitStatus>) {
        if self.shells.running.get(&id).is_none_or(|shell| shell.pid != pid) {
            return;
        }
        let Some(mut shell) = self.shells.running.remove(&id) else {
            return;
        };
        // of a shell that was found only its end is known
        let status = status.ok();
        match status {
            // a shell that was killed cannot have ended its tasks
            Some(status) if status.signal().is_some() => kill_session(pid, |_| true),
            Some(_) => {}
            None => kill_session(pid, |pid| claims::is_of_job(pid, id)),
        }
        if shell.outlives {
            self.shells.claims.remove(id);
        }
        let output = shell.output.and_then(|output| read_output(output).ok());
        shell.reply.send(
            cx,
            ShellReport::Ended(ShellEnd {
                status: status.map(|status| status.0),
                output: output.unwrap_or_default(),
            }),
        );
        self.check_stopped(cx);
    }

    pub(super) fn kill_shell(&mut self, cx: &mut Cx<'_>, id: JobId, signum: i32) {
        let Some(signal) = Signal::new(signum) else { return };
        let Some(shell) = self.shells.running.get_mut(&id) else {
            return;
        };
        shell.ending = true;
        let signal = if shell.imp && signal == Signal::SIGKILL {
            IMP_KILL
        } else {
            signal
        };
        if let Err(err) = shell.process.pidfd().send_signal(signal) {
            cx.log_as_me(4, &format!("{id}: signal {signum} to shell {}: {err}", shell.pid));
        }
    }

    pub(super) fn take_shells_along(&mut self) {
        self.shells.take_along = true;
    }

    /// Kills the shells when the broker leaves, and lets go of those that outlive it. One that was told to end may still
    /// wait for the answer to its last word, which nobody would give it any more.
    pub(super) fn leave_shells(&mut self) {
        let take_along = self.shells.take_along;
        self.shells
            .running
            .retain(|_, shell| take_along || shell.ending || !shell.outlives);
        for shell in self.shells.running.values() {
            // with its tasks: nobody will be there to end them when it has died
            kill_session(shell.pid, |_| true);
        }
    }

    /// Leaves nothing behind that no shell needs.
    pub(super) fn close_claims(&mut self) {
        self.shells.claims.close();
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
        // the request comes on standard input
        "FLUX_IMP_EXEC_HELPER",
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
