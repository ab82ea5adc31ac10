//! Is the configuration of plugins, and what the standard ones read, well formed? Checked before anything is changed.

use super::names;
use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::fsd::Fsd;
use serde_json::Value;

/// Checks `[job-manager] plugins`, `[policies.NAME]` and all `policy.limits`.
///
/// # Errors
/// EINVAL with a text that names the key; the texts about limits are flux-core's.
pub(in super::super) fn check(config: &Value) -> Result<(), RpcError> {
    check_plugins(config)?;
    names::check_settings(config)?;
    check_limits(config, "")?;
    if let Some(Value::Object(queues)) = config.get("queues") {
        for (name, entry) in queues {
            check_limits(entry, &format!("queues.{name}."))?;
        }
    }
    Ok(())
}

fn inval(text: String) -> RpcError {
    RpcError::new(errno::EINVAL, text)
}

fn check_plugins(config: &Value) -> Result<(), RpcError> {
    let entries = match config.pointer("/job-manager/plugins") {
        None => return Ok(()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(inval("[job-manager.plugins] config must be an array".to_owned())),
    };
    for (index, entry) in entries.iter().enumerate() {
        let bad = |what: &str| Err(inval(format!("[job-manager.plugins][{index}]: {what}")));
        let Value::Object(entry) = entry else {
            return bad("must be a table");
        };
        for key in ["load", "remove"] {
            if entry.get(key).is_some_and(|value| !value.is_string()) {
                return bad(&format!("{key} must be a string"));
            }
        }
        if entry.get("conf").is_some_and(|conf| !conf.is_object()) {
            return bad("conf must be a table");
        }
        if !entry.contains_key("load") && !entry.contains_key("remove") {
            return bad("needs load or remove");
        }
    }
    Ok(())
}

fn check_limits(table: &Value, place: &str) -> Result<(), RpcError> {
    let Some(limits) = table.pointer("/policy/limits") else {
        return Ok(());
    };
    if !limits.is_object() {
        return Err(inval(format!("{place}policy.limits: must be a table")));
    }
    if let Some(duration) = limits.get("duration") {
        let name = format!("{place}policy.limits.duration");
        let Some(text) = duration.as_str() else {
            return Err(inval(format!("{name}: must be a string in FSD")));
        };
        if text.parse::<Fsd>().is_err() {
            return Err(inval(format!("{name}: FSD value is malformed")));
        }
    }
    for bound in ["max", "min"] {
        let Some(sizes) = limits.pointer(&format!("/job-size/{bound}")) else {
            continue;
        };
        let name = format!("{place}policy.limits.job-size.{bound}");
        let Value::Object(sizes) = sizes else {
            return Err(inval(format!("{name}: must be a table")));
        };
        for kind in ["nnodes", "ncores", "ngpus"] {
            let Some(size) = sizes.get(kind) else { continue };
            if !size
                .as_i64()
                .is_some_and(|size| (-1..=i64::from(i32::MAX)).contains(&size))
            {
                return Err(inval(format!("{name}: size must be -1 (unlimited), or >= 0")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn good_and_bad() {
        check(&json!({})).unwrap();
        check(&json!({
            "job-manager": {"plugins": [{"load": "perilog.so"}, {"remove": "all", "load": "x", "conf": {}}]},
            "policy": {"limits": {"duration": "2h", "job-size": {"max": {"nnodes": 8, "ncores": -1}}}},
            "queues": {"debug": {"policy": {"limits": {"duration": "30m"}}}},
        }))
        .unwrap();
        for (bad, text) in [
            (json!({"job-manager": {"plugins": {}}}), "config must be an array"),
            (
                json!({"job-manager": {"plugins": [{"load": 1}]}}),
                "[job-manager.plugins][0]: load",
            ),
            (json!({"job-manager": {"plugins": [{}]}}), "needs load or remove"),
            (
                json!({"policy": {"limits": {"duration": "2x"}}}),
                "policy.limits.duration: FSD value is malformed",
            ),
            (
                json!({"policy": {"limits": {"duration": 2}}}),
                "policy.limits.duration: must be a string",
            ),
            (
                json!({"queues": {"a": {"policy": {"limits": {"job-size": {"min": {"ngpus": -2}}}}}}}),
                "queues.a.policy.limits.job-size.min: size must be -1",
            ),
            (json!({"policies": {"x": {"grants": 1}}}), "policies.x.grants"),
        ] {
            let err = check(&bad).unwrap_err();
            assert!(
                err.text.contains(text) && err.errnum == errno::EINVAL,
                "{}",
                err.text
            );
        }
    }
}
