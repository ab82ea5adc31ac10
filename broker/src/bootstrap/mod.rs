//! How does a broker learn its rank, the size, its parent and everyone's keys before it can talk to anyone?
//!
//! Three ways: PMI-1 from a launcher (also `flux start -s N` and our own job shell), a configuration file with
//! one certificate for all (a system instance), or alone.

mod address;
mod config;
mod pmi;

use crate::attrs::Attrs;
use crate::overlay::topology::{Topology, TopologyError};
use flux_zmtp::{Authorizer, Endpoint, Events, Keypair, Limits, PublicKey, Server, ServerConfig};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Where the parent listens and which key it proves.
#[derive(Clone, Debug)]
pub struct Parent {
    /// Its rank.
    pub rank: u32,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Its public key.
    pub key: PublicKey,
}

/// The listening side for children.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub server: Server,
    /// What happens on it.
    pub events: Events,
}

/// What bootstrap found out.
#[derive(Debug)]
pub struct Boot {
    /// `broker.boot-method`: `simple`, `config` or `single`.
    pub method: &'static str,
    /// The tree.
    pub topology: Topology,
    /// This broker's keys.
    pub keypair: Keypair,
    /// The parent, on ranks above 0.
    pub parent: Option<Parent>,
    /// Present when this rank has children.
    pub listener: Option<Listener>,
    /// Host names in rank order, when known here (rank 0 at least).
    pub hosts: Option<Vec<String>>,
    /// Job id of the enclosing job, when a Flux shell is the launcher.
    pub jobid: Option<String>,
    /// Depth of this instance, 0 at the root.
    pub instance_level: u32,
    /// `broker.mapping`: which ranks share a host, as a task map, when the launcher tells.
    pub mapping: Option<String>,
}

/// Why a broker cannot join its peers.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The launcher's PMI failed.
    #[error("PMI: {0}")]
    Pmi(#[from] flux_process::pmi::ClientError),
    /// A peer's business card is missing or unreadable.
    #[error("business card of rank {rank}: {what}")]
    Card {
        /// Whose card.
        rank: u32,
        /// What is wrong.
        what: String,
    },
    /// The topology cannot be built.
    #[error("tbon.topo: {0}")]
    Topology(#[from] TopologyError),
    /// The `[bootstrap]` table is not usable.
    #[error("[bootstrap] {0}")]
    Config(String),
    /// The certificate file is not usable.
    #[error("{path}: {what}")]
    Certificate {
        /// The file.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The environment allows no way of finding peers.
    #[error("FLUX_PMI_CLIENT_METHODS: {0}")]
    Methods(String),
    /// No address to listen at for children.
    #[error("{0}")]
    Address(String),
    /// The socket for children cannot be opened.
    #[error("cannot listen for children: {0}")]
    Bind(#[from] flux_zmtp::BindError),
    /// No keys.
    #[error("cannot make a keypair: {0}")]
    Key(#[from] flux_zmtp::KeyError),
}

/// Returns the socket limits of the overlay: a message may hold the content limit and some room.
pub fn overlay_limits() -> Limits {
    const CONTENT_MAX: usize = 1 << 30;
    Limits {
        message_bytes_max: CONTENT_MAX + 64 * 1024,
        outbound_bytes_max: CONTENT_MAX + (64 << 20),
        ..Limits::default()
    }
}

/// Opens the socket for children.
async fn listen(
    endpoint: &Endpoint,
    keypair: &Keypair,
    authorizer: Arc<dyn Authorizer>,
    tcp_user_timeout: Option<Duration>,
) -> Result<Listener, BootError> {
    let config = ServerConfig {
        keypair: keypair.clone(),
        authorizer,
        limits: overlay_limits(),
        heartbeat: Some(crate::overlay::heartbeat()),
        tcp_user_timeout,
    };
    let (server, events) = Server::bind(endpoint, config).await?;
    Ok(Listener { server, events })
}

/// Finds out rank, size, parent and keys.
///
/// # Errors
/// Any [`BootError`]; its text says which step failed and with what.
pub async fn boot(attrs: &Attrs, config: &Value) -> Result<Boot, BootError> {
    let has_table = config.get("bootstrap").and_then(|t| t.get("hosts")).is_some();
    if attrs.get("broker.boot-method") != Some("single") {
        if has_table {
            return config::boot(attrs, config).await;
        }
        if let Some(client) = pmi::connect()? {
            return pmi::boot(client, attrs, config).await;
        }
    }
    Ok(Boot {
        method: "single",
        topology: Topology::from_uri(topology_uri(attrs, config, "kary:32"), 0, 1)?,
        keypair: Keypair::generate()?,
        parent: None,
        listener: None,
        hosts: Some(vec![address::hostname(attrs)]),
        jobid: None,
        instance_level: 0,
        mapping: Some("[[0,1,1,1]]".to_owned()),
    })
}

/// Returns `tbon.topo` from the command line, else the configuration, else the default.
fn topology_uri<'a>(attrs: &'a Attrs, config: &'a Value, default: &'a str) -> &'a str {
    attrs
        .get("tbon.topo")
        .or_else(|| {
            config
                .get("tbon")
                .and_then(|t| t.get("topo"))
                .and_then(Value::as_str)
        })
        .unwrap_or(default)
}

/// Returns `tbon.tcp_user_timeout`, `None` for 0 (the system's own).
pub fn tcp_user_timeout(attrs: &Attrs, config: &Value) -> Option<Duration> {
    let text = config
        .get("tbon")
        .and_then(|t| t.get("tcp_user_timeout"))
        .and_then(Value::as_str)
        .or_else(|| attrs.get("tbon.tcp_user_timeout"))
        .unwrap_or("20s");
    text.parse::<flux_formats::fsd::Fsd>()
        .ok()
        .and_then(flux_formats::fsd::Fsd::to_duration)
        .filter(|d| !d.is_zero())
}
