//! `flux job eventlog` and `wait-event`: what has happened to a job?

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use flux_client::job::{self, WatchEvent};
use flux_client::{Error, Handle, Rpc};
use flux_formats::errno;
use flux_formats::jobid::JobId;

use crate::common::args::{flag, list, operand, parsed, required, text, value, values};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail};
use crate::common::eventlog::{Match, Printer, options, parse as parse_event};
use crate::common::jobid::parse;
use crate::common::time::parse_fsd;

/// Returns the eventlog path that a short name stands for.
fn full_path(name: &str) -> &str {
    match name {
        "exec" => "guest.exec.eventlog",
        "output" => "guest.output",
        "input" => "guest.input",
        other => other,
    }
}

pub(super) fn eventlog_args(command: Command) -> Command {
    options(command)
        .arg(flag("follow", Some('F'), "Track new events as they are logged"))
        .arg(value(
            "path",
            Some('p'),
            "PATH",
            "Specify alternate eventlog name or path suffix (e.g. output, exec)",
        ))
        .arg(operand("id", "Job"))
}

pub(super) fn eventlog(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let id = parse(required(matches, "id"))?;
    let path = full_path(text(matches, "path").unwrap_or("eventlog"));
    let mut printer = Printer::from_matches(matches)?;
    let mut handle = ctx.open()?;
    let mut out = stdout();
    if matches.get_flag("follow") {
        let watch = job::eventlog_watch(&mut handle, id.0, path, 0)?;
        while let Some(line) = next_line(&mut handle, &watch, path)? {
            writeln!(out, "{}", printer.line(&line)?)?;
            out.flush()?;
        }
        return Ok(0);
    }
    let log = job::lookup(&mut handle, id.0, path, 0).map_err(|err| describe(err, path))?;
    for line in log.lines() {
        writeln!(out, "{}", printer.line(line)?)?;
    }
    out.flush()?;
    Ok(0)
}

/// Words an error of a look-up or watch as the original does.
fn describe(err: Error, path: &str) -> CmdError {
    match err {
        Error::Rpc(rpc)
            if rpc.errnum == errno::ENOENT && !rpc.message().contains("job id") && path != "eventlog" =>
        {
            CmdError::Text(format!("eventlog path {path} not found"))
        }
        Error::Rpc(rpc) if rpc.errnum == errno::ENOENT => CmdError::Text("job id not found".to_owned()),
        Error::Rpc(rpc) if rpc.errnum == errno::EPERM => CmdError::Text("not your job".to_owned()),
        other => CmdError::Client(other),
    }
}

fn next_line(handle: &mut Handle, watch: &Rpc, path: &str) -> Result<Option<String>, CmdError> {
    match job::watch_next(handle, watch).map_err(|err| describe(err, path))? {
        Some(WatchEvent::Event(line)) => Ok(Some(line.trim_end().to_owned())),
        Some(WatchEvent::Sentinel) => next_line(handle, watch, path),
        None => Ok(None),
    }
}

pub(super) fn wait_args(command: Command) -> Command {
    options(command)
        .arg(value("timeout", Some('t'), "DURATION", "timeout after DURATION"))
        .arg(values(
            "match-context",
            Some('m'),
            "KEY=VAL",
            "match key=val in context",
        ))
        .arg(value(
            "count",
            Some('c'),
            "COUNT",
            "required number of matches (default 1)",
        ))
        .arg(flag("quiet", Some('q'), "Do not output matched event"))
        .arg(flag(
            "verbose",
            Some('v'),
            "Output all events before matched event",
        ))
        .arg(value(
            "path",
            Some('p'),
            "PATH",
            "Specify alternate eventlog name or path suffix (e.g. output, exec)",
        ))
        .arg(flag(
            "waitcreate",
            Some('W'),
            "If path does not exist, wait for its creation",
        ))
        .arg(operand("id", "Job"))
        .arg(operand("event", "Name of the event"))
}

pub(super) fn wait_event(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let id = parse(required(matches, "id"))?;
    let wanted = required(matches, "event");
    let path = full_path(text(matches, "path").unwrap_or("eventlog"));
    let conditions: Vec<Match> = list(matches, "match-context")
        .into_iter()
        .map(Match::parse)
        .collect::<Result<_, _>>()?;
    let count: u64 = parsed(matches, "count")?.unwrap_or(1);
    let deadline = match text(matches, "timeout") {
        Some(text) => Some(Instant::now() + Duration::from_secs_f64(parse_fsd(text)?.clamp(0.0, 1e9))),
        None => None,
    };
    let mut printer = Printer::from_matches(matches)?;
    let mut handle = ctx.open()?;
    let flags = if matches.get_flag("waitcreate") {
        job::watch_flags::WAITCREATE
    } else {
        0
    };
    let watch = job::eventlog_watch(&mut handle, id.0, path, flags)?;
    let mut out = stdout();
    let mut seen = 0;
    loop {
        if let Some(deadline) = deadline {
            handle.set_timeout(Some(deadline.saturating_duration_since(Instant::now())));
        }
        let line = match wait_line(&mut handle, &watch, path, deadline) {
            Err(CmdError::Client(Error::Timeout)) => {
                return fail(format!("wait-event timeout on event '{wanted}'"));
            }
            other => other?,
        };
        let Some(line) = line else {
            return fail(format!("event '{wanted}' never received"));
        };
        let event = parse_event(&line)?;
        let found = event.name == wanted && conditions.iter().all(|condition| condition.accepts(&event));
        let shown = printer.line(&line)?;
        seen += u64::from(found);
        let last = found && seen == count;
        if (last && !matches.get_flag("quiet")) || (!last && matches.get_flag("verbose")) {
            writeln!(out, "{shown}")?;
            out.flush()?;
        }
        if last {
            return Ok(0);
        }
    }
}

fn wait_line(
    handle: &mut Handle,
    watch: &Rpc,
    path: &str,
    deadline: Option<Instant>,
) -> Result<Option<String>, CmdError> {
    let message = handle
        .next_until(watch, deadline)
        .map_err(|err| describe(err, path))?;
    let Some(message) = message else { return Ok(None) };
    match job::watch_decode(&message)? {
        WatchEvent::Event(line) => Ok(Some(line.trim_end().to_owned())),
        WatchEvent::Sentinel => wait_line(handle, watch, path, deadline),
    }
}

/// Follows an eventlog until an event has come, and returns its line.
///
/// # Errors
/// When the log ends before, or does not exist.
pub(super) fn wait_for_event(
    handle: &mut Handle,
    id: JobId,
    path: &str,
    wanted: &str,
) -> Result<String, CmdError> {
    let watch = job::eventlog_watch(handle, id.0, path, 0)?;
    while let Some(line) = next_line(handle, &watch, path)? {
        if parse_event(&line)?.name == wanted {
            job::watch_cancel(handle, &watch)?;
            handle.forget(watch);
            return Ok(line);
        }
    }
    fail(format!("event '{wanted}' never received"))
}
