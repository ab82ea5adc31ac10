//! Is the node itself fit? Users, MUNGE, clock, cores and GPUs, room for the instance's state.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_sign::munge;
use nix::sys::statvfs::statvfs;
use serde_json::Value;

use super::Site;
use super::report::Report;
use crate::common::time::now;
use crate::common::user;

/// Free bytes below which the leader's state is in danger.
const ROOM: u64 = 1 << 30;

/// The instance owner, and that guests have names.
pub(super) fn users(site: &Site, report: &mut Report) {
    const CHECK: &str = "users";
    match site.owner_uid() {
        None => report.bad(
            CHECK,
            format!("there is no user {}", site.owner),
            format!(
                "useradd --system {}, with the same number on all nodes",
                site.owner
            ),
        ),
        Some(0) => report.bad(
            CHECK,
            format!("user {} is root", site.owner),
            "run the instance as a user without privilege",
        ),
        Some(uid) => report.good(CHECK, format!("{} is user {uid}", site.owner)),
    }
}

/// Returns where munged listens.
pub(super) fn munge_socket(site: &Site) -> PathBuf {
    let config = flux_sign::load(&site.security, flux_sign::PathChecks::Off).ok();
    let configured = config.and_then(|config| config.munge_socket);
    configured.unwrap_or_else(|| PathBuf::from(munge::SOCKET_DEFAULT))
}

/// MUNGE on this node.
pub(super) fn munge(site: &Site, report: &mut Report) {
    const CHECK: &str = "munge";
    let socket = munge_socket(site);
    let made = munge::encode(&socket, munge::connect, b"flux doctor");
    let read = made.and_then(|credential| munge::decode(&socket, munge::connect, &credential));
    match read {
        Ok(credential) if credential.uid == user::own() => {
            report.good(CHECK, format!("munged at {} signs and checks", socket.display()));
        }
        Ok(credential) => report.bad(
            CHECK,
            format!("munged takes this user for user {}", credential.uid),
            "look at munged's log",
        ),
        Err(err) => report.bad(
            CHECK,
            format!("{}: {err}", socket.display()),
            "start munged: systemctl enable --now munge",
        ),
    }
}

/// Whether somebody keeps the clock right. How far other nodes are away shows with `--peers`.
pub(super) fn clock(report: &mut Report) {
    const CHECK: &str = "clock";
    let mut command = Command::new("timedatectl");
    command
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => {
            if String::from_utf8_lossy(&output.stdout).trim() == "yes" {
                report.good(CHECK, "synchronized");
            } else {
                report.warning(CHECK, "not synchronized", "run chrony, ntpd or systemd-timesyncd");
            }
        }
        _ => report.skipped(
            CHECK,
            "timedatectl does not tell; compare with other hosts: --peers",
        ),
    }
}

/// Returns the ids that the configuration gives a host, for `cores` or `gpus`; `None` when it names no resources.
fn configured(site: &Site, what: &str) -> Option<IdSet> {
    let entries = site.of_system("/resource/config")?.as_array()?;
    let mut ids = IdSet::default();
    for entry in entries {
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let hosts: Hostlist = text("hosts")?.parse().ok()?;
        if hosts.iter().any(|host| host == site.host)
            && let Some(list) = text(what)
        {
            ids = ids.union(&list.parse().ok()?);
        }
    }
    Some(ids)
}

/// Counts the cores in hwloc's XML.
fn cores_in(xml: &str) -> usize {
    xml.matches("<object type=\"Core\"").count()
}

/// What the node has, against the configuration.
pub(super) fn resources(site: &Site, report: &mut Report) {
    const CHECK: &str = "resources";
    let Some(wanted) = configured(site, "cores") else {
        let text = "resource.config is not there, or not readable: resources are not configured";
        report.warning(CHECK, text, "see etc/flux/system.toml for an example");
        return;
    };
    if wanted.is_empty() {
        let advice = "name the host in an entry of resource.config, unless it only manages";
        report.warning(
            CHECK,
            format!("the configuration has no cores for {}", site.host),
            advice,
        );
        return;
    }
    let program = Path::new(&flux_formats::paths::libexecdir()).join("flux-hwloc-xml");
    let output = Command::new(&program)
        .arg("--norestrict")
        .stdin(Stdio::null())
        .output();
    let found = match output {
        Ok(output) if output.status.success() => cores_in(&String::from_utf8_lossy(&output.stdout)),
        _ => {
            report.skipped(CHECK, format!("{} cannot be run", program.display()));
            return;
        }
    };
    let count = usize::try_from(wanted.count()).unwrap_or(usize::MAX);
    let last = wanted
        .last()
        .and_then(|last| usize::try_from(last).ok())
        .unwrap_or(0);
    if last >= found {
        report.bad(
            CHECK,
            format!("the configuration has cores {wanted}, the node {found} cores"),
            "mend cores in resource.config: the node would be drained",
        );
    } else if count < found {
        let text = format!("the configuration has cores {wanted}, the node {found} cores");
        report.warning(CHECK, text, "some cores will not be used");
    } else {
        report.good(CHECK, format!("{found} cores, as configured"));
    }
    if let Some(gpus) = configured(site, "gpus").filter(|gpus| !gpus.is_empty()) {
        report.skipped(
            CHECK,
            format!("GPUs {gpus} are configured; whether they are there is not looked at"),
        );
    }
}

/// Where the leader keeps its state.
pub(super) fn state(site: &Site, report: &mut Report) {
    const CHECK: &str = "statedir";
    let path = "/var/lib/flux";
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(_) => {
            report.skipped(
                CHECK,
                format!("{path} is not there yet: systemd makes it at the first start"),
            );
            return;
        }
    };
    let mode = found.mode() & 0o7777;
    let advice = format!("chown {0}:{0} {path} && chmod 0700 {path}", site.owner);
    if site.owner_uid().is_some_and(|uid| uid != found.uid()) {
        report.bad(CHECK, format!("{path} belongs to user {}", found.uid()), advice);
    } else if mode & 0o077 != 0 {
        report.bad(
            CHECK,
            format!("{path} is open to others (mode {mode:04o})"),
            advice,
        );
    } else {
        let free = statvfs(path).map_or(u64::MAX, |fs| {
            fs.blocks_available().saturating_mul(fs.fragment_size())
        });
        let text = format!("{path}: {} MiB free", free >> 20);
        if free < ROOM {
            report.warning(
                CHECK,
                text,
                "make room, at least on the leader's node: all jobs' records go there",
            );
        } else {
            report.good(CHECK, text);
        }
    }
}

/// Returns the time here, for others to compare.
pub(super) fn time() -> f64 {
    now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn site(config: Value) -> Site {
        Site {
            owner: "flux".to_owned(),
            system: (PathBuf::new(), Some(config)),
            security: PathBuf::new(),
            imp: (PathBuf::new(), None),
            host: "test1".to_owned(),
        }
    }

    #[test]
    fn entries_of_a_host_add_up() {
        let config = json!({"resource": {"config": [
            {"hosts": "test[0-3]", "cores": "0-3"}, {"hosts": "test1", "cores": "4-5", "gpus": "0"}, {"hosts": "x"}]}});
        let site = site(config);
        assert_eq!(configured(&site, "cores").unwrap().to_string(), "0-5");
        assert_eq!(configured(&site, "gpus").unwrap().to_string(), "0");
    }

    #[test]
    fn nothing_configured() {
        assert!(configured(&site(json!({})), "cores").is_none());
        assert!(configured(&site(json!({"resource": {"config": [{"hosts": "["}]}})), "cores").is_none());
        assert_eq!(
            cores_in("<object type=\"Core\" os_index=\"0\"><object type=\"PU\"/></object>"),
            1
        );
    }
}
