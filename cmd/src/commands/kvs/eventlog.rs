//! `flux kvs eventlog`: append to, print and wait for an eventlog in the KVS.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use flux_client::kvs::{self, From, Transaction, flags};
use flux_client::{Error, Handle, Rpc};
use flux_formats::errno::ENODATA;
use flux_formats::eventlog::Event;

use super::super::{Entry, plain};
use super::{namespace, namespace_arg};
use crate::common::args::{flag, list, operand, operands, parsed, required, text, value};
use crate::common::color;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail};
use crate::common::eventlog::{Printer, human_options, parse};
use crate::common::stamp::TimeFormat;
use crate::common::time::{now, parse_fsd};

pub(super) static TABLE: &[Entry] = &[
    plain("append", "Append to eventlog", append_args, append),
    plain("get", "Get eventlog", get_args, get),
    plain("wait-event", "Wait for an event", wait_args, wait_event),
];

fn append_args(command: Command) -> Command {
    command
        .arg(namespace_arg())
        .arg(value(
            "timestamp",
            Some('t'),
            "SECONDS",
            "Specify timestamp in seconds since epoch",
        ))
        .arg(operand("key", "Key of the eventlog"))
        .arg(operand("name", "Name of the event"))
        .arg(operands("context", 0, "Context: a JSON object"))
}

fn append(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let timestamp = parsed(matches, "timestamp")?.unwrap_or_else(now);
    let context = list(matches, "context").join(" ");
    let name = required(matches, "name");
    let event = if context.is_empty() {
        Event::new(timestamp, name)
    } else {
        let object: serde_json::Value = serde_json::from_str(&context).map_err(CmdError::json("context"))?;
        match Event::with_context(timestamp, name, &object) {
            Ok(event) => event,
            Err(err) => return fail(format!("context: {err}")),
        }
    };
    let mut transaction = Transaction::new();
    transaction.append(required(matches, "key"), event.encode().as_bytes());
    kvs::commit(&mut ctx.open()?, &namespace(matches), 0, &transaction)?;
    Ok(0)
}

fn get_args(command: Command) -> Command {
    command
        .arg(namespace_arg())
        .arg(flag(
            "waitcreate",
            Some('W'),
            "Wait for creation to occur on eventlog",
        ))
        .arg(flag("watch", Some('w'), "Monitor eventlog"))
        .arg(value("count", Some('c'), "COUNT", "Display at most COUNT events"))
        .arg(flag("unformatted", Some('u'), "Show event in RFC 18 form"))
        .arg(flag("stream", Some('S'), "Stream the eventlog blob by blob"))
        .args(human_options())
        .arg(operand("key", "Key of the eventlog"))
}

fn printer(matches: &ArgMatches) -> Result<Printer, CmdError> {
    let format = if matches.get_flag("human") {
        TimeFormat::Human
    } else {
        TimeFormat::Raw
    };
    Ok(Printer::new(
        matches.get_flag("unformatted"),
        format,
        color::wanted(matches)?,
    ))
}

fn start(handle: &mut Handle, matches: &ArgMatches, watch: bool) -> Result<Rpc, CmdError> {
    let mut bits = 0;
    if matches.get_flag("waitcreate") {
        bits |= flags::WAITCREATE;
    }
    if watch {
        bits |= flags::WATCH | flags::WATCH_APPEND;
    } else if matches.try_get_one::<bool>("stream").ok().flatten() == Some(&true) {
        bits |= flags::STREAM;
    }
    let namespace = namespace(matches);
    Ok(kvs::lookup_start(
        handle,
        From::Namespace(&namespace),
        required(matches, "key"),
        bits,
    )?)
}

/// Takes the next piece of the eventlog; `None` at its end.
fn next_piece(handle: &mut Handle, rpc: &Rpc, key: &str) -> Result<Option<String>, CmdError> {
    let object = match kvs::lookup_finish(handle, rpc) {
        Err(err) if err.is_rpc(ENODATA) => return Ok(None),
        other => other.map_err(CmdError::doing(key))?,
    };
    match kvs::value_of(&object).map(String::from_utf8) {
        Some(Ok(text)) => Ok(Some(text)),
        _ => fail(format!("{key}: not an eventlog")),
    }
}

fn get(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let key = required(matches, "key");
    let watch = matches.get_flag("watch");
    let count: u64 = parsed(matches, "count")?.unwrap_or(u64::MAX);
    let mut printer = printer(matches)?;
    let mut handle = ctx.open()?;
    let rpc = start(&mut handle, matches, watch)?;
    let once = !watch && !matches.get_flag("stream");
    let mut out = stdout();
    let mut seen = 0;
    while let Some(piece) = next_piece(&mut handle, &rpc, key)? {
        for line in piece.lines() {
            if seen == count {
                out.flush()?;
                return Ok(0);
            }
            writeln!(out, "{}", printer.line(line)?)?;
            seen += 1;
        }
        if once || seen == count {
            break;
        }
        out.flush()?;
    }
    out.flush()?;
    Ok(0)
}

fn wait_args(command: Command) -> Command {
    command
        .arg(namespace_arg())
        .arg(flag(
            "waitcreate",
            Some('W'),
            "Wait for creation to occur on eventlog",
        ))
        .arg(value("timeout", Some('t'), "DURATION", "timeout after DURATION"))
        .arg(flag("unformatted", Some('u'), "Show event in RFC 18 form"))
        .arg(flag("quiet", Some('q'), "Do not output matched event"))
        .arg(flag("verbose", Some('v'), "Output non-matching events"))
        .args(human_options())
        .arg(operand("key", "Key of the eventlog"))
        .arg(operand("event", "Name of the event"))
}

fn wait_event(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let (key, wanted) = (required(matches, "key"), required(matches, "event"));
    let deadline = match text(matches, "timeout") {
        Some(text) => Some(Instant::now() + Duration::from_secs_f64(parse_fsd(text)?.clamp(0.0, 1e9))),
        None => None,
    };
    let mut printer = printer(matches)?;
    let mut handle = ctx.open()?;
    let rpc = start(&mut handle, matches, true)?;
    let mut out = stdout();
    loop {
        if let Some(deadline) = deadline {
            handle.set_timeout(Some(deadline.saturating_duration_since(Instant::now())));
        }
        let piece = match next_piece(&mut handle, &rpc, key) {
            Err(CmdError::Doing {
                source: Error::Timeout,
                ..
            }) => {
                return fail(format!("wait-event timeout on event '{wanted}'"));
            }
            other => other?,
        };
        let Some(piece) = piece else {
            return fail(format!("event '{wanted}' never received"));
        };
        for line in piece.lines() {
            let found = parse(line)?.name == wanted;
            let shown = printer.line(line)?;
            if (found && !matches.get_flag("quiet")) || (!found && matches.get_flag("verbose")) {
                writeln!(out, "{shown}")?;
            }
            if found {
                out.flush()?;
                return Ok(0);
            }
        }
        out.flush()?;
    }
}
