//! `flux cron interval|event|tab|at`: which entry is made of the options?

use std::io::Read;
use std::process::{Command as Process, Stdio};

use clap::{ArgMatches, Command};
use flux_client::Handle;
use flux_formats::rpc::cron::{self, CreateRequest};
use flux_process::local_time;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::LEADER;
use crate::common::args::{
    flag, list, operand, operand_optional, parsed, required, text, trailing, value, values,
};
use crate::common::ctx::{Ctx, eprint};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::time::{now, parse_fsd, strftime};

/// Options of all kinds of entries.
fn common(command: Command) -> Command {
    command
        .arg(values(
            "options",
            Some('o'),
            "OPTS",
            "Comma separated list of timeout=SECONDS, rank=R, task-history-count=N, stop-on-failure=N",
        ))
        .arg(flag(
            "preserve-env",
            Some('E'),
            "Use current environment for cron command",
        ))
        .arg(value(
            "working-dir",
            Some('d'),
            "DIR",
            "Set working directory for cron command",
        ))
}

/// Options of entries that run more than once.
fn repeated(command: Command) -> Command {
    common(command)
        .arg(value("count", Some('c'), "N", "Repeat COMMAND at most N times"))
        .arg(value(
            "name",
            Some('N'),
            "S",
            "Name cron job string S instead of default",
        ))
}

pub(super) fn interval_args(command: Command) -> Command {
    repeated(command)
        .arg(value(
            "after",
            Some('a'),
            "INTERVAL",
            "Set INTERVAL for initial timer",
        ))
        .arg(operand("interval", "Time between two runs"))
        .arg(trailing("command", true, "Command"))
}

pub(super) fn interval(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut args = Map::new();
    args.insert(
        "interval".to_owned(),
        json!(parse_fsd(required(matches, "interval"))?),
    );
    if let Some(after) = text(matches, "after") {
        args.insert("after".to_owned(), json!(parse_fsd(after)?));
    }
    created(ctx, &request(ctx, matches, cron::INTERVAL, args)?)
}

pub(super) fn event_args(command: Command) -> Command {
    repeated(command)
        .arg(value(
            "nth",
            Some('n'),
            "N",
            "Run command every Nth matching event",
        ))
        .arg(value(
            "after",
            Some('a'),
            "N",
            "Run command the first time only after N events",
        ))
        .arg(value(
            "min-interval",
            Some('i'),
            "T",
            "Set minimum interval at which two cron jobs will execute",
        ))
        .arg(operand("topic", "Topic of the events, or a glob of topics"))
        .arg(trailing("command", true, "Command"))
}

pub(super) fn event(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut args = Map::new();
    args.insert("topic".to_owned(), json!(required(matches, "topic")));
    for id in ["nth", "after"] {
        if let Some(count) = parsed::<u32>(matches, id)? {
            args.insert(id.to_owned(), json!(count));
        }
    }
    if let Some(least) = text(matches, "min-interval") {
        args.insert("min_interval".to_owned(), json!(parse_fsd(least)?));
    }
    created(ctx, &request(ctx, matches, cron::EVENT, args)?)
}

pub(super) fn tab_args(command: Command) -> Command {
    common(command).arg(operand_optional("file", "Crontab; standard input if absent or -"))
}

pub(super) fn tab(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let name = text(matches, "file").filter(|name| *name != "-");
    let mut table = String::new();
    match name {
        Some(name) => table = std::fs::read_to_string(name).map_err(CmdError::file(name))?,
        None => {
            std::io::stdin()
                .read_to_string(&mut table)
                .map_err(CmdError::file("standard input"))?;
        }
    }
    let name = name.unwrap_or("standard input");
    let lines = cron::crontab(&table).or_else(|err| fail(format!("{name}: {err}")))?;
    let mut handle = ctx.open()?;
    for line in lines {
        let mut request = options(ctx, matches, line)?;
        request.name.clone_from(&first_word(&request.command));
        scheduled(&mut handle, &request)?;
    }
    Ok(0)
}

pub(super) fn at_args(command: Command) -> Command {
    common(command)
        .arg(operand("time", "Date and time as date(1) reads it"))
        .arg(trailing("command", true, "Command"))
}

pub(super) fn at(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let time = local_time(read_date(required(matches, "time"))?);
    let args = json!({
        "second": time.second, "minute": time.minute, "hour": time.hour, "mday": time.day,
        "month": time.month.saturating_sub(1), "year": time.year - 1900,
    });
    let Value::Object(args) = args else { return Ok(1) };
    let mut request = request(ctx, matches, cron::DATETIME, args)?;
    request.repeat = 1;
    scheduled(&mut ctx.open()?, &request)
}

/// Asks date(1) what a text means; returns seconds since 1970.
fn read_date(text: &str) -> Result<i64, CmdError> {
    let output = Process::new("date")
        .arg(format!("--date={text}"))
        .arg("+%s")
        .stdin(Stdio::null())
        .output()
        .map_err(CmdError::file("date"))?;
    match String::from_utf8_lossy(&output.stdout).trim().parse() {
        Ok(secs) if output.status.success() => Ok(secs),
        _ => usage(format!("'{text}' is no date and time that date(1) can read")),
    }
}

fn first_word(command: &str) -> String {
    command.split_whitespace().next().unwrap_or_default().to_owned()
}

/// Makes the request for an entry whose command stands on the command line.
fn request(
    ctx: &Ctx,
    matches: &ArgMatches,
    kind: &str,
    args: Map<String, Value>,
) -> Result<CreateRequest, CmdError> {
    let command = list(matches, "command").join(" ");
    let base = CreateRequest {
        r#type: kind.to_owned(),
        name: first_word(&command),
        command,
        args,
        task_history_count: 1,
        timeout: -1.0,
        ..CreateRequest::default()
    };
    options(ctx, matches, base)
}

/// Adds what the options say.
fn options(ctx: &Ctx, matches: &ArgMatches, mut request: CreateRequest) -> Result<CreateRequest, CmdError> {
    // tab and at have neither name nor count
    if let Ok(Some(name)) = matches.try_get_one::<String>("name") {
        request.name.clone_from(name);
    }
    if let Ok(Some(_)) = matches.try_get_one::<String>("count") {
        request.repeat = parsed::<u32>(matches, "count")?.unwrap_or(0).into();
    }
    request.cwd = text(matches, "working-dir").map(str::to_owned);
    if matches.get_flag("preserve-env") {
        let text = ctx
            .env
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        request.environ = Some(
            text.map(|(name, value)| (name.to_owned(), json!(value)))
                .collect(),
        );
    }
    let settings = list(matches, "options")
        .into_iter()
        .flat_map(|text| text.split(','));
    for setting in settings.filter(|setting| !setting.is_empty()) {
        apply(&mut request, setting)?;
    }
    Ok(request)
}

fn apply(request: &mut CreateRequest, setting: &str) -> Result<(), CmdError> {
    let bad = || {
        usage(format!(
            "--options: '{setting}' is none of timeout=SECONDS, rank=R, task-history-count=N, stop-on-failure=N"
        ))
    };
    let Some((key, value)) = setting.split_once('=') else {
        return bad();
    };
    let done = match key {
        "timeout" => value.parse().map(|secs| request.timeout = secs).is_ok(),
        "rank" => value.parse().map(|rank| request.rank = rank).is_ok(),
        "task-history-count" => value
            .parse()
            .map(|count| request.task_history_count = count)
            .is_ok(),
        "stop-on-failure" => value.parse().map(|count| request.stop_on_failure = count).is_ok(),
        _ => false,
    };
    if done { Ok(()) } else { bad() }
}

fn create(handle: &mut Handle, request: &CreateRequest) -> Result<Value, CmdError> {
    handle
        .call("cron.create", LEADER, request)
        .map_err(CmdError::doing(format!("cannot schedule '{}'", request.command)))
}

/// Creates an entry and tells its id on standard error, as the original does.
fn created(ctx: &Ctx, request: &CreateRequest) -> CmdResult {
    let entry = create(&mut ctx.open()?, request)?;
    eprint(format!("{}: cron-{} created\n", request.r#type, entry["id"]));
    Ok(0)
}

/// Creates an entry that runs at dates, and tells when it runs first.
fn scheduled(handle: &mut Handle, request: &CreateRequest) -> CmdResult {
    #[derive(Deserialize)]
    struct Created {
        id: i64,
        typedata: Wakeup,
    }
    #[derive(Deserialize)]
    struct Wakeup {
        next_wakeup: f64,
    }
    let entry = create(handle, request)?;
    let entry: Created = serde_json::from_value(entry).map_err(CmdError::json("cron.create"))?;
    let next = entry.typedata.next_wakeup;
    let when = if next > 0.0 {
        format!("scheduled in {:.3}s at {}", next - now(), strftime(next, "%c"))
    } else {
        "its date never comes".to_owned()
    };
    eprint(format!("cron-{} created: {when}\n", entry.id));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_options() {
        let mut request = CreateRequest::default();
        for setting in [
            "timeout=1.5",
            "rank=3",
            "task-history-count=5",
            "stop-on-failure=2",
        ] {
            apply(&mut request, setting).unwrap();
        }
        assert_eq!((request.timeout, request.rank), (1.5, 3));
        assert_eq!((request.task_history_count, request.stop_on_failure), (5, 2));
        for bad in ["timeout", "rank=x", "colour=1"] {
            assert!(apply(&mut request, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dates_of_date_1() {
        assert_eq!(read_date("@86400").unwrap(), 86_400);
        assert!(read_date("no such day").is_err());
    }
}
