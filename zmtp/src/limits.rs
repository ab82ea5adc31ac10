//! What bounds a connection? Every number that a peer could otherwise drive up.

use std::time::Duration;

/// The bounds of each connection and of the server that accepts them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest message, all parts together, sent or received. A peer that sends more is dropped; a larger
    /// [`send`](crate::Server::send) is refused with [`SendError::TooLarge`](crate::SendError::TooLarge).
    pub message_bytes_max: usize,
    /// The largest number of parts of a message.
    pub parts_max: usize,
    /// Bytes waiting to be written to one peer on the [bulk lane](crate::Lane::Bulk), as they go on the wire.
    /// When full, `send` returns [`SendError::Full`](crate::SendError::Full).
    pub outbound_bytes_max: usize,
    /// Bytes beyond `outbound_bytes_max` that only the [control lane](crate::Lane::Control) and the protocol's
    /// own PING and PONG may use.
    pub control_reserve_bytes: usize,
    /// Bytes received from one peer that the receiver has not released (see [`Credit`](crate::Credit)). At the
    /// bound the connection is not read, and so its PINGs are not answered: a receiver that holds its credit for
    /// longer than the peer's heartbeat timeout or `TCP_USER_TIMEOUT` loses the peer. It is exceeded by at most one
    /// read or one message.
    pub inbound_bytes_max: usize,
    /// Bytes received from all peers of a server together that the receiver has not released.
    pub inbound_total_bytes_max: usize,
    /// Batches of events (one per read of a socket) waiting in the channel to the receiver. When full, the
    /// connections wait and read no further.
    pub event_batches_max: usize,
    /// Handshakes in progress at once. When as many are open, the oldest is dropped in favour of a new
    /// connection once it is older than `handshake_grace`; until then accepting waits.
    pub handshakes_max: usize,
    /// The age below which an unfinished handshake is never dropped in favour of another.
    pub handshake_grace: Duration,
    /// The time that a handshake may take as a whole.
    pub handshake_timeout: Duration,
    /// Established peers of a server. Beyond it, new ones are refused.
    pub peers_max: usize,
    /// The time a connection that [`disconnect`](crate::Server::disconnect) ends has for what is queued.
    pub linger: Duration,
}

/// Message bound by default: 16 MiB and some room for the frames around a payload of that size.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024 + 64 * 1024;
/// Outbound bytes per peer by default: a peer that never reads costs this much.
const OUTBOUND_BYTES_MAX: usize = 32 * 1024 * 1024;
const CONTROL_RESERVE_BYTES: usize = 64 * 1024;
const INBOUND_BYTES_MAX: usize = 8 * 1024 * 1024;
const INBOUND_TOTAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Filled by connections that read faster than the receiver takes; then they wait.
const EVENT_BATCHES_MAX: usize = 1024;
const HANDSHAKES_MAX: usize = 512;
const PEERS_MAX: usize = 16 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: MESSAGE_BYTES_MAX,
            parts_max: 1024,
            outbound_bytes_max: OUTBOUND_BYTES_MAX,
            control_reserve_bytes: CONTROL_RESERVE_BYTES,
            inbound_bytes_max: INBOUND_BYTES_MAX,
            inbound_total_bytes_max: INBOUND_TOTAL_BYTES_MAX,
            event_batches_max: EVENT_BATCHES_MAX,
            handshakes_max: HANDSHAKES_MAX,
            handshake_grace: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(10),
            peers_max: PEERS_MAX,
            linger: Duration::from_secs(1),
        }
    }
}

/// ZMTP heartbeats: a PING at every interval, and the end of a peer from which nothing came for the timeout.
///
/// RFC 37 "Heartbeating". The PING carries the timeout as TTL, so that the peer also ends the connection when we
/// fall silent. Silence is looked at once per interval: a dead peer is noticed between `timeout` and
/// `timeout + 2 * interval` after its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The time between two PINGs; at least 10 ms.
    pub interval: Duration,
    /// The longest silence of a live peer. Kept above the interval by the caller.
    pub timeout: Duration,
}
