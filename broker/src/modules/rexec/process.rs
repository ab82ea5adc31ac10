//! What is known of a process that a client started?

use super::Rexec;
use super::stream::{INPUT_CREDIT, Input, read_from};
use super::wait::Watched;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::msg::{MATCHTAG_NONE, Message};
use flux_formats::rpc::rexec::{self as rpc, CommandObject, IoObject};
use flux_process::{Command, ProcessGroup, Signal, SpawnError, signal};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Bytes of output kept for `wait` of a background process.
const KEEP_MAX: usize = 64 * 1024;

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) cmd: CommandObject,
    pub(super) flags: u32,
    own_group: bool,
    /// The streaming request of the client, when it has one.
    pub(super) client: Option<Message>,
    /// The client came with `attach`: without it the process goes on.
    pub(super) attached: bool,
    watched: Watched,
    inputs: Vec<(Rc<str>, Input)>,
    /// Output streams that have not ended.
    pub(super) open: Vec<Rc<str>>,
    /// All output streams.
    pub(super) outputs: Vec<Rc<str>>,
    pub(super) status: Option<i32>,
    pub(super) waiter: Option<Message>,
    kept: Vec<IoObject>,
    kept_size: usize,
}

/// Ends of pipes and sockets that the server keeps.
struct Ends {
    outputs: Vec<(Rc<str>, OwnedFd)>,
    inputs: Vec<(Rc<str>, OwnedFd)>,
}

fn io_error(err: &std::io::Error) -> RpcError {
    let errnum = err
        .raw_os_error()
        .and_then(|code| u32::try_from(code).ok())
        .unwrap_or(errno::EIO);
    RpcError::bare(errnum)
}

fn spawn_error(err: &SpawnError) -> RpcError {
    let errnum = u32::try_from(err.errnum()).unwrap_or(errno::EIO);
    match err {
        // the client knows which program it asked for; the words are those of flux-core
        SpawnError::Exec { .. } => RpcError::new(
            errnum,
            format!("error launching process: {}", errno::strerror(errnum)),
        ),
        SpawnError::Cwd { .. } => RpcError::new(
            errnum,
            format!("could not change directory to {err}: {}", errno::strerror(errnum)),
        ),
        _ => RpcError::new(errnum, err.to_string()),
    }
}

impl Process {
    /// Starts a process for `request`.
    pub(super) fn start(
        cx: &mut Cx<'_>,
        body: rpc::ExecRequest,
        request: &Message,
    ) -> Result<Process, RpcError> {
        let foreground = request.is_streaming();
        let mut argv = body.cmd.cmdline.iter().cloned();
        let program = argv
            .next()
            .ok_or_else(|| RpcError::new(errno::EPROTO, "command is empty"))?;
        let mut command = Command::new(program);
        command.args(argv).env(environment(cx, &body.cmd)?);
        if let Some(cwd) = &body.cmd.cwd {
            command.cwd(cwd.clone());
        }
        let own_group = body.local_flags & rpc::LOCAL_FLAG_NO_SETPGRP == 0;
        command.group(if own_group {
            ProcessGroup::Own
        } else {
            ProcessGroup::Inherit
        });
        let fallthrough = body.local_flags & rpc::LOCAL_FLAG_STDIO_FALLTHROUGH != 0;
        let ends = connect(&mut command, &body.cmd, foreground, fallthrough).map_err(|err| io_error(&err))?;
        let child = command.spawn().map_err(|err| spawn_error(&err))?;
        let (pid, pidfd) = child.into_parts();
        let watched = Watched::new(pidfd).map_err(|err| io_error(&err))?;
        let wait = watched.clone().wait();
        cx.spawn(wait, move |me: &mut Rexec, cx, status| {
            me.on_exit(cx, pid, status.map_or(256, |status| status.0));
        });
        let mut process = Process {
            pid,
            cmd: body.cmd,
            flags: body.flags,
            own_group,
            client: foreground.then(|| Message {
                payload: None,
                ..request.clone()
            }),
            attached: false,
            watched,
            inputs: Vec::new(),
            open: Vec::new(),
            outputs: Vec::new(),
            status: None,
            waiter: None,
            kept: Vec::new(),
            kept_size: 0,
        };
        for (name, fd) in ends.outputs {
            read_from(cx, pid, &name, fd, process.by_line(&name)).map_err(|err| io_error(&err))?;
            process.outputs.push(name.clone());
            process.open.push(name);
        }
        for (name, fd) in ends.inputs {
            process
                .inputs
                .push((name, Input::new(fd).map_err(|err| io_error(&err))?));
        }
        Ok(process)
    }

    /// Returns true unless the command asks for output as it comes.
    fn by_line(&self, stream: &str) -> bool {
        let option = |name: &str| {
            self.cmd
                .opts
                .get(name)
                .and_then(Value::as_str)
                .map(|text| text != "false")
        };
        option(&format!("{stream}_LINE_BUFFER"))
            .or_else(|| option("LINE_BUFFER"))
            .unwrap_or(true)
    }

    /// Sends the first credit, when the client wants to be told.
    pub(super) fn first_credit(&self, cx: &mut Cx<'_>) {
        if self.flags & rpc::FLAG_WRITE_CREDIT == 0 || self.inputs.is_empty() {
            return;
        }
        let channels: Map<String, Value> = self
            .inputs
            .iter()
            .map(|(name, _)| (name.to_string(), Value::from(INPUT_CREDIT)))
            .collect();
        self.send(cx, &json!({ "type": "add-credit", "channels": channels }));
    }

    /// Sends a response to the client, if there is one.
    pub(super) fn send(&self, cx: &mut Cx<'_>, body: &Value) {
        if let Some(client) = &self.client {
            cx.respond(client, body);
        }
    }

    /// Returns true when the client wants this stream.
    fn forwards(&self, stream: &str) -> bool {
        let flag = match stream {
            "stdout" => rpc::FLAG_STDOUT,
            "stderr" => rpc::FLAG_STDERR,
            _ => rpc::FLAG_CHANNEL,
        };
        self.flags & flag != 0
    }

    /// Takes output; an empty piece ends the stream.
    pub(super) fn on_data(&mut self, cx: &mut Cx<'_>, stream: &str, data: &[u8]) {
        let rank = cx.rank();
        let io = if data.is_empty() {
            self.open.retain(|name| **name != *stream);
            IoObject::end(stream, rank)
        } else {
            IoObject::new(stream, rank, data)
        };
        if self.client.is_some() {
            if self.forwards(stream) {
                self.send(cx, &json!({ "type": "output", "pid": self.pid, "io": io }));
            }
            return;
        }
        if data.is_empty() {
            return;
        }
        if self.flags & rpc::FLAG_WAITABLE != 0 && self.kept_size + data.len() <= KEEP_MAX {
            self.kept_size += data.len();
            self.kept.push(io);
        }
        let level = if stream == "stderr" { 3 } else { 6 };
        let name = self
            .cmd
            .label
            .clone()
            .or_else(|| self.cmd.cmdline.first().cloned())
            .unwrap_or_default();
        for line in String::from_utf8_lossy(data).lines() {
            cx.log_as_me(level, &format!("{name}[{}]: {stream}: {line}", self.pid));
        }
    }

    /// Queues input; an unknown stream is ignored.
    pub(super) fn write(&mut self, cx: &mut Cx<'_>, io: &IoObject) {
        let Some(data) = io.bytes() else { return };
        let pid = self.pid;
        let Some((_, input)) = self.inputs.iter_mut().find(|(name, _)| **name == *io.stream) else {
            return;
        };
        if !input.push(data, io.eof) {
            cx.log_as_me(
                3,
                &format!("pid {pid}: {}: input beyond the credit was dropped", io.stream),
            );
        }
        let stream: Rc<str> = io.stream.as_str().into();
        self.flush(cx, &stream);
    }

    fn flush(&mut self, cx: &mut Cx<'_>, stream: &Rc<str>) {
        let pid = self.pid;
        let Some((_, input)) = self.inputs.iter_mut().find(|(name, _)| name == stream) else {
            return;
        };
        let written = input.flush(cx, pid, stream);
        if written > 0 && self.flags & rpc::FLAG_WRITE_CREDIT != 0 {
            self.send(
                cx,
                &json!({ "type": "add-credit", "channels": { stream.to_string(): written } }),
            );
        }
    }

    /// The process reads again.
    pub(super) fn on_writable(&mut self, cx: &mut Cx<'_>, stream: &Rc<str>) {
        if let Some((_, input)) = self.inputs.iter_mut().find(|(name, _)| name == stream) {
            input.resume();
        }
        self.flush(cx, stream);
    }

    /// Sends a signal to the process, with its group when it has one of its own.
    ///
    /// # Errors
    /// EINVAL for a number that is no signal; what the kernel says.
    pub(super) fn kill(&self, signum: i32) -> Result<(), RpcError> {
        let signal = Signal::new(signum).ok_or_else(|| RpcError::bare(errno::EINVAL))?;
        if self.status.is_some() {
            return Ok(());
        }
        // not reaped yet, so neither number can belong to anybody else
        let sent = if self.own_group {
            signal::kill_group(self.pid, signal)
        } else {
            self.watched.pidfd().send_signal(signal)
        };
        sent.map_err(|err| io_error(&err))
    }

    /// Returns true when it has ended and all its output was sent.
    pub(super) fn is_done(&self) -> bool {
        self.status.is_some() && self.open.is_empty()
    }

    /// Returns the answer for `wait`.
    pub(super) fn wait_response(&mut self) -> rpc::WaitResponse {
        rpc::WaitResponse {
            status: self.status.unwrap_or(0),
            output: std::mem::take(&mut self.kept),
        }
    }

    /// Returns true when this process belongs to the request of that sender.
    pub(super) fn is_of(&self, sender: Option<&bytes::Bytes>, matchtag: u32) -> bool {
        self.client
            .as_ref()
            .is_some_and(|c| c.sender() == sender && (c.matchtag() == matchtag || matchtag == MATCHTAG_NONE))
    }
}

fn environment(cx: &Cx<'_>, cmd: &CommandObject) -> Result<Vec<(OsString, OsString)>, RpcError> {
    if cmd.env.is_empty() {
        // as flux-core: a command without any environment gets the server's
        return Ok(crate::lifecycle::program_environment(cx));
    }
    let mut env = Vec::with_capacity(cmd.env.len() + 1);
    for (name, value) in &cmd.env {
        let value = value.as_str();
        let value = value
            .ok_or_else(|| RpcError::new(errno::EPROTO, format!("environment: {name}: not a string")))?;
        if name != "FLUX_URI" && name != "FLUX_PROXY_REMOTE" {
            env.push((name.into(), value.into()));
        }
    }
    // the broker that the process finds is the one it runs under
    env.push((
        "FLUX_URI".into(),
        cx.attrs.get("local-uri").unwrap_or_default().into(),
    ));
    Ok(env)
}

fn connect(
    command: &mut Command,
    cmd: &CommandObject,
    foreground: bool,
    fallthrough: bool,
) -> std::io::Result<Ends> {
    let mut ends = Ends {
        outputs: Vec::new(),
        inputs: Vec::new(),
    };
    if !fallthrough {
        if foreground {
            let (read, write) = flux_process::pipe()?;
            command.fd(0, read);
            ends.inputs.push(("stdin".into(), write));
        } else {
            command.null(0);
        }
        for (number, name) in [(1, "stdout"), (2, "stderr")] {
            let (read, write) = flux_process::pipe()?;
            command.fd(number, write);
            ends.outputs.push((name.into(), read));
        }
    }
    for (number, name) in (3..).zip(&cmd.channels) {
        let (mine, theirs) = flux_process::socketpair()?;
        command.fd(number, theirs);
        let name: Rc<str> = name.as_str().into();
        ends.inputs.push((name.clone(), mine.try_clone()?));
        ends.outputs.push((name, mine));
    }
    Ok(ends)
}

/// Adds the environment variables that name the channels' descriptors.
pub(super) fn name_channels(cmd: &mut CommandObject) {
    for (number, name) in (3..).zip(cmd.channels.clone()) {
        cmd.env.insert(name, Value::from(format!("{number}")));
    }
}
