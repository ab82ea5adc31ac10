//! How does a descriptor that we own become something the runtime can wait for?

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers an owned descriptor with the runtime's reactor.
///
/// # Errors
/// Those of the reactor (EMFILE, EPERM for a descriptor that cannot be polled).
pub(crate) fn register<T>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>>
where
    T: AsFd + AsRawFd + Into<OwnedFd>,
{
    // SAFETY: `Into<OwnedFd>` holds only for types that own their one descriptor, so it stays open, and the
    // same, until the AsyncFd that takes the owner is dropped; `AsRawFd` of such a type gives that descriptor.
    #[expect(unsafe_code, reason = "the owner of the descriptor moves into the AsyncFd")]
    unsafe { AsyncFd::register_with_interest(owner, interest) }.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pipe_becomes_readable() {
        let (read, write) = flux_process::pipe().unwrap();
        let read = register(read, Interest::READABLE).unwrap();
        flux_process::fd::write_all(&write, b"x").unwrap();
        drop(read.readable().await.unwrap());
    }
}
