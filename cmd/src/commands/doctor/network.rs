//! Can the brokers reach each other? Names, addresses, ports: this node's own end, and its parent's.

use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use flux_formats::hostlist::Hostlist;
use serde_json::Value;

use super::Site;
use super::report::Report;

/// Where a running system instance listens for its users.
const BROKER: &str = "/run/flux/local";
/// How long a parent may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// One host of `[bootstrap] hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    bind: Option<String>,
    connect: Option<String>,
    parent: Option<String>,
}

/// Returns the hosts in rank order, with their own URIs.
///
/// # Errors
/// What is wrong with the table.
pub(super) fn hosts(site: &Site) -> Result<Vec<Host>, String> {
    let table = site
        .of_system("/bootstrap")
        .ok_or("the system space has no [bootstrap] table")?;
    let entries = table
        .get("hosts")
        .and_then(Value::as_array)
        .ok_or("bootstrap.hosts is not there")?;
    let mut hosts: Vec<Host> = Vec::new();
    for entry in entries {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let list = text("host").ok_or("an entry of bootstrap.hosts has no host")?;
        let list: Hostlist = list
            .parse()
            .map_err(|err| format!("bootstrap.hosts: {list}: {err}"))?;
        for name in list.iter() {
            let at = hosts
                .iter()
                .position(|host| host.name == name)
                .unwrap_or_else(|| {
                    hosts.push(Host {
                        name: name.to_string(),
                        ..Host::default()
                    });
                    hosts.len() - 1
                });
            if let Some(host) = hosts.get_mut(at) {
                host.bind = text("bind").or(host.bind.take());
                host.connect = text("connect").or(host.connect.take());
                host.parent = text("parent").or(host.parent.take());
            }
        }
    }
    let default = |key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
    let port = table
        .get("default_port")
        .and_then(Value::as_u64)
        .unwrap_or(0)
        .to_string();
    for host in &mut hosts {
        let fill = |uri: Option<String>, key: &str| {
            let uri = uri.or_else(|| default(key))?;
            Some(uri.replace("%h", &host.name).replace("%p", &port))
        };
        (host.bind, host.connect) = (
            fill(host.bind.take(), "default_bind"),
            fill(host.connect.take(), "default_connect"),
        );
    }
    Ok(hosts)
}

/// Returns host and port of a URI.
fn endpoint(uri: &str) -> Option<(&str, u16)> {
    let (host, port) = uri.strip_prefix("tcp://")?.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// Looks at this node's place in the tree.
pub(super) fn endpoints(site: &Site, report: &mut Report) {
    const CHECK: &str = "network";
    let hosts = match hosts(site) {
        Ok(hosts) => hosts,
        Err(why) => return report.bad(CHECK, why, "see etc/flux/system.toml for an example"),
    };
    let Some(rank) = hosts.iter().position(|host| host.name == site.host) else {
        let advice = "add it to bootstrap.hosts on all nodes, or set the host name";
        return report.bad(CHECK, format!("{} is not in bootstrap.hosts", site.host), advice);
    };
    let Some(own) = hosts.get(rank) else { return };
    report.good(CHECK, format!("{} is rank {rank} of {}", site.host, hosts.len()));
    if let Some((_, port)) = own.bind.as_deref().and_then(endpoint) {
        match TcpListener::bind(("0.0.0.0", port)) {
            Ok(_) => report.good("port", format!("{port} is free")),
            Err(_) if Path::new(BROKER).exists() => {
                report.good("port", format!("{port} is the running broker's"))
            }
            Err(err) => report.bad(
                "port",
                format!("{port}: {err}"),
                "choose another bootstrap.default_port",
            ),
        }
    } else if hosts.len() > 1 {
        let advice = "set bootstrap.default_bind, such as \"tcp://eth0:%p\", and default_port";
        report.bad("port", "this node has no endpoint to listen at", advice);
    }
    if rank == 0 {
        return;
    }
    let parent = own
        .parent
        .as_ref()
        .map_or(hosts.first(), |name| hosts.iter().find(|host| host.name == *name));
    let Some(parent) = parent else {
        let advice = "name a host of bootstrap.hosts as parent";
        return report.bad(
            "parent",
            "the parent of this node is not in bootstrap.hosts",
            advice,
        );
    };
    reach(parent, report);
}

/// Tries to connect to the parent.
fn reach(parent: &Host, report: &mut Report) {
    const CHECK: &str = "parent";
    let name = &parent.name;
    let Some((host, port)) = parent.connect.as_deref().and_then(endpoint) else {
        let advice = "set bootstrap.default_connect, such as \"tcp://%h:%p\", and default_port";
        return report.bad(CHECK, format!("{name} has no endpoint to connect to"), advice);
    };
    let address = match (host, port).to_socket_addrs().map(|mut all| all.next()) {
        Ok(Some(address)) => address,
        Ok(None) => return report.bad(CHECK, format!("{host} has no address"), "mend DNS or /etc/hosts"),
        Err(err) => return report.bad(CHECK, format!("{host}: {err}"), "mend DNS or /etc/hosts"),
    };
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) => report.good(CHECK, format!("{name} answers at {address}")),
        Err(err) if err.kind() == std::io::ErrorKind::ConnectionRefused => report.warning(
            CHECK,
            format!("{name} at {address} is reached, but no broker listens there"),
            format!("start its broker: systemctl start flux on {name}"),
        ),
        Err(err) => report.bad(
            CHECK,
            format!("{name} at {address}: {err}"),
            format!("look at the firewall and at routes between {name} and this node"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::PathBuf;

    fn site(bootstrap: Value) -> Site {
        Site {
            owner: "flux".to_owned(),
            system: (PathBuf::new(), Some(json!({ "bootstrap": bootstrap }))),
            security: PathBuf::new(),
            imp: (PathBuf::new(), None),
            host: "test1".to_owned(),
        }
    }

    #[test]
    fn hosts_get_their_uris() {
        let found = hosts(&site(json!({"default_port": 8050, "default_bind": "tcp://eth0:%p",
            "default_connect": "tcp://%h:%p", "hosts": [{"host": "test[0-1]"}, {"host": "test1", "parent": "test0",
            "bind": "tcp://lo:9"}]})))
        .unwrap();
        assert_eq!(found[0].bind.as_deref(), Some("tcp://eth0:8050"));
        assert_eq!(found[1].bind.as_deref(), Some("tcp://lo:9"));
        assert_eq!(found[1].connect.as_deref(), Some("tcp://test1:8050"));
        assert_eq!(found[1].parent.as_deref(), Some("test0"));
        assert_eq!(endpoint("tcp://test1:8050"), Some(("test1", 8050)));
        assert_eq!(endpoint("ipc:///x"), None);
        for bad in [
            json!({}),
            json!({"hosts": [{}]}),
            json!({"hosts": [{"host": "a["}]}),
        ] {
            assert!(hosts(&site(bad)).is_err());
        }
    }

    #[test]
    fn a_parent_is_reached_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let parent = |uri: &str| Host {
            name: "test0".to_owned(),
            connect: Some(uri.to_owned()),
            ..Host::default()
        };
        let verdict = |uri: &str| {
            let mut report = Report::default();
            reach(&parent(uri), &mut report);
            report.json()[0]["result"].as_str().unwrap().to_owned()
        };
        assert_eq!(verdict(&format!("tcp://127.0.0.1:{port}")), "ok");
        drop(listener);
        assert_eq!(verdict(&format!("tcp://127.0.0.1:{port}")), "warning");
        assert_eq!(verdict("tcp://no-such-host.invalid:1"), "FAILED");
        assert_eq!(verdict("nonsense"), "FAILED");
    }
}
