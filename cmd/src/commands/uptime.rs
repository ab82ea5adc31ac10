//! `flux uptime`: how is the instance, at a glance?

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::{Message, NODEID_ANY, attr};
use flux_formats::idset::IdSet;
use flux_formats::number::format_g;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::common::ctx::{Ctx, stdout};
use crate::common::error::CmdResult;
use crate::common::time::{now, strftime};
use crate::common::user;

pub(super) fn args(command: Command) -> Command {
    command
}

#[derive(Deserialize)]
struct State {
    state: String,
    duration: f64,
}

pub(super) fn run(ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    // Everything is asked at once; only the state is needed for an answer.
    let state = handle.rpc_message(Message::request("state-machine.get", 0, None))?;
    let owner = attr::request(&mut handle, "security.owner", NODEID_ANY)?;
    let level = attr::request(&mut handle, "instance-level", NODEID_ANY)?;
    let size = attr::request(&mut handle, "size", NODEID_ANY)?;
    let started = attr::request(&mut handle, "broker.starttime", 0)?;
    let online = handle.rpc("groups.get", 0, &json!({ "name": "broker.online" }))?;
    let resources = handle.rpc_message(Message::request("resource.status", 0, None))?;
    let queues = handle.rpc_message(Message::request("job-manager.queue-list", 0, None))?;
    let state: State = handle.get(&state)?;
    let owner = attr::finish(&mut handle, &owner)?;
    let owner = owner.trim().parse().map_or(owner, user::name);
    let level = attr::finish(&mut handle, &level)?;
    let size: u64 = attr::finish(&mut handle, &size)?.trim().parse().unwrap_or(0);
    let started: Option<f64> = attr::finish(&mut handle, &started)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let members = |value: Value| -> Option<u64> {
        Some(value.get("members")?.as_str()?.parse::<IdSet>().ok()?.count())
    };
    let online = handle.get::<Value>(&online).ok().and_then(members);
    let resources: Option<Value> = handle.get(&resources).ok();
    let time = now();
    let since = match started {
        Some(started) if state.state == "run" => time - started,
        _ => state.duration,
    };
    let mut line = format!(
        " {} {} {},  owner {owner},  depth {level},  size {size}",
        strftime(time, "%T"),
        state.state,
        rough(since)
    );
    if let Some(drained) = resources.as_ref().and_then(drained) {
        line.push_str(&format!(",  {drained} drained"));
    }
    if let Some(offline) = online
        .map(|online| size.saturating_sub(online))
        .filter(|offline| *offline > 0)
    {
        line.push_str(&format!(",  {offline} offline"));
    }
    let mut out = stdout();
    writeln!(out, "{line}")?;
    let queues: Value = handle.get(&queues).unwrap_or(Value::Null);
    if let Some(second) = queue_line(&mut handle, &queues)? {
        writeln!(out, "{second}")?;
    }
    out.flush()?;
    Ok(0)
}

fn drained(resources: &Value) -> Option<u64> {
    let sets = resources.get("drain")?.as_object()?;
    let count = sets
        .keys()
        .filter_map(|ranks| ranks.parse::<IdSet>().ok())
        .map(|ranks| ranks.count())
        .sum();
    (count > 0).then_some(count)
}

/// Returns what is unusual about the queues.
fn queue_line(
    handle: &mut flux_client::Handle,
    queues: &Value,
) -> Result<Option<String>, crate::common::error::CmdError> {
    let Some(names) = queues.get("queues").and_then(Value::as_array) else {
        return Ok(None);
    };
    let mut requests: Vec<Map<String, Value>> = Vec::new();
    for name in names {
        requests.push(Map::from_iter([("name".to_owned(), name.clone())]));
    }
    if requests.is_empty() {
        requests.push(Map::new());
    }
    let mut pending = Vec::new();
    for request in &requests {
        pending.push(handle.rpc("job-manager.queue-status", 0, request)?);
    }
    let (mut disabled, mut stopped) = (0, 0);
    for rpc in &pending {
        let status: Value = handle.get(rpc).unwrap_or(Value::Null);
        disabled += u32::from(status.get("enable") == Some(&Value::Bool(false)));
        stopped += u32::from(status.get("start") == Some(&Value::Bool(false)));
    }
    let mut parts = Vec::new();
    if disabled > 0 {
        parts.push("submit disabled");
    }
    if stopped > 0 {
        parts.push("scheduler stopped");
    }
    Ok((!parts.is_empty()).then(|| format!("  {}", parts.join(",  "))))
}

/// Formats a duration with two digits.
pub(super) fn rough(secs: f64) -> String {
    let g = |value: f64| format_g(value, 2);
    if secs < 60.0 {
        format!("{}s", g(secs))
    } else if secs < 3600.0 {
        format!("{}m", g(secs / 60.0))
    } else if secs < 86_400.0 {
        format!("{}h", g(secs / 3600.0))
    } else if secs < 864_000.0 {
        format!("{}d", g(secs / 86_400.0))
    } else {
        format!("{:.0}d", secs / 86_400.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (secs, want) in [
            (3.8, "3.8s"),
            (40.2, "40s"),
            (97.0, "1.6m"),
            (7200.0, "2h"),
            (90_000.0, "1d"),
            (1e7, "116d"),
        ] {
            assert_eq!(rough(secs), want);
        }
        assert_eq!(drained(&json!({"drain": {"0-1": {}, "3": {}}})), Some(3));
        assert_eq!(drained(&json!({"drain": {}})), None);
    }
}
