//! How do the parts of a proxy run together? One poll over the connection, the socket, its clients and the command.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::Duration;

use flux_client::{Error, Handle, Incoming, NODEID_ANY, Other};
use flux_process::signal::SignalFd;
use flux_process::{Child, Command, Signal};
use nix::sys::termios::{self, SetArg, Termios};
use serde::de::IgnoredAny;

use super::clients::Clients;
use super::router::{Action, Router, answer, refuse};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, fail};

/// Time between two attempts to connect again.
const RETRY: Duration = Duration::from_secs(2);

/// What the command line asks for.
#[derive(Debug)]
pub(super) struct Settings {
    /// Command line for the shell; empty runs the shell itself.
    pub(super) command: String,
    /// Leaves the command alone when the connection is lost.
    pub(super) nohup: bool,
    /// Connects again when the connection is lost.
    pub(super) reconnect: bool,
    /// Host and user of a remote instance.
    pub(super) remote: Option<String>,
}

struct Session<'a> {
    ctx: &'a Ctx,
    handle: Handle,
    clients: Clients,
    router: Router,
    actions: Vec<Action>,
    signals: SignalFd,
    child: Child,
}

/// Runs the command with a socket that leads to `handle`'s broker, and returns the command's exit code.
///
/// # Errors
/// When the socket cannot be made or the command not be started.
pub(super) fn run(ctx: &Ctx, mut handle: Handle, settings: &Settings) -> CmdResult {
    handle.forward();
    let clients = Clients::listen()?;
    let terminal = io::stdin()
        .is_terminal()
        .then(|| termios::tcgetattr(io::stdin()).ok())
        .flatten();
    let signals = SignalFd::new(&[Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP])
        .map_err(CmdError::file("signals"))?;
    let child = start(ctx, &clients, settings)?;
    let mut session = Session {
        ctx,
        handle,
        clients,
        router: Router::default(),
        actions: Vec::new(),
        signals,
        child,
    };
    loop {
        match session.step() {
            Ok(false) => {}
            Ok(true) => return session.exit_code(),
            Err(Error::Closed) if settings.reconnect => session.reconnect()?,
            Err(err) => {
                ctx.warn(match err {
                    Error::Closed => "Lost connection to Flux".to_owned(),
                    other => format!("Lost connection to Flux: {other}"),
                });
                return session.lost(settings.nohup, terminal.as_ref());
            }
        }
    }
}

fn start(ctx: &Ctx, clients: &Clients, settings: &Settings) -> Result<Child, CmdError> {
    let shell = ctx
        .env_str("SHELL")
        .filter(|shell| !shell.is_empty())
        .unwrap_or("/bin/sh")
        .to_owned();
    let mut command = Command::new(&shell);
    if !settings.command.is_empty() {
        command.args(["-c", &settings.command]);
    }
    let own = ["FLUX_URI", "FLUX_PROXY_REMOTE"];
    let mut env: Vec<(OsString, OsString)> = ctx
        .env
        .iter()
        .filter(|(name, _)| !own.iter().any(|own| name == own))
        .cloned()
        .collect();
    env.push((
        "FLUX_URI".into(),
        format!("local://{}", clients.path().display()).into(),
    ));
    if let Some(remote) = &settings.remote {
        env.push(("FLUX_PROXY_REMOTE".into(), remote.into()));
    }
    command.env(env);
    command.spawn().or_else(|err| fail(format!("{shell}: {err}")))
}

impl Session<'_> {
    /// Waits for something and handles it; true when the command has ended.
    fn step(&mut self) -> Result<bool, Error> {
        let ids = self.clients.ids();
        let ready: Vec<(bool, bool)> = {
            let mut others = self.clients.others();
            others.push(Other::input(self.signals.as_fd()));
            others.push(Other::input(self.child.pidfd().as_fd()));
            self.handle.poll(&mut others, None)?;
            others
                .iter()
                .map(|other| {
                    (
                        other.is_readable(),
                        other.ready.contains(flux_client::PollFlags::POLLOUT),
                    )
                })
                .collect()
        };
        while let Some(incoming) = self.handle.try_incoming() {
            let (Incoming::Response(msg) | Incoming::Request(msg) | Incoming::Event(msg)) = incoming;
            self.router.on_broker(msg, &mut self.actions);
        }
        for (id, (readable, writable)) in ids.iter().zip(ready.iter().skip(1)) {
            if *writable {
                self.clients.write(*id);
            }
            if *readable {
                let mut messages = Vec::new();
                let open = self.clients.read(*id, &mut messages);
                for msg in messages {
                    self.router.on_client(*id, msg, &mut self.actions);
                }
                if open.is_err() {
                    self.clients.remove(*id);
                    self.router.remove(*id, &mut self.actions);
                }
            }
        }
        if ready.first().is_some_and(|(readable, _)| *readable)
            && let Some(id) = self.clients.accept()
        {
            self.router.add(id);
        }
        self.perform()?;
        self.pass_signals();
        Ok(ready.last().is_some_and(|(readable, _)| *readable))
    }

    fn perform(&mut self) -> Result<(), Error> {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.perform_one(action)?;
            }
        }
        Ok(())
    }

    fn perform_one(&mut self, action: Action) -> Result<(), Error> {
        match action {
            Action::Upstream(msg) => self.handle.send(&msg)?,
            Action::Client(id, msg) => self.clients.send(id, &msg),
            Action::Subscribe(id, topic, request) => match self.handle.subscribe(&topic) {
                Ok(()) => {
                    self.router.subscribed(id, &topic);
                    answer(id, &request, &mut self.actions);
                }
                Err(Error::Rpc(err)) => refuse(id, &request, err.errnum, &mut self.actions),
                Err(err) => return Err(err),
            },
            Action::AddService(id, service, request) => match self.handle.service_add(&service) {
                Ok(()) => {
                    self.router.service_added(id, service);
                    answer(id, &request, &mut self.actions);
                }
                Err(Error::Rpc(err)) => refuse(id, &request, err.errnum, &mut self.actions),
                Err(err) => return Err(err),
            },
            Action::Unsubscribe(topic) => give_back(self.handle.unsubscribe(&topic))?,
            Action::RemoveService(service) => give_back(self.handle.service_remove(&service))?,
        }
        Ok(())
    }

    /// Passes on what ends the command; a terminal's ctrl-C has reached it already.
    fn pass_signals(&self) {
        while let Ok(Some(signal)) = self.signals.next_signal() {
            if signal == Signal::SIGTERM || signal == Signal::SIGHUP {
                // it may have ended at this moment
                let _ended = self.child.send_signal(signal);
            }
        }
    }

    fn reconnect(&mut self) -> Result<(), CmdError> {
        self.ctx.warn("broker: Connection reset by peer");
        self.ctx.warn("reconnecting");
        loop {
            match self.try_reconnect() {
                Ok(()) => break,
                Err(err) => {
                    if let Error::Rpc(err) = &err {
                        self.ctx.warn(err.message());
                    }
                    let mut others = [Other::input(self.child.pidfd().as_fd())];
                    wait(&mut others, RETRY);
                    if others.iter().any(Other::is_readable) {
                        return Ok(());
                    }
                }
            }
        }
        self.ctx.warn("reconnected");
        self.router.reconnected(&mut self.actions);
        self.perform().map_err(CmdError::Client)
    }

    fn try_reconnect(&mut self) -> Result<(), Error> {
        self.handle.reconnect()?;
        self.handle
            .call_empty::<IgnoredAny>("state-machine.wait", NODEID_ANY)?;
        Ok(())
    }

    /// Tells the command that the connection is gone, waits for its end and leaves the terminal usable.
    fn lost(mut self, nohup: bool, terminal: Option<&Termios>) -> CmdResult {
        for id in self.clients.ids() {
            self.clients.remove(id);
        }
        if !nohup {
            self.ctx.warn("Sending SIGHUP to child processes");
            for signal in [Signal::SIGHUP, Signal::SIGCONT] {
                let _ended = self.child.send_signal(signal);
            }
        }
        let code = self.exit_code();
        if let Some(terminal) = terminal {
            // a terminal that has gone too needs nothing
            let _gone = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, terminal);
        }
        code
    }

    fn exit_code(&self) -> CmdResult {
        let status = self.child.wait().map_err(CmdError::file("command"))?;
        Ok(u8::try_from(status.exit_code()).unwrap_or(1))
    }
}

/// Ignores that the broker does not know what is given back.
fn give_back(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Rpc(_)) | Ok(()) => Ok(()),
        Err(err) => Err(err),
    }
}

fn wait(others: &mut [Other<'_>], time: Duration) {
    let timeout = nix::poll::PollTimeout::try_from(time).unwrap_or(nix::poll::PollTimeout::MAX);
    let mut set: Vec<nix::poll::PollFd<'_>> = others
        .iter()
        .map(|other| nix::poll::PollFd::new(other.fd, other.events))
        .collect();
    // interrupted: the next attempt comes earlier
    let _early = nix::poll::poll(&mut set, timeout);
    for (other, polled) in others.iter_mut().zip(&set) {
        other.ready = polled.revents().unwrap_or(nix::poll::PollFlags::empty());
    }
}
