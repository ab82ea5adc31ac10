//! How do messages get in and out of one connection? A queue in, a queue out, and one poll.

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use flux_formats::msg::{FrameDecoder, Kind, Message, NODEID_ANY, frame_into};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{MsgFlags, getsockopt, recv, send};
use serde::de::IgnoredAny;

use crate::connector::connect;
use crate::matchtag::MatchtagPool;
use crate::ssh::{self, Tunnel};
use crate::trace::Tracer;
use crate::{ConnectOptions, Error, uri};

/// Bytes read from the socket at once.
const READ_SIZE: usize = 64 * 1024;
/// Queued output above which [`Handle::send`] writes instead of waiting for more.
const FLUSH_SIZE: usize = 256 * 1024;
/// Largest frame accepted from the broker, which the client trusts.
const FRAME_SIZE_MAX: usize = 0x7fff_ffff;
/// Longest wait for queued output when a handle is dropped.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// A connection to a broker.
///
/// It blocks only where a method says "waits". For an own event loop use [`Handle::as_fd`], [`Handle::wants_write`],
/// [`Handle::on_ready`] and [`Handle::try_incoming`]; to wait for other descriptors too use [`Handle::poll`].
#[derive(Debug)]
pub struct Handle {
    stream: UnixStream,
    uri: String,
    options: ConnectOptions,
    decoder: FrameDecoder,
    out: BytesMut,
    scratch: Vec<u8>,
    pub(crate) tags: MatchtagPool,
    /// Tags whose response nobody wants any more.
    pub(crate) abandoned: HashSet<u32>,
    /// Messages read and not asked for yet, in order of arrival.
    pub(crate) inbox: VecDeque<Message>,
    pub(crate) generation: u32,
    pub(crate) subscriptions: Vec<String>,
    pub(crate) services: Vec<String>,
    timeout: Option<Duration>,
    closed: bool,
    /// Keeps responses to requests of others, which this program forwards.
    forwards: bool,
    tracer: Option<Tracer>,
    /// Remote shell of an `ssh://` connection; dropped after the stream.
    tunnel: Option<Tunnel>,
}

/// A message for the program, by kind.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// A response; see [`Rpc::matches`](crate::Rpc::matches). Its errnum has not been looked at.
    Response(Message),
    /// An event of a subscription.
    Event(Message),
    /// A request to a service that this client registered.
    Request(Message),
}

impl From<Message> for Incoming {
    fn from(msg: Message) -> Self {
        match msg.kind {
            Kind::Response => Incoming::Response(msg),
            Kind::Request => Incoming::Request(msg),
            Kind::Event | Kind::Control => Incoming::Event(msg),
        }
    }
}

impl Handle {
    /// Connects to `uri`, or to `FLUX_URI`, or to the system instance.
    ///
    /// `.`, `..` and `/` mean this instance, its parent and the root instance.
    ///
    /// # Errors
    /// [`Error::Uri`], [`Error::SocketNotFound`], [`Error::Connect`], [`Error::Refused`].
    pub fn open(uri: Option<&str>) -> Result<Handle, Error> {
        Handle::open_with(uri, &ConnectOptions::default())
    }

    /// As [`Handle::open`], with options.
    ///
    /// # Errors
    /// As [`Handle::open`].
    pub fn open_with(uri: Option<&str>, options: &ConnectOptions) -> Result<Handle, Error> {
        let uri = match uri {
            Some(path) if uri::is_ancestor_path(path) => uri::resolve_ancestor(path, options)?,
            Some(uri) => uri.to_owned(),
            None => uri::default_uri(),
        };
        let (stream, tunnel) = open_stream(&uri, options)?;
        let mut handle = Handle::from_stream(stream, uri, options.clone());
        handle.tunnel = tunnel;
        Ok(handle)
    }

    /// Makes a handle of a connected socket on which the handshake byte has been read.
    pub fn from_stream(stream: UnixStream, uri: String, options: ConnectOptions) -> Handle {
        Handle {
            stream,
            uri,
            options,
            decoder: FrameDecoder::new(FRAME_SIZE_MAX),
            out: BytesMut::new(),
            scratch: vec![0; READ_SIZE],
            tags: MatchtagPool::default(),
            abandoned: HashSet::new(),
            inbox: VecDeque::new(),
            generation: 0,
            subscriptions: Vec::new(),
            services: Vec::new(),
            timeout: None,
            closed: false,
            forwards: false,
            tracer: Tracer::from_env(),
            tunnel: None,
        }
    }

    /// Also hands out responses whose route stack is not empty: those to requests that this program forwarded for
    /// others, with a route of its own on top.
    pub fn forward(&mut self) {
        self.forwards = true;
    }

    /// Returns the URI that the handle is connected to.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Sets how long [`Handle::call`] and [`Handle::wait`] wait; `None` (at first) is forever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timeout.map(|timeout| Instant::now() + timeout)
    }

    /// Queues a message as it is; it leaves with the next flush, wait or poll.
    ///
    /// # Errors
    /// Those of the connection, when the queue had grown so large that it was written.
    pub fn send(&mut self, msg: &Message) -> Result<(), Error> {
        if let Some(tracer) = &self.tracer {
            tracer.show(msg);
        }
        if self.closed {
            // nobody would read it; the caller hears of it at its next wait or poll
            return Ok(());
        }
        if self.options.userid.is_none() && self.options.rolemask.is_none() {
            frame_into(msg, &mut self.out);
        } else {
            let mut copy = msg.clone();
            copy.userid = self.options.userid.unwrap_or(copy.userid);
            copy.rolemask = self.options.rolemask.unwrap_or(copy.rolemask);
            frame_into(&copy, &mut self.out);
        }
        if self.out.len() > FLUSH_SIZE {
            self.write_some()?;
        }
        Ok(())
    }

    /// Waits until everything queued is written, reading meanwhile so that neither side blocks the other.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.write_some()?;
        while !self.out.is_empty() {
            self.poll(&mut [], None)?;
        }
        Ok(())
    }

    /// Returns true while queued output waits for the socket.
    pub fn wants_write(&self) -> bool {
        !self.out.is_empty()
    }

    /// Reads and writes what the socket takes without waiting; for a loop that polled [`Handle::as_fd`] itself.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn on_ready(&mut self) -> Result<(), Error> {
        self.write_some()?;
        self.read_some(MsgFlags::MSG_DONTWAIT)
    }

    /// Takes the next message that has arrived, without waiting.
    pub fn try_incoming(&mut self) -> Option<Incoming> {
        self.take_at(0).map(Incoming::from)
    }

    /// Returns true when [`Handle::try_incoming`] has something.
    pub fn has_incoming(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Waits until a message has arrived, one of `others` is ready (see [`Other::ready`]) or `deadline` passed.
    ///
    /// Returns at once while messages are queued, with the readiness of `others` all the same. A signal ends the
    /// wait early.
    ///
    /// # Errors
    /// Those of the connection; [`Error::Closed`] only after every message received before was taken.
    pub fn poll(&mut self, others: &mut [Other<'_>], deadline: Option<Instant>) -> Result<(), Error> {
        self.write_some()?;
        if self.closed && self.inbox.is_empty() {
            return Err(Error::Closed);
        }
        let timeout = if self.inbox.is_empty() {
            poll_timeout(deadline)
        } else {
            PollTimeout::ZERO
        };
        let mut events = PollFlags::POLLIN;
        if self.wants_write() {
            events |= PollFlags::POLLOUT;
        }
        let ready = {
            let mut set = Vec::with_capacity(others.len() + 1);
            set.push(PollFd::new(self.stream.as_fd(), events));
            set.extend(others.iter().map(|other| PollFd::new(other.fd, other.events)));
            match poll(&mut set, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::Io(errno.into())),
            }
            for (other, polled) in others.iter_mut().zip(set.iter().skip(1)) {
                other.ready = polled.revents().unwrap_or(PollFlags::empty());
            }
            set.first()
                .and_then(PollFd::revents)
                .unwrap_or(PollFlags::empty())
        };
        if ready.contains(PollFlags::POLLOUT) {
            self.write_some()?;
        }
        if ready.intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR) {
            self.read_some(MsgFlags::MSG_DONTWAIT)?;
        }
        Ok(())
    }

    /// Connects again to the same URI; outstanding RPCs end with [`Error::Reconnected`], subscriptions and services
    /// are registered again. Messages read before stay in the queue, unsent ones are dropped.
    ///
    /// # Errors
    /// As [`Handle::open`], and those of registering again; after an error the handle stays closed.
    pub fn reconnect(&mut self) -> Result<(), Error> {
        self.closed = true;
        let (stream, tunnel) = open_stream(&self.uri, &self.options)?;
        self.stream = stream;
        self.tunnel = tunnel;
        self.closed = false;
        self.decoder = FrameDecoder::new(FRAME_SIZE_MAX);
        self.out.clear();
        self.tags.clear();
        self.abandoned.clear();
        self.inbox.retain(|msg| msg.kind == Kind::Event);
        self.generation = self.generation.wrapping_add(1);
        for topic in self.subscriptions.clone() {
            self.call::<IgnoredAny>(
                "event.subscribe",
                NODEID_ANY,
                &serde_json::json!({ "topic": topic }),
            )?;
        }
        for service in self.services.clone() {
            self.call::<IgnoredAny>(
                "service.add",
                NODEID_ANY,
                &serde_json::json!({ "service": service }),
            )?;
        }
        Ok(())
    }

    /// Takes the first queued message that `wanted` accepts, waiting for it until `deadline`.
    pub(crate) fn wait_for(
        &mut self,
        deadline: Option<Instant>,
        wanted: impl Fn(&Message) -> bool,
    ) -> Result<Message, Error> {
        let mut seen = 0;
        loop {
            while let Some(msg) = self.inbox.get(seen) {
                if wanted(msg) {
                    return self.take_at(seen).ok_or(Error::Closed);
                }
                seen += 1;
            }
            if self.closed {
                return Err(Error::Closed);
            }
            self.fill(deadline)?;
        }
    }

    /// Waits for input: one blocking read when nothing else can happen, else a poll.
    fn fill(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        self.write_some()?;
        if deadline.is_none() && !self.wants_write() {
            return self.read_some(MsgFlags::empty());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.read_some(MsgFlags::MSG_DONTWAIT)?;
            return if self.inbox.is_empty() {
                Err(Error::Timeout)
            } else {
                Ok(())
            };
        }
        let before = self.inbox.len();
        self.wait_ready(deadline)?;
        let expired = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if self.inbox.len() == before && expired && !self.closed {
            Err(Error::Timeout)
        } else {
            Ok(())
        }
    }

    fn wait_ready(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        let mut events = PollFlags::POLLIN;
        if self.wants_write() {
            events |= PollFlags::POLLOUT;
        }
        let mut set = [PollFd::new(self.stream.as_fd(), events)];
        match poll(&mut set, poll_timeout(deadline)) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(Error::Io(errno.into())),
        }
        self.on_ready()
    }

    /// Removes a message from the queue; the last response of an RPC frees its tag.
    fn take_at(&mut self, at: usize) -> Option<Message> {
        let msg = if at == 0 {
            self.inbox.pop_front()?
        } else {
            self.inbox.remove(at)?
        };
        if msg.kind == Kind::Response && msg.routes.is_empty() && is_last(&msg) {
            self.tags.free(msg.matchtag());
        }
        Some(msg)
    }

    fn write_some(&mut self) -> Result<(), Error> {
        while !self.out.is_empty() && !self.closed {
            let how = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.stream.as_raw_fd(), &self.out, how) {
                Ok(count) => self.out.advance(count),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                // The broker is gone; what it sent before can still be read.
                Err(Errno::EPIPE | Errno::ECONNRESET) => {
                    self.out.clear();
                    return Ok(());
                }
                Err(errno) => return Err(Error::Io(errno.into())),
            }
        }
        Ok(())
    }

    fn read_some(&mut self, how: MsgFlags) -> Result<(), Error> {
        loop {
            let count = match recv(self.stream.as_raw_fd(), &mut self.scratch, how) {
                Ok(0) => {
                    self.closed = true;
                    return Ok(());
                }
                Ok(count) => count,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) if how.contains(MsgFlags::MSG_DONTWAIT) => continue,
                // A blocked wait lets the caller look at what the signal did.
                Err(Errno::EINTR) => return Ok(()),
                Err(Errno::ECONNRESET) => {
                    self.closed = true;
                    return Ok(());
                }
                Err(errno) => return Err(Error::Io(errno.into())),
            };
            self.decoder
                .buffer
                .extend_from_slice(self.scratch.get(..count).unwrap_or(&[]));
            while let Some(msg) = self.decoder.next_message()? {
                self.accept(msg);
            }
            if count < self.scratch.len() || !how.contains(MsgFlags::MSG_DONTWAIT) {
                return Ok(());
            }
        }
    }

    /// Queues a message, unless it is a response that nobody waits for.
    fn accept(&mut self, msg: Message) {
        if let Some(tracer) = &self.tracer {
            tracer.show(&msg);
        }
        let forwarded = !msg.routes.is_empty();
        if msg.kind == Kind::Response && (msg.matchtag() != 0 || forwarded) && !(forwarded && self.forwards) {
            let tag = msg.matchtag();
            if forwarded || !self.tags.is_used(tag) {
                return;
            }
            if !self.abandoned.is_empty() && self.abandoned.contains(&tag) {
                if is_last(&msg) {
                    self.abandoned.remove(&tag);
                    self.tags.free(tag);
                }
                return;
            }
        }
        self.inbox.push_back(msg);
    }
}

impl Handle {
    /// Returns the user of the process that listens at the socket: the instance owner, unless a proxy is in between.
    ///
    /// # Errors
    /// Those of `getsockopt(2)`.
    pub fn peer_uid(&self) -> std::io::Result<u32> {
        Ok(getsockopt(&self.stream, PeerCredentials)?.uid())
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Connects to a broker on this host or another.
fn open_stream(uri: &str, options: &ConnectOptions) -> Result<(UnixStream, Option<Tunnel>), Error> {
    if uri.starts_with("ssh://") {
        if let Some(path) = ssh::local_socket(uri) {
            return Ok((connect(&path, options)?, None));
        }
        let (stream, tunnel) = ssh::connect(uri)?;
        return Ok((stream, Some(tunnel)));
    }
    Ok((connect(&uri::local_path(uri)?, options)?, None))
}

impl Drop for Handle {
    /// Writes what is queued (cancels, log messages), waiting at most [`DROP_WAIT`] for a slow broker.
    fn drop(&mut self) {
        let deadline = Instant::now() + DROP_WAIT;
        while self.write_some().is_ok() && !self.out.is_empty() && !self.closed && Instant::now() < deadline {
            if self.wait_ready(Some(deadline)).is_err() {
                break;
            }
        }
        if self.tunnel.is_some() {
            // the end of its input tells the remote shell to go
            drop(self.stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

/// A descriptor that [`Handle::poll`] watches beside the connection.
#[derive(Debug, Clone, Copy)]
pub struct Other<'fd> {
    /// The descriptor.
    pub fd: BorrowedFd<'fd>,
    /// What to wait for.
    pub events: PollFlags,
    /// What was ready after the poll.
    pub ready: PollFlags,
}

impl<'fd> Other<'fd> {
    /// Returns a watch for input.
    pub fn input(fd: BorrowedFd<'fd>) -> Self {
        Other {
            fd,
            events: PollFlags::POLLIN,
            ready: PollFlags::empty(),
        }
    }

    /// Returns true when reading will not block (data, end or error).
    pub fn is_readable(&self) -> bool {
        self.ready
            .intersects(PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR)
    }
}

/// Waits until one of `others` is ready or `deadline` passed, as [`Handle::poll`] does, while there is no connection.
///
/// # Errors
/// [`Error::Io`] when the kernel refuses; a signal is none, it ends the wait early.
pub fn poll_others(others: &mut [Other<'_>], deadline: Option<Instant>) -> Result<(), Error> {
    let mut set: Vec<_> = others
        .iter()
        .map(|other| PollFd::new(other.fd, other.events))
        .collect();
    let polled = poll(&mut set, poll_timeout(deadline));
    for (other, polled) in others.iter_mut().zip(&set) {
        other.ready = polled.revents().unwrap_or(PollFlags::empty());
    }
    match polled {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(Error::Io(errno.into())),
    }
}

/// Returns true for the response after which no other comes.
pub(crate) fn is_last(msg: &Message) -> bool {
    msg.errnum() != 0 || !msg.is_streaming()
}

fn poll_timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    // Rounded up, so that a loop does not spin through the last millisecond.
    let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
