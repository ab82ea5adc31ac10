//! As whom does the IMP let code that nobody has audited look at data? As a user that nobody else is, in a process of its own.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use flux_sign::kv::Kv;

use crate::sys::cred::{become_user, set_groups};
use crate::sys::process::{self, Pid, die_with, set_undumpable};
use crate::wire;

/// A user and group id that belongs to nobody: it lies in a range that is never assigned (systemd: "UIDs and GIDs").
const NOBODY_ELSE: u32 = 1_978_335_721;

/// A process without privilege that answers in frames of [`wire`]; ends with this value.
#[derive(Debug)]
pub struct Helper {
    what: &'static str,
    stream: UnixStream,
    pid: Pid,
}

impl Helper {
    /// Starts a process that gives up everything and does this work.
    ///
    /// # Errors
    /// What to log.
    pub fn start(
        what: &'static str,
        work: impl FnOnce(UnixStream) -> io::Result<()>,
    ) -> Result<Self, String> {
        let failed = |err: io::Error| format!("cannot start the {what}: {err}");
        let parent = std::process::id();
        let (stream, theirs) = UnixStream::pair().map_err(failed)?;
        match process::fork().map_err(failed)? {
            Some(pid) => Ok(Helper { what, stream, pid }),
            None => {
                drop(stream);
                process::exit(i32::from(enter(parent).and_then(|()| work(theirs)).is_err()));
            }
        }
    }

    /// Asks something.
    ///
    /// # Errors
    /// What to log.
    pub fn ask(&mut self, question: &[u8]) -> Result<(), String> {
        let asked = self.stream.write_all(question);
        asked.map_err(|err| format!("the {} does not listen: {err}", self.what))
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// What to log.
    pub fn receive(&mut self, time: Duration) -> Result<Kv, String> {
        match wire::receive(&mut self.stream, time) {
            Ok(Some(kv)) => Ok(kv),
            Ok(None) => Err(format!("the {} has ended without an answer", self.what)),
            Err(err) => Err(format!("the {} does not answer: {err}", self.what)),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It ends when the stream does; killing is for one that hangs.
        drop(self.stream.shutdown(std::net::Shutdown::Both));
        process::kill(self.pid, libc::SIGKILL);
        drop(process::wait(self.pid));
    }
}

/// Gives up all privilege, in a child.
fn enter(parent: u32) -> io::Result<()> {
    set_groups(&[])?;
    become_user(NOBODY_ELSE, NOBODY_ELSE)?;
    set_undumpable()?;
    die_with(parent)
}
