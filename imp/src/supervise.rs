//! How does a running job end? By itself, by a relayed signal, or because the relay is gone; in each case nothing is left.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::launch::Started;
use crate::sys::fd::poll;
use crate::sys::process::{self, Pid, Status};
use crate::sys::signal::{SIGNAL_INFO_SIZE, signal_file};
use crate::wire;

/// Signals that are passed on.
pub const RELAYED: [i32; 9] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGCONT,
    libc::SIGALRM,
    libc::SIGWINCH,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGUSR1,
];
/// Stands for SIGKILL, which cannot be relayed.
const KILL: i32 = libc::SIGUSR1;
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
    pub started: &'a Started,
    /// Its group, if it has one.
    pub cgroup: Option<&'a Cgroup>,
    /// A script: signals go to its process group, and what it leaves running stays.
    pub script: bool,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The program was executed and has ended.
    Ended(Status),
    /// The program was not executed: what to log, and the exit code.
    NotStarted(String, i32),
}

impl Job<'_> {
    /// Waits for the end. `begun` is called when the program has been executed.
    ///
    /// # Errors
    /// Those of `poll` and of making a signal file; the job has been killed then.
    pub fn wait(&self, relay: &mut UnixStream, mut begun: impl FnMut()) -> io::Result<End> {
        let children = signal_file(&[libc::SIGCHLD]).inspect_err(|_| self.kill())?;
        let mut waiting = true;
        let mut failure = None;
        let mut killed_at = None;
        loop {
            let asleep = killed_at.map(|_| TICK);
            // A file that has come to its end is always ready, so it is looked at no more: its place is taken by another.
            let stream = if killed_at.is_some() {
                children.as_fd()
            } else {
                relay.as_fd()
            };
            let report = if waiting {
                self.started.report.as_fd()
            } else {
                children.as_fd()
            };
            let events = [stream, children.as_fd(), report].map(|fd| (fd, libc::POLLIN));
            let [spoke, _, reported] = poll(events, asleep).inspect_err(|_| self.kill())?;
            drain(&children);
            if reported && waiting {
                waiting = false;
                match self.started.outcome() {
                    Ok(()) => begun(),
                    Err(why) => failure = Some(why),
                }
            }
            if let Some(status) = self.reap() {
                return Ok(match failure {
                    Some((why, exit)) => End::NotStarted(why, exit),
                    None => End::Ended(status),
                });
            }
            if killed_at.is_none() && spoke && !self.hear(relay) {
                killed_at = Some(Instant::now());
                if self.script {
                    process::kill_group(self.started.pid, libc::SIGTERM);
                }
            }
            if killed_at.is_some_and(|at| !self.script || at.elapsed() > GRACE) {
                self.kill();
            }
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

    /// Takes the status of everything that has ended; returns the child's.
    fn reap(&self) -> Option<Status> {
        let mut found = None;
        while let Ok(Some((pid, status))) = process::reap() {
            if pid == self.started.pid {
                found = Some(status);
                break;
            }
        }
        found
    }

    /// Ends all that can be reached now.
    fn kill(&self) {
        if self.script {
            process::kill_group(self.started.pid, libc::SIGKILL);
            return;
        }
        if let Some(cgroup) = self.cgroup {
            cgroup.kill();
        }
        for pid in children() {
            process::kill(pid, libc::SIGKILL);
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
        loop {
            self.kill();
            let childless = loop {
                match process::reap() {
                    Ok(Some(_)) => {}
                    Ok(None) => break false,
                    Err(_) => break true,
                }
            };
            let remove = |cgroup: &Cgroup| !cgroup.is_populated() && cgroup.remove();
            removed = removed || self.cgroup.is_some_and(remove);
            if childless && removed {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::park_timeout(TICK);
        }
    }
}

/// Reads away what a signal file holds; what it was is found by waiting.
fn drain(signals: &OwnedFd) {
    let mut info = [0; SIGNAL_INFO_SIZE];
    if let Ok(fd) = signals.try_clone() {
        let mut file = File::from(fd);
        while file.read(&mut info).is_ok_and(|count| count > 0) {}
    }
}

/// Returns this process's children, orphans that it has taken over among them.
fn children() -> Vec<Pid> {
    let own = process::own_pid();
    let text = std::fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    let numbers = text.split_ascii_whitespace().filter_map(|word| word.parse().ok());
    numbers.filter_map(process::child).collect()
}
