//! `flux queue`: list and control the queues.

mod list;

use std::io::Write;
use std::time::Duration;

use clap::{ArgMatches, Command};
use flux_client::{Error, Handle};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::{Entry, tagged};
use crate::common::args::{flag, operands, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::time::parse_fsd;

/// The sub-commands of `flux queue`.
pub(super) static TABLE: &[Entry] = &[
    tagged(
        "status",
        "Display the status of one or more queues",
        status_args,
        status,
    ),
    tagged(
        "list",
        "List queue status, defaults, and limits",
        list::args,
        list::run,
    ),
    tagged("enable", "Enable job submission", enable_args, enable),
    tagged("disable", "Disable job submission", disable_args, disable),
    tagged("start", "Start scheduling", start_args, start),
    tagged("stop", "Stop scheduling", stop_args, stop),
    tagged("drain", "Wait for the queue to become empty", drain_args, drain),
    tagged("idle", "Wait for the queue to become idle", idle_args, idle),
];

/// The state of one queue.
#[derive(Clone, Debug, Deserialize)]
struct Status {
    enable: bool,
    start: bool,
    parent: Option<String>,
    disable_reason: Option<String>,
    stop_reason: Option<String>,
}

impl Status {
    /// Returns the two lines of `flux queue status`.
    fn lines(&self, prefix: &str) -> [String; 2] {
        let reason = |reason: &Option<String>| match reason.as_deref() {
            Some(reason) if !reason.is_empty() => format!(": {reason}"),
            _ => String::new(),
        };
        let submission = if self.enable {
            "enabled".to_owned()
        } else {
            format!("disabled{}", reason(&self.disable_reason))
        };
        let scheduling = if self.start {
            "started".to_owned()
        } else {
            format!("stopped{}", reason(&self.stop_reason))
        };
        [
            format!("{prefix}Job submission is {submission}"),
            format!("{prefix}Scheduling is {scheduling}"),
        ]
    }
}

fn queue_args(command: Command) -> Command {
    command
        .arg(value("queue", Some('q'), "NAME", "Queue").hide(true))
        .arg(flag("verbose", Some('v'), "Display more detail"))
        .arg(operands("name", 0, "Queues"))
}

fn queue_names(matches: &ArgMatches) -> Vec<String> {
    let mut names: Vec<String> = crate::common::args::list(matches, "name")
        .into_iter()
        .map(str::to_owned)
        .collect();
    names.extend(text(matches, "queue").map(str::to_owned));
    names
}

/// Returns the names of the queues; none means the anonymous queue.
fn list_queues(handle: &mut Handle) -> Result<Vec<String>, CmdError> {
    #[derive(Deserialize)]
    struct Response {
        queues: Vec<String>,
    }
    Ok(handle.call_empty::<Response>("job-manager.queue-list", 0)?.queues)
}

/// Asks for the state of several queues at once; the anonymous one when there are no names.
fn fetch_status(handle: &mut Handle, names: &[String]) -> Result<Vec<Status>, CmdError> {
    if names.is_empty() {
        return Ok(vec![handle.call("job-manager.queue-status", 0, &json!({}))?]);
    }
    let mut pending = Vec::with_capacity(names.len());
    for name in names {
        pending.push(handle.rpc("job-manager.queue-status", 0, &json!({ "name": name }))?);
    }
    pending.iter().map(|rpc| Ok(handle.get(rpc)?)).collect()
}

fn status_args(command: Command) -> Command {
    queue_args(command)
}

fn status(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let mut names = queue_names(matches);
    if names.is_empty() {
        names = list_queues(&mut handle)?;
    }
    let mut out = stdout();
    print_status(&mut handle, &names, None, &mut out)?;
    if matches.get_flag("verbose") {
        let counts: Value = handle.call_empty("job-manager.alloc-query", 0)?;
        let number = |key: &str| counts.get(key).and_then(Value::as_u64).unwrap_or(0);
        writeln!(out, "{} alloc requests queued", number("queue_length"))?;
        writeln!(
            out,
            "{} alloc requests pending to scheduler",
            number("alloc_pending")
        )?;
        writeln!(out, "{} running jobs", number("running"))?;
    }
    out.flush()?;
    Ok(0)
}

/// Prints the state of queues; `only` 0 is the line about submission, 1 the one about scheduling.
fn print_status(
    handle: &mut Handle,
    names: &[String],
    only: Option<usize>,
    out: &mut impl Write,
) -> Result<(), CmdError> {
    let all = fetch_status(handle, names)?;
    for (at, status) in all.iter().enumerate() {
        let prefix = names.get(at).map_or_else(String::new, |name| format!("{name}: "));
        for (kind, line) in status.lines(&prefix).iter().enumerate() {
            if only.is_none_or(|only| only == kind) {
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(())
}

fn change_args(command: Command) -> Command {
    queue_args(command)
        .arg(flag("all", Some('a'), "Apply command to all queues"))
        .arg(flag("quiet", None, "Display only errors"))
}

fn enable_args(command: Command) -> Command {
    change_args(command)
}

fn disable_args(command: Command) -> Command {
    change_args(command).arg(value("message", Some('m'), "REASON", "Reason for the change"))
}

fn start_args(command: Command) -> Command {
    change_args(command).arg(flag(
        "nocheckpoint",
        None,
        "Do not checkpoint that the queue has been started",
    ))
}

fn stop_args(command: Command) -> Command {
    start_args(command).arg(value("message", Some('m'), "REASON", "Reason for the change"))
}

fn enable(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    change(ctx, matches, "job-manager.queue-enable", "enable", true, None)
}

fn disable(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    match text(matches, "message") {
        Some(reason) => change(
            ctx,
            matches,
            "job-manager.queue-enable",
            "enable",
            false,
            Some(reason),
        ),
        None => usage("disable: a reason is required, use --message=REASON"),
    }
}

fn start(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    change(ctx, matches, "job-manager.queue-start", "start", true, None)
}

fn stop(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    change(
        ctx,
        matches,
        "job-manager.queue-start",
        "start",
        false,
        text(matches, "message"),
    )
}

fn change(
    ctx: &Ctx,
    matches: &ArgMatches,
    topic: &str,
    key: &str,
    on: bool,
    reason: Option<&str>,
) -> CmdResult {
    let mut handle = ctx.open()?;
    let mut names = queue_names(matches);
    let all = matches.get_flag("all");
    if all && !names.is_empty() {
        return usage("do not specify a queue with -a, --all");
    }
    let mut base = Map::new();
    base.insert(key.to_owned(), json!(on));
    base.insert("all".to_owned(), json!(all));
    if let Some(reason) = reason {
        base.insert("reason".to_owned(), json!(reason));
    }
    let nocheckpoint = matches
        .try_get_one::<bool>("nocheckpoint")
        .ok()
        .flatten()
        .copied();
    if let Some(nocheckpoint) = nocheckpoint {
        base.insert("nocheckpoint".to_owned(), json!(nocheckpoint));
    }
    let mut pending = Vec::new();
    if names.is_empty() {
        pending.push(handle.rpc(topic.to_owned(), 0, &base)?);
    }
    for name in &names {
        let mut request = base.clone();
        request.insert("name".to_owned(), json!(name));
        pending.push(handle.rpc(topic.to_owned(), 0, &request)?);
    }
    for rpc in &pending {
        handle.get::<IgnoredAny>(rpc)?;
    }
    if !matches.get_flag("quiet") {
        if names.is_empty() {
            names = list_queues(&mut handle)?;
        }
        let mut out = stdout();
        print_status(&mut handle, &names, Some(usize::from(key == "start")), &mut out)?;
        out.flush()?;
    }
    Ok(0)
}

fn wait_args(command: Command) -> Command {
    command.arg(value(
        "timeout",
        Some('t'),
        "DURATION",
        "Timeout (seconds or Flux Standard Duration)",
    ))
}

fn drain_args(command: Command) -> Command {
    wait_args(command)
}

fn idle_args(command: Command) -> Command {
    wait_args(command).arg(flag("quiet", None, "Only display pending job count if nonzero"))
}

fn wait_for(ctx: &Ctx, matches: &ArgMatches, what: &str) -> Result<u64, CmdError> {
    #[derive(Deserialize)]
    struct Response {
        #[serde(default)]
        pending: u64,
    }
    let mut handle = ctx.open()?;
    if let Some(text) = text(matches, "timeout") {
        handle.set_timeout(Some(Duration::from_secs_f64(parse_fsd(text)?.clamp(0.0, 1e9))));
    }
    match handle.call_empty::<Response>(format!("job-manager.{what}"), 0) {
        Ok(response) => Ok(response.pending),
        Err(Error::Timeout) => fail(format!("{what}: timeout")),
        Err(err) => Err(CmdError::doing(what)(err)),
    }
}

fn drain(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    wait_for(ctx, matches, "drain")?;
    Ok(0)
}

fn idle(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let pending = wait_for(ctx, matches, "idle")?;
    if !matches.get_flag("quiet") || pending > 0 {
        writeln!(stdout(), "{pending} jobs")?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let status: Status = serde_json::from_value(json!({"enable": true, "start": true})).unwrap();
        assert_eq!(
            status.lines(""),
            ["Job submission is enabled", "Scheduling is started"]
        );
        let status: Status = serde_json::from_value(
            json!({"enable": false, "start": false, "disable_reason": "maint", "stop_reason": ""}),
        )
        .unwrap();
        assert_eq!(
            status.lines("batch: "),
            [
                "batch: Job submission is disabled: maint",
                "batch: Scheduling is stopped"
            ]
        );
    }
}
