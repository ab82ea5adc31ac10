//! `flux job list`, `list-inactive`, `list-ids`: records of jobs as JSON lines, for tests and scripts.

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::{Handle, NODEID_ANY};
use serde_json::{Value, json};

use super::change::states;
use crate::common::args::{flag, list, operands, parsed, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult};
use crate::common::jobid::parse;
use crate::common::json::python;
use crate::common::user;

pub(super) fn list_args(command: Command) -> Command {
    command
        .arg(value("count", Some('c'), "N", "Limit output to N jobs"))
        .arg(value(
            "states",
            Some('s'),
            "STATES",
            "List jobs in specific states",
        ))
        .arg(value("user", Some('u'), "USER", "Limit output to specific user"))
        .arg(flag("all-user", Some('a'), "List my jobs, regardless of state"))
        .arg(flag(
            "all",
            Some('A'),
            "List jobs for all users, regardless of state",
        ))
}

pub(super) fn list_jobs(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let all = matches.get_flag("all");
    let mask = if all || matches.get_flag("all-user") {
        127
    } else {
        text(matches, "states").map_or(Ok(62), states)?
    };
    let userid = if all {
        user::USERID_ALL
    } else {
        text(matches, "user").map_or(Ok(user::own()), user::parse)?
    };
    let mut terms = vec![json!({ "states": [mask] })];
    if userid != user::USERID_ALL {
        terms.insert(0, json!({ "userid": [userid] }));
    }
    let request = json!({
        "max_entries": parsed::<u64>(matches, "count")?.unwrap_or(1000),
        "attrs": ["all"],
        "constraint": { "and": terms },
    });
    print_list(&mut ctx.open()?, &request)
}

pub(super) fn list_inactive_args(command: Command) -> Command {
    command
        .arg(value("count", Some('c'), "N", "Limit output to N jobs"))
        .arg(value(
            "since",
            Some('s'),
            "T",
            "Limit output to jobs that entered the inactive state since timestamp T",
        ))
}

pub(super) fn list_inactive(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let request = json!({
        "max_entries": parsed::<u64>(matches, "count")?.unwrap_or(1000),
        "since": parsed::<f64>(matches, "since")?.unwrap_or(0.0),
        "attrs": ["all"],
        "constraint": { "states": [64] },
    });
    print_list(&mut ctx.open()?, &request)
}

fn print_list(handle: &mut Handle, request: &Value) -> CmdResult {
    let response: Value = handle.call("job-list.list", NODEID_ANY, request)?;
    let mut out = stdout();
    for job in response
        .get("jobs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        writeln!(out, "{}", python(job)?)?;
    }
    out.flush()?;
    Ok(0)
}

pub(super) fn list_ids_args(command: Command) -> Command {
    command
        .arg(value(
            "wait-state",
            Some('W'),
            "STATE",
            "Wait until the job reaches the state",
        ))
        .arg(operands("id", 1, "Jobs"))
}

pub(super) fn list_ids(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let state = text(matches, "wait-state").map(states).transpose()?;
    let mut handle = ctx.open()?;
    let mut pending = Vec::new();
    for name in list(matches, "id") {
        let mut request = json!({ "id": parse(name)?.0, "attrs": ["all"] });
        if let (Some(state), Some(object)) = (state, request.as_object_mut()) {
            object.insert("state".to_owned(), json!(state));
        }
        pending.push((name, handle.rpc("job-list.list-id", NODEID_ANY, &request)?));
    }
    let mut out = stdout();
    for (name, rpc) in pending {
        let response: Value = handle.get(&rpc).map_err(CmdError::doing(name))?;
        writeln!(out, "{}", python(response.get("job").unwrap_or(&Value::Null))?)?;
    }
    out.flush()?;
    Ok(0)
}
