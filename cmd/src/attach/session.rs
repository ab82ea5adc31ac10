//! How is one job followed at a terminal? One connection, standard input, ctrl-C, until the job is clean.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use flux_client::job::{self, WatchEvent};
use flux_client::{Handle, Incoming, Message, Other, Rpc};
use flux_formats::errno;
use flux_formats::ioencode::Data;
use flux_formats::jobid::JobId;
use flux_process::Signal;
use flux_process::signal::SignalFd;

use super::follow::{Action, Follow, Log, Options, Shell};
use super::output::Sink;
use super::pty::Terminal;
use crate::common::ctx::{Ctx, eprint};
use crate::common::error::{CmdError, CmdResult, fail};

/// A second ctrl-C within this time cancels the job.
const CTRL_C_WINDOW: Duration = Duration::from_secs(2);
/// Bytes of standard input sent in one request.
const INPUT_SIZE: usize = 32 * 1024;
/// Most requests with standard input that are not answered yet.
const INPUT_WINDOW: usize = 16;

/// Settings of one session at the terminal.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// What to show.
    pub(crate) options: Options,
    /// Tasks that get standard input: `all` or an idset; `None` sends none.
    pub(crate) stdin_ranks: Option<String>,
    /// Only the last so many lines of output, when given.
    pub(crate) tail: Option<usize>,
}

/// Follows a job until it has ended and returns its exit code.
///
/// # Errors
/// When the job does not exist, belongs to someone else, or the connection breaks.
pub(crate) fn attach(ctx: &Ctx, handle: &mut Handle, id: JobId, session: Session) -> CmdResult {
    let mut attached = Attached::new(ctx, handle, id, session)?;
    let result = attached.run();
    let shown = attached.show();
    result.and_then(|code| shown.map(|()| code))
}

/// What a response belongs to.
#[derive(Clone, Debug)]
enum Waiting {
    Log(Log),
    Input,
    Pty,
    Other(&'static str),
}

struct Attached<'a> {
    ctx: &'a Ctx,
    handle: &'a mut Handle,
    follow: Follow,
    session: Session,
    rpcs: HashMap<u32, (Waiting, Rpc)>,
    sink: Sink,
    actions: Vec<Action>,
    shell: Option<Shell>,
    stdin_open: bool,
    input_pending: usize,
    signals: SignalFd,
    last_interrupt: Option<Instant>,
    pty: Option<Terminal>,
    detached: bool,
}

impl<'a> Attached<'a> {
    fn new(ctx: &'a Ctx, handle: &'a mut Handle, id: JobId, session: Session) -> Result<Self, CmdError> {
        let signals = SignalFd::new(&[Signal::SIGINT, Signal::SIGTSTP, Signal::SIGWINCH])
            .map_err(CmdError::file("signals"))?;
        let mut attached = Attached {
            ctx,
            handle,
            follow: Follow::new(id, session.options.clone()),
            session,
            rpcs: HashMap::new(),
            sink: Sink::default(),
            actions: Vec::new(),
            shell: None,
            stdin_open: false,
            input_pending: 0,
            signals,
            last_interrupt: None,
            pty: None,
            detached: false,
        };
        attached.watch(Log::Main)?;
        Ok(attached)
    }

    fn watch(&mut self, log: Log) -> Result<(), CmdError> {
        let rpc = job::eventlog_watch(self.handle, self.follow.id().0, log.path(), 0)?;
        self.rpcs.insert(rpc.matchtag(), (Waiting::Log(log), rpc));
        Ok(())
    }

    fn run(&mut self) -> CmdResult {
        let stdin = io::stdin();
        while !self.follow.is_done() && !self.detached {
            while let Some(incoming) = self.handle.try_incoming() {
                if let Incoming::Response(message) = incoming {
                    self.response(&message)?;
                }
            }
            if self.follow.is_done() {
                break;
            }
            self.show()?;
            let signals = Other::input(self.signals.as_fd());
            let wants_input = self.stdin_open && self.input_pending < INPUT_WINDOW;
            let mut others = [signals, Other::input(stdin.as_fd())];
            let watched = if wants_input {
                &mut others[..]
            } else {
                others.get_mut(..1).unwrap_or_default()
            };
            self.handle.poll(watched, None)?;
            let (signalled, readable) = (others[0].is_readable(), wants_input && others[1].is_readable());
            if signalled {
                self.on_signals()?;
            }
            if readable {
                self.forward_input()?;
            }
        }
        Ok(self.follow.exit_code())
    }

    fn response(&mut self, message: &Message) -> Result<(), CmdError> {
        let last = message.errnum() != 0 || !message.is_streaming();
        let entry = if last {
            self.rpcs.remove(&message.matchtag()).map(|(waiting, _)| waiting)
        } else {
            self.rpcs
                .get(&message.matchtag())
                .map(|(waiting, _)| waiting.clone())
        };
        match entry {
            Some(Waiting::Log(log)) => self.log_response(log, message),
            Some(Waiting::Input) => {
                self.input_pending = self.input_pending.saturating_sub(1);
                // The shell takes no input (a file does), or has ended.
                if message.errnum() != 0 {
                    self.stdin_open = false;
                }
                Ok(())
            }
            Some(Waiting::Pty) => self.pty_response(message),
            Some(Waiting::Other(what)) if message.errnum() != 0 => {
                let text = message
                    .payload_str()
                    .unwrap_or_else(|_| errno::strerror(message.errnum()));
                self.ctx.warn(format!("{what}: {text}"));
                Ok(())
            }
            Some(Waiting::Other(_)) | None => Ok(()),
        }
    }

    fn log_response(&mut self, log: Log, message: &Message) -> Result<(), CmdError> {
        match message.errnum() {
            0 => {
                if let WatchEvent::Event(line) = job::watch_decode(message)? {
                    for line in line.lines() {
                        self.follow.line(log, line, &mut self.sink, &mut self.actions)?;
                    }
                    self.act()?;
                }
                Ok(())
            }
            errno::ENODATA | errno::ECANCELED => {
                self.follow.ended(log);
                Ok(())
            }
            errno::ENOENT if log != Log::Main => {
                self.follow.ended(log);
                Ok(())
            }
            errno::ENOENT => fail("No such job"),
            errno::EPERM => fail("that is not your job"),
            errnum => {
                let text = message.payload_str().unwrap_or_else(|_| errno::strerror(errnum));
                fail(format!("{}: {text}", log.path()))
            }
        }
    }

    fn act(&mut self) -> Result<(), CmdError> {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Watch(log) => self.watch(log)?,
                Action::Cancel(log) => {
                    let rpc = self.rpcs.values().find_map(|(waiting, rpc)| match waiting {
                        Waiting::Log(other) if *other == log => Some(rpc.clone()),
                        _ => None,
                    });
                    if let Some(rpc) = rpc {
                        job::watch_cancel(self.handle, &rpc)?;
                    }
                }
                Action::Shell(shell) => self.on_shell(shell)?,
            }
        }
        Ok(())
    }

    fn on_shell(&mut self, shell: Shell) -> Result<(), CmdError> {
        if self.session.stdin_ranks.is_some() {
            if let Some(name) = &shell.pty {
                let terminal = Terminal::open();
                let topic = format!("{}.{name}", shell.service);
                let request = terminal.attach_request();
                let rpc = self.handle.stream(topic, shell.leader_rank, &request)?;
                self.rpcs.insert(rpc.matchtag(), (Waiting::Pty, rpc));
                self.pty = Some(terminal);
            }
            self.stdin_open = true;
        }
        self.shell = Some(shell);
        Ok(())
    }

    fn forward_input(&mut self) -> Result<(), CmdError> {
        let mut buffer = vec![0u8; INPUT_SIZE];
        let count = match flux_process::fd::read(io::stdin(), &mut buffer) {
            Ok(count) => count,
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // A process in the background may not read the terminal.
            Err(_) => 0,
        };
        let bytes = buffer.get(..count).unwrap_or(&[]);
        let Some(shell) = self.shell.clone() else {
            return Ok(());
        };
        if let Some(terminal) = &self.pty {
            let topic = format!("{}.{}", shell.service, shell.pty.as_deref().unwrap_or("pty"));
            let request = terminal.data_request(bytes);
            self.stdin_open = count > 0;
            self.handle.notify(topic, shell.leader_rank, &request)?;
            return Ok(());
        }
        let ranks = self.session.stdin_ranks.as_deref().unwrap_or("all");
        let data = Data::encode("stdin", ranks, bytes, count == 0);
        let rpc = self
            .handle
            .rpc(format!("{}.stdin", shell.service), shell.leader_rank, &data)?;
        self.rpcs.insert(rpc.matchtag(), (Waiting::Input, rpc));
        self.input_pending += 1;
        self.stdin_open = count > 0;
        Ok(())
    }

    fn pty_response(&mut self, message: &Message) -> Result<(), CmdError> {
        let Some(terminal) = &mut self.pty else {
            return Ok(());
        };
        if message.errnum() != 0 {
            self.pty = None;
            self.stdin_open = false;
            return Ok(());
        }
        let ended = terminal.on_message(message, &mut self.sink.out)?;
        if ended {
            self.pty = None;
            self.stdin_open = false;
        }
        Ok(())
    }

    fn on_signals(&mut self) -> Result<(), CmdError> {
        while let Some(signal) = self.signals.next_signal().map_err(CmdError::file("signals"))? {
            let recent = self.last_interrupt.is_some_and(|at| at.elapsed() < CTRL_C_WINDOW);
            if signal == Signal::SIGWINCH {
                self.on_resize()?;
            } else if signal == Signal::SIGTSTP {
                if recent {
                    eprint(format!("{}: detaching...", self.ctx.name));
                    self.detached = true;
                } else {
                    let _stopped = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
                }
            } else if recent {
                let note = Some("interrupted by ctrl-C");
                let rpc = job::raise_start(self.handle, self.follow.id().0, "cancel", 0, note)?;
                self.rpcs.insert(rpc.matchtag(), (Waiting::Other("cancel"), rpc));
                eprint(format!("{}: sending cancel to job", self.ctx.name));
            } else {
                self.last_interrupt = Some(Instant::now());
                eprint(format!(
                    "{}: one more ctrl-C within 2s to cancel or ctrl-Z to detach",
                    self.ctx.name
                ));
            }
        }
        Ok(())
    }

    fn on_resize(&mut self) -> Result<(), CmdError> {
        if let (Some(terminal), Some(shell)) = (&self.pty, &self.shell)
            && let Some(request) = terminal.resize_request()
        {
            let topic = format!("{}.{}", shell.service, shell.pty.as_deref().unwrap_or("pty"));
            self.handle.notify(topic, shell.leader_rank, &request)?;
        }
        Ok(())
    }

    /// Writes what has been collected; with `--tail` only the end of what had been there at the beginning.
    fn show(&mut self) -> Result<(), CmdError> {
        if let Some(lines) = self.session.tail.take() {
            keep_tail(&mut self.sink.out, lines);
        }
        if !self.sink.err.is_empty() {
            // Nobody is left to tell when standard error cannot be written.
            let _gone = io::stderr().write_all(&self.sink.err);
            self.sink.err.clear();
        }
        if !self.sink.out.is_empty() {
            let mut out = io::stdout();
            out.write_all(&self.sink.out)?;
            out.flush()?;
            self.sink.out.clear();
        }
        Ok(())
    }
}

/// Drops all but the last `lines` lines.
fn keep_tail(bytes: &mut Vec<u8>, lines: usize) {
    let ends: Vec<usize> = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(at, _)| at + 1)
        .collect();
    if let Some(start) = ends.len().checked_sub(lines + 1).and_then(|at| ends.get(at)) {
        bytes.drain(..*start);
    }
}

/// Returns the ranks that get standard input by default: all, unless standard input is a terminal and this process
/// does not own it.
pub(crate) fn default_stdin() -> Option<String> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        let foreground = nix::unistd::tcgetpgrp(&stdin);
        if foreground.is_ok_and(|group| group != nix::unistd::getpgrp()) {
            return None;
        }
    }
    Some("all".to_owned())
}
