//! What does a connection's task do? It reads, writes, keeps the heartbeat and ends the connection, all in one `select!`.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Conn, DRAINING, OPEN, Queued};
use crate::codec::command;
use crate::keys::PublicKey;
use crate::limits::Heartbeat;
use crate::net::event::{Credit, Down, Wire};
use crate::net::hub::{Hub, Ledger};
use crate::session::{Inbound, Opener};

/// The first and smallest read buffer; an idle connection keeps no more than this.
const READ_BYTES_MIN: usize = 2 * 1024;
/// The read buffer of a busy connection.
const READ_BYTES_MAX: usize = 64 * 1024;
/// A connection whose reads were this often in a row small goes back to a small buffer.
const SMALL_READS_MAX: u32 = 64;
/// The shortest time between two looks at the silence that the peer's TTL allows.
const PEER_TTL_CHECK_MIN: Duration = Duration::from_millis(50);
/// The shortest heartbeat interval: a configured zero must not spin.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// What a message costs the receiver besides its bytes and parts: empty messages are bounded too.
const MESSAGE_COST_BYTES: usize = 64;

/// What a connection's task needs besides the shared part.
pub(in crate::net) struct Task {
    pub(in crate::net) conn: Arc<Conn>,
    pub(in crate::net) opener: Opener,
    pub(in crate::net) hub: Arc<Hub>,
    pub(in crate::net) events: mpsc::Sender<Wire>,
    pub(in crate::net) heartbeat: Option<Heartbeat>,
    /// What was received beyond the handshake.
    pub(in crate::net) input: BytesMut,
    pub(in crate::net) public_key: PublicKey,
    pub(in crate::net) addr: SocketAddr,
}

impl Task {
    /// Runs the connection from its `Up` to its `Down`.
    pub(in crate::net) async fn run(self, mut stream: TcpStream) {
        let Self {
            conn,
            opener,
            hub,
            events,
            heartbeat,
            input,
            public_key,
            addr,
        } = self;
        let identity = conn.identity.clone();
        if !deliver(
            &hub,
            &events,
            Wire::Up {
                conn: Arc::clone(&conn),
                identity,
                public_key,
                addr,
            },
        )
        .await
        {
            conn.end();
            hub.remove(conn.peer);
            return;
        }
        let (read_half, write_half) = stream.split();
        let mut reader = Reader::new(&conn, &hub, &events, opener, input);
        let reason = tokio::select! {
            reason = reader.run(read_half) => reason,
            reason = write(&conn, write_half) => reason,
            reason = keep_alive(&conn, heartbeat) => reason,
            reason = linger(&conn, &hub) => reason,
        };
        let reason = if conn.is_closed_here() {
            conn.drained.store(
                conn.written.load(Ordering::Acquire) && matches!(reason, Down::Closed),
                Ordering::Release,
            );
            Down::Disconnected
        } else {
            reason
        };
        conn.end();
        // Without a receiver nobody needs to know.
        let _ = deliver(
            &hub,
            &events,
            Wire::Down {
                peer: conn.peer,
                reason,
            },
        )
        .await;
    }
}

/// Passes something to [`Events`](crate::net::event::Events), waiting for room. Returns false when nobody receives any more.
async fn deliver(hub: &Hub, events: &mpsc::Sender<Wire>, wire: Wire) -> bool {
    let wire = match events.try_send(wire) {
        Ok(()) => return true,
        Err(mpsc::error::TrySendError::Closed(_)) => return false,
        Err(mpsc::error::TrySendError::Full(wire)) => wire,
    };
    tokio::select! {
        biased;
        permit = events.reserve() => permit.map(|permit| permit.send(wire)).is_ok(),
        () = hub.closed() => false,
    }
}

/// The reading side.
struct Reader<'a> {
    conn: &'a Arc<Conn>,
    hub: &'a Hub,
    events: &'a mpsc::Sender<Wire>,
    opener: Opener,
    ledger: Arc<Ledger>,
    input: BytesMut,
    read_bytes: usize,
    small_reads_count: u32,
}

impl<'a> Reader<'a> {
    fn new(
        conn: &'a Arc<Conn>,
        hub: &'a Hub,
        events: &'a mpsc::Sender<Wire>,
        opener: Opener,
        input: BytesMut,
    ) -> Self {
        let ledger = hub.new_ledger();
        Self {
            conn,
            hub,
            events,
            opener,
            ledger,
            input,
            read_bytes: READ_BYTES_MIN,
            small_reads_count: 0,
        }
    }

    async fn run(&mut self, mut half: ReadHalf<'_>) -> Down {
        loop {
            let missing_bytes = match self.decode().await {
                Ok(missing_bytes) => missing_bytes,
                Err(reason) => return reason,
            };
            if !self.ledger.has_room() && !self.conn.is_closed_here() {
                self.conn.paused.store(true, Ordering::Relaxed);
                // While the owner closes, what arrives is dropped and takes no room.
                tokio::select! {
                    () = self.ledger.room() => {}
                    () = self.hub.closed() => {}
                }
                self.conn.paused.store(false, Ordering::Relaxed);
            }
            let spare_bytes = self.make_room(missing_bytes);
            match half.read_buf(&mut self.input).await {
                Ok(0) => return Down::Closed,
                Ok(bytes) => self.adapt(bytes, spare_bytes),
                Err(err) => return Down::Io(err),
            }
            self.conn.heard.store(true, Ordering::Relaxed);
        }
    }

    /// Hands out every complete message and answers PINGs. Returns how many bytes the next item lacks.
    async fn decode(&mut self) -> Result<usize, Down> {
        if self.conn.is_closed_here() {
            self.input.clear();
            return Ok(READ_BYTES_MIN);
        }
        let mut messages = Vec::new();
        let outcome = loop {
            match self.opener.next(&mut self.input) {
                Ok(Inbound::NeedMore(missing_bytes)) => break Ok(missing_bytes),
                Ok(Inbound::Message(parts, bytes)) => {
                    let cost_bytes = bytes + MESSAGE_COST_BYTES + parts.len() * size_of::<Bytes>();
                    messages.push((parts, Credit::take(&self.ledger, cost_bytes)));
                }
                Ok(Inbound::Ping {
                    ttl_deciseconds,
                    context,
                }) => self.on_ping(ttl_deciseconds, &context),
                Ok(Inbound::Other) => {}
                Err(err) => break Err(Down::Protocol(err)),
            }
        };
        if !messages.is_empty() {
            self.conn.paused.store(true, Ordering::Relaxed);
            let batch = Wire::Batch {
                conn: Arc::clone(self.conn),
                messages,
            };
            let delivered = deliver(self.hub, self.events, batch).await;
            self.conn.paused.store(false, Ordering::Relaxed);
            if !delivered && !self.hub.is_closing() {
                return Err(Down::Disconnected);
            }
        }
        outcome
    }

    fn on_ping(&self, ttl_deciseconds: u16, context: &[u8]) {
        let (pong, used) = command::encode_pong(context);
        // A peer that does not read its PONGs fills its queue: it loses PONGs, not we memory.
        let _ = self.conn.send_command(pong.get(..used).unwrap_or_default());
        let ttl_millis = u64::from(ttl_deciseconds) * 100;
        if self.conn.peer_ttl_millis.swap(ttl_millis, Ordering::Relaxed) != ttl_millis {
            self.conn.ttl_wake.notify_one();
        }
    }

    /// Makes room for the next read. Returns how much there is.
    fn make_room(&mut self, missing_bytes: usize) -> usize {
        let spare_bytes = self.input.capacity() - self.input.len();
        if spare_bytes < missing_bytes.max(self.read_bytes / 2) {
            self.input.reserve(missing_bytes.max(self.read_bytes));
        }
        self.input.capacity() - self.input.len()
    }

    /// Chooses the next buffer size by what the last read brought.
    fn adapt(&mut self, bytes: usize, spare_bytes: usize) {
        if bytes == spare_bytes {
            self.read_bytes = READ_BYTES_MAX;
            self.small_reads_count = 0;
        } else if bytes > READ_BYTES_MIN {
            self.small_reads_count = 0;
        } else if self.read_bytes > READ_BYTES_MIN {
            self.small_reads_count += 1;
            if self.small_reads_count >= SMALL_READS_MAX {
                self.small_reads_count = 0;
                self.read_bytes = READ_BYTES_MIN;
                self.input = BytesMut::from(&self.input[..]);
            }
        }
    }
}

/// The writing side: everything queued since the last write goes out in one.
async fn write(conn: &Conn, mut half: WriteHalf<'_>) -> Down {
    loop {
        match conn.take_queued() {
            Queued::Bytes(bytes) => {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    match half.write(rest).await {
                        Ok(0) => return Down::Io(std::io::ErrorKind::WriteZero.into()),
                        Ok(count) => {
                            rest = rest.get(count..).unwrap_or_default();
                            conn.wrote(count);
                        }
                        Err(err) => return Down::Io(err),
                    }
                }
                conn.recycle(bytes);
            }
            Queued::Nothing => conn.write_wake.notified().await,
            Queued::Last => {
                if let Err(err) = half.shutdown().await {
                    return Down::Io(err);
                }
                conn.written.store(true, Ordering::Release);
                // The reader sees the peer's end.
                return pending().await;
            }
        }
    }
}

/// Sends PINGs and notices silence. Returns when the peer has been silent for too long.
async fn keep_alive(conn: &Conn, heartbeat: Option<Heartbeat>) -> Down {
    let heartbeat = heartbeat.map(|heartbeat| Heartbeat {
        interval: heartbeat.interval.max(INTERVAL_MIN),
        ..heartbeat
    });
    let mut last_heard = Instant::now();
    let mut next_ping = heartbeat.map(|heartbeat| last_heard + heartbeat.interval);
    loop {
        let peer_ttl = conn.peer_ttl();
        let Some(next_look) = next_look(next_ping, peer_ttl) else {
            conn.ttl_wake.notified().await;
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(next_look) => {}
            () = conn.ttl_wake.notified() => continue,
        }
        let now = Instant::now();
        // A connection that we do not read is not silent.
        if conn.heard.swap(false, Ordering::Relaxed) || conn.paused.load(Ordering::Relaxed) {
            last_heard = now;
        }
        let silence = now.saturating_duration_since(last_heard);
        let timeout = heartbeat.map(|heartbeat| heartbeat.timeout);
        if [timeout, peer_ttl]
            .into_iter()
            .flatten()
            .any(|bound| silence >= bound)
        {
            return Down::Silent(silence);
        }
        if let (Some(heartbeat), Some(due)) = (heartbeat, next_ping)
            && now >= due
        {
            next_ping = Some(now + heartbeat.interval);
            let ttl_deciseconds =
                u16::try_from(heartbeat.timeout.as_millis().div_ceil(100)).unwrap_or(u16::MAX);
            // With a full queue the peer hears from us by what is in it.
            let _ = conn.send_command(&command::encode_ping(ttl_deciseconds));
            conn.shrink_if_idle();
        }
    }
}

fn next_look(next_ping: Option<Instant>, peer_ttl: Option<Duration>) -> Option<Instant> {
    let ttl_look = peer_ttl.map(|ttl| Instant::now() + (ttl / 2).max(PEER_TTL_CHECK_MIN));
    [next_ping, ttl_look].into_iter().flatten().min()
}

/// Returns when this side's end of the connection is over.
async fn linger(conn: &Conn, hub: &Hub) -> Down {
    loop {
        match conn.state.load(Ordering::Acquire) {
            OPEN => conn.end_wake.notified().await,
            // While the server closes as a whole, its deadline counts.
            DRAINING if hub.is_closing() => conn.end_wake.notified().await,
            DRAINING => tokio::select! {
                () = conn.end_wake.notified() => {}
                () = tokio::time::sleep(hub.limits.linger) => return Down::Disconnected,
            },
            _ => return Down::Disconnected,
        }
    }
}
