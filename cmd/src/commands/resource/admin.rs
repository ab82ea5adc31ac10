//! `flux resource drain`, `undrain`, `reload`, `eventlog`, `acquire-mute`: change which resources may be used.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use flux_client::{Error, Message, NODEID_ANY};
use flux_formats::eventlog::EventRef;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, json};

use super::status::{StatusFields, View, limit};
use crate::common::args::{flag, list, operand, operand_optional, required, text, trailing, value, values};
use crate::common::catalogue::Catalogue;
use crate::common::color;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::eventlog::{Match, Printer, options, parse as parse_event};
use crate::common::format::Format;
use crate::common::time::parse_fsd;

const DRAIN_FORMATS: Catalogue = Catalogue {
    program: "flux-resource drain",
    file: "flux-resource",
    table: Some("drain"),
    variable: "FLUX_RESOURCE_DRAIN_FORMAT_DEFAULT",
    builtin: &[
        (
            "default",
            "Default flux-resource drain format string",
            "{timestamp!d:%b%d %R::<12} {state:<8.8} {reason:<30.30+} {nodelist}",
        ),
        (
            "long",
            "Extended flux-resource drain format string",
            "{timestamp!d:%b%d %R::<12} {state:<8.8} {ranks:<8.8+} {reason:<30.30+} {nodelist}",
        ),
    ],
};

pub(super) fn drain_args(command: Command) -> Command {
    command
        .arg(flag(
            "force",
            Some('f'),
            "Force overwrite of existing drain reason",
        ))
        .arg(flag(
            "update",
            Some('u'),
            "Update drain reason, do not return an error if target(s) are already drained",
        ))
        .arg(value(
            "include",
            Some('i'),
            "TARGETS",
            "Include only specified targets in output (ranks or hosts)",
        ))
        .arg(values(
            "queue",
            Some('q'),
            "QUEUE,...",
            "Include only specified queues in output",
        ))
        .arg(value(
            "format",
            Some('o'),
            "FORMAT",
            "Specify output format using Python's string format syntax or a defined format by name",
        ))
        .arg(flag("no-header", Some('n'), "Suppress printing of header line"))
        .arg(color::option(Some('L')))
        .arg(operand_optional(
            "targets",
            "Ranks or hosts to drain; lists drained nodes if absent",
        ))
        .arg(trailing("reason", false, "Reason"))
}

pub(super) fn drain(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let Some(targets) = text(matches, "targets") else {
        return list_drained(ctx, matches);
    };
    let reason = list(matches, "reason").join(" ");
    let mut request = Map::new();
    request.insert("targets".to_owned(), json!(targets));
    if !reason.is_empty() {
        request.insert("reason".to_owned(), json!(reason));
    }
    let mode = match (matches.get_flag("force"), matches.get_flag("update")) {
        (true, true) => return usage("--force and --update cannot be used together"),
        (true, false) => Some("overwrite"),
        (false, true) => Some("update"),
        (false, false) => None,
    };
    if let Some(mode) = mode {
        request.insert("mode".to_owned(), json!(mode));
    }
    ctx.open()?
        .call::<IgnoredAny>("resource.drain", 0, &request)
        .map_err(CmdError::doing("drain"))?;
    Ok(0)
}

fn list_drained(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut out = stdout();
    let Some(format_text) = DRAIN_FORMATS.choose(text(matches, "format"), &mut out)? else {
        return Ok(0);
    };
    let format = Format::parse(&format_text, &StatusFields)?;
    let mut handle = ctx.open()?;
    let view = View::fetch(&mut handle)?;
    let limit = limit(&mut handle, matches, &view.all)?;
    let mut rows = view.drain_rows(&limit);
    format.print(
        &StatusFields,
        &mut rows,
        matches.get_flag("no-header"),
        color::wanted(matches)?,
        &mut out,
    )?;
    out.flush()?;
    Ok(0)
}

pub(super) fn undrain_args(command: Command) -> Command {
    command
        .arg(
            flag(
                "update",
                Some('u'),
                "Do not return an error if target(s) are not drained",
            )
            .hide(true),
        )
        .arg(flag(
            "force",
            Some('f'),
            "Do not fail if any targets are not drained or not valid",
        ))
        .arg(operand("targets", "Ranks or hosts to undrain"))
        .arg(trailing("reason", false, "Reason"))
}

pub(super) fn undrain(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut request = Map::new();
    request.insert("targets".to_owned(), json!(required(matches, "targets")));
    let reason = list(matches, "reason").join(" ");
    if !reason.is_empty() {
        request.insert("reason".to_owned(), json!(reason));
    }
    if matches.get_flag("force") || matches.get_flag("update") {
        request.insert("mode".to_owned(), json!("force"));
    }
    ctx.open()?
        .call::<IgnoredAny>("resource.undrain", 0, &request)
        .map_err(CmdError::doing("undrain"))?;
    Ok(0)
}

pub(super) fn reload_args(command: Command) -> Command {
    command
        .arg(flag("xml", Some('x'), "Load hwloc XML files from directory PATH"))
        .arg(flag(
            "force",
            Some('f'),
            "Do not fail if resources contain invalid ranks",
        ))
        .arg(operand("path", "R file, or directory with --xml"))
}

pub(super) fn reload(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let path = required(matches, "path");
    let absolute = std::path::absolute(path).map_err(CmdError::file(path))?;
    let request = json!({
        "path": absolute.to_string_lossy(),
        "xml": matches.get_flag("xml"),
        "force": matches.get_flag("force"),
    });
    ctx.open()?
        .call::<IgnoredAny>("resource.reload", 0, &request)
        .map_err(CmdError::doing("reload"))?;
    Ok(0)
}

pub(super) fn acquire_mute(ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    ctx.open()?.call_empty::<IgnoredAny>("resource.acquire-mute", 0)?;
    Ok(0)
}

pub(super) fn eventlog_args(command: Command) -> Command {
    options(command)
        .arg(flag("follow", Some('F'), "Display new events as they are posted"))
        .arg(value(
            "timeout",
            Some('t'),
            "TIME",
            "Timeout after TIME (with --wait or --follow)",
        ))
        .arg(value(
            "wait",
            Some('w'),
            "EVENT",
            "Display events until EVENT is posted, or until the timeout expires",
        ))
        .arg(values(
            "match-context",
            Some('m'),
            "KEY=VAL",
            "With --wait, wait for an event that matches KEY=VAL in its context",
        ))
        .arg(value(
            "include",
            Some('i'),
            "TARGETS",
            "Include only events that involve specified ranks",
        ))
}

pub(super) fn eventlog(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    #[derive(Deserialize)]
    struct Response {
        events: Vec<Box<RawValue>>,
    }
    let wanted = text(matches, "wait");
    let conditions: Vec<Match> = list(matches, "match-context")
        .into_iter()
        .map(Match::parse)
        .collect::<Result<_, _>>()?;
    let ranks = match text(matches, "include").map(str::parse::<flux_formats::idset::IdSet>) {
        None => None,
        Some(Ok(ranks)) => Some(ranks),
        Some(Err(_)) => return usage("--include: only an idset of ranks is supported here"),
    };
    let deadline = match text(matches, "timeout") {
        Some(text) => Some(Instant::now() + Duration::from_secs_f64(parse_fsd(text)?.clamp(0.0, 1e9))),
        None => None,
    };
    let follow = matches.get_flag("follow") || wanted.is_some();
    let mut printer = Printer::from_matches(matches)?;
    let mut handle = ctx.open()?;
    let mut request = Message::request("resource.journal", 0, None);
    request.flags |= flux_client::msg::flags::STREAMING;
    let stream = handle.rpc_message(request)?;
    let mut out = stdout();
    loop {
        let message = match handle.next_until(&stream, deadline) {
            Err(Error::Timeout) => return fail("eventlog: timeout"),
            other => other?,
        };
        let Some(message) = message else { break };
        let response: Response = message.payload_json().map_err(|source| Error::Payload {
            topic: message.topic.clone(),
            source,
        })?;
        // An empty list ends what had happened before.
        if response.events.is_empty() && !follow {
            break;
        }
        for event in &response.events {
            let line = event.get();
            let parsed = parse_event(line)?;
            if ranks.as_ref().is_some_and(|ranks| !concerns(&parsed, ranks)) {
                continue;
            }
            writeln!(out, "{}", printer.line(line)?)?;
            let found = wanted == Some(&*parsed.name)
                && conditions.iter().all(|condition| condition.accepts(&parsed));
            if found {
                out.flush()?;
                return Ok(0);
            }
        }
        out.flush()?;
    }
    handle.cancel("resource.journal-cancel", NODEID_ANY, &stream)?;
    out.flush()?;
    Ok(0)
}

/// Returns true when an event names one of the ranks, or none at all.
fn concerns(event: &EventRef<'_>, ranks: &flux_formats::idset::IdSet) -> bool {
    #[derive(Deserialize)]
    struct Context {
        idset: Option<flux_formats::idset::IdSet>,
    }
    match event.context_as::<Context>() {
        Ok(Context { idset: Some(idset) }) => idset.intersects(ranks),
        _ => true,
    }
}
