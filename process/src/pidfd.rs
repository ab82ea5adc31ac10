//! How does a caller watch and signal one process, safe against reuse of its process id?

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::signal::Signal;
use crate::status::WaitStatus;
use crate::sys;

/// A descriptor that stands for a process: readable in `poll(2)` when the process has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process `pid`. Free of races for a child that has not been waited for.
    ///
    /// # Errors
    /// ESRCH when there is no such process, EMFILE or ENFILE.
    pub fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
        sys::process::pidfd_open(pid).map(PidFd)
    }

    /// Sends a signal to the process (not its group).
    ///
    /// # Errors
    /// ESRCH when it has ended and been waited for, EPERM.
    pub fn send_signal(&self, signal: Signal) -> io::Result<()> {
        sys::process::pidfd_send_signal(self.0.as_fd(), signal.number())
    }

    /// Returns the status of a child that has ended and reaps it, or `None` while it runs.
    ///
    /// # Errors
    /// ECHILD when the process is not a child of the caller or was reaped before.
    pub fn try_wait(&self) -> io::Result<Option<WaitStatus>> {
        sys::process::waitid_pidfd(self.0.as_fd(), false)
    }

    /// Blocks until the child has ended, reaps it and returns its status.
    ///
    /// # Errors
    /// ECHILD as for [`PidFd::try_wait`].
    pub fn wait(&self) -> io::Result<WaitStatus> {
        loop {
            match sys::process::waitid_pidfd(self.0.as_fd(), true) {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for PidFd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> OwnedFd {
        pidfd.0
    }
}

impl From<OwnedFd> for PidFd {
    /// Wraps a descriptor that the caller knows to be a pidfd.
    fn from(fd: OwnedFd) -> PidFd {
        PidFd(fd)
    }
}
