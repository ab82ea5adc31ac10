//! `flux sproc`: list, signal and wait for processes that brokers have started for clients.

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::{Error, Handle, NODEID_ANY};
use flux_formats::rpc::rexec::{IoObject, KillRequest, WaitRequest, WaitResponse};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Entry, tagged};
use crate::common::args::{flag, operand, parsed, required, text, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, usage};
use crate::common::format::{Cell, Fields, Format};

pub(super) static TABLE: &[Entry] = &[
    tagged("kill", "Send a signal to a process", kill_args, kill),
    tagged("ps", "List processes", ps_args, ps),
    tagged(
        "wait",
        "Wait for a process and exit with its code",
        wait_args,
        wait,
    ),
];

fn common(command: Command) -> Command {
    command
        .arg(value("rank", Some('r'), "N", "Send RPC to specified broker rank"))
        .arg(value(
            "service",
            Some('s'),
            "NAME",
            "Send RPC to specified service (default rexec)",
        ))
}

/// Where requests go.
struct Place {
    service: String,
    nodeid: u32,
}

impl Place {
    fn new(matches: &ArgMatches) -> Result<Self, CmdError> {
        Ok(Place {
            service: text(matches, "service").unwrap_or("rexec").to_owned(),
            nodeid: parsed(matches, "rank")?.unwrap_or(NODEID_ANY),
        })
    }

    fn topic(&self, method: &str) -> String {
        format!("{}.{method}", self.service)
    }
}

/// Reads a process id, else a label.
pub(super) fn target(word: &str) -> (i64, Option<String>) {
    match word.parse::<i32>() {
        Ok(pid) if pid > 0 => (pid.into(), None),
        _ => (-1, Some(word.to_owned())),
    }
}

fn kill_args(command: Command) -> Command {
    common(command)
        .arg(flag("wait", Some('w'), "Wait for process after sending signal"))
        .arg(operand("signum", "Signal"))
        .arg(operand("pid", "Process id or label"))
}

fn kill(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let word = required(matches, "signum");
    let Some(signum) = flux_formats::signal::number(word) else {
        return usage(format!("invalid signal '{word}'"));
    };
    let place = Place::new(matches)?;
    let (pid, label) = target(required(matches, "pid"));
    let mut handle = ctx.open()?;
    // asked before the signal: its end cannot be missed
    let end = if matches.get_flag("wait") {
        let request = WaitRequest {
            pid,
            label: label.clone(),
        };
        Some(handle.rpc(place.topic("wait"), place.nodeid, &request)?)
    } else {
        None
    };
    let request = KillRequest { pid, signum, label };
    let killed = handle.call::<IgnoredAny>(place.topic("kill"), place.nodeid, &request);
    match (killed, end) {
        (Err(err), None) => Err(CmdError::doing("kill")(err)),
        (Ok(_), None) => Ok(0),
        (result, Some(rpc)) => {
            if let Err(err) = &result {
                ctx.report(&format!("kill: {err}"));
            }
            let response: WaitResponse = handle.get(&rpc).map_err(CmdError::doing("kill: wait failed"))?;
            Ok(exit_code(response.status))
        }
    }
}

fn exit_code(status: i32) -> u8 {
    u8::try_from(flux_formats::jobstate::exit_code(status)).unwrap_or(1)
}

fn wait_args(command: Command) -> Command {
    common(command)
        .arg(flag(
            "output",
            Some('o'),
            "Write any output retained by the server to stdout/stderr",
        ))
        .arg(operand("pid", "Process id or label"))
}

fn wait(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let place = Place::new(matches)?;
    let (pid, label) = target(required(matches, "pid"));
    let mut handle = ctx.open()?;
    let response: WaitResponse = handle
        .call(place.topic("wait"), place.nodeid, &WaitRequest { pid, label })
        .map_err(CmdError::doing("wait"))?;
    if matches.get_flag("output") {
        print(&response.output)?;
    }
    Ok(exit_code(response.status))
}

fn print(output: &[IoObject]) -> Result<(), CmdError> {
    let mut out = stdout();
    for io in output {
        let Some(bytes) = io.bytes() else { continue };
        if io.stream == "stdout" {
            out.write_all(&bytes)?;
        } else {
            out.flush()?;
            // nobody is left to tell when standard error cannot be written
            let _gone = std::io::stderr().write_all(&bytes);
        }
    }
    out.flush()?;
    Ok(())
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    rank: i64,
    #[serde(default)]
    procs: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    pid: i64,
    #[serde(default)]
    state: String,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    cmd: String,
    #[serde(skip)]
    rank: i64,
}

struct RowFields;

impl Fields for RowFields {
    type Field = &'static str;
    type Row = Row;

    fn resolve(&self, name: &str) -> Option<(&'static str, String)> {
        const HEADINGS: [(&str, &str); 5] = [
            ("pid", "PID"),
            ("state", "ST"),
            ("label", "LABEL"),
            ("rank", "RANK"),
            ("cmd", "COMMAND"),
        ];
        let found = HEADINGS.iter().find(|(known, _)| *known == name)?;
        Some((found.0, found.1.to_owned()))
    }

    fn value(&self, field: &&'static str, row: &Row) -> Cell {
        match *field {
            "pid" => Cell::Int(row.pid),
            "state" => row.state.as_str().into(),
            "label" => row.label.as_deref().unwrap_or("-").into(),
            "rank" => Cell::Int(row.rank),
            _ => row.cmd.as_str().into(),
        }
    }
}

fn ps_args(command: Command) -> Command {
    common(command)
        .arg(value(
            "format",
            Some('o'),
            "FORMAT",
            "Specify output format using Python's string format syntax",
        ))
        .arg(flag("no-header", Some('n'), "Suppress header output"))
}

fn ps(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let place = Place::new(matches)?;
    let format = text(matches, "format").unwrap_or("{pid:>9} {state:<2} {label:<12} {cmd}");
    let format = Format::parse(format, &RowFields)?;
    let mut handle: Handle = ctx.open()?;
    let result: Result<Listing, Error> = handle.call_empty(place.topic("list"), place.nodeid);
    let Listing { rank, mut procs } = result.map_err(CmdError::doing("ps"))?;
    for row in &mut procs {
        row.rank = rank;
    }
    let mut out = stdout();
    format.print(
        &RowFields,
        &mut procs,
        matches.get_flag("no-header"),
        false,
        &mut out,
    )?;
    out.flush()?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_codes() {
        assert_eq!(target("12"), (12, None));
        assert_eq!(target("a"), (-1, Some("a".to_owned())));
        assert_eq!((exit_code(0), exit_code(3 << 8), exit_code(15)), (0, 3, 143));
    }
}
