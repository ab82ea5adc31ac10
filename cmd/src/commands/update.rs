//! `flux update`: change the duration, queue, name or other attributes of a job that has not ended.

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::job::{self, WatchEvent};
use flux_client::{Handle, NODEID_ANY};
use flux_formats::jobid::JobId;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::common::args::{flag, list, operand, operands, required};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::eventlog::parse as parse_event;
use crate::common::jobid::parse;
use crate::common::json::python;
use crate::common::time::{fsd, now, parse_fsd};

const DURATION: &str = "attributes.system.duration";

pub(super) fn args(command: Command) -> Command {
    command
        .arg(
            flag(
                "dry-run",
                Some('n'),
                "Do not apply any updates, just emit update payload to stdout",
            )
            .alias("dry"),
        )
        .arg(flag(
            "verbose",
            Some('v'),
            "Be more verbose. Log updated items after success.",
        ))
        .arg(flag(
            "wait",
            None,
            "Wait for updates to appear in job eventlog before exiting",
        ))
        .arg(operand("jobid", "Target job"))
        .arg(operands(
            "key=value",
            1,
            "Updates, such as duration=+10m, queue=NAME, name=NAME, or any attribute of the jobspec",
        ))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let word = required(matches, "jobid");
    let id = parse(word)?;
    let start = now();
    let mut handle = None;
    let mut updates = Map::new();
    for word in list(matches, "key=value") {
        let Some((key, value)) = word.split_once('=') else {
            return usage(format!("'{word}' is not KEY=VALUE"));
        };
        let key = full_key(key);
        let value = if key == DURATION {
            json!(duration(ctx, &mut handle, id, value)?)
        } else {
            serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))
        };
        updates.insert(key, value);
    }
    if matches.get_flag("dry-run") {
        writeln!(stdout(), "{}", python(&updates)?)?;
        return Ok(0);
    }
    let mut handle = match handle {
        Some(handle) => handle,
        None => ctx.open()?,
    };
    handle
        .call::<IgnoredAny>(
            "job-manager.update",
            NODEID_ANY,
            &json!({ "id": id.0, "updates": updates }),
        )
        .map_err(CmdError::doing(word))?;
    if matches.get_flag("wait") {
        wait(&mut handle, id, &updates, start)?;
    }
    if matches.get_flag("verbose") {
        for (key, value) in &updates {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            ctx.warn(format!("INFO: updated {key} to {value}"));
        }
    }
    Ok(0)
}

/// Returns the dotted path in the jobspec that a short key means.
fn full_key(key: &str) -> String {
    if key == "name" {
        return "attributes.system.job.name".to_owned();
    }
    let full = ["attributes.", "resources.", "tasks."];
    if full.iter().any(|prefix| key.starts_with(prefix)) {
        key.to_owned()
    } else {
        format!("attributes.system.{key}")
    }
}

/// Reads a duration; one that begins with `+` or `-` counts from the job's own.
fn duration(ctx: &Ctx, handle: &mut Option<Handle>, id: JobId, text: &str) -> Result<f64, CmdError> {
    let relative = text
        .strip_prefix('+')
        .map(|rest| (1.0, rest))
        .or_else(|| text.strip_prefix('-').map(|rest| (-1.0, rest)));
    let Some((sign, amount)) = relative else {
        let secs = parse_fsd(text)?;
        return Ok(if secs.is_finite() { secs } else { 0.0 });
    };
    let amount_secs = parse_fsd(amount)?;
    if handle.is_none() {
        *handle = Some(ctx.open()?);
    }
    let Some(handle) = handle else { return Ok(0.0) };
    let jobspec = job::lookup(handle, id.0, "jobspec", job::lookup_flags::CURRENT)?;
    let jobspec: Value = serde_json::from_str(&jobspec).map_err(CmdError::json("jobspec"))?;
    let current = jobspec
        .pointer("/attributes/system/duration")
        .and_then(Value::as_f64)
        .unwrap_or(0.0);
    let name = crate::common::jobid::f58(id);
    if current == 0.0 {
        return fail(format!(
            "duration for {name} is unlimited, can't update by {text}"
        ));
    }
    let result = current + sign * amount_secs;
    if result <= 0.0 {
        return fail(format!(
            "current duration for {name} ({}) cannot be reduced by {amount}",
            fsd(current)
        ));
    }
    Ok(if result.is_finite() { result } else { 0.0 })
}

/// Waits for the event of this update; earlier ones may have had the same content.
fn wait(handle: &mut Handle, id: JobId, updates: &Map<String, Value>, start: f64) -> Result<(), CmdError> {
    let rpc = job::eventlog_watch(handle, id.0, "eventlog", 0)?;
    while let Some(event) = job::watch_next(handle, &rpc)? {
        let WatchEvent::Event(line) = event else { continue };
        let event = parse_event(&line)?;
        if event.name != "jobspec-update" || event.timestamp <= start {
            continue;
        }
        let context: Map<String, Value> = event
            .context_as()
            .map_err(CmdError::json("jobspec-update event"))?;
        if updates.iter().all(|(key, value)| same(context.get(key), value)) {
            return Ok(());
        }
    }
    fail("the job has ended before the update was made")
}

/// Compares values; numbers by their value, whichever way they are written.
fn same(found: Option<&Value>, wanted: &Value) -> bool {
    match (found.and_then(Value::as_f64), wanted.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b).is_eq(),
        _ => found == Some(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert_eq!(full_key("name"), "attributes.system.job.name");
        assert_eq!(full_key("duration"), DURATION);
        assert_eq!(full_key("attributes.user.x"), "attributes.user.x");
        assert!(same(Some(&json!(60)), &json!(60.0)) && !same(None, &json!(1)));
    }
}
