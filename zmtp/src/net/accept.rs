//! Who gets in? Accepts connections and runs their handshakes, with a bound on how many and how long.
//!
//! An attacker who opens connections and says nothing must not keep peers out: at the bound, the oldest handshake gives
//! way to a new connection, unless it is younger than the grace, in which an honest peer finishes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::conn::{Conn, Task};
use super::event::Wire;
use super::hub::Hub;
use super::opening::{self, OpeningError};
use super::server::{ServerConfig, ServerStats};
use crate::handshake::{HandshakeError, ServerEntropy, ServerHandshake};
use crate::keys::Keypair;

/// Pause after a failed accept (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refused connections are logged this often per [`LOG_WINDOW`]; a client with a wrong key retries for ever.
const LOGS_PER_WINDOW: u32 = 10;
const LOG_WINDOW: Duration = Duration::from_secs(10);

const OPENING: u8 = 0;
const ESTABLISHED: u8 = 1;
const EVICTED: u8 = 2;

/// Counters, kept by all tasks of a server.
#[derive(Debug, Default)]
pub(super) struct Counters {
    accepted: AtomicU64,
    established: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    timed_out: AtomicU64,
    evicted: AtomicU64,
    opening_now: AtomicUsize,
    /// A handshake has come to its end.
    freed: Notify,
}

impl Counters {
    pub(super) fn snapshot(&self) -> ServerStats {
        ServerStats {
            accepted_count: self.accepted.load(Ordering::Relaxed),
            established_count: self.established.load(Ordering::Relaxed),
            failed_count: self.failed.load(Ordering::Relaxed),
            refused_count: self.refused.load(Ordering::Relaxed),
            timed_out_count: self.timed_out.load(Ordering::Relaxed),
            evicted_count: self.evicted.load(Ordering::Relaxed),
            handshakes_now: self.opening_now.load(Ordering::Relaxed),
        }
    }
}

/// Counts a handshake as in progress until dropped, also when its task is aborted.
struct InProgress(Arc<Counters>);

impl InProgress {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.opening_now.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.opening_now.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

/// A handshake that may have to give way.
struct Slot {
    started: Instant,
    state: Arc<AtomicU8>,
    abort: AbortHandle,
}

/// The accepting task's state.
pub(super) struct Acceptor {
    listener: TcpListener,
    shared: Arc<Shared>,
    slots: VecDeque<Slot>,
}

/// What each connection's task needs of the server.
struct Shared {
    config: ServerConfig,
    keypair: Arc<Keypair>,
    hub: Arc<Hub>,
    events: mpsc::Sender<Wire>,
    counters: Arc<Counters>,
    log: LogGate,
}

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        config: ServerConfig,
        hub: Arc<Hub>,
        events: mpsc::Sender<Wire>,
        counters: Arc<Counters>,
    ) -> Self {
        let keypair = Arc::new(config.keypair.clone());
        let shared = Shared {
            config,
            keypair,
            hub,
            events,
            counters,
            log: LogGate::default(),
        };
        Self {
            listener,
            shared: Arc::new(shared),
            slots: VecDeque::new(),
        }
    }

    /// Accepts until the server closes, then waits for its connections to end.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let limits = &shared.config.limits;
        let mut tasks = JoinSet::new();
        let closed = shared.hub.closed();
        tokio::pin!(closed);
        loop {
            self.forget_finished();
            let has_room = shared.counters.opening_now.load(Ordering::Relaxed) < limits.handshakes_max.max(1);
            let eviction = self
                .slots
                .front()
                .map_or_else(Instant::now, |slot| slot.started + limits.handshake_grace);
            tokio::select! {
                () = &mut closed => break,
                Some(_) = tasks.join_next() => {}
                accepted = self.listener.accept(), if has_room => match accepted {
                    Ok((stream, addr)) => self.admit(&mut tasks, stream, addr),
                    Err(err) => {
                        shared.log.accept_failed(&err);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = shared.counters.freed.notified(), if !has_room => {}
                () = tokio::time::sleep_until(eviction), if !has_room => self.evict_oldest(),
            }
        }
        for slot in &self.slots {
            slot.evict();
        }
        drop(self.listener);
        while tasks.join_next().await.is_some() {}
    }

    fn admit(&mut self, tasks: &mut JoinSet<()>, stream: TcpStream, addr: SocketAddr) {
        let counters = &self.shared.counters;
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(AtomicU8::new(OPENING));
        let serving = serve(
            Arc::clone(&self.shared),
            InProgress::new(counters),
            Arc::clone(&state),
            stream,
            addr,
        );
        self.slots.push_back(Slot {
            started: Instant::now(),
            state,
            abort: tasks.spawn(serving),
        });
    }

    /// Drops the slots of handshakes that are over: at the front always, behind it once they are many.
    fn forget_finished(&mut self) {
        while self.slots.front().is_some_and(Slot::is_over) {
            self.slots.pop_front();
        }
        if self.slots.len()
            > self
                .shared
                .config
                .limits
                .handshakes_max
                .saturating_mul(2)
                .saturating_add(16)
        {
            self.slots.retain(|slot| !slot.is_over());
        }
    }

    fn evict_oldest(&mut self) {
        if let Some(slot) = self.slots.pop_front()
            && slot.evict()
        {
            self.shared.counters.evicted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Slot {
    fn is_over(&self) -> bool {
        self.abort.is_finished() || self.state.load(Ordering::Acquire) != OPENING
    }

    /// Ends the handshake, unless it has become a connection. Returns whether it was in progress.
    fn evict(&self) -> bool {
        let in_progress = self
            .state
            .compare_exchange(OPENING, EVICTED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if in_progress {
            self.abort.abort();
        }
        in_progress
    }
}

/// One connection from its accept to its end.
async fn serve(
    shared: Arc<Shared>,
    in_progress: InProgress,
    state: Arc<AtomicU8>,
    mut stream: TcpStream,
    addr: SocketAddr,
) {
    let limits = &shared.config.limits;
    let opened = match tokio::time::timeout(limits.handshake_timeout, shake(&shared, &mut stream)).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(err)) => return shared.failed(addr, &err),
        Err(_elapsed) => {
            shared.counters.timed_out.fetch_add(1, Ordering::Relaxed);
            return shared.log.refused(addr, &"handshake takes too long");
        }
    };
    if state
        .compare_exchange(OPENING, ESTABLISHED, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        return;
    }
    drop(in_progress);
    let (established, input) = opened;
    let public_key = established.peer_key;
    let (conn, opener) = Conn::new(shared.hub.next_peer(), established, limits);
    if !shared.hub.enter(&conn) {
        shared.counters.refused.fetch_add(1, Ordering::Relaxed);
        return shared.log.refused(addr, &"there are too many peers");
    }
    shared.counters.established.fetch_add(1, Ordering::Relaxed);
    if shared.hub.is_closing() {
        conn.drain();
    }
    let task = Task {
        conn,
        opener,
        hub: Arc::clone(&shared.hub),
        events: shared.events.clone(),
        heartbeat: shared.config.heartbeat,
        input,
        public_key,
        addr,
    };
    drop(shared);
    task.run(stream).await;
}

async fn shake(
    shared: &Shared,
    stream: &mut TcpStream,
) -> Result<(crate::handshake::Established, bytes::BytesMut), OpeningError> {
    opening::tune(stream, shared.config.tcp_user_timeout)?;
    let entropy = ServerEntropy::draw().map_err(std::io::Error::other)?;
    let mut machine = ServerHandshake::new(
        Arc::clone(&shared.keypair),
        Arc::clone(&shared.config.authorizer),
        entropy,
    );
    opening::open(stream, &mut machine).await
}

impl Shared {
    fn failed(&self, addr: SocketAddr, err: &OpeningError) {
        let counter = match err {
            OpeningError::Handshake(HandshakeError::Refused { .. }) => &self.counters.refused,
            _ => &self.counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let reason = match std::error::Error::source(err) {
            Some(source) => format!("{err}: {source}"),
            None => err.to_string(),
        };
        self.log.refused(addr, &reason);
    }
}

/// Lets through a number of log lines per time and counts the rest.
#[derive(Debug, Default)]
struct LogGate {
    window: std::sync::Mutex<LogWindow>,
}

#[derive(Debug, Default)]
struct LogWindow {
    started: Option<Instant>,
    used_count: u32,
    suppressed_count: u64,
}

impl LogGate {
    fn refused(&self, addr: SocketAddr, reason: &dyn std::fmt::Display) {
        match self.pass(Instant::now()) {
            Some(suppressed_count) => warn!(%addr, %reason, suppressed_count, "connection refused"),
            None => debug!(%addr, %reason, "connection refused"),
        }
    }

    fn accept_failed(&self, err: &std::io::Error) {
        if let Some(suppressed_count) = self.pass(Instant::now()) {
            warn!(%err, suppressed_count, "accept failed");
        }
    }

    /// Returns how many lines were held back since the last one, or `None` to hold this one back.
    fn pass(&self, now: Instant) -> Option<u64> {
        let mut window = self
            .window
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if window
            .started
            .is_none_or(|started| now.saturating_duration_since(started) >= LOG_WINDOW)
        {
            window.started = Some(now);
            window.used_count = 0;
        }
        if window.used_count < LOGS_PER_WINDOW {
            window.used_count += 1;
            return Some(std::mem::take(&mut window.suppressed_count));
        }
        window.suppressed_count += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_log_gate_holds_back_and_counts() {
        let (gate, start) = (LogGate::default(), Instant::now());
        for _ in 0..LOGS_PER_WINDOW {
            assert_eq!(gate.pass(start), Some(0));
        }
        assert_eq!(gate.pass(start), None);
        assert_eq!(gate.pass(start + LOG_WINDOW / 2), None);
        assert_eq!(gate.pass(start + LOG_WINDOW), Some(2));
        assert_eq!(gate.pass(start + LOG_WINDOW), Some(0));
    }
}
