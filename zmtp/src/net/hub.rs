//! What do a server's connections share? The table of peers and the bound on bytes received.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::conn::Conn;
use super::event::PeerId;
use crate::limits::Limits;

/// The shared state of a server's connections, or of a client's one.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) limits: Limits,
    table: Mutex<Table>,
    next_peer: AtomicU64,
    total: Arc<Total>,
    /// Becomes true when the owner closes: nobody waits for room in the event channel any more.
    closing: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Table {
    /// Established connections. Entered by the connection's task before its `Up`, removed where `Down` is handed out.
    conns: HashMap<PeerId, Arc<Conn>>,
    /// Of those whose `Up` was handed out.
    by_identity: HashMap<Bytes, PeerId>,
}

impl Hub {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let total = Arc::new(Total {
            used: AtomicUsize::new(0),
            max: limits.inbound_total_bytes_max,
            freed: Notify::new(),
        });
        let (closing, _) = watch::channel(false);
        Arc::new(Self {
            limits,
            table: Mutex::default(),
            next_peer: AtomicU64::new(1),
            total,
            closing,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_peer(&self) -> PeerId {
        PeerId(self.next_peer.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn new_ledger(&self) -> Arc<Ledger> {
        Arc::new(Ledger {
            used: AtomicUsize::new(0),
            max: self.limits.inbound_bytes_max,
            freed: Notify::new(),
            total: Arc::clone(&self.total),
        })
    }

    /// Enters an established connection. Returns false, without entering it, when there are too many.
    pub(super) fn enter(&self, conn: &Arc<Conn>) -> bool {
        let mut table = self.table();
        let fits = table.conns.len() < self.limits.peers_max;
        if fits {
            table.conns.insert(conn.peer(), Arc::clone(conn));
        }
        fits
    }

    /// Gives the identity to a new peer. Returns the connection that had it, no longer in the table.
    pub(super) fn announce(&self, identity: &Bytes, peer: PeerId) -> Option<Arc<Conn>> {
        let mut table = self.table();
        let old = table.by_identity.insert(identity.clone(), peer)?;
        table.conns.remove(&old)
    }

    /// Takes a connection out of the table. Returns whether it was there.
    pub(super) fn remove(&self, peer: PeerId) -> bool {
        let mut table = self.table();
        let Some(conn) = table.conns.remove(&peer) else {
            return false;
        };
        if table.by_identity.get(conn.identity()) == Some(&peer) {
            table.by_identity.remove(conn.identity());
        }
        true
    }

    pub(super) fn find(&self, peer: PeerId) -> Option<Arc<Conn>> {
        self.table().conns.get(&peer).cloned()
    }

    pub(super) fn find_identity(&self, identity: &[u8]) -> Option<PeerId> {
        let table = self.table();
        let peer = table.by_identity.get(identity)?;
        table
            .conns
            .get(peer)
            .filter(|conn| !conn.is_closing())
            .map(|conn| conn.peer())
    }

    /// Starts the graceful end of all connections, present and future. Returns those that were open.
    pub(super) fn close(&self) -> Vec<Arc<Conn>> {
        self.closing.send_replace(true);
        let conns: Vec<_> = self.table().conns.values().cloned().collect();
        conns.into_iter().filter(|conn| conn.drain()).collect()
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Waits until the owner closes.
    pub(super) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        // The sender lives as long as self: an error cannot come.
        drop(closing.wait_for(|closing| *closing).await);
    }
}

/// Counts the bytes that a receiver holds of one connection.
#[derive(Debug)]
pub(super) struct Ledger {
    used: AtomicUsize,
    max: usize,
    freed: Notify,
    total: Arc<Total>,
}

/// Counts the bytes that a receiver holds of all connections.
#[derive(Debug)]
struct Total {
    used: AtomicUsize,
    max: usize,
    freed: Notify,
}

impl Ledger {
    pub(super) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.total.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.max && before.saturating_sub(bytes) < self.max {
            self.freed.notify_one();
        }
        let before = self.total.used.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.total.max && before.saturating_sub(bytes) < self.total.max {
            self.total.freed.notify_waiters();
        }
    }

    /// Tells whether the connection may read.
    pub(super) fn has_room(&self) -> bool {
        self.used.load(Ordering::Acquire) < self.max
            && self.total.used.load(Ordering::Acquire) < self.total.max
    }

    /// Waits until the connection may read. One waiter per ledger.
    pub(super) async fn room(&self) {
        while self.used.load(Ordering::Acquire) >= self.max {
            self.freed.notified().await;
        }
        loop {
            let freed = self.total.freed.notified();
            tokio::pin!(freed);
            // Registered before the look, so that no wake-up falls between.
            freed.as_mut().enable();
            if self.total.used.load(Ordering::Acquire) < self.total.max {
                return;
            }
            freed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::event::Credit;

    #[tokio::test]
    async fn credit_opens_the_door_again() {
        let limits = Limits {
            inbound_bytes_max: 10,
            inbound_total_bytes_max: 15,
            ..Limits::default()
        };
        let hub = Hub::new(limits);
        let (one, two) = (hub.new_ledger(), hub.new_ledger());
        let first = Credit::take(&one, 10);
        assert!(!one.has_room() && two.has_room());
        let second = Credit::take(&two, 5);
        assert!(!two.has_room(), "the total is used up");
        let waiting = two.room();
        tokio::pin!(waiting);
        assert!(
            tokio::time::timeout(std::time::Duration::ZERO, waiting.as_mut())
                .await
                .is_err()
        );
        drop(first);
        waiting.await;
        one.room().await;
        drop(second);
        assert_eq!(one.total.used.load(Ordering::Relaxed), 0);
    }
}
