//! How are events of an eventlog printed? `TIME NAME key=value ...`, or as JSON; with colours for people.

use std::fmt::Write as _;

use clap::{Arg, ArgMatches, Command};
use flux_formats::eventlog::EventRef;
use indexmap::IndexMap;
use serde_json::value::RawValue;

use super::args::{flag, text, value};
use super::color;
use super::error::{CmdError, fail, usage};
use super::stamp::{Stamper, TimeFormat};

const RESET: &str = "\x1b[0m";
const TIME: &str = "\x1b[32m";
const NAME: &str = "\x1b[33m";
const ALARM: &str = "\x1b[1;31m";
const KEY: &str = "\x1b[34m";
const NUMBER: &str = "\x1b[37m";
const STRING: &str = "\x1b[35m";

/// Prints events one after the other.
#[derive(Debug)]
pub(crate) struct Printer {
    json: bool,
    color: bool,
    stamper: Stamper,
}

/// Adds `--format`, `--time-format`, `--human`, `--color`.
pub(crate) fn options(command: Command) -> Command {
    command
        .arg(value(
            "format",
            Some('f'),
            "FORMAT",
            "Specify output format: text, json",
        ))
        .arg(value(
            "time-format",
            Some('T'),
            "FORMAT",
            "Specify time format: raw, iso, offset, human",
        ))
        .args(human_options())
}

/// Returns `--human` and `--color`.
pub(crate) fn human_options() -> [Arg; 2] {
    [
        flag(
            "human",
            Some('H'),
            "Display human-readable output. See also --color",
        ),
        color::option(Some('L')),
    ]
}

impl Printer {
    /// Makes a printer of the options of [`options`].
    ///
    /// # Errors
    /// A usage error for an unknown format.
    pub(crate) fn from_matches(matches: &ArgMatches) -> Result<Self, CmdError> {
        let json = match text(matches, "format") {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => return usage(format!("invalid format type '{other}' (use text or json)")),
        };
        let format = match text(matches, "time-format") {
            _ if matches.get_flag("human") => TimeFormat::Human,
            None => TimeFormat::Raw,
            Some(name) => match TimeFormat::from_name(name) {
                Some(format) => format,
                None => {
                    return usage(format!(
                        "invalid time-format type '{name}' (use raw, iso, offset or human)"
                    ));
                }
            },
        };
        Ok(Printer {
            json,
            color: color::wanted(matches)?,
            stamper: Stamper::new(format, false),
        })
    }

    /// Makes a printer with a fixed form.
    pub(crate) fn new(json: bool, format: TimeFormat, color: bool) -> Self {
        Printer {
            json,
            color,
            stamper: Stamper::new(format, false),
        }
    }

    /// Returns the printed form of one line of an eventlog, without newline.
    ///
    /// # Errors
    /// When the line is not an event.
    pub(crate) fn line(&mut self, line: &str) -> Result<String, CmdError> {
        let event = parse(line)?;
        let stamp = self.stamper.next(event.timestamp);
        if self.json {
            return Ok(line.trim_end().to_owned());
        }
        let mut out = String::with_capacity(line.len() + 32);
        self.paint(&mut out, TIME, &stamp);
        out.push(' ');
        let alarm = event.name == "exception";
        self.paint(&mut out, if alarm { ALARM } else { NAME }, &event.name);
        if let Some(context) = event.context {
            self.context(&mut out, context)?;
        }
        Ok(out)
    }

    fn context(&self, out: &mut String, context: &RawValue) -> Result<(), CmdError> {
        let fields: IndexMap<String, &RawValue> =
            serde_json::from_str(context.get()).map_err(CmdError::json("event context"))?;
        for (key, value) in fields {
            let value = value.get();
            if self.color {
                let paint = if value.starts_with('"') { STRING } else { NUMBER };
                // Writing to a String cannot fail.
                let _infallible = write!(out, " {KEY}{key}{RESET}={paint}{value}{RESET}");
            } else {
                let _infallible = write!(out, " {key}={value}");
            }
        }
        Ok(())
    }

    fn paint(&self, out: &mut String, paint: &str, text: &str) {
        if self.color {
            out.push_str(paint);
            out.push_str(text);
            out.push_str(RESET);
        } else {
            out.push_str(text);
        }
    }
}

/// Decodes one line.
///
/// # Errors
/// When the line is not an event.
pub(crate) fn parse(line: &str) -> Result<EventRef<'_>, CmdError> {
    EventRef::decode(line).or_else(|err| fail(format!("error parsing eventlog: {err}")))
}

/// A condition on an event's context: `KEY=VALUE`, VALUE as JSON or plain text.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    key: String,
    value: String,
}

impl Match {
    /// Reads `KEY=VALUE`.
    ///
    /// # Errors
    /// A usage error without `=`.
    pub(crate) fn parse(text: &str) -> Result<Self, CmdError> {
        match text.split_once('=') {
            Some((key, value)) => Ok(Match {
                key: key.to_owned(),
                value: value.to_owned(),
            }),
            None => usage(format!("invalid match-context '{text}' (use KEY=VAL)")),
        }
    }

    /// Returns true when the event's context has the key with the value.
    pub(crate) fn accepts(&self, event: &EventRef<'_>) -> bool {
        let Ok(fields) = event.context_as::<IndexMap<String, serde_json::Value>>() else {
            return false;
        };
        let as_json: Option<serde_json::Value> = serde_json::from_str(&self.value).ok();
        fields
            .get(&self.key)
            .is_some_and(|value| Some(value) == as_json.as_ref() || value.as_str() == Some(&self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOC: &str = concat!(
        r#"{"timestamp":1795240138.6760287,"name":"alloc","#,
        r#""context":{"annotations":{"sched":{"resource_summary":"rank0/core0"}}}}"#,
        "\n"
    );

    #[test]
    fn text_and_json() {
        let mut raw = Printer::new(false, TimeFormat::Raw, false);
        assert_eq!(
            raw.line(ALLOC).unwrap(),
            r#"1795240138.676029 alloc annotations={"sched":{"resource_summary":"rank0/core0"}}"#
        );
        assert_eq!(
            raw.line(
                r#"{"timestamp":1795240138.6927292,"name":"release","context":{"ranks":"all","final":true}}"#
            )
            .unwrap(),
            r#"1795240138.692729 release ranks="all" final=true"#
        );
        assert_eq!(
            Printer::new(true, TimeFormat::Raw, false).line(ALLOC).unwrap(),
            ALLOC.trim_end()
        );
        assert!(raw.line("{}").is_err());
        let colored = Printer::new(false, TimeFormat::Offset, true).line(ALLOC).unwrap();
        assert!(colored.starts_with("\x1b[32m0.000000\x1b[0m \x1b[33malloc\x1b[0m \x1b[34mannotations"));
    }

    #[test]
    fn match_context() {
        let line = r#"{"timestamp":1.0,"name":"e","context":{"n":5,"s":"x","b":true}}"#;
        let event = parse(line).unwrap();
        for (text, want) in [
            ("n=5", true),
            ("s=x", true),
            ("s=\"x\"", true),
            ("b=true", true),
            ("n=6", false),
            ("q=1", false),
        ] {
            assert_eq!(Match::parse(text).unwrap().accepts(&event), want, "{text}");
        }
        assert!(Match::parse("x").is_err());
    }
}
