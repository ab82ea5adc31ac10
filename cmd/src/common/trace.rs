//! How are traced messages shown? For `flux module trace` and `flux overlay trace`.

use clap::{ArgMatches, Command};
use flux_client::Message;
use serde::Deserialize;
use serde_json::Value;

use super::args::{flag, text, value};
use super::color;
use super::error::{CmdError, usage};
use super::stamp::{Stamper, TimeFormat};

/// Adds `--full`, `--type`, `--human`, `--delta`, `--color`.
pub(crate) fn options(command: Command) -> Command {
    command
        .arg(flag("full", Some('f'), "Show JSON message payload, if any"))
        .arg(value(
            "type",
            Some('t'),
            "TYPE,...",
            "Filter output by message type (request, response, event, control)",
        ))
        .arg(color::option(Some('L')))
        .arg(flag("human", Some('H'), "Human readable output"))
        .arg(flag(
            "delta",
            Some('d'),
            "With --human, show timestamp delta between messages",
        ))
}

/// Returns the message types of `--type` as bits; all when it is absent.
///
/// # Errors
/// A usage error for an unknown type.
pub(crate) fn typemask(matches: &ArgMatches) -> Result<u32, CmdError> {
    let Some(list) = text(matches, "type") else {
        return Ok(0x0f);
    };
    let mut mask = 0;
    for word in list.split(',') {
        mask |= match word {
            "request" => 1,
            "response" => 2,
            "event" => 4,
            "control" => 8,
            other => {
                return usage(format!(
                    "invalid message type '{other}' (use request, response, event, control)"
                ));
            }
        };
    }
    Ok(mask)
}

#[derive(Deserialize)]
struct Entry {
    timestamp: f64,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    rank: i64,
    name: Option<String>,
    #[serde(rename = "type")]
    kind: u32,
    #[serde(default)]
    topic: String,
    #[serde(default)]
    payload_size: i64,
    payload: Option<Value>,
    #[serde(default)]
    errnum: u32,
    #[serde(default)]
    errstr: String,
}

/// Prints entries one after the other.
#[derive(Debug)]
pub(crate) struct Printer {
    stamper: Stamper,
    color: bool,
}

impl Printer {
    /// Makes a printer of the options of [`options`].
    pub(crate) fn from_matches(matches: &ArgMatches, color: bool) -> Self {
        let format = if matches.get_flag("human") {
            TimeFormat::Human
        } else {
            TimeFormat::Iso
        };
        Printer {
            stamper: Stamper::new(format, matches.get_flag("delta")),
            color,
        }
    }

    /// Returns the line for one response of a trace stream.
    ///
    /// # Errors
    /// When the response is not a trace entry.
    pub(crate) fn line(&mut self, message: &Message) -> Result<String, CmdError> {
        let entry: Entry = message
            .payload_json()
            .map_err(|source| flux_client::Error::Payload {
                topic: message.topic.clone(),
                source,
            })?;
        Ok(self.show(&entry))
    }

    fn show(&mut self, entry: &Entry) -> String {
        let stamp = self.stamper.next(entry.timestamp);
        let peer = entry.name.clone().unwrap_or_else(|| entry.rank.to_string());
        let kind = match entry.kind {
            1 => ">",
            2 => "<",
            4 => "e",
            _ => "c",
        };
        let tail = if entry.errnum != 0 {
            format!(" {}", entry.errstr)
        } else if let Some(payload) = &entry.payload {
            format!(" {payload}")
        } else {
            format!(" [{}]", entry.payload_size)
        };
        let (on, off) = if self.color {
            ("\x1b[32m", "\x1b[0m")
        } else {
            ("", "")
        };
        format!(
            "{on}{stamp}{off} {}: {peer} {kind} {}{tail}",
            entry.prefix, entry.topic
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_client::msg::{NODEID_ANY, json_payload};
    use serde_json::json;

    #[test]
    fn lines() {
        let mut printer = Printer {
            stamper: Stamper::new(TimeFormat::Raw, false),
            color: false,
        };
        let mut message = Message::request("module.trace", NODEID_ANY, None).response(None);
        message.payload = Some(
            json_payload(
                &json!({"timestamp": 1.5, "prefix": "rx", "rank": 0, "name": "kvs", "type": 1,
                "topic": "kvs.ping", "payload_size": 3, "errnum": 0, "errstr": ""}),
            )
            .unwrap(),
        );
        assert_eq!(printer.line(&message).unwrap(), "1.500000 rx: kvs > kvs.ping [3]");
        message.payload = None;
        assert!(printer.line(&message).is_err());
    }
}
