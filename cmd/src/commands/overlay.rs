//! `flux overlay`: how is the tree of brokers?

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use flux_client::{Error, Handle, attr};
use flux_formats::hostlist::Hostlist;
use flux_formats::number::format_g;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{Entry, plain};
use crate::common::args::{
    flag, operand, operand_optional, parsed, required, text, value, verbose, verbosity,
};
use crate::common::color;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::time::parse_fsd;
use crate::common::trace;

/// The sub-commands of `flux overlay`.
pub(super) static TABLE: &[Entry] = &[
    plain(
        "status",
        "Display overlay subtree health status",
        status_args,
        status,
    ),
    plain("errors", "Summarize overlay errors", errors_args, errors),
    plain(
        "lookup",
        "Translate rank idset to hostlist or the reverse",
        lookup_args,
        lookup,
    ),
    plain("parentof", "Show the parent of RANK", parentof_args, parentof),
    plain(
        "disconnect",
        "Disconnect a subtree rooted at RANK",
        disconnect_args,
        disconnect,
    ),
    plain(
        "trace",
        "Trace messages received on overlay network",
        trace_args,
        trace_messages,
    ),
];

/// Time that one broker gets for its answer.
const TIMEOUT_DEFAULT: f64 = 5.0;

/// A broker's view of itself and its children.
#[derive(Clone, Debug, Deserialize)]
struct Health {
    rank: u32,
    status: String,
    #[serde(default)]
    duration: f64,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    children: Vec<Health>,
}

/// A node of the tree as it should be.
#[derive(Clone, Debug, Deserialize)]
struct Topology {
    rank: u32,
    #[serde(default)]
    children: Vec<Topology>,
}

fn hosts(handle: &mut Handle) -> Result<Hostlist, CmdError> {
    let text = attr::get(handle, "hostlist")?;
    text.parse()
        .or_else(|err| fail(format!("attribute hostlist: {err}")))
}

fn name_of(hosts: &Hostlist, rank: u32) -> String {
    hosts.nth(u64::from(rank)).unwrap_or_else(|| "?".to_owned())
}

/// Reads a rank, or a host name.
fn rank_of(hosts: &Hostlist, word: &str) -> Result<u32, CmdError> {
    if let Ok(rank) = word.parse::<u32>() {
        return if u64::from(rank) < hosts.count() {
            Ok(rank)
        } else {
            fail(format!("{word} is not a valid rank in this instance"))
        };
    }
    match hosts.find(word).and_then(|at| u32::try_from(at).ok()) {
        Some(rank) => Ok(rank),
        None => fail(format!("{word} is not a valid hostname in this instance")),
    }
}

fn status_args(command: Command) -> Command {
    verbose(command)
        .arg(value(
            "rank",
            Some('r'),
            "NODEID",
            "Check health of subtree rooted at NODEID (default 0)",
        ))
        .arg(value(
            "timeout",
            Some('t'),
            "FSD",
            "Set RPC timeout, 0=disable (default 0.5s)",
        ))
        .arg(flag("summary", None, "Show only the root subtree status"))
        .arg(flag("down", None, "Show only the partial/degraded subtrees"))
        .arg(flag(
            "no-pretty",
            None,
            "Do not indent entries and use line drawing characters to show the tree structure",
        ))
        .arg(flag("no-ghost", None, "Do not show descendants of lost subtrees"))
        .arg(color::option(Some('L')))
        .arg(value(
            "highlight",
            Some('H'),
            "TARGET",
            "Highlight one or more TARGETs and their ancestors",
        ))
        .arg(value(
            "wait",
            Some('w'),
            "STATE",
            "Wait until subtree enters STATE before reporting (full, partial, offline, degraded, lost)",
        ))
}

/// How the tree is drawn.
struct View {
    hosts: Hostlist,
    verbose: bool,
    down_only: bool,
    pretty: bool,
    ghosts: bool,
    color: bool,
    highlight: Option<u32>,
    timeout: Duration,
}

fn timeout(matches: &ArgMatches) -> Result<Duration, CmdError> {
    let secs = text(matches, "timeout").map_or(Ok(TIMEOUT_DEFAULT), parse_fsd)?;
    Ok(if secs > 0.0 {
        Duration::from_secs_f64(secs.min(1e9))
    } else {
        Duration::from_secs(1 << 30)
    })
}

fn status(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let root: u32 = parsed(matches, "rank")?.unwrap_or(0);
    let hosts = hosts(&mut handle)?;
    let highlight = text(matches, "highlight")
        .map(|word| rank_of(&hosts, word))
        .transpose()?;
    let view = View {
        hosts,
        verbose: verbosity(matches)? > 0,
        down_only: matches.get_flag("down"),
        pretty: !matches.get_flag("no-pretty"),
        ghosts: !matches.get_flag("no-ghost"),
        color: color::wanted(matches)?,
        highlight,
        timeout: timeout(matches)?,
    };
    if let Some(wanted) = text(matches, "wait") {
        wait_for(
            &mut handle,
            root,
            wanted,
            text(matches, "timeout").is_some().then_some(view.timeout),
        )?;
    }
    let health = fetch(&mut handle, root, view.timeout)?;
    let mut out = stdout();
    if matches.get_flag("summary") {
        writeln!(out, "{}", view.details(&health))?;
    } else {
        let topology: Topology = handle.call("overlay.topology", 0, &json!({ "rank": root }))?;
        view.tree(&mut handle, &health, Some(&topology), "", "", &mut out)?;
    }
    out.flush()?;
    Ok(0)
}

fn fetch(handle: &mut Handle, rank: u32, timeout: Duration) -> Result<Health, CmdError> {
    let rpc = handle.rpc_message(flux_client::Message::request("overlay.health", rank, None))?;
    let message = handle.wait_until(&rpc, Some(Instant::now() + timeout));
    let message = message.map_err(CmdError::doing(format!("overlay.health rank {rank}")))?;
    Ok(message.payload_json().map_err(|source| Error::Payload {
        topic: message.topic.clone(),
        source,
    })?)
}

fn wait_for(handle: &mut Handle, rank: u32, wanted: &str, timeout: Option<Duration>) -> Result<(), CmdError> {
    if !matches!(wanted, "full" | "partial" | "offline" | "degraded" | "lost") {
        return usage(format!(
            "invalid --wait state '{wanted}' (use full, partial, offline, degraded or lost)"
        ));
    }
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let stream = handle.stream("overlay.health", rank, &json!({}))?;
    loop {
        let Some(message) = handle
            .next_until(&stream, deadline)
            .map_err(CmdError::doing("overlay.health"))?
        else {
            return fail("the broker ended the health stream");
        };
        let health: Health = message.payload_json().map_err(|source| Error::Payload {
            topic: message.topic.clone(),
            source,
        })?;
        if health.status == wanted {
            handle.forget(stream);
            return Ok(());
        }
    }
}

impl View {
    /// Returns `RANK HOST: STATUS[ for DURATION][ ERROR]`.
    fn details(&self, health: &Health) -> String {
        let name = name_of(&self.hosts, health.rank);
        let (on, off) = match health.status.as_str() {
            _ if !self.color => ("", ""),
            _ if self.highlight == Some(health.rank) => ("\x1b[1;34m", "\x1b[0m"),
            "full" => ("", ""),
            "offline" => ("\x1b[2m", "\x1b[0m"),
            "partial" => ("\x1b[33m", "\x1b[0m"),
            _ => ("\x1b[31m", "\x1b[0m"),
        };
        let mark = if !self.color && self.highlight == Some(health.rank) {
            ("<<", ">>")
        } else {
            ("", "")
        };
        let duration = if self.verbose {
            format!(" for {}", precise(health.duration))
        } else {
            String::new()
        };
        let error = health
            .error
            .as_deref()
            .filter(|text| !text.is_empty())
            .map_or_else(String::new, |text| format!(" {text}"));
        format!(
            "{on}{}{} {name}{}: {}{off}{duration}{error}",
            mark.0, health.rank, mark.1, health.status
        )
    }

    fn tree(
        &self,
        handle: &mut Handle,
        health: &Health,
        topology: Option<&Topology>,
        lead: &str,
        indent: &str,
        out: &mut impl Write,
    ) -> Result<(), CmdError> {
        if !self.down_only || health.status != "full" {
            writeln!(out, "{lead}{}", self.details(health))?;
        }
        let children = self.children(handle, health, topology)?;
        let last = children.len().saturating_sub(1);
        for (at, (child, below)) in children.iter().enumerate() {
            let (branch, more) = match (self.pretty, at == last) {
                (false, _) => ("", ""),
                (true, true) => ("└─ ", "   "),
                (true, false) => ("├─ ", "│  "),
            };
            self.tree(
                handle,
                child,
                *below,
                &format!("{indent}{branch}"),
                &format!("{indent}{more}"),
                out,
            )?;
        }
        Ok(())
    }

    /// Returns the children as their parent sees them; a reachable child is asked for its own children later.
    fn children<'t>(
        &self,
        handle: &mut Handle,
        health: &Health,
        topology: Option<&'t Topology>,
    ) -> Result<Vec<(Health, Option<&'t Topology>)>, CmdError> {
        let gone = matches!(health.status.as_str(), "lost" | "offline");
        if gone {
            if !self.ghosts {
                return Ok(Vec::new());
            }
            let ghosts = topology.into_iter().flat_map(|topology| &topology.children);
            let ghost = |child: &Topology| Health {
                rank: child.rank,
                status: health.status.clone(),
                duration: health.duration,
                error: None,
                children: Vec::new(),
            };
            return Ok(ghosts.map(|child| (ghost(child), Some(child))).collect());
        }
        let mut result = Vec::new();
        for child in &health.children {
            let below =
                topology.and_then(|topology| topology.children.iter().find(|node| node.rank == child.rank));
            let mut child = child.clone();
            let leaf = below.is_none_or(|node| node.children.is_empty());
            if !leaf && !matches!(child.status.as_str(), "lost" | "offline") {
                match fetch(handle, child.rank, self.timeout) {
                    Ok(own) => child.children = own.children,
                    Err(CmdError::Doing { source, .. }) => child.error = Some(source.to_string()),
                    Err(err) => return Err(err),
                }
            }
            result.push((child, below));
        }
        Ok(result)
    }
}

/// Formats a duration with six digits.
fn precise(secs: f64) -> String {
    let (value, unit) = match secs {
        secs if secs < 60.0 => (secs, "s"),
        secs if secs < 3600.0 => (secs / 60.0, "m"),
        secs if secs < 86_400.0 => (secs / 3600.0, "h"),
        secs => (secs / 86_400.0, "d"),
    };
    format!("{}{unit}", format_g(value, 6))
}

fn errors_args(command: Command) -> Command {
    command.arg(value(
        "timeout",
        Some('t'),
        "FSD",
        "Set RPC timeout, 0=disable (default 0.5s)",
    ))
}

fn errors(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let hosts = hosts(&mut handle)?;
    let timeout = timeout(matches)?;
    let mut found: Vec<(String, Hostlist)> = Vec::new();
    collect_errors(&mut handle, 0, timeout, &hosts, &mut found)?;
    let mut out = stdout();
    for (text, names) in found {
        writeln!(out, "{names}: {text}")?;
    }
    out.flush()?;
    Ok(0)
}

fn collect_errors(
    handle: &mut Handle,
    rank: u32,
    timeout: Duration,
    hosts: &Hostlist,
    found: &mut Vec<(String, Hostlist)>,
) -> Result<(), CmdError> {
    let health = fetch(handle, rank, timeout)?;
    for child in &health.children {
        if matches!(child.status.as_str(), "lost" | "offline") {
            let text = child.error.clone().filter(|text| !text.is_empty());
            let Some(text) = text.or_else(|| (child.status == "lost").then(|| "lost connection".to_owned()))
            else {
                continue;
            };
            let name = name_of(hosts, child.rank);
            if !found.iter().any(|(known, _)| *known == text) {
                found.push((text.clone(), Hostlist::new()));
            }
            for (_, names) in found.iter_mut().filter(|(known, _)| *known == text) {
                names.push(&name).or_else(|err| fail(err.to_string()))?;
            }
        } else if !child.children.is_empty() || child.status != "full" {
            collect_errors(handle, child.rank, timeout, hosts, found)?;
        }
    }
    Ok(())
}

fn lookup_args(command: Command) -> Command {
    command.arg(operand("target", "Ranks or hosts"))
}

fn lookup(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let word = required(matches, "target");
    let hosts = hosts(&mut ctx.open()?)?;
    let line = if let Ok(ranks) = word.parse::<flux_formats::idset::IdSet>() {
        if ranks.last().is_some_and(|rank| u64::from(rank) >= hosts.count()) {
            return fail(format!("{word} is not a valid rank in this instance"));
        }
        hosts.select(&ranks).to_string()
    } else {
        let Ok(names) = word.parse::<Hostlist>() else {
            return usage(format!("invalid idset or hostlist '{word}'"));
        };
        let mut ranks = flux_formats::idset::IdSet::new();
        for name in names.iter() {
            ranks.insert(rank_of(&hosts, &name)?);
        }
        ranks.to_string()
    };
    writeln!(stdout(), "{line}")?;
    Ok(0)
}

fn parentof_args(command: Command) -> Command {
    command.arg(operand("rank", "Rank or host"))
}

/// Returns the parent of a rank in the tree below `node`.
fn parent_in(node: &Topology, rank: u32) -> Option<u32> {
    if node.children.iter().any(|child| child.rank == rank) {
        return Some(node.rank);
    }
    node.children.iter().find_map(|child| parent_in(child, rank))
}

fn parent(handle: &mut Handle, rank: u32) -> Result<u32, CmdError> {
    let topology: Topology = handle.call("overlay.topology", 0, &json!({ "rank": 0 }))?;
    match parent_in(&topology, rank) {
        Some(parent) => Ok(parent),
        None => fail(format!("{rank} has no parent")),
    }
}

fn parentof(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let rank = rank_of(&hosts(&mut handle)?, required(matches, "rank"))?;
    writeln!(stdout(), "{}", parent(&mut handle, rank)?)?;
    Ok(0)
}

fn disconnect_args(command: Command) -> Command {
    command
        .arg(value(
            "parent",
            Some('r'),
            "NODEID",
            "Set parent rank (default: determine from topology)",
        ))
        .arg(operand("target", "Rank or host"))
}

fn disconnect(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let hosts = hosts(&mut handle)?;
    let rank = rank_of(&hosts, required(matches, "target"))?;
    let parent = match text(matches, "parent") {
        Some(word) => rank_of(&hosts, word)?,
        None => parent(&mut handle, rank)?,
    };
    ctx.warn(format!(
        "asking {} (rank {parent}) to disconnect child {} (rank {rank})",
        name_of(&hosts, parent),
        name_of(&hosts, rank)
    ));
    handle
        .call::<IgnoredAny>("overlay.disconnect-subtree", parent, &json!({ "rank": rank }))
        .map_err(CmdError::doing("overlay.disconnect-subtree"))?;
    Ok(0)
}

fn trace_args(command: Command) -> Command {
    trace::options(command)
        .arg(value("rank", Some('r'), "NODEID", "Filter output by peer rank"))
        .arg(operand_optional("topic-glob", "Filter output by message topic"))
}

fn trace_messages(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let request = json!({
        "typemask": trace::typemask(matches)?,
        "topic_glob": text(matches, "topic-glob").unwrap_or("*"),
        "nodeid": parsed::<i64>(matches, "rank")?.unwrap_or(-1),
        "full": matches.get_flag("full"),
    });
    let mut printer = trace::Printer::from_matches(matches, color::wanted(matches)?);
    let mut handle = ctx.open()?;
    let stream = handle.stream("overlay.trace", flux_client::NODEID_ANY, &request)?;
    while let Some(message) = handle.next(&stream)? {
        let mut out = stdout();
        writeln!(out, "{}", printer.line(&message)?)?;
        out.flush()?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_parents() {
        let mut view = View {
            hosts: "vm,vm".parse().unwrap(),
            verbose: false,
            down_only: false,
            pretty: true,
            ghosts: true,
            color: false,
            highlight: None,
            timeout: Duration::ZERO,
        };
        let health: Health =
            serde_json::from_value(json!({"rank": 0, "status": "full", "duration": 39.5182, "children": []}))
                .unwrap();
        assert_eq!(view.details(&health), "0 vm: full");
        view.verbose = true;
        assert_eq!(view.details(&health), "0 vm: full for 39.5182s");
        view.highlight = Some(0);
        assert_eq!(view.details(&health), "<<0 vm>>: full for 39.5182s");
        let topology: Topology = serde_json::from_value(
            json!({"rank": 0, "children": [{"rank": 1, "children": [{"rank": 3, "children": []}]}, {"rank": 2}]}),
        )
        .unwrap();
        assert_eq!(
            (
                parent_in(&topology, 3),
                parent_in(&topology, 2),
                parent_in(&topology, 0)
            ),
            (Some(1), Some(0), None)
        );
        assert!(rank_of(&view.hosts, "7").is_err() && rank_of(&view.hosts, "x").is_err());
    }
}
