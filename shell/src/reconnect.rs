//! How does a shell live on when its broker dies, and how do the two come together again? (`--reconnect`)
//!
//! ```text
//!        broken                connected              broker runs              job-exec knows the job
//!   Up ─────────▶ Down ─────────────────────▶ Joining ───────────▶ Greeting ─────────────────────────▶ Up
//!                  ▲ └─ every half second          └─ lost again ─┐    └─ the job is over: the shell ends
//!                  └──────────────────────────────────────────────┘
//! ```
//! Tasks run on meanwhile; their output is read until a few megabytes wait. What was not acknowledged is sent again in
//! the end. Without its socket's directory the instance is gone for good, and the shell ends with its tasks.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flux_client::{ConnectOptions, Error, Handle, Message, NODEID_ANY, PollFlags, uri};
use flux_formats::errno::{EHOSTUNREACH, ENOSYS};
use flux_formats::jobid::JobId;
use flux_process::Signal;
use serde::de::IgnoredAny;

use crate::ctx::{Ctx, Purpose};
use crate::log::log;
use crate::phases::{Phase, Shell};
use crate::start;

/// Pause between attempts to find a broker or a service that is gone.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);
/// How long a broker may take to let a client in.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time between the first signal at the end of the allocation and the second while there is no broker to decide.
const GRACE: Duration = Duration::from_secs(5);

/// How things stand with the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    /// What is queued leaves with the next poll.
    Up,
    /// The broker is gone; the next attempt to find it comes at this time.
    Down(Instant),
    /// Connected; waits until the broker runs.
    Joining,
    /// Waits until the execution service knows this shell again; at the given time it is asked once more.
    Greeting(Option<Instant>),
}

impl Connection {
    /// Returns true when requests are answered.
    pub(crate) fn is_up(self) -> bool {
        self == Connection::Up
    }

    /// Returns when something is to be done.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Connection::Down(at) | Connection::Greeting(Some(at)) => Some(at),
            _ => None,
        }
    }
}

/// Returns how a shell that outlives its broker connects: it does the waiting itself.
fn options() -> ConnectOptions {
    ConnectOptions {
        retries: 0,
        patience: Some(PATIENCE),
        ..ConnectOptions::default()
    }
}

/// Returns true when the directory of the broker's socket is gone: nobody will ever listen there again.
fn instance_is_gone(uri: &str) -> bool {
    let path = uri.strip_prefix("local://").map(Path::new);
    let dir = path.and_then(Path::parent);
    dir.is_some_and(|dir| matches!(dir.try_exists(), Ok(false)))
}

/// Connects for the first time, waiting for a broker that died after it had started this shell.
///
/// # Errors
/// Those of [`Handle::open`] when the instance is gone.
pub(crate) fn open(persistent: bool) -> Result<Handle, Error> {
    if !persistent {
        return Handle::open(None);
    }
    let uri = uri::default_uri();
    loop {
        match Handle::open_with(Some(&uri), &options()) {
            Ok(handle) => return Ok(handle),
            Err(error) if instance_is_gone(&uri) => return Err(error),
            Err(_) => pause(),
        }
    }
}

fn pause() {
    // a signal ends the pause early, which does no harm
    let _paused = flux_client::poll_others(&mut [], Some(Instant::now() + PAUSE));
}

fn hello(id: JobId, rank: u32, barriers: u32) -> serde_json::Value {
    serde_json::json!({"id": id.0, "rank": rank, "barriers": barriers})
}

/// Finds the broker again and waits for it: for a shell that has nothing else to do. Returns false when there is
/// nobody left to find.
pub(crate) fn rejoin_waiting(ctx: &mut Ctx) -> bool {
    let rank = ctx.info.broker_rank_of(ctx.info.shell_rank);
    let body = hello(ctx.info.id, rank, 0);
    ctx.connection = Connection::Joining;
    ctx.forget_answers();
    loop {
        if ctx.handle.reconnect().is_ok() {
            let handle = &mut ctx.handle;
            let greeted = handle
                .call_empty::<IgnoredAny>("state-machine.wait", NODEID_ANY)
                .and_then(|_| handle.call::<IgnoredAny>("job-exec.shell-hello", NODEID_ANY, &body));
            match greeted {
                Ok(_) => break,
                Err(Error::Rpc(error)) if !matches!(error.errnum, EHOSTUNREACH | ENOSYS) => return false,
                Err(_) => {}
            }
        } else if instance_is_gone(ctx.handle.uri()) {
            return false;
        }
        pause();
    }
    ctx.connection = Connection::Up;
    ctx.send_unsent();
    true
}

impl Shell {
    /// Takes the loss of the connection. Returns false when that is the end of the shell.
    pub(crate) fn on_lost(&mut self, error: &Error) -> bool {
        let broken = matches!(error, Error::Closed | Error::Io(_) | Error::Decode(_));
        if !self.ctx.reconnects || !broken {
            return false;
        }
        self.ctx.connection = Connection::Down(Instant::now());
        self.ctx.forget_answers();
        if let Some(ptys) = &mut self.parts.ptys {
            // clients went with the broker that they came through
            ptys.drop_clients();
        }
        true
    }

    /// Does what is due while the connection is not up.
    pub(crate) fn reconnect_due(&mut self, now: Instant) {
        match self.ctx.connection {
            Connection::Down(at) if at <= now => self.try_to_connect(now),
            Connection::Greeting(Some(at)) if at <= now => self.greet(),
            _ => {}
        }
        if !self.ctx.connection.is_up() {
            self.mind_the_time();
        }
    }

    fn try_to_connect(&mut self, now: Instant) {
        if self.ctx.handle.reconnect().is_err() {
            self.ctx.connection = Connection::Down(now + PAUSE);
            if instance_is_gone(self.ctx.handle.uri()) {
                self.abandon();
            }
            return;
        }
        self.ctx.connection = Connection::Joining;
        let request = Message::request("state-machine.wait", NODEID_ANY, None);
        if let Ok(rpc) = self.ctx.handle.rpc_message(request) {
            self.ctx.track(&rpc, Purpose::Running);
        }
    }

    /// Takes the answer of a broker that runs, or has run for long enough.
    pub(crate) fn on_running(&mut self, response: &Message) {
        if self.ctx.connection != Connection::Joining {
            return;
        }
        if response.errnum() != 0 {
            // it is shutting down: its successor may run
            self.ctx.connection = Connection::Down(Instant::now() + PAUSE);
            return;
        }
        start::register(&mut self.ctx);
        self.greet();
    }

    fn greet(&mut self) {
        self.ctx.connection = Connection::Greeting(None);
        let info = &self.ctx.info;
        let rank = info.broker_rank_of(info.shell_rank);
        let body = hello(info.id, rank, self.phase().barriers_passed());
        self.ctx
            .rpc("job-exec.shell-hello", NODEID_ANY, &body, Purpose::Hello);
    }

    /// Takes the answer of the execution service.
    pub(crate) fn on_greeted(&mut self, response: &Message) {
        match response.errnum() {
            0 => {}
            EHOSTUNREACH | ENOSYS => {
                self.ctx.connection = Connection::Greeting(Some(Instant::now() + PAUSE));
                return;
            }
            // the job is over
            _ => {
                self.abandon();
                return;
            }
        }
        self.ctx.connection = Connection::Up;
        self.ctx.send_unsent();
        if matches!(self.phase(), Phase::InitBarrier | Phase::StartBarrier) {
            self.enter_barrier();
        }
        self.watch_resources();
        log!(self.ctx, Debug, "", "broker: reconnected");
    }

    /// Ends without a word: the job is over, or the instance is gone. What the tasks have started ends too.
    pub(crate) fn abandon(&mut self) {
        self.kill_tasks(Signal::SIGKILL);
        flux_process::identity::kill_own_session();
        self.ctx.exit_code = self.ctx.exit_code.max(1);
        self.set_phase(Phase::Done);
    }

    /// Ends the tasks when the allocation ends and no broker is there to see to it.
    fn mind_the_time(&mut self) {
        let expiration = self.ctx.info.expiration;
        if expiration <= 0.0 {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let over = now.as_secs_f64() - expiration;
        if over >= GRACE.as_secs_f64() {
            self.kill_tasks(Signal::SIGKILL);
        } else if over >= 0.0 && !self.was_killed() {
            self.kill_tasks(Signal::SIGALRM);
        }
    }

    /// Waits for the tasks and, unless there is none, the broker.
    pub(crate) fn poll(
        ctx: &mut Ctx,
        others: &mut [flux_client::Other<'_>],
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        match ctx.connection {
            Connection::Down(_) => flux_client::poll_others(others, deadline),
            _ => ctx.handle.poll(others, deadline),
        }
    }
}

/// Returns a watch for a descriptor of the shell's own.
pub(crate) fn other<'fd>(fd: std::os::fd::BorrowedFd<'fd>, events: PollFlags) -> flux_client::Other<'fd> {
    flux_client::Other {
        fd,
        events,
        ready: PollFlags::empty(),
    }
}
