//! What does one established connection do? It seals and queues what is sent, and one task reads, writes and keeps
//! the heartbeat.
//!
//! ```text
//!  Open ---- drain() ----> Draining ---- queue written, write side shut, peer's end seen or linger over ----> end
//!    |                         |
//!    +------- cut() -----------+----> end at once
//! ```

mod task;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::event::{Lane, PeerId, SendError};
use crate::handshake::Established;
use crate::limits::Limits;
use crate::session::{self, Opener, Sealer};

pub(super) use task::Task;

/// A write buffer above this is given back after it was written.
const WRITE_BYTES_KEPT_MAX: usize = 4 * 1024 * 1024;
/// A spare write buffer above this is given back at the next heartbeat.
const IDLE_WRITE_BYTES_MAX: usize = 4 * 1024;

const OPEN: u32 = 0;
const DRAINING: u32 = 1;
const CUT: u32 = 2;
const ENDED: u32 = 3;

/// The part of a connection that its owner and its task share.
pub(super) struct Conn {
    peer: PeerId,
    identity: Bytes,
    state: AtomicU32,
    outbox: Mutex<Outbox>,
    /// Something to write, or the state has changed.
    write_wake: Notify,
    /// The state has changed.
    end_wake: Notify,
    /// Something was read since the last look.
    heard: AtomicBool,
    /// The TTL of the peer's last PING in milliseconds; 0 for none.
    peer_ttl_millis: AtomicU64,
    ttl_wake: Notify,
    /// The reader waits for its receiver, not for the peer.
    paused: AtomicBool,
    /// Everything was written and the write side is shut.
    written: AtomicBool,
    /// Everything was written and the peer has seen the end.
    drained: AtomicBool,
    bulk_bytes_max: usize,
    control_bytes_max: usize,
    message_bytes_max: usize,
    parts_max: usize,
}

/// Sealed bytes on their way out.
struct Outbox {
    sealer: Sealer,
    /// Not yet taken by the writer.
    queued: Vec<u8>,
    /// An empty buffer to queue into when the writer takes the other.
    spare: Vec<u8>,
    /// Taken by the writer, not yet given to the system.
    writing_bytes: usize,
    /// The writer waits for `write_wake`.
    writer_idle: bool,
}

impl Conn {
    /// Makes the shared part and the receiving direction of a connection.
    pub(super) fn new(peer: PeerId, established: Established, limits: &Limits) -> (Arc<Self>, Opener) {
        let identity = established.identity.clone();
        let (sealer, opener) = session::split(established, limits.message_bytes_max, limits.parts_max);
        let outbox = Outbox {
            sealer,
            queued: Vec::new(),
            spare: Vec::new(),
            writing_bytes: 0,
            writer_idle: false,
        };
        let conn = Self {
            peer,
            identity,
            state: AtomicU32::new(OPEN),
            outbox: Mutex::new(outbox),
            write_wake: Notify::new(),
            end_wake: Notify::new(),
            heard: AtomicBool::new(true),
            peer_ttl_millis: AtomicU64::new(0),
            ttl_wake: Notify::new(),
            paused: AtomicBool::new(false),
            written: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            bulk_bytes_max: limits.outbound_bytes_max,
            control_bytes_max: limits
                .outbound_bytes_max
                .saturating_add(limits.control_reserve_bytes),
            message_bytes_max: limits.message_bytes_max,
            parts_max: limits.parts_max,
        };
        (Arc::new(conn), opener)
    }

    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(super) fn identity(&self) -> &Bytes {
        &self.identity
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals and queues a message, or refuses it as a whole.
    pub(super) fn send<P: AsRef<[u8]>>(&self, lane: Lane, parts: &[P]) -> Result<(), SendError> {
        let (mut plain_bytes, mut wire_bytes) = (0usize, 0usize);
        for part in parts {
            plain_bytes = plain_bytes.saturating_add(part.as_ref().len());
            wire_bytes = wire_bytes.saturating_add(Sealer::wire_bytes(part.as_ref().len()));
        }
        if parts.is_empty() || parts.len() > self.parts_max || plain_bytes > self.message_bytes_max {
            return Err(SendError::TooLarge);
        }
        self.queue(lane, wire_bytes, |outbox| {
            outbox.sealer.put_message(&mut outbox.queued, parts)
        })
    }

    fn send_command(&self, body: &[u8]) -> Result<(), SendError> {
        let wire_bytes = Sealer::wire_bytes(body.len());
        self.queue(Lane::Control, wire_bytes, |outbox| {
            outbox.sealer.put_command(&mut outbox.queued, body)
        })
    }

    fn queue(&self, lane: Lane, wire_bytes: usize, put: impl FnOnce(&mut Outbox)) -> Result<(), SendError> {
        let mut outbox = self.outbox();
        if self.is_closing() {
            return Err(SendError::Unknown);
        }
        let bytes_max = match lane {
            Lane::Bulk => self.bulk_bytes_max,
            Lane::Control => self.control_bytes_max,
        };
        if outbox.held_bytes().saturating_add(wire_bytes) > bytes_max {
            return Err(SendError::Full);
        }
        put(&mut outbox);
        if std::mem::take(&mut outbox.writer_idle) {
            drop(outbox);
            self.write_wake.notify_one();
        }
        Ok(())
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.outbox().held_bytes()
    }

    /// Tells whether this side ends the connection, or it has ended.
    pub(super) fn is_closing(&self) -> bool {
        self.state.load(Ordering::Acquire) != OPEN
    }

    /// Ends the connection once what is queued is written. Returns whether it was open.
    pub(super) fn drain(&self) -> bool {
        let was_open = {
            // Under the lock: nothing is queued after the state has changed.
            let _outbox = self.outbox();
            self.state
                .compare_exchange(OPEN, DRAINING, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        };
        self.write_wake.notify_one();
        self.end_wake.notify_one();
        was_open
    }

    /// Tells whether this side ends the connection: what still arrives is not wanted.
    pub(super) fn is_closed_here(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), DRAINING | CUT)
    }

    /// Notes that the connection has ended by itself. What was received before is still delivered.
    fn end(&self) {
        // Fails when this side has closed it: then the state says so already.
        let _ = self
            .state
            .compare_exchange(OPEN, ENDED, Ordering::AcqRel, Ordering::Acquire);
        let mut outbox = self.outbox();
        outbox.queued = Vec::new();
        outbox.spare = Vec::new();
        outbox.writing_bytes = 0;
    }

    fn peer_ttl(&self) -> Option<Duration> {
        Some(self.peer_ttl_millis.load(Ordering::Relaxed))
            .filter(|millis| *millis > 0)
            .map(Duration::from_millis)
    }

    fn take_queued(&self) -> Queued {
        let mut outbox = self.outbox();
        if !outbox.queued.is_empty() {
            let spare = std::mem::take(&mut outbox.spare);
            let bytes = std::mem::replace(&mut outbox.queued, spare);
            outbox.writing_bytes = bytes.len();
            return Queued::Bytes(bytes);
        }
        if self.is_closing() {
            return Queued::Last;
        }
        outbox.writer_idle = true;
        Queued::Nothing
    }

    fn wrote(&self, count: usize) {
        let mut outbox = self.outbox();
        outbox.writing_bytes = outbox.writing_bytes.saturating_sub(count);
    }

    /// Keeps a written buffer for the next round, if it is not too large.
    fn recycle(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        if bytes.capacity() <= WRITE_BYTES_KEPT_MAX {
            self.outbox().spare = bytes;
        }
    }

    /// Gives large buffers back when nothing waits to be written.
    fn shrink_if_idle(&self) {
        let mut outbox = self.outbox();
        if outbox.spare.capacity() > IDLE_WRITE_BYTES_MAX {
            outbox.spare = Vec::new();
        }
        if outbox.queued.is_empty() && outbox.queued.capacity() > IDLE_WRITE_BYTES_MAX {
            outbox.queued = Vec::new();
        }
    }

    /// Ends the connection at once.
    pub(super) fn cut(&self) {
        self.state.store(CUT, Ordering::Release);
        self.write_wake.notify_one();
        self.end_wake.notify_one();
    }

    /// Tells whether the connection drained before it ended.
    pub(super) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("peer", &self.peer)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Outbox {
    fn held_bytes(&self) -> usize {
        self.queued.len().saturating_add(self.writing_bytes)
    }
}

/// What the writer finds.
enum Queued {
    /// Bytes to write.
    Bytes(Vec<u8>),
    /// Nothing: wait for `write_wake`.
    Nothing,
    /// Nothing, and nothing more will come.
    Last,
}
