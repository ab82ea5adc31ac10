//! Do the configuration's files belong to whom they should, and can they be read by whom they must?

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flux_sign::PathChecks;
use flux_zmtp::zcert::Certificate;

use super::Site;
use super::report::Report;
use crate::commands::config::read_path;
use crate::common::error::chain;

const OTHERS: u32 = 0o007;
const GROUP_AND_OTHERS: u32 = 0o077;
const MAY_WRITE: u32 = 0o022;

/// Returns the files `*.toml` of a space.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    paths.sort();
    paths
}

/// Returns what is wrong with owner and mode of a file that only root may change and everybody may read.
fn fault(path: &Path) -> Option<String> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(err) => return Some(err.to_string()),
    };
    let mode = found.mode() & 0o7777;
    if found.is_symlink() {
        Some("is a symbolic link".to_owned())
    } else if found.uid() != 0 {
        Some(format!("belongs to user {}, not to root", found.uid()))
    } else if mode & MAY_WRITE != 0 {
        Some(format!("others than root may write (mode {mode:04o})"))
    } else if mode & 0o004 == 0 {
        Some(format!("not everybody may read (mode {mode:04o})"))
    } else {
        None
    }
}

/// The three configuration spaces.
pub(super) fn spaces(site: &Site, report: &mut Report) {
    for (check, directory, example) in [
        ("system", &site.system.0, "system.toml"),
        ("security", &site.security, "security.toml"),
        ("imp-config", &site.imp.0, "imp.toml"),
    ] {
        let shown = directory.display();
        let found = files(directory);
        if found.is_empty() {
            report.bad(
                check,
                format!("{shown} has no *.toml"),
                format!("copy the example etc/flux/{example} there, and change it for this site"),
            );
            continue;
        }
        let parents = [Some(directory.as_path()), directory.parent()];
        let paths = parents
            .into_iter()
            .flatten()
            .chain(found.iter().map(PathBuf::as_path));
        let faults: Vec<String> = paths
            .filter_map(|path| Some(format!("{} {}", path.display(), fault(path)?)))
            .collect();
        if !faults.is_empty() {
            report.bad(
                check,
                faults.join("; "),
                "chown root:root and chmod 644 the files (755 the directories)",
            );
        } else if let Err(err) = read_path(directory) {
            report.bad(check, err.to_string(), "mend the file");
        } else {
            report.good(check, format!("{shown}: {} file(s), root's", found.len()));
        }
    }
    let checks = PathChecks::On { euid: 0, egid: 0 };
    match flux_sign::load(&site.security, checks) {
        Ok(config) => {
            let allowed: Vec<&str> = config.allowed_types.iter().map(|kind| kind.name()).collect();
            let text = format!(
                "default {}, allowed {}, good for {} s",
                config.default_type.name(),
                allowed.join(" "),
                config.max_ttl
            );
            if config.allowed_types.iter().any(|kind| kind.name() == "none") {
                let advice = "leave allowed-types = [ \"munge\" ]: 'none' proves nothing";
                report.bad("sign", text, advice);
            } else if config.allowed_types.contains(&config.default_type) {
                report.good("sign", text);
            } else {
                report.bad("sign", text, "set sign.default-type to one of allowed-types");
            }
        }
        Err(err) => report.bad(
            "sign",
            err.to_string(),
            "see etc/flux/security.toml for an example",
        ),
    }
    if site
        .of_system("/access/allow-guest-user")
        .and_then(serde_json::Value::as_bool)
        != Some(true)
    {
        report.bad(
            "access",
            "access.allow-guest-user is not true: only the instance owner may connect",
            "set it in the system space",
        );
    }
}

/// The certificate that all brokers share.
pub(super) fn certificate(site: &Site, report: &mut Report) {
    const CHECK: &str = "certificate";
    let Some(path) = site.text("/bootstrap/curve_cert") else {
        let advice = "make one with 'flux keygen', and set bootstrap.curve_cert in the system space";
        report.bad(CHECK, "bootstrap.curve_cert is not set", advice);
        return;
    };
    let owner = &site.owner;
    let advice = format!("chown {owner} {path} && chmod 0400 {path}");
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(err) => {
            let advice =
                format!("as user {owner}: flux keygen /tmp/curve.cert; then move it there, on all nodes");
            report.bad(CHECK, format!("{path}: {err}"), advice);
            return;
        }
    };
    let mode = found.mode() & 0o7777;
    if mode & GROUP_AND_OTHERS != 0 {
        let whom = if mode & OTHERS != 0 {
            "everybody"
        } else {
            "the group"
        };
        report.bad(
            CHECK,
            format!("{path} is open to {whom} (mode {mode:04o})"),
            advice,
        );
    } else if site.owner_uid().is_some_and(|uid| uid != found.uid()) {
        let text = format!("{path} belongs to user {}, not to {owner}", found.uid());
        report.bad(CHECK, text, advice);
    } else {
        match fs::read_to_string(path) {
            Ok(text) => match Certificate::decode(&text) {
                Ok(cert) if cert.keypair().is_some() => {
                    report.good(CHECK, format!("{path}: mode {mode:04o}, owner {owner}"));
                }
                Ok(_) => report.bad(
                    CHECK,
                    format!("{path} holds no secret key"),
                    "make one with flux keygen",
                ),
                Err(err) => report.bad(
                    CHECK,
                    format!("{path}: {}", chain(&err)),
                    "make one with flux keygen",
                ),
            },
            Err(_) => report.good(
                CHECK,
                format!("{path}: mode {mode:04o}, owner {owner} (content not looked at: run as root)"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn owners_and_modes_are_judged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        assert!(fault(&path).unwrap().contains("No such file"));
        fs::write(&path, "a = 1\n").unwrap();
        let own = fs::metadata(&path).unwrap().uid();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        match own {
            0 => {
                assert_eq!(fault(&path), None);
                mode(0o664);
                assert!(fault(&path).unwrap().contains("0664"));
                mode(0o600);
                assert!(fault(&path).unwrap().contains("not everybody may read"));
            }
            _ => assert!(fault(&path).unwrap().contains("not to root")),
        }
        let link = dir.path().join("b.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(fault(&link).unwrap(), "is a symbolic link");
        assert_eq!(files(dir.path()), [path, link]);
    }
}
