//! How does one side connect to a server? [`Client`], DEALER-like.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::conn::{Conn, Task};
use super::event::{Events, Lane, SendError};
use super::hub::Hub;
use super::opening::{self, OpeningError};
use crate::addr::Endpoint;
use crate::codec::metadata;
use crate::handshake::{ClientHandshake, Established, HandshakeError};
use crate::keys::{Keypair, PublicKey};
use crate::limits::{Heartbeat, Limits};

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The key that the server must prove.
    pub server_key: PublicKey,
    /// The client's own long-term keypair.
    pub keypair: Keypair,
    /// The identity under which the server knows this client: 1 to 255 bytes.
    pub identity: Bytes,
    /// The time that the TCP connection and the handshake together may take.
    pub connect_timeout: Duration,
    /// The bounds.
    pub limits: Limits,
    /// Heartbeats sent to the server; `None` sends none (the server's PING is always answered).
    pub heartbeat: Option<Heartbeat>,
    /// `TCP_USER_TIMEOUT`: the longest time that sent data may stay unacknowledged; `None` leaves the system's.
    pub tcp_user_timeout: Option<Duration>,
}

/// Why a client could not connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection, or it failed during the handshake.
    #[error("{endpoint} cannot be connected to")]
    Io {
        /// The endpoint asked for.
        endpoint: Endpoint,
        /// Why; of the last address tried.
        #[source]
        source: std::io::Error,
    },
    /// The server is not one that speaks CURVE with the expected key, or refuses this client.
    #[error("handshake with {endpoint} failed")]
    Handshake {
        /// The endpoint asked for.
        endpoint: Endpoint,
        /// Why.
        #[source]
        source: HandshakeError,
    },
    /// It took longer than `connect_timeout`.
    #[error("{endpoint} did not complete the handshake within {timeout:?}")]
    TimedOut {
        /// The endpoint asked for.
        endpoint: Endpoint,
        /// The time given.
        timeout: Duration,
    },
    /// The configured identity is not 1 to 255 bytes without a leading zero.
    #[error("identity is not 1 to 255 bytes without a leading zero")]
    Identity,
    /// The system's random number generator failed.
    #[error("no random numbers")]
    Random(#[source] getrandom::Error),
}

/// A DEALER-like socket: one connection to a server. Dropping it cuts the connection.
#[derive(Debug)]
pub struct Client {
    hub: Arc<Hub>,
    conn: Arc<Conn>,
    server_addr: SocketAddr,
    /// The connection's task.
    tasks: JoinSet<()>,
}

impl Client {
    /// Connects and completes the handshake. The first event is [`Event::Up`](crate::Event::Up); after
    /// [`Event::Down`](crate::Event::Down) no other comes, and the caller may connect again, with a backoff of its own.
    ///
    /// # Errors
    /// See [`ConnectError`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the attempt up.
    pub async fn connect(endpoint: &Endpoint, config: ClientConfig) -> Result<(Self, Events), ConnectError> {
        if !metadata::is_identity(&config.identity) {
            return Err(ConnectError::Identity);
        }
        let entropy = ClientHandshake::draw_entropy().map_err(ConnectError::Random)?;
        let mut machine = ClientHandshake::new(
            config.keypair.clone(),
            config.server_key,
            config.identity.clone(),
            &entropy,
        );
        let opening = async {
            let mut stream = match endpoint.socket_addr() {
                Some(addr) => TcpStream::connect(addr).await,
                None => TcpStream::connect((endpoint.host(), endpoint.port())).await,
            }?;
            opening::tune(&stream, config.tcp_user_timeout)?;
            let server_addr = stream.peer_addr()?;
            let (established, input) = opening::open(&mut stream, &mut machine).await?;
            Ok::<_, OpeningError>((stream, server_addr, established, input))
        };
        let opened = tokio::time::timeout(config.connect_timeout, opening).await;
        let endpoint = || endpoint.clone();
        let (stream, server_addr, established, input) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(OpeningError::Handshake(source))) => {
                return Err(ConnectError::Handshake {
                    endpoint: endpoint(),
                    source,
                });
            }
            Ok(Err(OpeningError::Io(source))) => {
                return Err(ConnectError::Io {
                    endpoint: endpoint(),
                    source,
                });
            }
            Err(_elapsed) => {
                return Err(ConnectError::TimedOut {
                    endpoint: endpoint(),
                    timeout: config.connect_timeout,
                });
            }
        };
        Ok(Self::start(config, stream, server_addr, established, input))
    }

    fn start(
        config: ClientConfig,
        stream: TcpStream,
        server_addr: SocketAddr,
        established: Established,
        input: BytesMut,
    ) -> (Self, Events) {
        let hub = Hub::new(Limits {
            peers_max: 1,
            ..config.limits
        });
        let (events_tx, events_rx) = mpsc::channel(hub.limits.event_batches_max.max(1));
        let public_key = established.peer_key;
        let (conn, opener) = Conn::new(hub.next_peer(), established, &hub.limits);
        hub.enter(&conn);
        let task = Task {
            conn: Arc::clone(&conn),
            opener,
            hub: Arc::clone(&hub),
            events: events_tx,
            heartbeat: config.heartbeat,
            input,
            public_key,
            addr: server_addr,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(stream));
        let events = Events::new(events_rx, Arc::clone(&hub));
        (
            Self {
                hub,
                conn,
                server_addr,
                tasks,
            },
            events,
        )
    }

    /// Returns the server's address.
    #[must_use]
    pub fn server_addr(&self) -> SocketAddr {
        self.server_addr
    }

    /// Queues a message for the server on the bulk lane. Never waits.
    ///
    /// The parts are encrypted and copied at once: the caller keeps nothing alive.
    ///
    /// # Errors
    /// See [`SendError`]; on an error nothing was queued. [`SendError::Unknown`] once the connection has ended.
    pub fn send<P: AsRef<[u8]>>(&self, parts: &[P]) -> Result<(), SendError> {
        self.send_on(Lane::Bulk, parts)
    }

    /// Queues a message for the server on the given lane. Never waits.
    ///
    /// # Errors
    /// See [`SendError`]; on an error nothing was queued.
    pub fn send_on<P: AsRef<[u8]>>(&self, lane: Lane, parts: &[P]) -> Result<(), SendError> {
        self.conn.send(lane, parts)
    }

    /// Returns the bytes queued and not yet given to the system.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.conn.queued_bytes()
    }

    /// Closes gracefully: writes what is queued and waits until the server has seen the end or the deadline has
    /// passed. Returns whether all was written in time. Messages that arrive meanwhile are dropped.
    pub async fn close(mut self, deadline: Duration) -> bool {
        self.hub.close();
        // At the deadline the connection is cut when its task is dropped.
        drop(tokio::time::timeout(deadline, self.tasks.join_next()).await);
        self.conn.is_drained()
    }
}
