//! `flux job urgency`, `raise`, `raiseall`, `kill`, `killall`, `purge`: change jobs.

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::{Handle, NODEID_ANY, job};
use flux_formats::jobstate::JobState;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::common::args::{flag, list, operand, operands, parsed, required, text, trailing, value};
use crate::common::ctx::{Ctx, eprint, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::jobid::parse;
use crate::common::time::parse_fsd;
use crate::common::user;
use crate::submission::parse_urgency;

pub(super) fn urgency_args(command: Command) -> Command {
    command
        .arg(flag("verbose", Some('v'), "Output old urgency value"))
        .arg(operand("id", "Job"))
        .arg(operand("urgency", "0-31, HOLD, EXPEDITE or DEFAULT"))
}

pub(super) fn urgency(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    #[derive(Deserialize)]
    struct Response {
        old_urgency: i32,
    }
    let id = parse(required(matches, "id"))?;
    let urgency = parse_urgency(required(matches, "urgency"))?;
    let request = json!({ "id": id.0, "urgency": urgency });
    let response: Response = ctx
        .open()?
        .call("job-manager.urgency", NODEID_ANY, &request)
        .map_err(CmdError::doing(required(matches, "id")))?;
    if matches.get_flag("verbose") {
        let old = match response.old_urgency {
            0 => "held".to_owned(),
            31 => "expedited".to_owned(),
            number => number.to_string(),
        };
        eprint(format!("old urgency: {old}"));
    }
    Ok(0)
}

pub(super) fn raise_args(command: Command) -> Command {
    command
        .arg(value(
            "severity",
            Some('s'),
            "N",
            "Set exception severity [0-7] (default=0)",
        ))
        .arg(value(
            "type",
            Some('t'),
            "TYPE",
            "Set exception type (default=cancel)",
        ))
        .arg(value("message", Some('m'), "NOTE", "Set exception note"))
        .arg(trailing("id", true, "Jobs, then words of the note"))
}

fn severity(matches: &ArgMatches) -> Result<i32, CmdError> {
    match parsed(matches, "severity")?.unwrap_or(0) {
        severity @ 0..=7 => Ok(severity),
        other => usage(format!("invalid severity {other} (use 0 to 7)")),
    }
}

pub(super) fn raise(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let (ids, words) = split_note(&list(matches, "id"))?;
    if text(matches, "message").is_some() && !words.is_empty() {
        return usage("do not set a note on command line with --message");
    }
    let note = text(matches, "message")
        .map(str::to_owned)
        .or((!words.is_empty()).then_some(words));
    let (severity, kind) = (severity(matches)?, text(matches, "type").unwrap_or("cancel"));
    let mut handle = ctx.open()?;
    let mut pending = Vec::new();
    for (name, id) in ids {
        pending.push((
            name,
            job::raise_start(&mut handle, id, kind, severity, note.as_deref())?,
        ));
    }
    collect(ctx, &mut handle, &pending)
}

/// Waits for the answers and reports each refusal; returns 1 when there was one.
fn collect(ctx: &Ctx, handle: &mut Handle, pending: &[(String, flux_client::Rpc)]) -> CmdResult {
    let mut code = 0;
    for (name, rpc) in pending {
        match handle.get::<IgnoredAny>(rpc) {
            Ok(_) => {}
            Err(flux_client::Error::Rpc(err)) => {
                ctx.report(&format!("{name}: {}", err.message()));
                code = 1;
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok(code)
}

/// Separates leading job ids from the words of a note.
fn split_note(words: &[&str]) -> Result<(Vec<(String, u64)>, String), CmdError> {
    let mut ids = Vec::new();
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        match parse(word) {
            Ok(id) => ids.push(((*word).to_owned(), id.0)),
            Err(err) if ids.is_empty() => return Err(err),
            Err(_) => break,
        }
        rest = after;
    }
    if rest.first() == Some(&"--") {
        rest = rest.get(1..).unwrap_or(&[]);
    }
    Ok((ids, rest.join(" ")))
}

/// Reads `--states`: names joined by commas, as bits.
///
/// # Errors
/// A usage error that names the state.
pub(crate) fn states(text: &str) -> Result<u32, CmdError> {
    let mut mask = 0;
    for name in text.split(',').map(str::trim) {
        match JobState::mask_from_name(name) {
            Some(bits) => mask |= bits,
            None => {
                return usage(format!(
                    "invalid state '{name}' (use depend, priority, sched, run, cleanup, pending, running, active)"
                ));
            }
        }
    }
    Ok(mask)
}

/// How many jobs a request for several of them reached.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Counted {
    /// Jobs that matched.
    pub(crate) count: u64,
    /// Jobs for which it failed.
    #[serde(default)]
    pub(crate) errors: u64,
}

/// Raises an exception on every job of a user in some states.
///
/// # Errors
/// Those of the RPC.
pub(crate) fn raise_all(
    handle: &mut Handle,
    dry_run: bool,
    userid: u32,
    states: u32,
    severity: i32,
    kind: &str,
    note: Option<&str>,
) -> Result<Counted, CmdError> {
    let userid = if userid == user::USERID_ALL {
        -1
    } else {
        i64::from(userid)
    };
    let mut request =
        json!({ "dry_run": dry_run, "userid": userid, "states": states, "severity": severity, "type": kind });
    if let (Some(note), Some(object)) = (note, request.as_object_mut()) {
        object.insert("note".to_owned(), json!(note));
    }
    Ok(handle.call("job-manager.raiseall", NODEID_ANY, &request)?)
}

pub(super) fn raiseall_args(command: Command) -> Command {
    command
        .arg(value(
            "severity",
            Some('s'),
            "N",
            "Set exception severity [0-7] (default=7)",
        ))
        .arg(value(
            "user",
            Some('u'),
            "USER",
            "Set target user or 'all' (instance owner only)",
        ))
        .arg(value(
            "states",
            Some('S'),
            "STATES",
            "Set target job states (default: active)",
        ))
        .arg(flag("force", Some('f'), "Confirm the command"))
        .arg(operand("type", "Exception type"))
        .arg(operands("note", 0, "Note"))
}

fn target_user(matches: &ArgMatches) -> Result<u32, CmdError> {
    text(matches, "user").map_or(Ok(user::own()), user::parse)
}

pub(super) fn raiseall(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let severity = if text(matches, "severity").is_some() {
        severity(matches)?
    } else {
        7
    };
    let states = states(text(matches, "states").unwrap_or("active"))?;
    let note = list(matches, "note").join(" ");
    let force = matches.get_flag("force");
    let counted = raise_all(
        &mut ctx.open()?,
        !force,
        target_user(matches)?,
        states,
        severity,
        required(matches, "type"),
        (!note.is_empty()).then_some(note.as_str()),
    )?;
    if force && counted.count > 0 {
        ctx.warn(format!(
            "Raised exception on {} jobs ({} errors)",
            counted.count, counted.errors
        ));
    } else if counted.count > 0 {
        ctx.warn(format!("Command matched {} jobs (-f to confirm)", counted.count));
    } else {
        ctx.warn("Command matched 0 jobs");
    }
    Ok(u8::from(counted.errors > 0))
}

fn signal(matches: &ArgMatches) -> Result<i32, CmdError> {
    let name = text(matches, "signal").unwrap_or("SIGTERM");
    match flux_formats::signal::number(name) {
        Some(number) => Ok(number),
        None => usage(format!("Invalid signal {name}")),
    }
}

pub(super) fn kill_args(command: Command) -> Command {
    command
        .arg(value(
            "signal",
            Some('s'),
            "SIG",
            "Send signal SIG (default SIGTERM)",
        ))
        .arg(operands("id", 1, "Jobs"))
}

pub(super) fn kill(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let signum = signal(matches)?;
    let mut handle = ctx.open()?;
    let mut pending = Vec::new();
    for name in list(matches, "id") {
        pending.push((
            name.to_owned(),
            job::kill_start(&mut handle, parse(name)?.0, signum)?,
        ));
    }
    collect(ctx, &mut handle, &pending)
}

pub(super) fn killall_args(command: Command) -> Command {
    command
        .arg(value(
            "signal",
            Some('s'),
            "SIG",
            "Send signal SIG (default SIGTERM)",
        ))
        .arg(value(
            "user",
            Some('u'),
            "USER",
            "Set target user or 'all' (instance owner only)",
        ))
        .arg(flag("force", Some('f'), "Confirm the command"))
}

pub(super) fn killall(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let (signum, user) = (signal(matches)?, target_user(matches)?);
    let userid = if user == user::USERID_ALL {
        -1
    } else {
        i64::from(user)
    };
    let force = matches.get_flag("force");
    let request = json!({ "dry_run": !force, "userid": userid, "signum": signum });
    let counted: Counted = ctx.open()?.call("job-manager.killall", NODEID_ANY, &request)?;
    if force && counted.count > 0 {
        ctx.warn(format!(
            "Killed {} jobs ({} errors)",
            counted.count, counted.errors
        ));
    } else if counted.count > 0 {
        ctx.warn(format!("Command matched {} jobs (-f to confirm)", counted.count));
    } else {
        ctx.warn("Command matched 0 jobs");
    }
    Ok(u8::from(counted.errors > 0))
}

pub(super) fn purge_args(command: Command) -> Command {
    command
        .arg(value(
            "age-limit",
            None,
            "FSD",
            "Purge jobs that became inactive beyond age-limit",
        ))
        .arg(value(
            "num-limit",
            None,
            "COUNT",
            "Purge oldest inactive jobs until COUNT are left",
        ))
        .arg(flag("force", Some('f'), "Confirm the command"))
        .arg(value(
            "batch",
            None,
            "COUNT",
            "Limit number of jobs per request (default 50)",
        ))
        .arg(operands("id", 0, "Jobs to purge"))
}

pub(super) fn purge(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    #[derive(Deserialize)]
    struct Response {
        count: u64,
    }
    let force = matches.get_flag("force");
    let mut handle = ctx.open()?;
    let mut total = 0;
    let ids = list(matches, "id");
    if !ids.is_empty() {
        for name in ids {
            let request = json!({ "id": parse(name)?.0, "force": i32::from(force) });
            let response: Response = handle
                .call("job-manager.purge-id", 0, &request)
                .map_err(CmdError::doing(name))?;
            total += response.count;
        }
    } else {
        let age_limit = text(matches, "age-limit").map_or(Ok(-1.0), parse_fsd)?;
        let num_limit: i64 = parsed(matches, "num-limit")?.unwrap_or(-1);
        let batch: u64 = parsed(matches, "batch")?.unwrap_or(50);
        loop {
            let request =
                json!({ "age_limit": age_limit, "num_limit": num_limit, "batch": batch, "force": force });
            let response: Response = handle.call("job-manager.purge", 0, &request)?;
            total += response.count;
            if !force || response.count < batch {
                break;
            }
        }
    }
    let inactive: Value = handle.call_empty("job-manager.stats-get", 0)?;
    let left = inactive.get("inactive_jobs").and_then(Value::as_u64).unwrap_or(0);
    let mut out = stdout();
    if force {
        writeln!(out, "purged {total} inactive jobs, {left} remaining")?;
    } else {
        writeln!(out, "use --force to purge {total} of {left} inactive jobs")?;
    }
    out.flush()?;
    if total == 0 && force && !list(matches, "id").is_empty() {
        fail("no job was purged")
    } else {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_and_states() {
        let (ids, note) = split_note(&["f1", "123", "bad", "node"]).unwrap();
        assert_eq!((ids.len(), note.as_str()), (2, "bad node"));
        assert!(split_note(&["what?"]).is_err());
        assert_eq!(states("pending,run").unwrap(), 14 | 16);
        assert!(states("x").is_err());
    }
}
