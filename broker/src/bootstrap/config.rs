//! Bootstrap from the `[bootstrap]` table: hosts in rank order, one certificate for all (flux-config-bootstrap).

use super::{Boot, BootError, Parent, address, listen, tcp_user_timeout, topology_uri};
use crate::attrs::Attrs;
use crate::overlay::topology::Topology;
use flux_formats::hostlist::Hostlist;
use flux_zmtp::{Certificate, Endpoint, Keypair, PublicKey, Refusal};
use serde::Deserialize;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    curve_cert: Option<String>,
    default_port: Option<u16>,
    default_bind: Option<String>,
    default_connect: Option<String>,
    #[serde(default)]
    enable_ipv6: bool,
    hosts: Vec<HostEntry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostEntry {
    host: String,
    bind: Option<String>,
    connect: Option<String>,
    parent: Option<String>,
}

/// One rank's line, after expansion of host lists.
#[derive(Debug, Clone, Default)]
struct Host {
    name: String,
    bind: Option<String>,
    connect: Option<String>,
    parent: Option<String>,
}

/// Expands the host entries: rank order is that of first appearance, later entries of a host update it.
fn expand(entries: &[HostEntry]) -> Result<Vec<Host>, BootError> {
    let mut hosts: Vec<Host> = Vec::new();
    for entry in entries {
        let names: Hostlist = entry
            .host
            .parse()
            .map_err(|err| BootError::Config(format!("hosts: host = \"{}\": {err}", entry.host)))?;
        for name in names.iter() {
            let at = hosts.iter().position(|h| h.name == name).unwrap_or_else(|| {
                hosts.push(Host {
                    name: name.to_string(),
                    ..Host::default()
                });
                hosts.len() - 1
            });
            if let Some(host) = hosts.get_mut(at) {
                host.bind = entry.bind.clone().or(host.bind.take());
                host.connect = entry.connect.clone().or(host.connect.take());
                host.parent = entry.parent.clone().or(host.parent.take());
            }
        }
    }
    Ok(hosts)
}

fn parents(hosts: &[Host]) -> Result<Vec<u32>, BootError> {
    hosts
        .iter()
        .map(|host| match &host.parent {
            None => Ok(0),
            Some(parent) => hosts
                .iter()
                .position(|h| h.name == *parent)
                .and_then(|at| u32::try_from(at).ok())
                .ok_or_else(|| {
                    BootError::Config(format!(
                        "hosts: parent \"{parent}\" of {} is not a host",
                        host.name
                    ))
                }),
        })
        .collect()
}

/// Fills `%h` (host) and `%p` (port) into a URI of the table; an interface name becomes its address.
fn fill(uri: &str, host: &str, port: Option<u16>) -> Result<Endpoint, BootError> {
    let bad = |what: String| BootError::Config(format!("\"{uri}\": {what}"));
    let mut text = uri.replace("%h", host);
    if text.contains("%p") {
        let port = port.ok_or_else(|| bad("%p needs default_port".to_owned()))?;
        text = text.replace("%p", &port.to_string());
    }
    if let Some((name, port)) = text.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':'))
        && let Some(ip) = address::interface_ip(name)
    {
        text = format!("tcp://{ip}:{port}");
    }
    text.parse()
        .map_err(|err: flux_zmtp::EndpointError| bad(err.to_string()))
}

fn load_certificate(path: &str) -> Result<Keypair, BootError> {
    let bad = |what: String| BootError::Certificate {
        path: path.to_owned(),
        what,
    };
    let file = std::fs::File::open(path).map_err(|err| bad(err.to_string()))?;
    let meta = file.metadata().map_err(|err| bad(err.to_string()))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(bad("readable by group/other".to_owned()));
    }
    let text = std::io::read_to_string(file).map_err(|err| bad(err.to_string()))?;
    let certificate = Certificate::decode(&text).map_err(|err| bad(err.to_string()))?;
    certificate
        .keypair()
        .ok_or_else(|| bad("holds no secret key".to_owned()))
}

pub(super) async fn boot(attrs: &Attrs, config: &Value) -> Result<Boot, BootError> {
    let table = config.get("bootstrap").cloned().unwrap_or_default();
    let table: Table = serde_json::from_value(table).map_err(|err| BootError::Config(err.to_string()))?;
    let hosts = expand(&table.hosts)?;
    let hostname = address::hostname(attrs);
    let rank = hosts
        .iter()
        .position(|host| host.name == hostname)
        .and_then(|at| u32::try_from(at).ok())
        .ok_or_else(|| {
            BootError::Config(format!(
                "hosts: {hostname} is not in the list (attribute hostname)"
            ))
        })?;
    let size = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
    let topology = if hosts.iter().any(|host| host.parent.is_some()) {
        Topology::custom(rank, parents(&hosts)?)?
    } else {
        Topology::from_uri(topology_uri(attrs, config, "custom"), rank, size)?
    };
    let keypair = match &table.curve_cert {
        Some(path) => load_certificate(path)?,
        None if size == 1 => Keypair::generate()?,
        None => {
            return Err(BootError::Config(
                "curve_cert is required when there is more than one host".to_owned(),
            ));
        }
    };
    let endpoint_of = |rank: u32, bind: bool| -> Result<Endpoint, BootError> {
        let none = || BootError::Config(format!("rank {rank} has no entry in hosts"));
        let host = usize::try_from(rank)
            .ok()
            .and_then(|at| hosts.get(at))
            .ok_or_else(none)?;
        let (own, default, what) = if bind {
            (&host.bind, &table.default_bind, "bind")
        } else {
            (&host.connect, &table.default_connect, "connect")
        };
        let uri = own.as_ref().or(default.as_ref()).ok_or_else(|| {
            BootError::Config(format!("{}: no {what} URI and no default_{what}", host.name))
        })?;
        fill(uri, &host.name, table.default_port)
    };
    let _ = table.enable_ipv6; // IPv6 addresses are accepted without it
    let mut listener = None;
    let recovery = attrs.get("broker.recovery-mode").is_some();
    if !topology.children().is_empty() && !recovery {
        // everyone holds the same certificate: the identity must be the rank of one of our children
        let (shared, children): (PublicKey, Vec<u32>) = (keypair.public, topology.children().to_vec());
        let authorizer = move |key: &PublicKey, identity: &[u8]| {
            if *key != shared {
                return Err(Refusal::UnknownKey);
            }
            let rank = std::str::from_utf8(identity)
                .ok()
                .and_then(|text| text.parse::<u32>().ok());
            if rank.is_some_and(|rank| children.contains(&rank)) {
                Ok(())
            } else {
                Err(Refusal::WrongIdentity)
            }
        };
        let endpoint = endpoint_of(rank, true)?;
        listener = Some(
            listen(
                &endpoint,
                &keypair,
                Arc::new(authorizer),
                tcp_user_timeout(attrs, config),
            )
            .await?,
        );
    }
    let parent = match topology.parent() {
        Some(rank) => Some(Parent {
            rank,
            endpoint: endpoint_of(rank, false)?,
            key: keypair.public,
        }),
        None => None,
    };
    Ok(Boot {
        method: "config",
        topology,
        keypair,
        parent,
        listener,
        hosts: Some(hosts.into_iter().map(|host| host.name).collect()),
        jobid: None,
        instance_level: 0,
        mapping: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(json: serde_json::Value) -> Vec<HostEntry> {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn ranks_follow_first_appearance_and_later_entries_update() {
        let hosts = expand(&entries(serde_json::json!([
            {"host": "mgmt[1-2]"}, {"host": "n[0-2]", "parent": "mgmt2"}, {"host": "mgmt1", "bind": "tcp://*:9"}
        ])))
        .unwrap();
        let names: Vec<_> = hosts.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["mgmt1", "mgmt2", "n0", "n1", "n2"]);
        assert_eq!(parents(&hosts).unwrap(), [0, 0, 1, 1, 1]);
        assert_eq!(hosts[0].bind.as_deref(), Some("tcp://*:9"));
    }

    #[test]
    fn unknown_parents_are_named() {
        let hosts = expand(&entries(
            serde_json::json!([{"host": "a"}, {"host": "b", "parent": "zz"}]),
        ))
        .unwrap();
        assert!(parents(&hosts).unwrap_err().to_string().contains("zz"));
    }

    #[test]
    fn uris_are_filled() {
        assert_eq!(
            fill("tcp://%h:%p", "10.0.0.1", Some(8050)).unwrap().to_string(),
            "tcp://10.0.0.1:8050"
        );
        assert_eq!(
            fill("tcp://lo:%p", "x", Some(1)).unwrap().to_string(),
            "tcp://127.0.0.1:1"
        );
        assert!(fill("tcp://%h:%p", "a", None).is_err());
    }
}
