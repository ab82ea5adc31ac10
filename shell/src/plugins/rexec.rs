//! Runs programs beside the tasks for the job's user: `SERVICE.rexec.{exec,write,kill,list,disconnect}` (RFC 42), which
//! `flux exec --jobid` asks for.
//!
//! Only where the broker belongs to the job's user: another's could make up requests, and signed ones are not there yet.
//! What still runs when the tasks have ended is killed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};

use flux_client::Message;
use flux_formats::errno::{EINVAL, ENODATA, ENOENT, ENOSYS, EPERM, EPROTO, ESRCH, Errnum};
use flux_formats::rpc::rexec::{
    CommandObject, ExecRequest, FLAG_STDERR, FLAG_STDOUT, FLAG_WRITE_CREDIT, IoObject, KillRequest,
    WriteRequest,
};
use flux_process::{Child, Command, ProcessGroup, Signal, SpawnError, WaitStatus, fd};
use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::task::{Stdin, Stream};

/// Bytes of standard input that a client may have on the way.
const CREDIT: usize = 64 * 1024;

/// An error number with a text that may be empty.
type Refusal = (Errnum, String);

fn bare(errnum: Errnum) -> Refusal {
    (errnum, String::new())
}

/// A program.
#[derive(Debug)]
struct Proc {
    /// Answered with a stream; `None` in the background.
    client: Option<Message>,
    child: Child,
    name: String,
    label: Option<String>,
    status: Option<WaitStatus>,
    readers: [Option<OwnedFd>; 2],
    stdin: Stdin,
    /// Credit that the client has; `None` when it wants none.
    credit: Option<usize>,
}

/// A descriptor of a program.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Exit,
    Read(Stream),
    Write,
}

/// The programs, by pid.
#[derive(Debug, Default)]
pub(crate) struct Rexec {
    procs: BTreeMap<u32, Proc>,
}

impl Rexec {
    /// Handles a request of the subprocess service.
    pub(crate) fn on_request(&mut self, ctx: &mut Ctx, method: &str, request: Message) {
        let trusted = ctx.handle.peer_uid().is_ok_and(|host| host == ctx.info.uid);
        let result = if !trusted || request.userid != ctx.info.uid {
            Err((EPERM, "only in an instance of one's own".to_owned()))
        } else {
            match method {
                "exec" => self.on_exec(ctx, &request),
                "write" => return self.on_write(ctx, &request),
                "kill" => self.on_kill(&request).map(|()| None),
                "list" => Ok(Some(self.list(ctx))),
                "disconnect" => return self.on_disconnect(&request),
                _ => Err(bare(ENOSYS)),
            }
        };
        // A requestor that is gone needs no answer.
        let _sent = match result {
            Ok(None) if method == "exec" => Ok(()),
            Ok(body) => ctx.handle.respond(&request, body.as_ref()),
            Err((errnum, text)) => ctx.handle.respond_error(&request, errnum, &text),
        };
    }

    fn on_exec(&mut self, ctx: &mut Ctx, request: &Message) -> Result<Option<Value>, Refusal> {
        let ExecRequest { cmd, flags, .. } = request.payload_json().map_err(|_| bare(EPROTO))?;
        let streams = request.is_streaming();
        let mut readers = [None, None];
        let mut command = command(&cmd)?;
        let mut stdin = Stdin::default();
        let pipe = || fd::pipe().map_err(|error| (EINVAL, error.to_string()));
        for (stream, number, flag) in [(Stream::Stdout, 1, FLAG_STDOUT), (Stream::Stderr, 2, FLAG_STDERR)] {
            if streams && flags & flag != 0 {
                let (reader, writer) = pipe()?;
                command.fd(number, writer);
                readers[stream.index()] = Some(reader);
            } else {
                command.null(number);
            }
        }
        if streams {
            let (reader, writer) = pipe()?;
            command.fd(0, reader);
            stdin = Stdin::new(writer);
        } else {
            command.null(0);
        }
        let child = command.spawn().map_err(|error| refusal(&error))?;
        let pid = child.pid();
        let started = json!({ "type": "started", "pid": pid });
        let proc = Proc {
            client: streams.then(|| request.clone()),
            child,
            name: cmd.cmdline.first().cloned().unwrap_or_default(),
            label: cmd.label,
            status: None,
            readers,
            stdin,
            credit: (streams && flags & FLAG_WRITE_CREDIT != 0).then_some(0),
        };
        if !streams {
            self.procs.insert(pid, proc);
            return Ok(Some(started));
        }
        proc.tell(ctx, &started);
        self.procs.insert(pid, proc);
        self.grant(ctx, pid);
        Ok(None)
    }

    fn on_write(&mut self, ctx: &mut Ctx, request: &Message) {
        let Ok(WriteRequest { matchtag, io }) = request.payload_json::<WriteRequest>() else {
            return;
        };
        let of_client =
            |client: &Message| client.matchtag() == matchtag && client.sender() == request.sender();
        let found = self
            .procs
            .iter_mut()
            .find(|(_, proc)| proc.client.as_ref().is_some_and(of_client));
        let (Some((pid, proc)), Some(data)) = (found, io.bytes()) else {
            return;
        };
        if let Some(credit) = &mut proc.credit {
            *credit = credit.saturating_sub(data.len());
        }
        proc.stdin.push(&data, io.eof);
        let pid = *pid;
        self.grant(ctx, pid);
    }

    /// Gives the client back the credit that the program has used up.
    fn grant(&mut self, ctx: &mut Ctx, pid: u32) {
        let Some(proc) = self.procs.get_mut(&pid) else {
            return;
        };
        let Some(credit) = &mut proc.credit else { return };
        let free = CREDIT.saturating_sub(proc.stdin.queued() + *credit);
        if free > 0 {
            *credit += free;
            let body = json!({ "type": "add-credit", "pid": pid, "channels": { "stdin": free } });
            proc.tell(ctx, &body);
        }
    }

    fn on_kill(&mut self, request: &Message) -> Result<(), Refusal> {
        let KillRequest { pid, signum, label } = request.payload_json().map_err(|_| bare(EPROTO))?;
        let signal = Signal::new(signum).ok_or_else(|| bare(EINVAL))?;
        let found = match &label {
            Some(label) => self
                .procs
                .values()
                .find(|proc| proc.label.as_ref() == Some(label)),
            None => u32::try_from(pid).ok().and_then(|pid| self.procs.get(&pid)),
        };
        let proc = found.ok_or_else(|| (ESRCH, format!("pid {pid} does not belong to any subprocess")))?;
        if proc.status.is_none() {
            proc.child
                .kill_group(signal)
                .map_err(|error| (ENOENT, error.to_string()))?;
        }
        Ok(())
    }

    fn list(&self, ctx: &Ctx) -> Value {
        let procs: Vec<Value> = self
            .procs
            .iter()
            .map(|(pid, proc)| {
                let state = if proc.status.is_none() { "R" } else { "Z" };
                json!({ "pid": pid, "cmd": proc.name, "label": proc.label.as_deref().unwrap_or(""), "state": state })
            })
            .collect();
        json!({ "rank": ctx.info.broker_rank_of(ctx.info.shell_rank), "procs": procs })
    }

    /// Ends what a client has started that is gone.
    fn on_disconnect(&mut self, request: &Message) {
        self.procs.retain(|_, proc| {
            let is_its = proc
                .client
                .as_ref()
                .is_some_and(|client| client.sender() == request.sender());
            if is_its {
                proc.kill();
            }
            !is_its
        });
    }

    /// Returns the descriptors that are waited for.
    pub(crate) fn fds(&self) -> impl Iterator<Item = (u32, Part, std::os::fd::BorrowedFd<'_>)> {
        self.procs.iter().flat_map(|(pid, proc)| {
            let exit = proc
                .status
                .is_none()
                .then(|| (Part::Exit, proc.child.pidfd().as_fd()));
            let reads = Stream::BOTH.into_iter().filter_map(|stream| {
                let reader = proc.readers.get(stream.index())?.as_ref()?;
                Some((Part::Read(stream), reader.as_fd()))
            });
            let write = proc.stdin.fd.as_ref().filter(|_| proc.stdin.wants_write());
            let write = write.map(|pipe| (Part::Write, pipe.as_fd()));
            exit.into_iter()
                .chain(reads)
                .chain(write)
                .map(|(part, fd)| (*pid, part, fd))
        })
    }

    /// Something has happened to a program.
    pub(crate) fn on_ready(&mut self, ctx: &mut Ctx, pid: u32, part: Part, buffer: &mut [u8]) {
        let Some(proc) = self.procs.get_mut(&pid) else {
            return;
        };
        match part {
            Part::Exit => proc.on_exit(ctx),
            Part::Read(stream) => proc.on_readable(ctx, stream, buffer),
            Part::Write => {
                proc.stdin.flush();
                self.grant(ctx, pid);
                return;
            }
        }
        if proc.status.is_some() && proc.readers.iter().all(Option::is_none) {
            if let Some(client) = &proc.client {
                let _sent = ctx.handle.respond_error(client, ENODATA, "");
            }
            self.procs.remove(&pid);
        }
    }

    /// The job is over: kills what still runs, and tells the clients.
    pub(crate) fn end(&mut self, ctx: &mut Ctx) {
        for proc in std::mem::take(&mut self.procs).into_values() {
            proc.kill();
            if proc.status.is_none() {
                let killed = WaitStatus(Signal::SIGKILL.number());
                proc.tell(ctx, &json!({ "type": "finished", "status": killed.0 }));
            }
            for stream in Stream::BOTH {
                if proc.readers.get(stream.index()).is_some_and(Option::is_some) {
                    proc.tell_end(ctx, stream);
                }
            }
            if let Some(client) = &proc.client {
                let _sent = ctx.handle.respond_error(client, ENODATA, "");
            }
        }
    }
}

impl Proc {
    /// Tells the client, which may be gone.
    fn tell(&self, ctx: &mut Ctx, body: &Value) {
        if let Some(client) = &self.client {
            let _sent = ctx.handle.respond(client, Some(body));
        }
    }

    /// Tells the client that a stream has ended.
    fn tell_end(&self, ctx: &mut Ctx, stream: Stream) {
        let io = IoObject::end(stream.name(), ctx.info.broker_rank_of(ctx.info.shell_rank));
        self.tell(
            ctx,
            &json!({ "type": "output", "pid": self.child.pid(), "io": io }),
        );
    }

    fn kill(&self) {
        if self.status.is_none() {
            // the last process may just have ended
            let _sent = self.child.kill_group(Signal::SIGKILL);
        }
    }

    fn on_exit(&mut self, ctx: &mut Ctx) {
        self.status = match self.child.pidfd().try_wait() {
            Ok(status) => status,
            Err(_) => Some(WaitStatus::exited(1)),
        };
        if let Some(status) = self.status {
            self.stdin = Stdin::default();
            self.credit = None;
            self.tell(ctx, &json!({ "type": "finished", "status": status.0 }));
        }
    }

    fn on_readable(&mut self, ctx: &mut Ctx, stream: Stream, buffer: &mut [u8]) {
        let Some(slot) = self.readers.get_mut(stream.index()) else {
            return;
        };
        let Some(reader) = slot else { return };
        let rank = ctx.info.broker_rank_of(ctx.info.shell_rank);
        let io = match fd::read(&*reader, buffer) {
            Ok(0) => {
                *slot = None;
                IoObject::end(stream.name(), rank)
            }
            Ok(count) => IoObject::new(stream.name(), rank, buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return,
            Err(_) => {
                *slot = None;
                IoObject::end(stream.name(), rank)
            }
        };
        let pid = self.child.pid();
        self.tell(ctx, &json!({ "type": "output", "pid": pid, "io": io }));
    }
}

/// Returns the command of a request, without its descriptors.
fn command(cmd: &CommandObject) -> Result<Command, Refusal> {
    let mut words = cmd.cmdline.iter();
    let program = words
        .next()
        .filter(|word| !word.is_empty())
        .ok_or_else(|| bare(EPROTO))?;
    let mut command = Command::new(program.as_str());
    command.args(words.map(String::as_str)).group(ProcessGroup::Own);
    let given = cmd.env.iter().filter(|(name, _)| *name != "FLUX_URI");
    let given = given.filter_map(|(name, value)| Some((name.into(), value.as_str()?.into())));
    let own = std::env::var_os("FLUX_URI").map(|uri| ("FLUX_URI".into(), uri));
    let env: Vec<(OsString, OsString)> = given.chain(own).collect();
    command.env(env);
    if let Some(cwd) = &cmd.cwd {
        command.cwd(cwd);
    }
    Ok(command)
}

fn refusal(error: &SpawnError) -> Refusal {
    let errnum = Errnum::try_from(error.errnum()).unwrap_or(EINVAL);
    bare(errnum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let read = |text: &str| command(&serde_json::from_str::<CommandObject>(text).unwrap());
        assert!(read(r#"{"cmdline":["true"],"env":{"A":"b","FLUX_URI":"x","C":1},"cwd":"/"}"#).is_ok());
        assert_eq!(read(r#"{"cmdline":[]}"#).unwrap_err().0, EPROTO);
        assert_eq!(read(r#"{"cmdline":[""]}"#).unwrap_err().0, EPROTO);
    }
}
