//! Bootstrap by PMI-1: business cards with endpoint and public key go through the launcher's KVS. (RFC 13)

use super::{Boot, BootError, Parent, address, listen, tcp_user_timeout, topology_uri};
use crate::attrs::Attrs;
use crate::overlay::topology::Topology;
use flux_formats::taskmap::{Form, Taskmap};
use flux_process::pmi::Client;
use flux_zmtp::{Endpoint, Expected, KeyTable, Keypair, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

#[derive(Debug, Serialize, Deserialize)]
struct Card {
    hostname: String,
    pubkey: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    uri: Vec<String>,
}

/// Variable that says which ways of finding peers are tried, and in which order.
const METHODS: &str = "FLUX_PMI_CLIENT_METHODS";

/// Returns a PMI client when a launcher offers one, none for a broker alone; traced on stderr with FLUX_PMI_DEBUG.
/// The ways named in FLUX_PMI_CLIENT_METHODS are tried in their order.
///
/// # Errors
/// The launcher's PMI fails, a way is not known, or none of them leads anywhere.
pub(super) fn connect() -> Result<Option<Client>, BootError> {
    let methods = std::env::var(METHODS).ok();
    for method in methods.as_deref().unwrap_or("simple single").split([' ', ',']) {
        match method {
            // those of other libraries, which this broker does not load
            "" | "libpmi" | "libpmi2" | "pmix" | "config" => {}
            "single" => return Ok(None),
            "simple" => {
                if let Some(client) = Client::from_env(trace())? {
                    return Ok(Some(client));
                }
            }
            other => {
                return Err(BootError::Methods(format!(
                    "'{other}' is not known; use simple or single"
                )));
            }
        }
    }
    Err(BootError::Methods(
        "no launcher was found by any of these ways".to_owned(),
    ))
}

/// Returns what shows the conversation with the launcher, when it was asked for.
fn trace() -> Option<flux_process::pmi::ClientTrace> {
    std::env::var_os("FLUX_PMI_DEBUG")?;
    Some(Box::new(|direction, line| {
        use std::io::Write;
        // tracing must not stop the boot when stderr is closed
        drop(writeln!(std::io::stderr(), "pmi: {direction:?} {line}"));
    }))
}

fn key_of(rank: u32) -> String {
    format!("flux.card.{rank}")
}

fn get_card(client: &mut Client, rank: u32) -> Result<(Card, PublicKey), BootError> {
    let bad = |what: String| BootError::Card { rank, what };
    let text = client
        .get(&key_of(rank))?
        .ok_or_else(|| bad("missing".to_owned()))?;
    let card: Card = serde_json::from_str(&text).map_err(|err| bad(err.to_string()))?;
    let key = card
        .pubkey
        .parse()
        .map_err(|err: flux_zmtp::KeyError| bad(err.to_string()))?;
    Ok((card, key))
}

/// Returns true when the launcher's process mapping puts all ranks on one node.
fn one_node(mapping: Option<&str>) -> bool {
    // (vector,(first node,nodes,processes per node),...)
    let Some(body) = mapping.and_then(|m| m.trim().strip_prefix("(vector,")) else {
        return false;
    };
    body.trim_end_matches(')').split("),").all(|block| {
        block
            .trim_matches(['(', ')', ' '])
            .split(',')
            .nth(1)
            .map(str::trim)
            == Some("1")
    }) && body.matches('(').count() == 1
}

/// Boots from an initialised PMI client.
pub(super) async fn boot(mut client: Client, attrs: &Attrs, config: &Value) -> Result<Boot, BootError> {
    let (rank, size) = (client.rank(), client.size());
    let topology = Topology::from_uri(topology_uri(attrs, config, "kary:32"), rank, size)?;
    let keypair = Keypair::generate()?;
    let level = client
        .get("flux.instance-level")?
        .and_then(|v| v.parse::<u32>().ok());
    let jobid = level.map(|_| client.kvsname().to_owned());
    let mut mapping = None;
    let mut listener = None;
    let mut parent = None;
    let mut hosts = Some(vec![address::hostname(attrs)]);
    if size > 1 {
        let process_mapping = client.get("PMI_process_mapping")?;
        // Flux tells in its own form, other launchers in PMI's
        let map = client.get("flux.taskmap")?.or_else(|| process_mapping.clone());
        mapping = map
            .and_then(|map| map.parse::<Taskmap>().ok()?.encode(Form::Taskmap).ok())
            .filter(|map| map != "[]");
        let keys = Arc::new(KeyTable::new());
        let mut uri = Vec::new();
        if !topology.children().is_empty() {
            let ip = if one_node(process_mapping.as_deref()) {
                IpAddr::V4(Ipv4Addr::LOCALHOST)
            } else {
                address::listen_address(attrs)?
            };
            let endpoint = Endpoint::from(SocketAddr::new(ip, 0));
            let bound = listen(&endpoint, &keypair, keys.clone(), tcp_user_timeout(attrs, config)).await?;
            uri.push(Endpoint::from(bound.server.local_addr()).to_string());
            listener = Some(bound);
        }
        let card = Card {
            hostname: address::hostname(attrs),
            pubkey: keypair.public.to_z85(),
            uri,
        };
        let text = serde_json::to_string(&card).map_err(|err| BootError::Card {
            rank,
            what: err.to_string(),
        })?;
        client.put(&key_of(rank), &text)?;
        client.barrier()?;
        for child in topology.children() {
            let (_, key) = get_card(&mut client, *child)?;
            keys.insert(key, Expected::Identity(child.to_string().into_bytes().into()));
        }
        if let Some(rank) = topology.parent() {
            let (card, key) = get_card(&mut client, rank)?;
            let bad = |what: String| BootError::Card { rank, what };
            let uri = card
                .uri
                .first()
                .ok_or_else(|| bad("has no endpoint".to_owned()))?;
            let endpoint = uri
                .parse()
                .map_err(|err: flux_zmtp::EndpointError| bad(err.to_string()))?;
            parent = Some(Parent { rank, endpoint, key });
        }
        hosts = if rank == 0 {
            let cards = (0..size).map(|r| get_card(&mut client, r).map(|(card, _)| card.hostname));
            Some(cards.collect::<Result<_, _>>()?)
        } else {
            None
        };
    }
    client.finalize()?;
    Ok(Boot {
        method: "simple",
        topology,
        keypair,
        parent,
        listener,
        hosts,
        jobid,
        // a launcher that is Flux has counted its own level already
        instance_level: level.unwrap_or(0),
        mapping,
    })
}

#[cfg(test)]
mod tests {
    use super::one_node;

    #[test]
    fn process_mappings() {
        assert!(one_node(Some("(vector,(0,1,4))")));
        assert!(!one_node(Some("(vector,(0,4,1))")));
        assert!(!one_node(Some("(vector,(0,1,2),(1,1,2))")));
        assert!(!one_node(Some("")));
        assert!(!one_node(None));
    }
}
