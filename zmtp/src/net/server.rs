//! How does one side accept many peers? [`Server`], ROUTER-like.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::accept::{Acceptor, Counters};
use super::event::{Events, Lane, PeerId, SendError};
use super::hub::Hub;
use crate::addr::Endpoint;
use crate::auth::Authorizer;
use crate::keys::Keypair;
use crate::limits::{Heartbeat, Limits};

/// What a server needs to know.
#[derive(Clone)]
pub struct ServerConfig {
    /// The server's long-term keypair.
    pub keypair: Keypair,
    /// Who may connect: a [`KeyTable`](crate::KeyTable) or a function.
    pub authorizer: Arc<dyn Authorizer>,
    /// The bounds.
    pub limits: Limits,
    /// Heartbeats sent to each peer; `None` sends none (a peer's PING is always answered).
    pub heartbeat: Option<Heartbeat>,
    /// `TCP_USER_TIMEOUT`: the longest time that sent data may stay unacknowledged; `None` leaves the system's.
    /// A peer that does not read is also ended by it.
    pub tcp_user_timeout: Option<Duration>,
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("keypair", &self.keypair)
            .field("limits", &self.limits)
            .field("heartbeat", &self.heartbeat)
            .field("tcp_user_timeout", &self.tcp_user_timeout)
            .finish_non_exhaustive()
    }
}

/// A server that cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refuses: the host name has no address, the port is taken, ...
    #[error("{endpoint} cannot be listened on")]
    Io {
        /// The endpoint asked for.
        endpoint: Endpoint,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What a graceful close achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseReport {
    /// Connections whose queue was written and whose end the peer has seen.
    pub drained_count: usize,
    /// Connections cut off at the deadline or failed before it.
    pub cut_count: usize,
}

/// Counters of a server since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Connections accepted from the listener.
    pub accepted_count: u64,
    /// Connections that became peers.
    pub established_count: u64,
    /// Handshakes that failed: malformed, wrong server key, junk, closed early.
    pub failed_count: u64,
    /// Clients with a valid handshake that the authorizer refused.
    pub refused_count: u64,
    /// Handshakes that took too long.
    pub timed_out_count: u64,
    /// Handshakes dropped in favour of newer connections.
    pub evicted_count: u64,
    /// Handshakes in progress now.
    pub handshakes_now: usize,
}

/// A ROUTER-like socket: accepts peers and addresses each. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Server {
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    local_addr: SocketAddr,
    /// The accepting task, which owns the connections' tasks.
    tasks: JoinSet<()>,
}

impl Server {
    /// Binds, and starts to accept peers on the current tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] when the endpoint cannot be listened on.
    pub async fn bind(endpoint: &Endpoint, config: ServerConfig) -> Result<(Self, Events), BindError> {
        let io_error = |source| BindError::Io {
            endpoint: endpoint.clone(),
            source,
        };
        let listener = match endpoint.socket_addr() {
            Some(addr) => TcpListener::bind(addr).await,
            None => TcpListener::bind((endpoint.host(), endpoint.port())).await,
        }
        .map_err(io_error)?;
        let local_addr = listener.local_addr().map_err(io_error)?;
        let hub = Hub::new(config.limits.clone());
        let (events_tx, events_rx) = mpsc::channel(config.limits.event_batches_max.max(1));
        let counters = Arc::new(Counters::default());
        let acceptor = Acceptor::new(
            listener,
            config,
            Arc::clone(&hub),
            events_tx,
            Arc::clone(&counters),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(acceptor.run());
        let events = Events::new(events_rx, Arc::clone(&hub));
        Ok((
            Self {
                hub,
                counters,
                local_addr,
                tasks,
            },
            events,
        ))
    }

    /// Returns the address listened on, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Queues a message for a peer on the bulk lane. Never waits.
    ///
    /// The parts are encrypted and copied at once: the caller keeps nothing alive.
    ///
    /// # Errors
    /// See [`SendError`]; on an error nothing was queued.
    pub fn send<P: AsRef<[u8]>>(&self, peer: PeerId, parts: &[P]) -> Result<(), SendError> {
        self.send_on(Lane::Bulk, peer, parts)
    }

    /// Queues a message for a peer on the given lane. Never waits.
    ///
    /// # Errors
    /// See [`SendError`]; on an error nothing was queued.
    pub fn send_on<P: AsRef<[u8]>>(&self, lane: Lane, peer: PeerId, parts: &[P]) -> Result<(), SendError> {
        self.hub.find(peer).ok_or(SendError::Unknown)?.send(lane, parts)
    }

    /// Returns the bytes queued for a peer and not yet given to the system, or `None` for an unknown peer.
    #[must_use]
    pub fn queued_bytes(&self, peer: PeerId) -> Option<usize> {
        self.hub.find(peer).map(|conn| conn.queued_bytes())
    }

    /// Finds the live peer with this identity, once its `Up` was received.
    #[must_use]
    pub fn peer_by_identity(&self, identity: &[u8]) -> Option<PeerId> {
        self.hub.find_identity(identity)
    }

    /// Ends a connection: nothing more is accepted for it, what is queued is written within [`Limits::linger`], then it
    /// closes with [`Down::Disconnected`](crate::Down::Disconnected). Messages that still arrive are dropped.
    /// Returns whether the peer was there and open.
    pub fn disconnect(&self, peer: PeerId) -> bool {
        self.hub.find(peer).is_some_and(|conn| conn.drain())
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        self.counters.snapshot()
    }

    /// Closes gracefully: stops listening, writes what is queued to every peer, and waits until each has seen the
    /// end or the deadline has passed. Messages that arrive meanwhile are dropped.
    pub async fn close(mut self, deadline: Duration) -> CloseReport {
        let conns = self.hub.close();
        // At the deadline the rest is cut when the tasks are dropped.
        drop(tokio::time::timeout(deadline, self.tasks.join_next()).await);
        let drained_count = conns.iter().filter(|conn| conn.is_drained()).count();
        CloseReport {
            drained_count,
            cut_count: conns.len() - drained_count,
        }
    }
}
