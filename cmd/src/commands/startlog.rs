//! `flux startlog`: when did the instance start and stop, and did it crash?

use std::io::Write;
use std::time::SystemTime;

use clap::{ArgMatches, Command};
use flux_client::kvs::{self, Transaction};
use flux_formats::eventlog::{Event, decode_iter, timestamp};
use serde::Deserialize;
use serde_json::json;

use super::uptime::rough;
use super::version::CORE_VERSION;
use crate::common::args::{flag, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail};
use crate::common::time::{now, strftime};

/// KVS key of the log.
const KEY: &str = "admin.eventlog";

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag("check", None, "Check if instance has properly shut down"))
        .arg(flag("quiet", None, "Suppress non-error output"))
        .arg(flag(
            "show-version",
            Some('v'),
            "Show version of flux-core in the log",
        ))
        .arg(flag("post-start-event", None, "Post start event to eventlog").hide(true))
        .arg(flag("post-finish-event", None, "Post finish event to eventlog").hide(true))
        .arg(value("test-startlog-key", None, "PATH", "Set startlog key for testing").hide(true))
        .arg(
            value(
                "test-startlog-version",
                None,
                "VERSION",
                "Set startlog version for testing",
            )
            .hide(true),
        )
}

/// One run of the instance.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    start: f64,
    finish: Option<f64>,
    version: String,
}

fn runs(log: &str) -> Result<Vec<Run>, CmdError> {
    #[derive(Deserialize)]
    struct Context {
        #[serde(default)]
        core_version: String,
        #[serde(default)]
        version: serde_json::Value,
    }
    let mut runs: Vec<Run> = Vec::new();
    for event in decode_iter(log) {
        let event = match event {
            Ok(event) => event,
            Err(err) => return fail(format!("{KEY}: {err}")),
        };
        match &*event.name {
            "start" => {
                let version = event.context_as::<Context>().map_or_else(
                    |_| String::new(),
                    |context| match (context.core_version.is_empty(), context.version.as_str()) {
                        (true, Some(version)) => version.to_owned(),
                        (true, None) => String::new(),
                        (false, _) => context.core_version,
                    },
                );
                runs.push(Run {
                    start: event.timestamp,
                    finish: None,
                    version,
                });
            }
            "finish" => {
                if let Some(run) = runs.last_mut() {
                    run.finish = Some(event.timestamp);
                }
            }
            _ => {}
        }
    }
    Ok(runs)
}

/// Returns the lines of the log; only the last run may still be running.
fn lines(runs: &[Run], now: f64, show_version: bool) -> Vec<String> {
    let last = runs.len().saturating_sub(1);
    let mut lines = Vec::with_capacity(runs.len());
    for (at, run) in runs.iter().enumerate() {
        let start = strftime(run.start, "%F %R");
        let version = if show_version {
            format!("core-{} ", run.version)
        } else {
            String::new()
        };
        lines.push(match run.finish {
            Some(finish) => {
                format!(
                    "{version}{start} - {} ({})",
                    strftime(finish, "%F %R"),
                    rough(finish - run.start)
                )
            }
            None if at == last => format!("{version}{start} - running ({})", rough(now - run.start)),
            None => format!("{version}{start} - crashed"),
        });
    }
    lines
}

/// Returns true when the run before the current one did not finish.
fn crashed(runs: &[Run]) -> bool {
    let mut back = runs.iter().rev();
    let current = back.next();
    let running = current.is_some_and(|run| run.finish.is_none());
    running && back.next().is_some_and(|run| run.finish.is_none())
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let key = text(matches, "test-startlog-key").unwrap_or(KEY);
    let version = text(matches, "test-startlog-version").unwrap_or(CORE_VERSION);
    let mut handle = ctx.open()?;
    for (option, name) in [("post-start-event", "start"), ("post-finish-event", "finish")] {
        if matches.get_flag(option) {
            let context = json!({ "core_version": version });
            let event = match Event::with_context(timestamp(SystemTime::now()), name, &context) {
                Ok(event) => event,
                Err(err) => return fail(err.to_string()),
            };
            let mut transaction = Transaction::new();
            transaction.append(key, event.encode().as_bytes());
            kvs::commit(&mut handle, "primary", kvs::flags::SYNC, &transaction)
                .map_err(CmdError::doing(key))?;
            return Ok(0);
        }
    }
    let log = kvs::get(&mut handle, "primary", key).map_err(CmdError::doing(key))?;
    let runs = runs(&String::from_utf8_lossy(&log))?;
    if matches.get_flag("check") {
        if !crashed(&runs) {
            return Ok(0);
        }
        if !matches.get_flag("quiet") {
            ctx.warn("Flux was not shut down properly.  Data may have been lost.");
        }
        return Ok(1);
    }
    if !matches.get_flag("quiet") {
        let mut out = stdout();
        for line in lines(&runs, now(), matches.get_flag("show-version")) {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_crashes() {
        let log = concat!(
            r#"{"timestamp":1000.0,"name":"start","context":{"core_version":"0.88.0"}}"#,
            "\n",
            r#"{"timestamp":1040.0,"name":"finish"}"#,
            "\n",
            r#"{"timestamp":2000.0,"name":"start","context":{"version":"0.87.0"}}"#,
            "\n",
            r#"{"timestamp":3000.0,"name":"start"}"#,
            "\n"
        );
        let runs = runs(log).unwrap();
        let shown = lines(&runs, 3040.0, false);
        assert!(
            shown[0].ends_with("(40s)")
                && shown[1].ends_with(" - crashed")
                && shown[2].ends_with(" - running (40s)")
        );
        assert!(lines(&runs, 0.0, true)[1].starts_with("core-0.87.0 "));
        assert!(crashed(&runs));
        assert!(!crashed(&runs[..2]) && !crashed(&runs[..1]) && !crashed(&[]));
    }
}
