//! When has a process ended? Waits on a pidfd without a thread.

use crate::sys::async_fd::register;
use flux_process::{PidFd, WaitStatus};
use std::io;
use std::rc::Rc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that this broker started: to be signalled, and waited for by one task.
#[derive(Clone, Debug)]
pub(super) struct Watched(Rc<AsyncFd<PidFd>>);

impl Watched {
    /// Registers a process with the runtime.
    ///
    /// # Errors
    /// When the kernel refuses another descriptor.
    pub(super) fn new(pidfd: PidFd) -> io::Result<Self> {
        Ok(Watched(Rc::new(register(pidfd, Interest::READABLE)?)))
    }

    /// Returns the descriptor.
    pub(super) fn pidfd(&self) -> &PidFd {
        self.0.get_ref()
    }

    /// Waits for the end of the process and reaps it.
    ///
    /// # Errors
    /// ECHILD when it was reaped elsewhere.
    ///
    /// # Cancel safety
    /// The status is taken in the last step; a cancelled wait has taken nothing.
    pub(super) async fn wait(self) -> io::Result<WaitStatus> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Some(status) = self.pidfd().try_wait()? {
                return Ok(status);
            }
            ready.clear_ready();
        }
    }
}
