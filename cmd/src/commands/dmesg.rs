//! `flux dmesg`: what is in the broker's log ring buffer?

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::NODEID_ANY;
use flux_client::log::Severity;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::common::args::flag;
use crate::common::color;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::CmdResult;
use crate::common::stamp::{Stamper, TimeFormat};
use crate::common::time::parse_datetime;

const RESET: &str = "\x1b[0m";

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag("clear", Some('C'), "Clear the ring buffer contents"))
        .arg(flag(
            "read-clear",
            Some('c'),
            "Clear the ring buffer contents after printing",
        ))
        .arg(flag("follow", Some('f'), "Track new entries as are logged"))
        .arg(flag("new", Some('n'), "Show only new log messages"))
        .arg(flag("human", Some('H'), "Display human-readable output"))
        .arg(flag(
            "delta",
            Some('d'),
            "With --human, show timestamp delta between messages",
        ))
        .arg(color::option(Some('L')))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let (clear, new) = (matches.get_flag("clear"), matches.get_flag("new"));
    if !clear {
        let follow = matches.get_flag("follow") || new;
        let mut printer = Printer {
            human: matches.get_flag("human"),
            color: color::wanted(matches)?,
            stamper: Stamper::new(TimeFormat::Human, matches.get_flag("delta")),
        };
        let request = json!({ "follow": follow, "nobacklog": new });
        let stream = handle.stream("log.dmesg", NODEID_ANY, &request)?;
        let mut out = stdout();
        while let Some(message) = handle.next(&stream)? {
            if let Ok(entry) = message.payload_str() {
                writeln!(out, "{}", printer.line(entry))?;
            }
            if follow && !handle.has_incoming() {
                out.flush()?;
            }
        }
        out.flush()?;
    }
    if clear || matches.get_flag("read-clear") {
        handle.call_empty::<IgnoredAny>("log.clear", NODEID_ANY)?;
    }
    Ok(0)
}

struct Printer {
    human: bool,
    color: bool,
    stamper: Stamper,
}

/// The parts of an RFC 5424 line that are shown.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    level: u8,
    timestamp: &'a str,
    rank: &'a str,
    name: &'a str,
    text: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (pri, rest) = line.strip_prefix('<')?.split_once('>')?;
        let mut fields = rest.splitn(8, ' ');
        let _version = fields.next()?;
        let (timestamp, rank, name) = (fields.next()?, fields.next()?, fields.next()?);
        let (_procid, _msgid, _data) = (fields.next()?, fields.next()?, fields.next()?);
        let text = fields.next().unwrap_or("");
        let level = pri.parse::<u8>().ok()? >> 3;
        Some(Entry {
            level,
            timestamp,
            rank,
            name,
            text: text.trim_end_matches('\n'),
        })
    }
}

impl Printer {
    fn line(&mut self, line: &str) -> String {
        let Some(entry) = Entry::parse(line) else {
            return line.to_owned();
        };
        let (time, name) = if self.human {
            let stamp = parse_datetime(entry.timestamp, 0.0).unwrap_or(0.0);
            (
                self.stamper.next(stamp),
                format!("{}[{}]:", entry.name, entry.rank),
            )
        } else {
            let severity = Severity::name(entry.level);
            (
                entry.timestamp.to_owned(),
                format!("{}.{severity}[{}]:", entry.name, entry.rank),
            )
        };
        if !self.color {
            return format!("{time} {name} {}", entry.text);
        }
        let paint = match entry.level {
            0..=2 => "\x1b[1;31m",
            3 => "\x1b[31m",
            4 => "\x1b[1m",
            7 => "\x1b[34m",
            _ => "",
        };
        let reset = if paint.is_empty() { "" } else { RESET };
        format!(
            "\x1b[32m{time}{RESET} \x1b[33m{name}{RESET} {paint}{}{reset}",
            entry.text
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        "<48>1 2026-11-21T05:48:55.741562Z 0 broker 9704 - - builtins-success: load-builtins->join 6ms";

    #[test]
    fn raw_and_human() {
        let mut printer = Printer {
            human: false,
            color: false,
            stamper: Stamper::new(TimeFormat::Human, false),
        };
        assert_eq!(
            printer.line(LINE),
            "2026-11-21T05:48:55.741562Z broker.info[0]: builtins-success: load-builtins->join 6ms"
        );
        printer.human = true;
        assert!(
            printer
                .line(LINE)
                .ends_with("] broker[0]: builtins-success: load-builtins->join 6ms")
        );
        assert!(printer.line(LINE).starts_with("[  +0.000000] "));
        assert_eq!(printer.line("garbage"), "garbage");
    }

    #[test]
    fn entries() {
        assert_eq!(
            Entry::parse("<24>1 T 3 kvs - - - "),
            Some(Entry {
                level: 3,
                timestamp: "T",
                rank: "3",
                name: "kvs",
                text: ""
            })
        );
        assert_eq!(Entry::parse("<x>1 T 3 kvs - - - x"), None);
        assert_eq!(Entry::parse("no"), None);
    }
}
