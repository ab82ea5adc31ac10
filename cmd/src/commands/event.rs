//! `flux event`: publish and print events.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{ArgMatches, Command};
use flux_client::Message;
use flux_client::msg::string_payload;

use super::{Entry, plain};
use crate::common::args::{flag, list, operand, operands, parsed, required, trailing, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdResult, fail};

/// How long `pub --loopback` waits for its own event.
const LOOPBACK_WAIT: Duration = Duration::from_secs(30);

pub(super) static TABLE: &[Entry] = &[
    plain("pub", "Publish an event", pub_args, publish),
    plain("sub", "Subscribe to events", sub_args, subscribe),
];

fn pub_args(command: Command) -> Command {
    command
        .arg(flag("raw", Some('r'), "Interpret event payload as raw"))
        .arg(flag("synchronous", Some('s'), "Block until event is sequenced"))
        .arg(flag(
            "loopback",
            Some('l'),
            "Block until published event is received",
        ))
        .arg(flag("private", Some('p'), "Set privacy flag on published event"))
        .arg(operand("topic", "Topic of the event"))
        .arg(trailing(
            "payload",
            false,
            "Payload: a JSON object, or anything with --raw",
        ))
}

fn publish(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let topic = required(matches, "topic");
    let words = list(matches, "payload").join(" ");
    let payload = if words.is_empty() {
        None
    } else if matches.get_flag("raw") {
        Some(words.into_bytes())
    } else {
        match serde_json::from_str::<serde_json::Value>(&words) {
            Ok(object) if object.is_object() => Some(string_payload(&object.to_string()).to_vec()),
            Ok(_) => return fail("payload must be a JSON object (or use --raw)"),
            Err(err) => return fail(format!("payload is not JSON: {err} (or use --raw)")),
        }
    };
    let mut handle = ctx.open()?;
    let loopback = matches.get_flag("loopback");
    if loopback {
        handle.subscribe(topic)?;
    }
    let seq = handle.publish(topic, payload.as_deref(), matches.get_flag("private"))?;
    let deadline = Instant::now() + LOOPBACK_WAIT;
    while loopback && handle.next_event(Some(deadline))?.sequence() != seq {}
    Ok(0)
}

fn sub_args(command: Command) -> Command {
    command
        .arg(value("count", Some('c'), "N", "Exit after processing N events"))
        .arg(operands(
            "topic",
            0,
            "Topic prefixes to subscribe to; all events if absent",
        ))
}

fn subscribe(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let count: Option<u64> = parsed(matches, "count")?;
    let topics = list(matches, "topic");
    let mut handle = ctx.open()?;
    if topics.is_empty() {
        handle.subscribe("")?;
    }
    for topic in topics {
        handle.subscribe(topic)?;
    }
    let mut seen = 0;
    while count.is_none_or(|count| seen < count) {
        let event = handle.next_event(None)?;
        let mut out = stdout();
        out.write_all(&event_line(&event))?;
        out.flush()?;
        seen += 1;
    }
    Ok(0)
}

/// Formats an event as `TOPIC<tab>PAYLOAD`.
fn event_line(event: &Message) -> Vec<u8> {
    let mut line = format!("{}\t", event.topic).into_bytes();
    if let Some(payload) = &event.payload {
        line.extend_from_slice(payload.strip_suffix(b"\0").unwrap_or(payload));
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(
            event_line(&Message::event("a.b", Some(string_payload("{}")))),
            b"a.b\t{}\n"
        );
        assert_eq!(event_line(&Message::event("a", None)), b"a\t\n");
    }
}
