//! What does a server or client tell its owner? Events, in order, through one bounded channel.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::conn::Conn;
use super::hub::{Hub, Ledger};
use crate::keys::PublicKey;

/// One established connection. Never used again after its end, so that nothing meant for one connection reaches a
/// later one of the same identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub(crate) u64);

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.0)
    }
}

/// What happened on a connection.
///
/// Of each peer: one `Up`, any number of `Message`, one `Down`, in this order. A second connection with the
/// identity of a live one replaces it: `Down` of the old comes before `Up` of the new.
#[derive(Debug)]
pub enum Event {
    /// A peer has proven its key and was admitted (server), or the server has (client).
    Up {
        /// The new connection.
        peer: PeerId,
        /// The identity from the peer's metadata. Empty for a server.
        identity: Bytes,
        /// The peer's long-term public key.
        public_key: PublicKey,
        /// Where it connected from, or the server's address.
        addr: SocketAddr,
    },
    /// A message arrived.
    Message {
        /// The connection it came over.
        peer: PeerId,
        /// Its parts, at least one.
        parts: Vec<Bytes>,
        /// The room it takes of [`Limits::inbound_bytes_max`](crate::Limits::inbound_bytes_max), given back on drop.
        credit: Credit,
    },
    /// A connection has ended.
    Down {
        /// The ended connection.
        peer: PeerId,
        /// Why.
        reason: Down,
    },
}

/// Room in the bound of bytes received and not yet released. Dropping it lets the connection read on.
///
/// Keep it as long as the message's bytes are kept where they count (a queue), drop it when they are accounted for
/// elsewhere.
pub struct Credit {
    bytes: usize,
    ledger: Arc<Ledger>,
}

impl Credit {
    pub(super) fn take(ledger: &Arc<Ledger>, bytes: usize) -> Self {
        ledger.take(bytes);
        Self {
            bytes,
            ledger: Arc::clone(ledger),
        }
    }

    /// Returns the bytes that this holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.ledger.give_back(self.bytes);
    }
}

impl fmt::Debug for Credit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credit({})", self.bytes)
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Down {
    /// The peer closed it in good order.
    #[error("closed by peer")]
    Closed,
    /// This side closed it: `disconnect`, `close`.
    #[error("closed by this side")]
    Disconnected,
    /// A newer connection has the same identity.
    #[error("replaced by a newer connection with the same identity")]
    Replaced,
    /// Nothing came for the heartbeat timeout, or for the TTL of the peer's last PING.
    #[error("silent for {0:?}")]
    Silent(Duration),
    /// The socket failed; with `tcp_user_timeout` also because the peer acknowledged nothing (`TimedOut`).
    #[error("connection failed")]
    Io(#[source] std::io::Error),
    /// The peer broke the protocol or a limit.
    #[error("protocol error")]
    Protocol(#[source] crate::session::ProtocolError),
}

/// Which bound a message is sent under. Both lanes share one order: what is sent first arrives first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Everything: bounded by [`Limits::outbound_bytes_max`](crate::Limits::outbound_bytes_max).
    Bulk,
    /// Heartbeats, goodbyes: may also use
    /// [`Limits::control_reserve_bytes`](crate::Limits::control_reserve_bytes), which bulk data cannot.
    Control,
}

/// Why a message was not accepted for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The lane's bytes to this peer are used up. Nothing was queued.
    #[error("peer's queue is full")]
    Full,
    /// No such peer: never there, gone, or going.
    #[error("no such peer")]
    Unknown,
    /// The message exceeds the limits, or has no part.
    #[error("message is too large or empty")]
    TooLarge,
}

/// What connection tasks tell [`Events`].
#[derive(Debug)]
pub(super) enum Wire {
    /// A connection is established and stands in the table.
    Up {
        conn: Arc<Conn>,
        identity: Bytes,
        public_key: PublicKey,
        addr: SocketAddr,
    },
    /// What one read brought.
    Batch {
        conn: Arc<Conn>,
        messages: Vec<(Vec<Bytes>, Credit)>,
    },
    /// A connection has ended.
    Down { peer: PeerId, reason: Down },
}

/// The receiver of events.
pub struct Events {
    rx: mpsc::Receiver<Wire>,
    hub: Arc<Hub>,
    ready: VecDeque<Event>,
}

impl Events {
    pub(super) fn new(rx: mpsc::Receiver<Wire>, hub: Arc<Hub>) -> Self {
        Self {
            rx,
            hub,
            ready: VecDeque::new(),
        }
    }

    /// Waits for the next event. Returns `None` once the server or client is closed and all was delivered.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let wire = self.rx.recv().await?;
            self.take(wire);
        }
    }

    /// Returns the next event if one is there, without waiting. Use it to drain what one wake-up brought.
    pub fn try_recv(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let wire = self.rx.try_recv().ok()?;
            self.take(wire);
        }
    }

    /// Turns what a task tells into events, and keeps the table of peers.
    fn take(&mut self, wire: Wire) {
        match wire {
            Wire::Up {
                conn,
                identity,
                public_key,
                addr,
            } => {
                let peer = conn.peer();
                if let Some(old) = self.hub.announce(&identity, peer) {
                    let reason = if old.is_closed_here() {
                        Down::Disconnected
                    } else {
                        Down::Replaced
                    };
                    old.cut();
                    self.ready.push_back(Event::Down {
                        peer: old.peer(),
                        reason,
                    });
                }
                self.ready.push_back(Event::Up {
                    peer,
                    identity,
                    public_key,
                    addr,
                });
            }
            Wire::Batch { conn, messages } => {
                if conn.is_closed_here() {
                    return;
                }
                let peer = conn.peer();
                let events =
                    messages
                        .into_iter()
                        .map(|(parts, credit)| Event::Message { peer, parts, credit });
                self.ready.extend(events);
            }
            Wire::Down { peer, reason } => {
                if self.hub.remove(peer) {
                    self.ready.push_back(Event::Down { peer, reason });
                }
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("ready_count", &self.ready.len())
            .finish_non_exhaustive()
    }
}
