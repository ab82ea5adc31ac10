//! How do bytes travel between a process and its client? Pipes read and written without a thread.

use super::Rexec;
use crate::service::{Cx, Mailbox};
use crate::sys::async_fd::register;
use flux_process::fd;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes read at once.
const READ_SIZE: usize = 16 * 1024;
/// A line that is longer is sent in pieces.
const LINE_MAX: usize = 64 * 1024;
/// Bytes of input that a client may send ahead; the first `add-credit`.
pub(super) const INPUT_CREDIT: usize = 64 * 1024;
/// Bytes that a client may send without credit before the rest is dropped.
const INPUT_MAX: usize = 4 << 20;

/// Starts to read a descriptor: `Rexec::on_data` gets the pieces of process `pid`, at last an empty one.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn read_from(
    cx: &mut Cx<'_>,
    pid: u32,
    name: &Rc<str>,
    source: OwnedFd,
    by_line: bool,
) -> io::Result<()> {
    fd::set_nonblocking(&source, true)?;
    let source = register(source, Interest::READABLE)?;
    let (mailbox, name) = (cx.mailbox::<Rexec>(), name.to_string());
    cx.spawn_task(pump(source, mailbox, pid, name, by_line));
    Ok(())
}

/// Reads until the end. The mailbox is bounded: a broker that is busy slows the process down.
async fn pump(source: AsyncFd<OwnedFd>, mailbox: Mailbox<Rexec>, pid: u32, name: String, by_line: bool) {
    let mut held: Vec<u8> = Vec::new();
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let Ok(mut ready) = source.readable().await else {
            break;
        };
        match fd::read(source.get_ref(), &mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                held.extend_from_slice(buffer.get(..count).unwrap_or_default());
                let complete = match held.iter().rposition(|byte| *byte == b'\n') {
                    Some(at) if by_line => at + 1,
                    None if by_line && held.len() < LINE_MAX => 0,
                    _ => held.len(),
                };
                if complete > 0 {
                    let rest = held.split_off(complete);
                    let data = std::mem::replace(&mut held, rest);
                    let stream = name.clone();
                    if mailbox
                        .post(move |me, cx| me.on_data(cx, pid, &stream, &data))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            // EIO is how a pty ends
            Err(_) => break,
        }
    }
    let ended = mailbox.post(move |me, cx| {
        if !held.is_empty() {
            me.on_data(cx, pid, &name, &held);
        }
        me.on_data(cx, pid, &name, &[]);
    });
    if ended.await.is_err() {
        tracing::debug!(pid, "the hub ended before a stream");
    }
}

/// What is to be written to a process.
#[derive(Debug)]
pub(super) struct Input {
    target: Option<Rc<AsyncFd<OwnedFd>>>,
    queue: VecDeque<Vec<u8>>,
    queued: usize,
    eof: bool,
    waiting: bool,
}

impl Input {
    /// Takes the end of a pipe or socket to write to.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn new(target: OwnedFd) -> io::Result<Self> {
        fd::set_nonblocking(&target, true)?;
        let target = Some(Rc::new(register(target, Interest::WRITABLE)?));
        Ok(Input {
            target,
            queue: VecDeque::new(),
            queued: 0,
            eof: false,
            waiting: false,
        })
    }

    /// Queues bytes. Returns false when too many are waiting; they are dropped.
    pub(super) fn push(&mut self, data: Vec<u8>, eof: bool) -> bool {
        self.eof |= eof;
        if self.queued + data.len() > INPUT_MAX {
            return false;
        }
        if !data.is_empty() && self.target.is_some() {
            self.queued += data.len();
            self.queue.push_back(data);
        }
        true
    }

    /// Writes what the process takes now; returns how many bytes that were. What remains is written when the
    /// process reads: then `Rexec::on_writable` is called.
    pub(super) fn flush(&mut self, cx: &mut Cx<'_>, pid: u32, name: &Rc<str>) -> usize {
        let mut written = 0;
        let Some(target) = self.target.clone() else {
            return 0;
        };
        while let Some(mut data) = self.queue.pop_front() {
            match fd::write(target.get_ref(), &data) {
                Ok(count) => {
                    written += count;
                    self.queued -= count.min(self.queued);
                    if count < data.len() {
                        data.drain(..count);
                        self.queue.push_front(data);
                    }
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => self.queue.push_front(data),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    self.queue.push_front(data);
                    self.wait_writable(cx, target, pid, name);
                    return written;
                }
                // the process closed its end: what is left goes nowhere
                Err(_) => {
                    written += self.queued;
                    self.close();
                    return written;
                }
            }
        }
        if self.eof {
            self.close();
        }
        written
    }

    /// Arranges that `Rexec::on_writable` is called when there is room; once, however often it is asked for.
    fn wait_writable(&mut self, cx: &mut Cx<'_>, target: Rc<AsyncFd<OwnedFd>>, pid: u32, name: &Rc<str>) {
        if std::mem::replace(&mut self.waiting, true) {
            return;
        }
        let name = name.clone();
        cx.spawn(writable(target), move |me: &mut Rexec, cx, ()| {
            me.on_writable(cx, pid, &name)
        });
    }

    /// Continues after a wait.
    pub(super) fn resume(&mut self) {
        self.waiting = false;
    }

    fn close(&mut self) {
        self.target = None;
        self.queue.clear();
        self.queued = 0;
    }
}

async fn writable(target: Rc<AsyncFd<OwnedFd>>) {
    // an error shows in the next write
    if let Ok(mut ready) = target.writable().await {
        ready.clear_ready();
    }
}
