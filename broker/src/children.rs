//! How does the broker wait for a process that it started? A pidfd on the runtime, no thread, no SIGCHLD.

use flux_process::{Child, PidFd, WaitStatus};
use std::io;
use tokio::io::Interest;

/// Waits until a child has ended, reaps it and returns its status.
///
/// # Errors
/// Those of registering or waiting for the pidfd.
///
/// # Cancel safety
/// A cancelled wait leaves the child unreaped; it can be waited for again.
pub async fn wait(child: Child) -> io::Result<WaitStatus> {
    wait_pidfd(child.into_parts().1).await
}

/// Waits like [`wait`] for a pidfd.
///
/// # Errors
/// Those of registering or waiting for the pidfd.
pub async fn wait_pidfd(pidfd: PidFd) -> io::Result<WaitStatus> {
    let pidfd = crate::sys::async_fd::register(pidfd, Interest::READABLE)?;
    loop {
        let mut guard = pidfd.readable().await?;
        if let Some(status) = pidfd.get_ref().try_wait()? {
            return Ok(status);
        }
        guard.clear_ready();
    }
}
