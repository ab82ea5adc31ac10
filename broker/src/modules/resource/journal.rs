//! What happened to the resources? The eventlog in memory and those who follow it (`resource.journal`).
//!
//! ```text
//! restart, online, offline, torpid, lively, truncate   memory only
//! resource-define, resource-update, drain, undrain     memory and KVS key resource.eventlog
//! ```

use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::eventlog;
use flux_formats::msg::{Message, json_payload};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::SystemTime;

/// KVS key of the persistent part.
pub(super) const EVENTLOG_KEY: &str = "resource.eventlog";

/// Events in memory and their followers.
#[derive(Debug)]
pub(super) struct Journal {
    events: VecDeque<Entry>,
    max: usize,
    dropped: Option<f64>,
    followers: Vec<Message>,
}

#[derive(Debug)]
struct Entry {
    /// The RFC 18 line without newline.
    line: Box<RawValue>,
    timestamp: f64,
    /// R, with `resource-define`.
    r: Option<Value>,
}

#[derive(Serialize)]
struct Response<'a> {
    events: [&'a RawValue; 1],
    #[serde(rename = "R", skip_serializing_if = "Option::is_none")]
    r: Option<&'a Value>,
}

impl Entry {
    fn payload(&self) -> Option<Bytes> {
        json_payload(&Response {
            events: [&self.line],
            r: self.r.as_ref(),
        })
        .ok()
    }
}

impl Journal {
    /// Returns an empty journal that keeps `max` events.
    pub(super) fn new(max: usize) -> Self {
        Journal {
            events: VecDeque::new(),
            max: max.max(1),
            dropped: None,
            followers: Vec::new(),
        }
    }

    /// Changes how many events are kept.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max.max(1);
        self.truncate();
    }

    /// Appends an event of now and tells the followers; returns its time and its line with the newline.
    pub(super) fn append(
        &mut self,
        cx: &mut Cx<'_>,
        name: &str,
        context: &Value,
        r: Option<Value>,
    ) -> (f64, String) {
        let timestamp = eventlog::timestamp(SystemTime::now());
        let mut line = String::new();
        if eventlog::append(&mut line, timestamp, name, context).is_err() {
            eventlog::append_bare(&mut line, timestamp, name);
        }
        self.push(cx, line.trim_end(), timestamp, r);
        (timestamp, line)
    }

    /// Takes over a line that was read back from the KVS.
    pub(super) fn push(&mut self, cx: &mut Cx<'_>, line: &str, timestamp: f64, r: Option<Value>) {
        let Ok(line) = RawValue::from_string(line.to_owned()) else {
            return;
        };
        let entry = Entry { line, timestamp, r };
        if let Some(payload) = entry.payload() {
            for request in &self.followers {
                cx.respond_payload(request, Some(payload.clone()));
            }
        }
        self.events.push_back(entry);
        self.truncate();
    }

    fn truncate(&mut self) {
        while self.events.len() > self.max {
            self.dropped = self.events.pop_front().map(|entry| entry.timestamp);
        }
    }

    /// Answers `resource.journal`: what is in memory, an empty batch, then what comes.
    pub(super) fn follow(&mut self, cx: &mut Cx<'_>, request: Message) {
        if let Some(timestamp) = self.dropped {
            let event = json!({ "timestamp": timestamp, "name": "truncate" });
            cx.respond(&request, &json!({ "events": [event] }));
        }
        for entry in &self.events {
            if let Some(payload) = entry.payload() {
                cx.respond_payload(&request, Some(payload));
            }
        }
        cx.respond(&request, &json!({ "events": [] }));
        self.followers.push(Message {
            payload: None,
            ..request
        });
    }

    /// Ends the stream of a request (`resource.journal-cancel`).
    pub(super) fn cancel(&mut self, cx: &mut Cx<'_>, sender: Option<&Bytes>, matchtag: u32) {
        let ended = |request: &Message| request.sender() == sender && request.matchtag() == matchtag;
        for request in self.followers.extract_if(.., |request| ended(request)) {
            cx.fail_with(&request, &RpcError::bare(errno::ENODATA));
        }
    }

    /// Forgets a client that went away.
    pub(super) fn disconnect(&mut self, sender: Option<&Bytes>) {
        self.followers.retain(|request| request.sender() != sender);
    }

    /// Ends all streams.
    pub(super) fn close(&mut self, cx: &mut Cx<'_>) {
        for request in std::mem::take(&mut self.followers) {
            cx.fail_with(&request, &RpcError::bare(errno::ENODATA));
        }
    }
}
