//! Do the nodes agree? Each tells its facts (`flux doctor --facts`, through ssh), and they are compared with those here.
//!
//! Facts are the digests of configuration and certificate, the instance owner's number, the time, and a credential of the
//! node's MUNGE, which must be good here.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::hostlist::Hostlist;
use flux_sign::munge;
use serde_json::{Map, Value, json};

use super::report::Report;
use super::{Site, network, node};
use crate::commands::config::read_path;
use crate::common::json::sorted;

/// Seconds by which clocks may differ; MUNGE's credentials live for 300.
const CLOCK_TOLERANCE: f64 = 5.0;

fn digest(bytes: &[u8]) -> String {
    BlobRef::compute(HashType::Sha256, bytes).to_string()
}

/// Returns the digest of a space as `flux config get` would print it, null when it cannot be read.
fn of_space(directory: &Path) -> Value {
    read_path(directory).map_or(Value::Null, |config| {
        Value::from(digest(sorted(config).to_string().as_bytes()))
    })
}

/// Returns what another host compares.
pub(super) fn facts(site: &Site) -> Value {
    let cert = site
        .text("/bootstrap/curve_cert")
        .and_then(|path| fs::read(path).ok());
    let credential = munge::encode(&node::munge_socket(site), munge::connect, site.host.as_bytes());
    json!({
        "host": site.host,
        "time": node::time(),
        "owner": site.owner_uid(),
        "version": super::super::version::CORE_VERSION,
        "system": of_space(&site.system.0),
        "security": of_space(&site.security),
        "imp": of_space(&site.imp.0),
        "certificate": cert.map(|cert| digest(&cert)),
        "credential": credential.ok(),
    })
}

/// Asks a host for its facts.
fn ask(host: &str, owner: &str) -> Result<Map<String, Value>, String> {
    let ssh = std::env::var("FLUX_SSH").unwrap_or_else(|_| "ssh".to_owned());
    let mut words = ssh.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("ssh"));
    let output = command
        .args(words)
        .args([host, "flux", "doctor", "--facts", &format!("--owner={owner}")])
        .stdin(Stdio::null())
        .output()
        .map_err(|err| format!("{ssh}: {err}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|err| format!("its facts cannot be read: {err}"))
}

/// Returns what differs between the facts of a host and those here, and what to do.
fn differences(own: &Value, theirs: &Map<String, Value>, elapsed: f64) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    for (key, what, advice) in [
        ("version", "version", "install the same version everywhere"),
        (
            "owner",
            "user id of the instance owner",
            "give users the same number on all nodes",
        ),
        (
            "system",
            "system configuration",
            "copy the files of the system space to all nodes",
        ),
        (
            "security",
            "security configuration",
            "copy the files of the security space to all nodes",
        ),
        (
            "imp",
            "imp configuration",
            "copy the files of the imp space to all nodes",
        ),
        (
            "certificate",
            "certificate",
            "copy bootstrap.curve_cert to all nodes",
        ),
    ] {
        let (here, there) = (own.get(key), theirs.get(key));
        // what only root may read is compared when root asks on both sides
        let known = |value: Option<&Value>| value.is_some_and(|value| !value.is_null());
        let private = key == "certificate" && !(known(here) && known(there));
        if !private && here != there {
            found.push((format!("another {what}"), advice));
        }
    }
    let time = |value: Option<&Value>| value.and_then(Value::as_f64).unwrap_or(0.0);
    let apart = (time(theirs.get("time")) - time(own.get("time"))).abs();
    if apart > CLOCK_TOLERANCE + elapsed {
        found.push((
            format!("its clock is {apart:.0} s away"),
            "run chrony, ntpd or systemd-timesyncd on all nodes",
        ));
    }
    found
}

/// Compares with other hosts; `hosts` is a hostlist, or `all` for those of the configuration.
pub(super) fn compare(site: &Site, hosts: &str, report: &mut Report) {
    const CHECK: &str = "peers";
    let names: Vec<String> = if hosts == "all" {
        let configured = network::hosts(site).unwrap_or_default();
        configured.into_iter().map(|host| host.name).collect()
    } else {
        match hosts.parse::<Hostlist>() {
            Ok(list) => list.iter().map(|name| name.to_string()).collect(),
            Err(err) => {
                return report.bad(
                    CHECK,
                    format!("{hosts}: {err}"),
                    "give a hostlist, such as test[1-3]",
                );
            }
        }
    };
    for name in names.iter().filter(|name| **name != site.host) {
        let began = node::time();
        let own = facts(site);
        let theirs = match ask(name, &site.owner) {
            Ok(theirs) => theirs,
            Err(why) => {
                report.bad(
                    CHECK,
                    format!("{name}: {why}"),
                    format!("see that 'ssh {name} flux version' works"),
                );
                continue;
            }
        };
        let mut found = differences(&own, &theirs, node::time() - began);
        let credential = theirs.get("credential").and_then(Value::as_str);
        let socket = node::munge_socket(site);
        match credential.map(|text| munge::decode(&socket, munge::connect, text)) {
            Some(Ok(read)) if read.payload == name.as_bytes() || !read.payload.is_empty() => {}
            Some(Ok(_)) => found.push(("its MUNGE signs nothing".to_owned(), "look at its munged")),
            Some(Err(err)) => found.push((
                format!("its MUNGE is not trusted here: {err}"),
                "copy /etc/munge/munge.key to all nodes, and restart munged",
            )),
            None => found.push(("its MUNGE does not answer".to_owned(), "start munged there")),
        }
        if found.is_empty() {
            report.good(CHECK, format!("{name} agrees"));
        }
        for (what, advice) in found {
            report.bad(CHECK, format!("{name}: {what}"), advice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let own = json!({"host": "a", "time": 100.0, "owner": 500, "version": "1", "system": "s", "security": "c",
            "imp": "i", "certificate": "k", "credential": "x"});
        let theirs = |changes: Value| {
            let mut map = own.as_object().unwrap().clone();
            map.extend(changes.as_object().unwrap().clone());
            map
        };
        assert!(differences(&own, &theirs(json!({"host": "b", "time": 104.0})), 0.1).is_empty());
        let words = |changes| -> Vec<String> {
            let found = differences(&own, &theirs(changes), 0.0);
            found.into_iter().map(|(what, _)| what).collect()
        };
        assert_eq!(
            words(json!({"owner": 501})),
            ["another user id of the instance owner"]
        );
        assert_eq!(
            words(json!({"imp": null, "time": 0.0})),
            ["another imp configuration", "its clock is 100 s away"]
        );
        assert_eq!(words(json!({"certificate": "other"})), ["another certificate"]);
        assert!(
            words(json!({"certificate": null})).is_empty(),
            "only root could tell"
        );
    }
}
