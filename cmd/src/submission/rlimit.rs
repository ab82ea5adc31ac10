//! Which resource limits does a job get? The caller's soft limits, changed by the rules of `--rlimit`.

use flux_process::rlimit::{self, INFINITY, Resource};
use serde_json::{Map, Value, json};

use crate::common::error::{CmdError, fail};
use crate::common::glob;

/// Limits in the order in which the original writes them.
const NAMES: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "nofile",
    "as",
    "rss",
    "nproc",
    "memlock",
    "ofile",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
    "sigpending",
];
/// Limits that are not passed on unless a rule asks for them.
const NOT_DEFAULT: [&str; 7] = [
    "memlock",
    "ofile",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
    "sigpending",
];

/// Returns the soft limit of the calling process; -1 is no limit.
fn current(name: &str) -> Option<i64> {
    let limit = rlimit::get(Resource::from_name(name)?).ok()?.soft;
    if limit == INFINITY {
        Some(-1)
    } else {
        i64::try_from(limit).ok()
    }
}

/// Returns the limits of the calling process that jobs inherit.
pub(crate) fn defaults() -> Map<String, Value> {
    NAMES
        .iter()
        .filter(|name| !NOT_DEFAULT.contains(name))
        .filter_map(|name| Some(((*name).to_owned(), json!(current(name)?))))
        .collect()
}

/// Applies rules in order: `-GLOB` removes, `GLOB` adds the current limits, `NAME=VALUE` sets.
///
/// # Errors
/// An unknown limit, or a value that is neither a number nor `unlimited`.
pub(crate) fn apply(rules: &[&str], mut limits: Map<String, Value>) -> Result<Map<String, Value>, CmdError> {
    for rule in rules {
        if let Some(pattern) = rule.strip_prefix('-') {
            let pattern = pattern.to_ascii_lowercase();
            limits.retain(|name, _| !glob::matches(&pattern, name));
        } else if let Some((name, text)) = rule.split_once('=') {
            let name = name.to_ascii_lowercase();
            if !NAMES.contains(&name.as_str()) {
                return fail(format!("--rlimit: No such resource {name}"));
            }
            limits.insert(name, json!(value(rule, text)?));
        } else {
            let pattern = rule.to_ascii_lowercase();
            let known: Vec<&&str> = NAMES
                .iter()
                .filter(|name| glob::matches(&pattern, name))
                .collect();
            if known.is_empty() {
                return fail(format!("--rlimit: No matching resource: {rule}"));
            }
            for name in known {
                if let Some(limit) = current(name) {
                    limits.entry(name.to_string()).or_insert_with(|| json!(limit));
                }
            }
        }
    }
    Ok(limits)
}

fn value(rule: &str, text: &str) -> Result<i64, CmdError> {
    if matches!(text, "unlimited" | "infinity" | "inf") {
        return Ok(-1);
    }
    text.parse()
        .or_else(|_| fail(format!("--rlimit: Invalid value in {rule}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let start: Map<String, Value> = [("cpu", -1), ("nofile", 1024)]
            .map(|(k, v)| (k.to_owned(), json!(v)))
            .into_iter()
            .collect();
        let show = |rules: &[&str]| Value::Object(apply(rules, start.clone()).unwrap()).to_string();
        assert_eq!(show(&[]), r#"{"cpu":-1,"nofile":1024}"#);
        assert_eq!(
            show(&["nofile=20", "CORE=unlimited"]),
            r#"{"cpu":-1,"nofile":20,"core":-1}"#
        );
        assert_eq!(show(&["-*"]), "{}");
        assert_eq!(show(&["-n*"]), r#"{"cpu":-1}"#);
        assert!(
            apply(&["memlock"], start.clone())
                .unwrap()
                .contains_key("memlock")
        );
        for bad in ["foo=1", "cpu=x", "zz*"] {
            assert!(apply(&[bad], start.clone()).is_err(), "{bad}");
        }
        assert!(defaults().contains_key("nofile") && !defaults().contains_key("memlock"));
    }
}
