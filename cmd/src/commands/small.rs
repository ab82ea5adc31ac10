//! Commands of a few lines: `flux lptest`, `cgroup path`, `admin cleanup-push`, `post-job-event`, `job-exec-override`.

use std::io::{BufRead, Write};

use clap::{ArgMatches, Command};
use flux_client::NODEID_ANY;
use flux_formats::errno::ENOENT;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::{Entry, plain, tagged};
use crate::common::args::{list, operand, operand_optional, operands, parsed, required, trailing};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::jobid::parse;

pub(super) fn lptest_args(command: Command) -> Command {
    command
        .arg(operand_optional("length", "Characters of a line (default 79)"))
        .arg(operand_optional("count", "Lines (default 200)"))
}

pub(super) fn lptest(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    const FIRST: u8 = b'!';
    const KINDS: usize = 94;
    let length: usize = parsed(matches, "length")?.unwrap_or(79);
    let count: usize = parsed(matches, "count")?.unwrap_or(200);
    let pattern: Vec<u8> = (FIRST..=b'~').collect();
    let mut out = stdout();
    for line in 0..count {
        let text: Vec<u8> = pattern
            .iter()
            .copied()
            .cycle()
            .skip(line % KINDS)
            .take(length)
            .collect();
        out.write_all(&text)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(0)
}

pub(super) static CGROUP: &[Entry] = &[plain(
    "path",
    "Print the directory of this process's control group",
    |command| command,
    cgroup_path,
)];

fn cgroup_path(_ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    const ROOT: &str = "/sys/fs/cgroup";
    let own = std::fs::read_to_string("/proc/self/cgroup").map_err(CmdError::file("/proc/self/cgroup"))?;
    let Some(path) = own.lines().find_map(|line| line.strip_prefix("0::")) else {
        return fail("incompatible cgroup configuration: there is no cgroup version 2 hierarchy");
    };
    for root in [ROOT.to_owned(), format!("{ROOT}/unified")] {
        if std::path::Path::new(&root).join("cgroup.controllers").exists() {
            writeln!(stdout(), "{}{}", root, path.trim_end_matches('/'))?;
            return Ok(0);
        }
    }
    fail(format!(
        "incompatible cgroup configuration: no cgroup version 2 file system at {ROOT} or {ROOT}/unified"
    ))
}

pub(super) static ADMIN: &[Entry] = &[tagged(
    "cleanup-push",
    "Push a command to the list that runs before the instance ends",
    cleanup_args,
    cleanup_push,
)];

fn cleanup_args(command: Command) -> Command {
    command.arg(trailing(
        "command",
        false,
        "Command; one per line of standard input if absent",
    ))
}

fn cleanup_push(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let words = list(matches, "command");
    let mut commands = Vec::new();
    if words.is_empty() {
        for line in std::io::stdin().lock().lines() {
            commands.push(line.map_err(CmdError::file("standard input"))?.trim().to_owned());
        }
    } else {
        commands.push(words.join(" "));
    }
    // each goes to the front of the list: the block keeps its order
    commands.reverse();
    ctx.open()?
        .call::<IgnoredAny>(
            "runat.push",
            0,
            &json!({ "name": "cleanup", "commands": commands }),
        )
        .map_err(CmdError::doing("cleanup-push"))?;
    Ok(0)
}

pub(super) fn post_event_args(command: Command) -> Command {
    command
        .arg(operand("id", "Job"))
        .arg(operand("name", "Name of the event"))
        .arg(operands(
            "key=value",
            0,
            "Context of the event; values may be JSON, keys dotted",
        ))
}

pub(super) fn post_event(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let word = required(matches, "id");
    let mut request = json!({ "id": parse(word)?.0, "name": required(matches, "name") });
    let mut context = Value::Object(Map::new());
    for pair in list(matches, "key=value") {
        let Some((key, value)) = pair.split_once('=') else {
            return usage(format!("Missing required value for key {pair}"));
        };
        let mut value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        for part in key.rsplit('.') {
            let mut table = Map::new();
            table.insert(part.to_owned(), value);
            value = Value::Object(table);
        }
        crate::common::userconf::merge(&mut context, value);
    }
    if let (false, Some(request)) = (
        context.as_object().is_none_or(Map::is_empty),
        request.as_object_mut(),
    ) {
        request.insert("context".to_owned(), context);
    }
    let result = ctx
        .open()?
        .call::<IgnoredAny>("job-manager.post-event.post", NODEID_ANY, &request);
    match result {
        Ok(_) => Ok(0),
        Err(err) if err.is_rpc(ENOENT) => fail(format!("No such job {word}")),
        Err(err) => Err(err.into()),
    }
}

pub(super) static OVERRIDE: &[Entry] = &[
    tagged(
        "finish",
        "Finish a mock job with a wait status",
        finish_args,
        override_finish,
    ),
    tagged("start", "Start a mock job", start_args, override_start),
];

fn start_args(command: Command) -> Command {
    command.arg(operand("jobid", "Job"))
}

fn finish_args(command: Command) -> Command {
    command
        .arg(operand("jobid", "Job"))
        .arg(operand_optional("status", "Wait status (default 0)"))
}

fn override_start(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let word = required(matches, "jobid");
    let request = json!({ "event": "start", "jobid": parse(word)?.0 });
    ctx.open()?
        .call::<IgnoredAny>("job-exec.override", 0, &request)
        .map_err(CmdError::doing(word))?;
    Ok(0)
}

fn override_finish(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let word = required(matches, "jobid");
    let status: i32 = parsed(matches, "status")?.unwrap_or(0);
    let request = json!({ "event": "finish", "jobid": parse(word)?.0, "status": status });
    ctx.open()?
        .call::<IgnoredAny>("job-exec.override", 0, &request)
        .map_err(CmdError::doing(word))?;
    Ok(0)
}
