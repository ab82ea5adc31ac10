//! `flux cron`: schedule commands on timers, dates and events.

mod create;
mod show;

use clap::{ArgMatches, Command};
use flux_formats::rpc::cron::{EntryRequest, SyncRequest};
use serde::Deserialize;
use serde_json::Value;
use std::io::Write;

use super::{Entry, plain};
use crate::common::args::{flag, list, operand, operand_optional, operands, required, text, value};
use crate::common::ctx::{Ctx, eprint, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::time::parse_fsd;

/// Rank of the service.
const LEADER: u32 = 0;

pub(super) static TABLE: &[Entry] = &[
    plain(
        "interval",
        "run COMMAND once every INTERVAL",
        create::interval_args,
        create::interval,
    ),
    plain(
        "event",
        "run COMMAND on every event matching TOPIC",
        create::event_args,
        create::event,
    ),
    plain(
        "tab",
        "Schedule cron jobs using crontab(5) format",
        create::tab_args,
        create::tab,
    ),
    plain(
        "at",
        "Schedule a cron job at a given date and time",
        create::at_args,
        create::at,
    ),
    plain(
        "list",
        "List registered and stopped flux-cron jobs",
        |command| command,
        show::list,
    ),
    plain("stop", "Stop a flux cron job from executing", ids_args, stop),
    plain("start", "Start a stopped flux cron job", ids_args, start),
    plain("delete", "Delete flux cron entries", delete_args, delete),
    plain("dump", "Dump values from a cron entry", dump_args, show::dump),
    plain(
        "sync",
        "Query and modify sync-on-event behavior for flux-cron",
        sync_args,
        sync,
    ),
];

/// Reads an id: a number, or `cron-` and a number as other commands print it.
fn id_of(word: &str) -> Result<i64, CmdError> {
    match word.strip_prefix("cron-").unwrap_or(word).parse() {
        Ok(id) => Ok(id),
        Err(_) => usage(format!(
            "'{word}' is not the id of a cron entry (see: flux cron list)"
        )),
    }
}

fn ids_args(command: Command) -> Command {
    command.arg(operands("id", 1, "Entries"))
}

fn delete_args(command: Command) -> Command {
    ids_args(command).arg(flag(
        "kill",
        Some('k'),
        "Also kill any currently running task of the entry",
    ))
}

fn dump_args(command: Command) -> Command {
    command
        .arg(value("key", Some('k'), "KEY", "Print only KEY from the entry"))
        .arg(operand("id", "Entry"))
}

/// Sends a request for each id and gives the entries to `each`.
fn for_ids(
    ctx: &Ctx,
    matches: &ArgMatches,
    topic: &str,
    kill: bool,
    mut each: impl FnMut(i64, &Value) -> String,
) -> CmdResult {
    let mut handle = ctx.open()?;
    let mut out = stdout();
    for word in list(matches, "id") {
        let id = id_of(word)?;
        let entry: Value = handle
            .call(topic, LEADER, &EntryRequest { id, kill })
            .map_err(CmdError::doing(format!("cron-{id}")))?;
        writeln!(out, "{}", each(id, &entry))?;
        out.flush()?;
    }
    Ok(0)
}

fn stop(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    for_ids(ctx, matches, "cron.stop", false, |id, _| {
        format!("Stopped cron-{id}")
    })
}

fn start(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    for_ids(ctx, matches, "cron.start", false, |id, _| {
        format!("Started cron-{id}")
    })
}

fn delete(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let kill = matches.get_flag("kill");
    for_ids(ctx, matches, "cron.delete", kill, show::removed)
}

fn sync_args(command: Command) -> Command {
    command
        .arg(flag("disable", Some('d'), "Disable cron sync-event"))
        .arg(value(
            "epsilon",
            Some('e'),
            "TIME",
            "Set amount of time after a sync-event that jobs are still allowed to be run",
        ))
        .arg(operand_optional("topic", "Event that tasks wait for"))
}

fn sync(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    #[derive(Deserialize)]
    struct Response {
        sync_event: Option<String>,
        #[serde(default)]
        sync_epsilon: f64,
    }
    let disable = matches.get_flag("disable");
    let request = SyncRequest {
        topic: text(matches, "topic").filter(|_| !disable).map(str::to_owned),
        disable,
        sync_epsilon: text(matches, "epsilon").map(parse_fsd).transpose()?,
    };
    let now: Response = ctx.open()?.call("cron.sync", LEADER, &request)?;
    match now.sync_event {
        None => eprint("sync disabled.\n"),
        Some(event) => eprint(format!(
            "sync to event \"{event}\" epsilon={:.3}s.\n",
            now.sync_epsilon
        )),
    }
    Ok(0)
}

/// Finds an entry in the list.
fn find(ctx: &Ctx, matches: &ArgMatches) -> Result<Value, CmdError> {
    let id = id_of(required(matches, "id"))?;
    let found = entries(ctx)?.into_iter().find(|entry| entry["id"] == id);
    match found {
        Some(entry) => Ok(entry),
        None => fail(format!("cron-{id}: no such cron entry")),
    }
}

/// Returns all entries as the service shows them.
fn entries(ctx: &Ctx) -> Result<Vec<Value>, CmdError> {
    #[derive(Deserialize)]
    struct Response {
        entries: Vec<Value>,
    }
    Ok(ctx
        .open()?
        .call::<Response>("cron.list", LEADER, &serde_json::json!({}))?
        .entries)
}
