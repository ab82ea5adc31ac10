//! How does a running job end? By itself, by a relayed signal, or because the relay is gone; in each case nothing is left.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use libc::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGWINCH};

use crate::cgroup::Cgroup;
use crate::launch::Started;
use crate::log::{Level, Log};
use crate::refusal::Refusal;
use crate::sys::fd::poll;
use crate::sys::process::{self, Pid, Status};
use crate::sys::signal::{SIGNAL_INFO_SIZE, signal_file};
use crate::wire;

/// Signals that are passed on.
pub const RELAYED: [i32; 9] = [
    SIGTERM, SIGINT, SIGHUP, SIGCONT, SIGALRM, SIGWINCH, SIGTTIN, SIGTTOU, SIGUSR1,
];
/// Stands for SIGKILL, which cannot be relayed.
const KILL: i32 = SIGUSR1;
/// How long the rest of a frame may take once it has begun.
const FRAME_TIME: Duration = Duration::from_secs(5);
/// How often is looked whether killed processes are gone.
const TICK: Duration = Duration::from_millis(2);
/// After this long something is wrong that killing does not help.
const END_TIME: Duration = Duration::from_secs(60);
/// How long a script may take to end after SIGTERM when the relay is gone.
const GRACE: Duration = Duration::from_secs(5);

/// What is supervised.
#[derive(Debug)]
pub struct Job<'a> {
    /// The child.
    pub started: Started,
    /// Its group, if it has one.
    pub cgroup: Option<&'a Cgroup>,
    /// A script: signals go to its process group, and what it leaves running stays.
    pub script: bool,
}

impl Job<'_> {
    /// Waits for the end; `what` is for the log.
    ///
    /// # Errors
    /// That it was not executed, or that waiting is not possible; [`clear`](Job::clear) then ends the job.
    pub fn wait(&self, log: &mut Log, what: &str) -> Result<Status, Refusal> {
        let mut children = signal_file(&[libc::SIGCHLD])?;
        let mut report = Some(self.started.report.as_fd());
        let mut outcome = Ok(());
        loop {
            // A pipe that has come to its end is always ready, so another takes its place.
            let third = report.unwrap_or(children.as_fd());
            let files = [log.relay.as_fd(), children.as_fd(), third];
            let [spoke, ended, reported] = poll(files.map(|fd| (fd, libc::POLLIN)), None)?;
            if ended {
                // Who it was is found by waiting.
                drop(children.read(&mut [0; SIGNAL_INFO_SIZE]));
            }
            if reported && report.take().is_some() {
                outcome = self.started.outcome();
                let command = if self.script { "run" } else { "exec" };
                let begun = format!("{command}: started {what}, pid {}", self.started.pid.number());
                outcome.is_ok().then(|| log.line(Level::Info, &begun));
            }
            if let Some(status) = self.reap() {
                return outcome.map(|()| status);
            }
            if spoke && !self.hear(&mut log.relay) {
                self.abandon();
                return Ok(Status::Killed(SIGKILL));
            }
        }
    }

    /// The relay is gone. A job is ended by [`clear`](Job::clear); a script gets time to end by itself.
    fn abandon(&self) {
        if !self.script {
            return;
        }
        process::kill_group(self.started.pid, SIGTERM);
        let deadline = Instant::now() + GRACE;
        while self.reap().is_none() {
            if Instant::now() > deadline {
                return self.kill();
            }
            std::thread::park_timeout(TICK);
        }
    }

    /// Passes on what the relay says; false when it is gone.
    fn hear(&self, relay: &mut UnixStream) -> bool {
        let Ok(Some(kv)) = wire::receive(relay, FRAME_TIME) else {
            return false;
        };
        match wire::decode_signal(&kv) {
            Some(KILL) => self.kill(),
            Some(signal) if RELAYED.contains(&signal) && self.script => {
                process::kill_group(self.started.pid, signal);
            }
            Some(signal) if RELAYED.contains(&signal) => process::kill(self.started.pid, signal),
            // Only a relay that is not ours any more says anything else.
            _ => return false,
        }
        true
    }

    /// Takes the status of what has ended, up to the child's; returns that.
    fn reap(&self) -> Option<Status> {
        while let Ok(Some((pid, status))) = process::reap() {
            if pid == self.started.pid {
                return Some(status);
            }
        }
        None
    }

    /// Ends all that can be reached now.
    fn kill(&self) {
        if self.script {
            return process::kill_group(self.started.pid, SIGKILL);
        }
        if let Some(cgroup) = self.cgroup {
            cgroup.kill();
        }
        for pid in children() {
            process::kill(pid, SIGKILL);
        }
    }

    /// Ends what the child has left behind; false when something is still there after a minute.
    ///
    /// Orphans become this process's children, so none can leave its sight, in a group or not.
    #[must_use]
    pub fn clear(&self) -> bool {
        if self.script {
            return true;
        }
        let deadline = Instant::now() + END_TIME;
        let mut removed = self.cgroup.is_none();
        while Instant::now() < deadline {
            self.kill();
            while let Ok(Some(_)) = process::reap() {}
            let childless = process::reap().is_err();
            removed = removed || self.cgroup.is_some_and(Cgroup::remove);
            if childless && removed {
                return true;
            }
            std::thread::park_timeout(TICK);
        }
        false
    }
}

/// Returns this process's children, orphans that it has taken over among them.
fn children() -> Vec<Pid> {
    let list = format!("/proc/self/task/{}/children", std::process::id());
    let text = std::fs::read_to_string(list).unwrap_or_default();
    let numbers = text.split_ascii_whitespace().filter_map(|word| word.parse().ok());
    numbers.filter_map(process::child).collect()
}
