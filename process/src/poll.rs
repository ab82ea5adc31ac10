//! How does a single-threaded program wait until one of its descriptors is ready?

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::sys;

/// What a descriptor is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Data, end of file or a hangup.
    Read,
    /// Room to write, or an error.
    Write,
    /// Either.
    ReadWrite,
    /// Only hangup and errors.
    HangupOnly,
}

/// What a descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// A read would not block (also at end of file and after a hangup).
    pub readable: bool,
    /// A write would not block (also when it would fail).
    pub writable: bool,
    /// The peer is gone or the descriptor is in error.
    pub hangup: bool,
}

/// The descriptors of one wait, each with a token of the caller; refilled before every wait, storage is kept.
#[derive(Debug)]
pub struct PollSet<T> {
    fds: Vec<libc::pollfd>,
    tokens: Vec<T>,
}

impl<T: Copy> PollSet<T> {
    /// Returns an empty set.
    pub fn new() -> Self {
        PollSet {
            fds: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// Forgets all descriptors.
    pub fn clear(&mut self) {
        self.fds.clear();
        self.tokens.clear();
    }

    /// Adds a descriptor for the next wait.
    pub fn add(&mut self, fd: impl AsFd, interest: Interest, token: T) {
        let events = match interest {
            Interest::Read => libc::POLLIN,
            Interest::Write => libc::POLLOUT,
            Interest::ReadWrite => libc::POLLIN | libc::POLLOUT,
            Interest::HangupOnly => 0,
        };
        self.fds.push(libc::pollfd {
            fd: fd.as_fd().as_raw_fd(),
            events,
            revents: 0,
        });
        self.tokens.push(token);
    }

    /// Returns how many descriptors are watched.
    pub fn len(&self) -> usize {
        self.fds.len()
    }

    /// Returns true when nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.fds.is_empty()
    }

    /// Blocks until a descriptor is ready or `timeout` has passed; an interruption counts as nothing ready.
    ///
    /// # Errors
    /// ENOMEM and the like; never EINTR.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        match sys::poll::poll(&mut self.fds, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.fds.iter_mut().for_each(|entry| entry.revents = 0);
                Ok(0)
            }
            result => result,
        }
    }

    /// Returns the ready descriptors' tokens after a wait, in the order of [`PollSet::add`].
    pub fn ready(&self) -> impl Iterator<Item = (T, Ready)> + '_ {
        self.fds
            .iter()
            .zip(&self.tokens)
            .filter(|(entry, _)| entry.revents != 0)
            .map(|(entry, token)| {
                let gone = libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
                let hangup = entry.revents & gone != 0;
                let ready = Ready {
                    readable: entry.revents & libc::POLLIN != 0 || hangup,
                    writable: entry.revents & libc::POLLOUT != 0 || hangup,
                    hangup,
                };
                (*token, ready)
            })
    }
}

impl<T: Copy> Default for PollSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_who_is_ready() {
        let (reader, writer) = crate::pipe().unwrap();
        let mut set = PollSet::new();
        set.add(&reader, Interest::Read, 'r');
        assert_eq!(set.wait(Some(Duration::ZERO)).unwrap(), 0);
        crate::fd::write_all(&writer, b"x").unwrap();
        assert_eq!(set.wait(None).unwrap(), 1);
        let ready: Vec<_> = set.ready().collect();
        assert_eq!(
            ready,
            [(
                'r',
                Ready {
                    readable: true,
                    writable: false,
                    hangup: false
                }
            )]
        );
        set.clear();
        drop(writer);
        set.add(&reader, Interest::HangupOnly, 'h');
        assert_eq!(set.wait(None).unwrap(), 1);
        assert!(set.ready().all(|(token, ready)| token == 'h' && ready.hangup));
    }
}
