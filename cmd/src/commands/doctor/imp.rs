//! Can the privileged helper do its work? Setuid, trusted, configured for this owner and shell; PAM; control groups.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::statvfs::{FsFlags, statvfs};
use serde_json::Value;

use super::Site;
use super::report::Report;

const SETUID: u32 = 0o4000;
const MAY_WRITE: u32 = 0o022;
/// Where PAM keeps its stacks.
const PAM_STACK: &str = "/etc/pam.d/flux";

fn names(config: Option<&Value>, key: &str) -> Vec<String> {
    let list = config
        .and_then(|config| config.pointer(key))
        .and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

/// Returns what is wrong with a program that root alone may change.
fn fault(path: &Path) -> Option<String> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(err) => return Some(err.to_string()),
    };
    if !found.is_file() {
        return Some("is not a regular file".to_owned());
    }
    if found.uid() != 0 {
        return Some(format!("belongs to user {}, not to root", found.uid()));
    }
    for part in path.ancestors() {
        let Ok(found) = fs::symlink_metadata(part) else {
            continue;
        };
        let mode = found.mode();
        let sticky = found.is_dir() && mode & 0o1000 != 0;
        if found.uid() != 0 || (mode & MAY_WRITE != 0 && !sticky) {
            return Some(format!("others than root may change {}", part.display()));
        }
    }
    None
}

/// The program, the shell, and who may use them.
pub(super) fn program(site: &Site, report: &mut Report) {
    const CHECK: &str = "imp";
    let Some(path) = site.text("/exec/imp") else {
        let advice = format!(
            "set exec.imp = \"{}/flux-imp\"",
            flux_formats::paths::libexecdir()
        );
        report.bad(
            CHECK,
            "exec.imp is not set in the system space: no job of a guest can run",
            advice,
        );
        return;
    };
    let install = format!("chown root:root {path} && chmod 4755 {path}");
    if let Some(fault) = fault(Path::new(path)) {
        report.bad(CHECK, format!("{path}: {fault}"), install);
        return;
    }
    if fs::metadata(path).is_ok_and(|found| found.mode() & SETUID == 0) {
        report.bad(CHECK, format!("{path} is not setuid"), install);
        return;
    }
    let nosuid = statvfs(Path::new(path)).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOSUID));
    if nosuid {
        let advice = "mount it without nosuid, or install flux-imp somewhere else";
        report.bad(
            CHECK,
            format!("{path} is on a file system mounted nosuid"),
            advice,
        );
        return;
    }
    match ask(site, path) {
        Ok(true) => report.good(CHECK, format!("{path}: setuid root, and it becomes root")),
        Ok(false) => report.good(
            CHECK,
            format!(
                "{path}: setuid root (not tried: run as root or as {})",
                site.owner
            ),
        ),
        Err(why) => report.bad(CHECK, format!("{path}: {why}"), "see what 'flux-imp whoami' says"),
    }
    let config = site.imp.1.as_ref();
    let users = names(config, "/exec/allowed-users");
    if !users.contains(&site.owner) {
        report.bad(
            CHECK,
            format!(
                "user {} may not use it: exec.allowed-users has {users:?}",
                site.owner
            ),
            format!("add \"{}\" to exec.allowed-users in the imp space", site.owner),
        );
    }
    let default = format!("{}/flux-shell", flux_formats::paths::libexecdir());
    let shell = site.text("/exec/job-shell").unwrap_or(&default);
    let shells = names(config, "/exec/allowed-shells");
    if !shells.iter().any(|allowed| allowed == shell) {
        report.bad(
            CHECK,
            format!("the shell {shell} may not be started: exec.allowed-shells has {shells:?}"),
            format!("add \"{shell}\" to exec.allowed-shells in the imp space"),
        );
    } else if let Some(fault) = fault(Path::new(shell)) {
        report.bad(
            "shell",
            format!("{shell}: {fault}"),
            "install it again, as root's",
        );
    } else {
        report.good("shell", format!("{shell} is root's, and allowed"));
    }
}

/// Runs `flux-imp whoami` as the instance owner. Returns false when this user cannot become the owner.
fn ask(site: &Site, path: &str) -> Result<bool, String> {
    let own = nix::unistd::geteuid();
    let mut command = if own.is_root() {
        let mut command = Command::new("setpriv");
        let owner = site
            .owner_uid()
            .ok_or_else(|| format!("there is no user {}", site.owner))?;
        command.args([&format!("--reuid={owner}"), "--clear-groups", path]);
        command
    } else if Some(own.as_raw()) == site.owner_uid() {
        Command::new(path)
    } else {
        return Ok(false);
    };
    let output = command
        .arg("whoami")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|err| format!("cannot be run: {err}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && said.contains("euid=0") {
        Ok(true)
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(
            format!("it did not become root: {} {}", said.trim(), stderr.trim())
                .trim()
                .to_owned(),
        )
    }
}

/// The stack of PAM's service `flux`.
pub(super) fn pam(site: &Site, report: &mut Report) {
    const CHECK: &str = "pam";
    let wanted = site
        .imp
        .1
        .as_ref()
        .and_then(|config| config.pointer("/exec/pam-support"));
    if wanted.and_then(Value::as_bool) != Some(true) {
        report.warning(
            CHECK,
            "exec.pam-support is off: jobs have the broker's limits",
            "set it in the imp space, and install etc/pam.d/flux",
        );
        return;
    }
    match fs::read_to_string(PAM_STACK) {
        Ok(text) => match missing_kind(&text) {
            Some(kind) => report.bad(
                CHECK,
                format!("{PAM_STACK} has no module of type {kind}"),
                "see etc/pam.d/flux for an example",
            ),
            None => report.good(CHECK, format!("{PAM_STACK} has auth and session modules")),
        },
        Err(err) => report.bad(CHECK, format!("{PAM_STACK}: {err}"), "install etc/pam.d/flux"),
    }
}

/// Returns the type of module that a stack lacks.
fn missing_kind(stack: &str) -> Option<&'static str> {
    let has = |kind: &str| {
        stack.lines().any(|line| {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or_default().trim_start_matches('-');
            (first == kind && words.count() >= 2)
                || (line.starts_with("@include") && !line.contains("common-account"))
        })
    };
    ["auth", "session"].into_iter().find(|kind| !has(kind))
}

/// Control groups, which hold jobs together.
pub(super) fn cgroup(site: &Site, report: &mut Report) {
    const CHECK: &str = "cgroup";
    let mode = site
        .imp
        .1
        .as_ref()
        .and_then(|config| config.pointer("/exec/cgroup"));
    let mode = mode.and_then(Value::as_str).unwrap_or("auto");
    if mode == "off" {
        let text = "exec.cgroup is off: a task that leaves its session outlives its job";
        report.warning(
            CHECK,
            text,
            "leave it at auto where the kernel has control groups (v2)",
        );
        return;
    }
    let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|root| Path::new(root).join("cgroup.controllers").exists());
    let Some(root) = root else {
        let advice = "boot with systemd.unified_cgroup_hierarchy=1";
        let text = "no control groups (v2) are mounted";
        if mode == "require" {
            report.bad(CHECK, text, advice);
        } else {
            report.warning(CHECK, text, advice);
        }
        return;
    };
    let kills = fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.path().join("cgroup.kill").exists());
    if kills || fs::read_dir(root).is_err() {
        report.good(CHECK, format!("v2 at {root}, with cgroup.kill"));
    } else {
        report.warning(
            CHECK,
            format!("v2 at {root}; whether the kernel has cgroup.kill cannot be seen yet"),
            "Linux 5.14 or later has it",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_need_auth_and_session() {
        let example = include_str!("../../../../etc/pam.d/flux");
        assert_eq!(missing_kind(example), None);
        assert_eq!(missing_kind("auth required pam_localuser.so\n"), Some("session"));
        assert_eq!(
            missing_kind("# auth x y\nsession required pam_limits.so\n"),
            Some("auth")
        );
        assert_eq!(
            missing_kind("auth\nsession required pam_limits.so\n"),
            Some("auth")
        );
    }

    #[test]
    fn a_program_anybody_may_change_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("imp");
        assert!(fault(&path).is_some());
        fs::write(&path, "").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(&path, mode).unwrap();
        assert!(fault(&path).is_some());
        assert!(fault(dir.path()).unwrap().contains("regular"));
    }
}
