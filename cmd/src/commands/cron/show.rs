//! `flux cron list`, `dump`, and what `delete` says: how are entries shown?

use std::io::Write;

use clap::ArgMatches;
use serde_json::Value;

use super::{entries, find};
use crate::common::args::text;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::CmdResult;
use crate::common::time::now;

pub(super) fn list(ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    let entries = entries(ctx)?;
    let mut out = stdout();
    writeln!(
        out,
        "{:>6} {:<15} {:<8} {:>9} {:>18}  {:<18}",
        "ID", "CMD/NAME", "STATE", "#RUNS", "LASTRUN", "STATUS"
    )?;
    let now = now();
    for entry in &entries {
        writeln!(out, "{}", line(entry, now))?;
    }
    out.flush()?;
    Ok(0)
}

/// Returns an entry's line in the list.
fn line(entry: &Value, now: f64) -> String {
    let count = &entry["stats"]["count"];
    let runs = match entry["repeat"].as_i64() {
        Some(repeat @ 1..) => format!("{count}/{repeat}"),
        _ => count.to_string(),
    };
    let state = if entry["stopped"] == true {
        "Stopped"
    } else {
        "Active"
    };
    let task = &entry["tasks"][0];
    // one that waits has not run: show when the one before it did
    let started = task["start-time"]
        .as_f64()
        .or_else(|| entry["tasks"][1]["start-time"].as_f64());
    let last = started.map_or_else(|| "None".to_owned(), |time| ago(now - time));
    let status = match task["state"].as_str() {
        None => "None".to_owned(),
        Some("Failed") if task["code"] == 127 => "Exec-Error".to_owned(),
        Some("Failed") => format!("Failed:rc={}", task["code"]),
        Some("Exited") => "Success".to_owned(),
        Some(other) => other.to_owned(),
    };
    let name = entry["name"].as_str().unwrap_or_default();
    let line = format!(
        "{:>6} {name:<15} {state:<8} {runs:>9} {last:>18}  {status:<18}",
        entry["id"].to_string()
    );
    line.trim_end().to_owned()
}

/// Returns what is said of an entry that was deleted.
pub(super) fn removed(id: i64, entry: &Value) -> String {
    let name = entry["name"].as_str().unwrap_or_default();
    let task = &entry["tasks"][0];
    let extra = match (task["start-time"].as_f64(), task["end-time"].as_f64()) {
        (Some(start), Some(end)) => format!(" last ran {} for {}", ago(now() - end), period(end - start)),
        (Some(start), None) => format!(" still running. Started {}", ago(now() - start)),
        (None, _) => String::new(),
    };
    format!("Removed cron-{id}: {name}{extra}")
}

/// Returns how long ago something was, in the unit that fits.
fn ago(secs: f64) -> String {
    let (mins, hours, days) = (secs / 60.0, secs / 3600.0, secs / 86_400.0);
    match secs {
        ..0.0 => "in the future".to_owned(),
        ..2.0 => "a second ago".to_owned(),
        ..90.0 => format!("{secs:.0} seconds ago"),
        ..120.0 => "a minute ago".to_owned(),
        ..5400.0 => format!("{mins:.0} minutes ago"),
        _ if hours < 36.0 => format!("{hours:.1} hours ago"),
        _ if days < 14.0 => format!("{days:.1} days ago"),
        _ if days < 70.0 => format!("{:.0} weeks ago", (days / 7.0).round()),
        _ if days < 365.0 => format!("{:.0} months ago", (days / 30.0).round()),
        _ => format!("{:.1} years ago", days / 365.0),
    }
}

/// Returns a length of time in the unit that fits.
fn period(secs: f64) -> String {
    match secs {
        ..1.0 => format!("{:.2}ms", secs * 1000.0),
        ..60.0 => format!("{secs:.3}s"),
        ..3600.0 => format!("{:.3}m", secs / 60.0),
        ..86_400.0 => format!("{:.3}h", secs / 3600.0),
        _ => format!("{:.3}d", secs / 86_400.0),
    }
}

pub(super) fn dump(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let entry = find(ctx, matches)?;
    let wanted = text(matches, "key");
    let mut out = stdout();
    for (key, value) in flatten(&entry) {
        match (wanted, &value) {
            (None, _) => writeln!(out, "{key} = {value}")?,
            (Some(wanted), Value::String(text)) if wanted == key => writeln!(out, "{text}")?,
            (Some(wanted), _) if wanted == key => writeln!(out, "{value}")?,
            (Some(_), _) => {}
        }
    }
    out.flush()?;
    Ok(0)
}

/// Returns the values of an entry under dotted keys; tasks are numbered from 1, the latest first.
fn flatten(entry: &Value) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    for (key, value) in entry.as_object().into_iter().flatten() {
        match value {
            Value::Object(object) => {
                flat.extend(object.iter().map(|(k, v)| (format!("{key}.{k}"), v.clone())))
            }
            Value::Array(tasks) => {
                for (index, task) in tasks.iter().enumerate() {
                    let fields = task.as_object().into_iter().flatten();
                    flat.extend(fields.map(|(k, v)| (format!("task.{}.{k}", index + 1), v.clone())));
                }
            }
            value => flat.push((key.clone(), value.clone())),
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry() -> Value {
        json!({"id": 3, "name": "date", "repeat": 5, "stopped": false, "stats": {"count": 2}, "tasks": [
            {"state": "Failed", "code": 7, "start-time": 100.0, "end-time": 100.5}, {"state": "Exited", "code": 0}]})
    }

    #[test]
    fn lines_of_the_list() {
        assert_eq!(
            line(&entry(), 200.0),
            "     3 date            Active         2/5       a minute ago  Failed:rc=7"
        );
        let fresh =
            json!({"id": 1, "name": "a", "repeat": 0, "stopped": true, "stats": {"count": 0}, "tasks": []});
        assert_eq!(
            line(&fresh, 0.0),
            "     1 a               Stopped          0               None  None"
        );
    }

    #[test]
    fn keys_of_a_dump() {
        let flat = flatten(&entry());
        let get = |key: &str| flat.iter().find(|(k, _)| k == key).map(|(_, v)| v.to_string());
        assert_eq!(get("stats.count").as_deref(), Some("2"));
        assert_eq!(get("task.1.code").as_deref(), Some("7"));
        assert_eq!(get("task.2.state").as_deref(), Some("\"Exited\""));
        assert_eq!(get("name").as_deref(), Some("\"date\""));
    }

    #[test]
    fn times() {
        for (secs, text) in [
            (-1.0, "in the future"),
            (1.0, "a second ago"),
            (89.0, "89 seconds ago"),
            (100.0, "a minute ago"),
            (600.0, "10 minutes ago"),
            (7200.0, "2.0 hours ago"),
            (864_000.0, "10.0 days ago"),
        ] {
            assert_eq!(ago(secs), text);
        }
        assert_eq!(period(0.0123), "12.30ms");
        assert_eq!(period(90.0), "1.500m");
    }
}
