//! `flux jobtap`: which plugins follow jobs through the job manager, and how are they?

use std::io::Write;
use std::time::Duration;

use clap::{ArgMatches, Command};
use flux_client::NODEID_ANY;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::{Entry, tagged};
use crate::common::args::{flag, operand, required, text, trailing, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, usage};

pub(super) static TABLE: &[Entry] = &[
    tagged("load", "Load a plugin", load_args, load),
    tagged("remove", "Remove plugins", remove_args, remove),
    tagged("list", "List plugins", list_args, list),
    tagged("query", "Show what a plugin tells of itself", query_args, query),
];

fn load_args(command: Command) -> Command {
    command
        .arg(value(
            "remove",
            Some('r'),
            "NAME",
            "Remove plugin NAME, or all that match a pattern, once the new one is loaded",
        ))
        .arg(operand(
            "plugin",
            "Name of a plugin, or path of a .wasm with its compiled files beside it",
        ))
        .arg(trailing(
            "conf",
            false,
            "List of key=value arguments for the plugin",
        ))
}

/// Makes an object of `a.b=VALUE` words; what is no JSON is a string.
fn tree(words: &[&str]) -> Result<Value, CmdError> {
    let mut root = Value::Object(Map::new());
    for word in words {
        let Some((path, text)) = word.split_once('=') else {
            return usage(format!("{word}: missing value, use KEY=VALUE"));
        };
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
        let mut at = &mut root;
        for key in path.split('.') {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(map) = at else { break };
            at = map.entry(key.to_owned()).or_insert(Value::Null);
        }
        *at = value;
    }
    Ok(root)
}

fn load(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let plugin = required(matches, "plugin");
    // the broker has another working directory
    let path = std::path::Path::new(plugin);
    let here = (plugin.ends_with(".wasm") && path.is_file()).then(|| std::path::absolute(path).ok());
    let load = here
        .flatten()
        .map_or_else(|| plugin.to_owned(), |path| path.display().to_string());
    let mut request = json!({"load": load});
    let words: Vec<&str> = crate::common::args::list(matches, "conf");
    if !words.is_empty() {
        request["conf"] = tree(&words)?;
    }
    if let Some(name) = text(matches, "remove") {
        request["remove"] = name.into();
    }
    ctx.open()?
        .call::<IgnoredAny>("job-manager.jobtap", NODEID_ANY, &request)?;
    Ok(0)
}

fn remove_args(command: Command) -> Command {
    command.arg(operand(
        "plugin",
        "Name or pattern of plugins to remove; \"all\" removes all but the standard ones",
    ))
}

fn remove(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let request = json!({"remove": required(matches, "plugin")});
    ctx.open()?
        .call::<IgnoredAny>("job-manager.jobtap", NODEID_ANY, &request)?;
    Ok(0)
}

fn list_args(command: Command) -> Command {
    command
        .arg(flag("all", Some('a'), "Show the standard plugins, too"))
        .arg(flag(
            "verbose",
            Some('v'),
            "Show version, hash, grants, calls, times, failures and memory",
        ))
        .arg(flag("json", None, "With -v, write JSON"))
}

/// The answer to a query for a list.
#[derive(Deserialize)]
struct Listed {
    plugins: Vec<String>,
    #[serde(default)]
    details: Vec<Detail>,
    #[serde(default)]
    failed: Option<String>,
}

/// A plugin with its figures.
#[derive(Deserialize, serde::Serialize)]
struct Detail {
    name: String,
    version: String,
    sha256: String,
    grants: Vec<String>,
    topics: Vec<String>,
    state: String,
    calls: u64,
    p50: f64,
    p99: f64,
    traps: u64,
    #[serde(rename = "last-failure")]
    last_failure: String,
    memory: u64,
    path: String,
}

fn list(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let (all, verbose) = (matches.get_flag("all"), matches.get_flag("verbose"));
    let mut request = json!({"query_only": true});
    if verbose {
        request["stats"] = true.into();
    }
    let listed: Listed = ctx.open()?.call("job-manager.jobtap", NODEID_ANY, &request)?;
    let shown = |name: &str| all || !name.starts_with('.');
    let mut out = stdout();
    if verbose && matches.get_flag("json") {
        let details: Vec<&Detail> = listed
            .details
            .iter()
            .filter(|plugin| shown(&plugin.name))
            .collect();
        let text = serde_json::to_string(&details).map_err(CmdError::json("plugins"))?;
        writeln!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(CmdError::file("stdout"))?;
        return Ok(0);
    }
    let mut lines = Vec::new();
    if verbose {
        lines.push(format!(
            "{:<22} {:<8} {:<12} {:<12} {:>9} {:>8} {:>8} {:>5} {:>8} STATE",
            "NAME", "VERSION", "SHA256", "GRANTS", "CALLS", "P50", "P99", "TRAPS", "MEMORY"
        ));
        lines.extend(
            listed
                .details
                .iter()
                .filter(|plugin| shown(&plugin.name))
                .map(row),
        );
    } else {
        lines.extend(listed.plugins.into_iter().filter(|name| shown(name)));
    }
    for line in lines {
        writeln!(out, "{line}").map_err(CmdError::file("stdout"))?;
    }
    out.flush().map_err(CmdError::file("stdout"))?;
    if let Some(why) = listed.failed {
        ctx.warn(format!("submissions are refused: {why}"));
    }
    Ok(0)
}

fn row(plugin: &Detail) -> String {
    let grants = if plugin.grants.is_empty() {
        "-".to_owned()
    } else {
        plugin.grants.join(",")
    };
    let mut line = format!(
        "{:<22} {:<8} {:<12} {:<12} {:>9} {:>8} {:>8} {:>5} {:>8} {}",
        plugin.name,
        plugin.version,
        plugin.sha256.get(..12).unwrap_or(&plugin.sha256),
        grants,
        plugin.calls,
        time(plugin.p50),
        time(plugin.p99),
        plugin.traps,
        format!("{}K", plugin.memory.div_ceil(1024)),
        plugin.state
    );
    if !plugin.last_failure.is_empty() {
        line.push_str(": ");
        line.push_str(&plugin.last_failure);
    }
    line
}

/// Returns a time with its unit, `-` for none.
fn time(seconds: f64) -> String {
    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    match time.as_nanos() {
        0 => "-".to_owned(),
        nanos if nanos < 10_000 => format!("{:.1}us", seconds * 1e6),
        nanos if nanos < 10_000_000 => format!("{:.0}us", seconds * 1e6),
        _ => format!("{:.0}ms", seconds * 1e3),
    }
}

fn query_args(command: Command) -> Command {
    command.arg(operand("plugin", "Plugin name to query"))
}

fn query(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let request = json!({"name": required(matches, "plugin")});
    let answer: Value = ctx
        .open()?
        .call("job-manager.jobtap-query", NODEID_ANY, &request)?;
    let mut out = stdout();
    writeln!(out, "{answer}")
        .and_then(|()| out.flush())
        .map_err(CmdError::file("stdout"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_tree() {
        assert_eq!(
            tree(&["a=1", "b.c=x y", "b.d=true"]).unwrap(),
            json!({"a": 1, "b": {"c": "x y", "d": true}})
        );
        assert!(tree(&["a"]).is_err());
    }

    #[test]
    fn times() {
        for (seconds, text) in [(0.0, "-"), (8e-7, "0.8us"), (2.5e-5, "25us"), (0.2, "200ms")] {
            assert_eq!(time(seconds), text);
        }
    }
}
