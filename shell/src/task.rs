//! What is one task: its process, its streams, and how far it has come?

use std::io;
use std::os::fd::OwnedFd;

use flux_process::{Child, Signal, WaitStatus, fd};

use crate::lines::Pieces;

/// A stream of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    pub(crate) const BOTH: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

    /// Returns the name that RFC 24 gives.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }

    /// Returns the stream with this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Stream::BOTH.into_iter().find(|stream| stream.name() == name)
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        }
    }
}

/// The reading end of a task's stream.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) fd: OwnedFd,
    pub(crate) pieces: Pieces,
}

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) rank: u32,
    pub(crate) local_id: u32,
    pub(crate) child: Option<Child>,
    pub(crate) pid: u32,
    pub(crate) status: Option<WaitStatus>,
    /// Streams that are read here; a stream that ended or is elsewhere is `None`.
    pub(crate) readers: [Option<Reader>; 2],
    pub(crate) stdin: Stdin,
    pub(crate) own_group: bool,
    pub(crate) has_terminal: bool,
}

impl Task {
    pub(crate) fn new(rank: u32, local_id: u32) -> Self {
        Task {
            rank,
            local_id,
            child: None,
            pid: 0,
            status: None,
            readers: [None, None],
            stdin: Stdin::default(),
            own_group: true,
            has_terminal: false,
        }
    }

    /// Returns true when the process has ended and everything it wrote has been read.
    pub(crate) fn is_complete(&self) -> bool {
        self.status.is_some() && self.readers.iter().all(Option::is_none)
    }

    /// Returns true while the process runs.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some() && self.status.is_none()
    }

    /// Sends a signal to the task and, when it leads a group, to all of that: also when the task has ended but
    /// something it started still holds its output.
    pub(crate) fn kill(&self, signal: Signal) {
        let Some(child) = &self.child else { return };
        // The last process may just have ended.
        let _sent = match (self.own_group, self.status) {
            (true, None) => child.kill_group(signal),
            (true, Some(_)) if !self.is_complete() => flux_process::signal::kill_group(self.pid, signal),
            (false, None) => child.send_signal(signal),
            _ => Ok(()),
        };
    }

    /// Takes the end of the process, when it has ended.
    pub(crate) fn reap(&mut self) -> Option<WaitStatus> {
        let child = self.child.as_ref().filter(|_| self.status.is_none())?;
        self.status = match child.pidfd().try_wait() {
            Ok(status) => status,
            // Nobody else waits for our children; if the kernel says so all the same, it is gone.
            Err(_) => Some(WaitStatus::exited(1)),
        };
        if self.status.is_some() {
            self.stdin = Stdin::default();
        }
        self.status
    }
}

/// The writing end of a task's standard input with what it has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Stdin {
    pub(crate) fd: Option<OwnedFd>,
    queue: Vec<u8>,
    eof: bool,
    nonblocking: bool,
}

impl Stdin {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Stdin {
            fd: Some(fd),
            queue: Vec::new(),
            eof: false,
            nonblocking: false,
        }
    }

    /// Returns the bytes that the task has not taken yet.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Returns true when data waits for the task to read.
    pub(crate) fn wants_write(&self) -> bool {
        self.fd.is_some() && !self.queue.is_empty()
    }

    /// Takes data and the end of the stream.
    pub(crate) fn push(&mut self, data: &[u8], eof: bool) {
        if self.fd.is_none() || self.eof {
            return;
        }
        if !self.nonblocking && !data.is_empty() {
            // Most tasks never get any input, so this is not done before.
            let set = self
                .fd
                .as_ref()
                .map_or(Ok(()), |pipe| fd::set_nonblocking(pipe, true));
            self.nonblocking = set.is_ok();
        }
        self.queue.extend_from_slice(data);
        self.eof |= eof;
        self.flush();
    }

    /// Writes what the task takes.
    pub(crate) fn flush(&mut self) {
        while let Some(pipe) = &self.fd {
            if self.queue.is_empty() {
                if self.eof {
                    self.fd = None;
                }
                return;
            }
            match fd::write(pipe, &self.queue) {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The task does not read any more.
                Err(_) => {
                    self.fd = None;
                    self.queue.clear();
                }
            }
        }
    }
}
