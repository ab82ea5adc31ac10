//! `flux job info`, `namespace`, `stats`, `last`, `memo`, `timeleft`: facts about jobs.

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::job::{self, lookup_flags};
use flux_client::{Error, NODEID_ANY};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use crate::common::args::{flag, operand, operand_optional, operands, required, text};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::jobid::{f58, parse};
use crate::common::time::{fsd, now};

pub(super) fn info_args(command: Command) -> Command {
    command
        .arg(flag(
            "original",
            Some('o'),
            "Return the original jobspec, before it was modified at ingest",
        ))
        .arg(flag("base", Some('b'), "Return the base version, before updates"))
        .arg(operand("id", "Job"))
        .arg(operand("key", "R, jobspec, J, eventlog or guest.*"))
}

pub(super) fn info(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let id = parse(required(matches, "id"))?;
    let key = required(matches, "key");
    let mut handle = ctx.open()?;
    let mut out = stdout();
    if matches.get_flag("original") && key == "jobspec" {
        let token = job::lookup(&mut handle, id.0, "J", 0).map_err(|err| describe(err, "J"))?;
        match flux_sign::unwrap_noverify(&token) {
            Ok(unwrapped) => out.write_all(&unwrapped.payload)?,
            Err(err) => return fail(err.to_string()),
        }
        writeln!(out)?;
        out.flush()?;
        return Ok(0);
    }
    let current =
        matches!(key, "R" | "jobspec") && !matches.get_flag("base") && !matches.get_flag("original");
    let flags = if current { lookup_flags::CURRENT } else { 0 };
    let value = job::lookup(&mut handle, id.0, key, flags).map_err(|err| describe(err, key))?;
    writeln!(out, "{value}")?;
    out.flush()?;
    Ok(0)
}

/// Words an error of a look-up as the original does.
fn describe(err: Error, key: &str) -> CmdError {
    match err {
        Error::Rpc(rpc) if rpc.errnum == errno::ENOENT && rpc.text.is_none() => {
            CmdError::Text(format!("{key}: key not found"))
        }
        other => CmdError::Client(other),
    }
}

pub(super) fn namespace_args(command: Command) -> Command {
    command.arg(operands("id", 1, "Jobs"))
}

pub(super) fn namespace(_ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut out = stdout();
    for id in crate::common::args::list(matches, "id") {
        writeln!(out, "{}", parse(id)?.guest_namespace())?;
    }
    out.flush()?;
    Ok(0)
}

pub(super) fn stats_args(command: Command) -> Command {
    command
}

pub(super) fn stats(ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    let value: Value = ctx.open()?.call_empty("job-list.job-stats", NODEID_ANY)?;
    writeln!(stdout(), "{value}")?;
    Ok(0)
}

pub(super) fn last_args(command: Command) -> Command {
    command.arg(
        operand_optional("slice", "N or a slice START:STOP:STEP, newest first").allow_hyphen_values(true),
    )
}

pub(super) fn last(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    #[derive(Deserialize)]
    struct Response {
        jobs: Vec<i64>,
    }
    let slice = match text(matches, "slice") {
        None => "[0:1]".to_owned(),
        Some(number) if number.parse::<u32>().is_ok() => format!("[0:{number}]"),
        Some(slice) if slice.starts_with('[') => slice.to_owned(),
        Some(slice) => format!("[{slice}]"),
    };
    let response: Response =
        ctx.open()?
            .call("job-manager.history.get", NODEID_ANY, &json!({ "slice": slice }))?;
    if response.jobs.is_empty() {
        return fail("job history is empty");
    }
    let mut out = stdout();
    for id in response.jobs {
        writeln!(out, "{}", f58(JobId(id.cast_unsigned())))?;
    }
    out.flush()?;
    Ok(0)
}

pub(super) fn memo_args(command: Command) -> Command {
    command
        .arg(flag(
            "volatile",
            None,
            "Memo will not appear in eventlog (will be lost on restart)",
        ))
        .arg(operand("id", "Job"))
        .arg(operands(
            "key=value",
            1,
            "Keys with values: JSON or text; KEY= removes",
        ))
}

pub(super) fn memo(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let id = parse(required(matches, "id"))?;
    let mut memo = Map::new();
    for word in crate::common::args::list(matches, "key=value") {
        let Some((key, value)) = word.split_once('=') else {
            return usage(format!("memo: '{word}' is not KEY=VALUE"));
        };
        let value = match value {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        };
        memo.insert(key.to_owned(), value);
    }
    let mut request = json!({ "id": id.0, "memo": memo });
    if let (true, Some(object)) = (matches.get_flag("volatile"), request.as_object_mut()) {
        object.insert("volatile".to_owned(), json!(true));
    }
    ctx.open()?
        .call::<IgnoredAny>("job-manager.memo", NODEID_ANY, &request)
        .map_err(CmdError::doing("memo"))?;
    Ok(0)
}

pub(super) fn timeleft_args(command: Command) -> Command {
    command
        .arg(flag("human", Some('H'), "Output in Flux standard duration"))
        .arg(operand_optional(
            "id",
            "Job (default: the job this runs in, or the enclosing instance)",
        ))
}

pub(super) fn timeleft(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let own = ctx.env_str("FLUX_JOB_ID").map(str::to_owned);
    let mut handle = ctx.open()?;
    let left = match text(matches, "id").map(str::to_owned).or(own) {
        Some(text) => {
            let id = parse(&text)?;
            let request = json!({ "id": id.0, "attrs": ["state", "expiration"] });
            let response: Value = handle
                .call("job-list.list-id", NODEID_ANY, &request)
                .map_err(CmdError::doing(format!("job {text}")))?;
            let field = |name: &str| response.pointer(&format!("/job/{name}")).and_then(Value::as_f64);
            let state = field("state").unwrap_or(0.0);
            if state > 32.0 {
                0.0
            } else if state < 16.0 {
                return fail(format!("job {text} has not started"));
            } else {
                remaining(field("expiration").unwrap_or(0.0))
            }
        }
        None => {
            let status: Value = handle.call_empty("resource.status", 0)?;
            remaining(
                status
                    .pointer("/R/execution/expiration")
                    .and_then(Value::as_f64)
                    .unwrap_or(0.0),
            )
        }
    };
    let shown = if left.is_infinite() {
        "infinity".to_owned()
    } else if matches.get_flag("human") {
        fsd(left.floor())
    } else {
        format!("{:.0}", left.floor())
    };
    writeln!(stdout(), "{shown}")?;
    Ok(0)
}

fn remaining(expiration: f64) -> f64 {
    if expiration > 0.0 {
        (expiration - now()).max(0.0)
    } else {
        f64::INFINITY
    }
}
