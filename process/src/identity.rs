//! How is a process recognised later, perhaps by a program that did not start it? By its number, its start time
//! and the boot of the machine: the three together never come again.

use std::fmt;
use std::io;
use std::str::FromStr;

use crate::pidfd::PidFd;
use crate::signal::Signal;

/// Where the kernel tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Fields of `/proc/PID/stat` after the command, counted from the state (proc_pid_stat(5) fields 3, 6 and 22).
const STATE: usize = 0;
const SESSION: usize = 3;
const START_TIME: usize = 19;

/// A process, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// When it started, in clock ticks since the boot.
    pub start_time: u64,
    /// The boot, as the kernel names it.
    pub boot_id: String,
}

/// The text is not an identity as [`Identity`] is displayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a process identity (PID:START-TIME:BOOT-ID)")]
pub struct ParseIdentityError;

impl Identity {
    /// Returns the identity of a running process.
    ///
    /// # Errors
    /// ENOENT when there is none of this number, or `/proc` is not mounted.
    pub fn of(pid: u32) -> io::Result<Self> {
        let start_time = stat_field(pid, START_TIME)?;
        Ok(Identity {
            pid,
            start_time,
            boot_id: boot_id()?,
        })
    }

    /// Returns the identity of the calling process.
    ///
    /// # Errors
    /// As [`Identity::of`].
    pub fn own() -> io::Result<Self> {
        Identity::of(std::process::id())
    }

    /// Returns a descriptor of the process while it runs; `None` when it has ended, also when nobody has waited for
    /// it yet.
    ///
    /// # Errors
    /// EMFILE or ENFILE, or `/proc` is not readable.
    pub fn open(&self) -> io::Result<Option<PidFd>> {
        if boot_id()? != self.boot_id {
            return Ok(None);
        }
        let pidfd = match PidFd::open(self.pid) {
            Ok(pidfd) => pidfd,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        // looked at after it was opened: the descriptor stands for the process that has this start time
        let stat = match read_stat(self.pid) {
            Ok(stat) => stat,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let dead = matches!(field(&stat, STATE), Some("Z" | "X"));
        let same = field(&stat, START_TIME).and_then(|text| text.parse().ok()) == Some(self.start_time);
        Ok((same && !dead).then_some(pidfd))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.pid, self.start_time, self.boot_id)
    }
}

impl FromStr for Identity {
    type Err = ParseIdentityError;

    fn from_str(text: &str) -> Result<Self, ParseIdentityError> {
        let mut words = text.splitn(3, ':');
        let mut next = || {
            words
                .next()
                .filter(|word| !word.is_empty())
                .ok_or(ParseIdentityError)
        };
        Ok(Identity {
            pid: next()?.parse().map_err(|_| ParseIdentityError)?,
            start_time: next()?.parse().map_err(|_| ParseIdentityError)?,
            boot_id: next()?.to_owned(),
        })
    }
}

/// Kills every process of a session but the caller; `wanted` is asked about each, for callers that are not sure that
/// the session's number still means what it meant.
///
/// A process that is gone already is no error. One that starts another while it is looked at is found by the next
/// round; after eight rounds it has won.
pub fn kill_session(session: u32, wanted: impl Fn(u32) -> bool) {
    const ROUNDS: u32 = 8;
    for _ in 0..ROUNDS {
        let found: Vec<u32> = members(session).filter(|pid| wanted(*pid)).collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            let Ok(target) = PidFd::open(pid) else { continue };
            // looked at again: the number may have been given to another process since
            if session_of(pid) == Some(session) {
                // it may end at this moment
                drop(target.send_signal(Signal::SIGKILL));
            }
        }
    }
}

/// Kills every other process of the session that the caller leads; does nothing when it leads none.
pub fn kill_own_session() {
    let own = std::process::id();
    if session_of(own) == Some(own) {
        kill_session(own, |_| true);
    }
}

/// Returns the processes of a session that run, without the caller.
fn members(session: u32) -> impl Iterator<Item = u32> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(move |pid| *pid != own && session_of(*pid) == Some(session))
}

/// Returns the session of a process that runs.
fn session_of(pid: u32) -> Option<u32> {
    let stat = read_stat(pid).ok()?;
    if matches!(field(&stat, STATE), Some("Z" | "X")) {
        return None;
    }
    field(&stat, SESSION)?.parse().ok()
}

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string(BOOT_ID)?.trim_end().to_owned())
}

fn read_stat(pid: u32) -> io::Result<String> {
    // the command may be anything
    let bytes = std::fs::read(format!("/proc/{pid}/stat"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns a field after the command, which may itself hold blanks and parentheses.
fn field(stat: &str, index: usize) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(index)
}

fn stat_field(pid: u32, index: usize) -> io::Result<u64> {
    let stat = read_stat(pid)?;
    let number = field(&stat, index).and_then(|text| text.parse().ok());
    number.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Returns true for the ways in which the kernel says that a process does not exist.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, ProcessGroup};

    #[test]
    fn a_process_is_known_until_it_ends() {
        let mut command = Command::new("sleep");
        command.arg("1000");
        let child = command.spawn().unwrap();
        let known = Identity::of(child.pid()).unwrap();
        assert_eq!(known.to_string().parse(), Ok(known.clone()));
        let pidfd = known.open().unwrap().expect("it runs");
        let other = Identity {
            start_time: known.start_time + 1,
            ..known.clone()
        };
        assert!(other.open().unwrap().is_none(), "same number, another process");
        let before = Identity {
            boot_id: "before".into(),
            ..known.clone()
        };
        assert!(before.open().unwrap().is_none(), "before a reboot");
        pidfd.send_signal(Signal::SIGKILL).unwrap();
        // a zombie until it is waited for
        let mut set = crate::PollSet::new();
        set.add(&pidfd, crate::Interest::Read, ());
        set.wait(Some(std::time::Duration::from_secs(10))).unwrap();
        assert!(known.open().unwrap().is_none());
        child.wait().unwrap();
        assert!(known.open().unwrap().is_none());
    }

    #[test]
    fn texts_that_are_no_identity() {
        for text in ["", "1", "1:2", "1:2:", "x:2:b", "1:x:b", "-1:2:b"] {
            assert_eq!(text.parse::<Identity>(), Err(ParseIdentityError), "{text}");
        }
        let own = Identity::own().unwrap();
        assert_eq!(own.pid, std::process::id());
        assert!(own.open().unwrap().is_some());
    }

    #[test]
    fn a_session_is_killed_to_the_last_process() {
        let mut command = Command::new("sh");
        // two groups below the leader, which has ended
        command.args(["-c", "set -m; sleep 1000 & sleep 1001 & exit 0"]);
        command.group(ProcessGroup::Session);
        let child = command.spawn().unwrap();
        let session = child.pid();
        let status = child.wait().unwrap();
        assert!(status.success());
        assert_eq!(members(session).count(), 2);
        kill_session(session, |_| false);
        assert_eq!(members(session).count(), 2, "nobody was wanted");
        kill_session(session, |_| true);
        assert_eq!(members(session).count(), 0);
    }
}
