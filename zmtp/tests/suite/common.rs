//! What the tests share: configurations, and waiting for events with a deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
pub(crate) use flux_zmtp::Event;
use flux_zmtp::{
    Authorizer, Client, ClientConfig, ConnectError, Credit, Down, Endpoint, Events, Expected, Heartbeat,
    KeyTable, Keypair, Limits, PeerId, PublicKey, Server, ServerConfig,
};

/// No test waits longer for one event.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) events: Events,
    pub(crate) server_key: PublicKey,
    pub(crate) endpoint: Endpoint,
    pub(crate) table: Arc<KeyTable>,
}

pub(crate) fn server_config(keypair: &Keypair, authorizer: Arc<dyn Authorizer>) -> ServerConfig {
    ServerConfig {
        keypair: keypair.clone(),
        authorizer,
        limits: Limits::default(),
        heartbeat: None,
        tcp_user_timeout: Some(Duration::from_secs(20)),
    }
}

/// A server on a free loopback port whose table admits nobody yet.
pub(crate) async fn server(change: impl FnOnce(&mut ServerConfig)) -> World {
    server_at("tcp://127.0.0.1:*", change).await
}

pub(crate) async fn server_at(endpoint: &str, change: impl FnOnce(&mut ServerConfig)) -> World {
    let keypair = Keypair::generate().unwrap();
    let table = Arc::new(KeyTable::new());
    let mut config = server_config(&keypair, Arc::clone(&table) as Arc<dyn Authorizer>);
    change(&mut config);
    let (server, events) = Server::bind(&endpoint.parse().unwrap(), config).await.unwrap();
    let endpoint = Endpoint::from(server.local_addr());
    World {
        server,
        events,
        server_key: keypair.public,
        endpoint,
        table,
    }
}

impl World {
    /// A client's configuration with a new key that is bound to the identity.
    pub(crate) fn admit(&self, identity: &str) -> ClientConfig {
        let config = self.stranger(identity);
        self.table.insert(
            config.keypair.public,
            Expected::Identity(identity.as_bytes().into()),
        );
        config
    }

    /// The same with a key that the server does not know.
    pub(crate) fn stranger(&self, identity: &str) -> ClientConfig {
        ClientConfig {
            server_key: self.server_key,
            keypair: Keypair::generate().unwrap(),
            identity: Bytes::copy_from_slice(identity.as_bytes()),
            connect_timeout: Duration::from_secs(10),
            limits: Limits::default(),
            heartbeat: None,
            tcp_user_timeout: None,
        }
    }

    pub(crate) async fn connect(&mut self, identity: &str) -> (Client, Events, PeerId) {
        let config = self.admit(identity);
        let (client, events) = self.connect_with(config).await.unwrap();
        let peer = self.up(identity).await;
        (client, events, peer)
    }

    pub(crate) async fn connect_with(&self, config: ClientConfig) -> Result<(Client, Events), ConnectError> {
        let server_key = config.server_key;
        let (client, mut events) = Client::connect(&self.endpoint, config).await?;
        match next(&mut events).await {
            Event::Up {
                identity, public_key, ..
            } => assert!(identity.is_empty() && public_key == server_key),
            other => panic!("{other:?}"),
        }
        Ok((client, events))
    }

    pub(crate) async fn up(&mut self, expected: &str) -> PeerId {
        match next(&mut self.events).await {
            Event::Up { peer, identity, .. } => {
                assert_eq!(identity, expected);
                peer
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn down(&mut self, expected: PeerId) -> Down {
        down(&mut self.events, expected).await
    }

    pub(crate) async fn down_any(&mut self) -> PeerId {
        match next(&mut self.events).await {
            Event::Down { peer, .. } => peer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn message(&mut self) -> (PeerId, Vec<Bytes>) {
        let (peer, parts, _credit) = message(&mut self.events).await;
        (peer, parts)
    }
}

pub(crate) fn heartbeat(interval_millis: u64, timeout_millis: u64) -> Option<Heartbeat> {
    let (interval, timeout) = (
        Duration::from_millis(interval_millis),
        Duration::from_millis(timeout_millis),
    );
    Some(Heartbeat { interval, timeout })
}

pub(crate) async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(DEADLINE, events.recv())
        .await
        .expect("an event in time")
        .expect("an event")
}

pub(crate) async fn message(events: &mut Events) -> (PeerId, Vec<Bytes>, Credit) {
    match next(events).await {
        Event::Message { peer, parts, credit } => (peer, parts, credit),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn down(events: &mut Events, expected: PeerId) -> Down {
    match next(events).await {
        Event::Down { peer, reason } => {
            assert_eq!(peer, expected);
            reason
        }
        other => panic!("{other:?}"),
    }
}

/// Lets other tasks run until the condition holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting)
        .await
        .expect("the condition in time");
}
