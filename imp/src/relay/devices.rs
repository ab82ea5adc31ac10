//! Which device numbers do names stand for? Looked up by the relay, with its caller's rights.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::input::{DevicePolicy, Input};
use crate::sys::matches;
use crate::wire::LIST_MAX;

/// Devices of every job unless the policy is strict.
const USUAL: [(&str, &str); 8] = [
    ("/dev/null", "rwm"),
    ("/dev/zero", "rwm"),
    ("/dev/full", "rwm"),
    ("/dev/random", "rwm"),
    ("/dev/urandom", "rwm"),
    ("/dev/tty", "rwm"),
    ("/dev/ptmx", "rwm"),
    ("char-pts", "rw"),
];

/// Returns rules `c:MAJOR:MINOR:ACCESS` for the monitor, or `None` when all devices may be used; and what was left out.
pub fn resolve(input: &Input) -> (Option<Vec<String>>, Vec<String>) {
    let usual: &[(&str, &str)] = match input.policy {
        DevicePolicy::Auto if input.allow.is_empty() => return (None, Vec::new()),
        DevicePolicy::Auto | DevicePolicy::Closed => &USUAL,
        DevicePolicy::Strict => &[],
    };
    let listed = input
        .allow
        .iter()
        .map(|(spec, access)| (spec.as_str(), access.as_str()));
    let (mut rules, mut warnings) = (Vec::new(), Vec::new());
    for (spec, access) in listed.chain(usual.iter().copied()) {
        let access_is_good = !access.is_empty() && access.chars().all(|c| "rwm".contains(c));
        let found = if access_is_good { look_up(spec) } else { Vec::new() };
        if found.is_empty() && !USUAL.iter().any(|(name, _)| *name == spec) {
            warnings.push(format!(
                "exec: DeviceAllow: {spec} {access}: no such device, or no such access"
            ));
        }
        rules.extend(found.into_iter().map(|numbers| format!("{numbers}:{access}")));
    }
    if rules.len() > LIST_MAX {
        warnings.push(format!(
            "exec: DeviceAllow: only {LIST_MAX} of {} devices are allowed",
            rules.len()
        ));
        rules.truncate(LIST_MAX);
    }
    (Some(rules), warnings)
}

/// Returns `c:MAJOR:MINOR` of a path, or `c:MAJOR:*` of `char-NAME` and `block-NAME`, whose name may be a pattern.
fn look_up(spec: &str) -> Vec<String> {
    if let Some(name) = spec.strip_prefix("char-") {
        return groups("Character devices:", 'c', name);
    }
    if let Some(name) = spec.strip_prefix("block-") {
        return groups("Block devices:", 'b', name);
    }
    let Some(found) = fs::metadata(spec).ok().filter(|_| spec.starts_with("/dev/")) else {
        return Vec::new();
    };
    let kind = match found.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Vec::new(),
    };
    vec![format!(
        "{kind}:{}:{}",
        libc::major(found.rdev()),
        libc::minor(found.rdev())
    )]
}

fn groups(heading: &str, kind: char, pattern: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/devices").unwrap_or_default();
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.trim().split_once(' '))
        .filter(|(_, name)| matches(pattern, name))
        .map(|(major, _)| format!("{kind}:{major}:*"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(policy: DevicePolicy, allow: &[(&str, &str)]) -> Input {
        Input {
            policy,
            allow: allow
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect(),
            ..Input::default()
        }
    }

    #[test]
    fn policies() {
        assert_eq!(resolve(&input(DevicePolicy::Auto, &[])), (None, Vec::new()));
        let (rules, warnings) = resolve(&input(DevicePolicy::Strict, &[("/dev/null", "rw")]));
        assert_eq!((rules.unwrap(), warnings.len()), (vec!["c:1:3:rw".to_owned()], 0));
        let (rules, _) = resolve(&input(DevicePolicy::Closed, &[]));
        assert!(rules.unwrap().contains(&"c:1:5:rwm".to_owned()));
        let bad = [
            ("/dev/nothing", "r"),
            ("/etc/passwd", "r"),
            ("/dev/null", "x"),
            ("/dev/null", ""),
        ];
        let (rules, warnings) = resolve(&input(DevicePolicy::Strict, &bad));
        assert_eq!(rules, Some(Vec::new()));
        assert!(warnings.len() >= 2, "{warnings:?}");
    }
}
