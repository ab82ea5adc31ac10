//! How does a message reach another shell when brokers between them may die? Numbered, acknowledged, and sent again
//! in order until it has arrived (method `relay` of the shell's service).
//!
//! Only shells that outlive their broker talk to each other like this; others send their messages as they are.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use flux_client::Message;
use flux_client::msg::json_payload;
use flux_formats::errno::{EAGAIN, EHOSTUNREACH, ENOSYS, Errnum};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ctx::{Ctx, Purpose};

/// Bytes on their way to other shells above which tasks' output is left in their pipes.
const BYTES_MAX: usize = 4 << 20;

/// Body of a `relay` request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Relay<'a> {
    /// Its number on this way, from 1.
    pub(crate) number: u64,
    /// Shell rank of the sender.
    pub(crate) from: u32,
    /// The method that it is for.
    pub(crate) method: &'a str,
    /// The request's body.
    #[serde(borrow)]
    pub(crate) body: &'a RawValue,
}

/// What a relayed message is to the receiver.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It comes next.
    New,
    /// It came before; the sender does not know.
    Known,
    /// One before it is missing.
    Early,
}

/// The way to one shell.
#[derive(Debug, Default)]
struct Way {
    sent: u64,
    /// What is not acknowledged, with its number.
    waiting: VecDeque<(u64, Bytes)>,
    /// Something was lost: everything that waits is sent again, in order.
    broken: bool,
    /// Counts the times that this happened; answers to earlier attempts mean nothing.
    attempt: u32,
}

/// The ways to and from the other shells.
#[derive(Debug, Default)]
pub(crate) struct Links {
    ways: BTreeMap<u32, Way>,
    /// Number of the last message from each shell.
    seen: HashMap<u32, u64>,
    bytes: usize,
}

impl Links {
    /// Returns true while something has not arrived.
    pub(crate) fn are_waiting(&self) -> bool {
        self.ways.values().any(|way| !way.waiting.is_empty())
    }

    /// Returns true while too much is on its way.
    pub(crate) fn are_congested(&self) -> bool {
        self.bytes > BYTES_MAX
    }

    /// No answer comes any more.
    pub(crate) fn interrupt(&mut self) {
        for way in self.ways.values_mut() {
            way.broken = true;
            way.attempt += 1;
        }
    }

    /// Gives up what cannot be sent now. The job is ending; whoever it was for is probably gone.
    pub(crate) fn give_up(&mut self) {
        for way in self.ways.values_mut().filter(|way| way.broken) {
            for (_, payload) in way.waiting.drain(..) {
                self.bytes -= payload.len();
            }
        }
    }

    /// Returns what a message is, and notes that it has come.
    pub(crate) fn arrived(&mut self, from: u32, number: u64) -> Arrival {
        let last = self.seen.entry(from).or_default();
        if number <= *last {
            Arrival::Known
        } else if number == *last + 1 {
            *last = number;
            Arrival::New
        } else {
            Arrival::Early
        }
    }
}

impl Ctx {
    /// Sends a message to another shell, again if need be.
    pub(crate) fn relay<C: Serialize + ?Sized>(&mut self, to: u32, method: &str, body: &C) {
        let Ok(body) = serde_json::value::to_raw_value(body) else {
            return;
        };
        let way = self.links.ways.entry(to).or_default();
        way.sent += 1;
        let number = way.sent;
        let relay = Relay {
            number,
            from: self.info.shell_rank,
            method,
            body: &body,
        };
        let Ok(payload) = json_payload(&relay) else { return };
        self.links.bytes += payload.len();
        way.waiting.push_back((number, payload.clone()));
        // what is said while nobody hears is sent with the rest
        way.broken |= !self.connection.is_up();
        let (broken, attempt) = (way.broken, way.attempt);
        if !broken {
            self.send_relay(to, number, attempt, payload);
        } else if self.connection.is_up() {
            self.retry_later(Instant::now());
        }
    }

    fn send_relay(&mut self, to: u32, number: u64, attempt: u32, payload: Bytes) {
        let topic = format!("{}.relay", self.info.service);
        let request = Message::request(topic, self.info.broker_rank_of(to), Some(payload));
        if let Ok(rpc) = self.handle.rpc_message(request) {
            self.track(&rpc, Purpose::Relay { to, number, attempt });
        }
    }

    /// Takes the answer to a message.
    pub(crate) fn on_relayed(&mut self, to: u32, number: u64, attempt: u32, errnum: Errnum, now: Instant) {
        let Some(way) = self.links.ways.get_mut(&to).filter(|way| way.attempt == attempt) else {
            return;
        };
        if matches!(errnum, EHOSTUNREACH | ENOSYS | EAGAIN) {
            way.broken = true;
            way.attempt += 1;
            self.forget_rpcs(|purpose| matches!(purpose, Purpose::Relay { to: other, .. } if *other == to));
            self.retry_later(now);
            return;
        }
        // whatever else it says, it has arrived
        while let Some((_, payload)) = way.waiting.pop_front_if(|(waiting, _)| *waiting <= number) {
            self.links.bytes -= payload.len();
        }
    }

    /// Sends again what has not arrived.
    pub(crate) fn resend_links(&mut self) {
        let mut again = Vec::new();
        for (to, way) in self.links.ways.iter_mut().filter(|(_, way)| way.broken) {
            way.broken = false;
            again.extend(
                way.waiting
                    .iter()
                    .map(|(number, payload)| (*to, *number, way.attempt, payload.clone())),
            );
        }
        for (to, number, attempt, payload) in again {
            self.send_relay(to, number, attempt, payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_counts_once_and_in_order() {
        let mut links = Links::default();
        assert_eq!(links.arrived(1, 1), Arrival::New);
        assert_eq!(links.arrived(1, 1), Arrival::Known, "sent again");
        assert_eq!(links.arrived(1, 3), Arrival::Early, "2 was lost");
        assert_eq!(links.arrived(1, 2), Arrival::New);
        assert_eq!(links.arrived(1, 3), Arrival::New);
        assert_eq!(links.arrived(2, 1), Arrival::New, "ways are independent");
    }
}
