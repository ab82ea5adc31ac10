//! How is a list answered that may be long? In parts, so that it neither holds up other work nor fills the memory.
//!
//! A part is a few hundred jobs. The next one is made when the last one has gone to the socket, more or less: a client
//! that reads slowly slows its own list down. Inactive jobs are merged from memory and from the database, whose thread
//! answers one part of each list in turn.

use super::JobList;
use super::db::{Found, Part, Query};
use super::job::Job;
use super::list::{object, query};
use super::row::{Rank, Row};
use crate::modules::content_sqlite::StoreError;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::msg::Message;
use serde_json::json;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Jobs in a part.
const PART: usize = 512;
/// Rows that the database looks at for a part, at first …
const WINDOW_MIN: usize = 4096;
/// … and at most.
const WINDOW_MAX: usize = 1 << 18;
/// A part that takes no longer may be larger the next time.
const PART_TIME: Duration = Duration::from_millis(5);
/// Unsent bytes of a client at which its list waits.
const BACKLOG_MAX: usize = 1 << 20;
/// Shortest and longest wait for a client to read.
const WAIT: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(256)];
/// Largest answer to a request that is not streaming.
const BODY_MAX: usize = 64 << 20;

/// A list that is being answered.
pub(super) struct Stream {
    header: Message,
    /// `None` while the database has it.
    query: Option<Box<Query>>,
    /// Jobs that may still be sent.
    left: usize,
    active: VecDeque<Rc<Job>>,
    recent: VecDeque<Arc<Row>>,
    /// Where the database goes on; `None` when it has nothing more.
    after: Option<Rank>,
    seq_max: i64,
    window: usize,
    wait: Duration,
    /// No job was sent yet.
    first: bool,
    /// The answer so far of a request that is not streaming.
    body: Option<Vec<u8>>,
}

impl JobList {
    pub(super) fn on_list(&mut self, cx: &mut Cx<'_>, req: Message) {
        let (query, max) = match query(cx, &req) {
            Ok(query) => query,
            Err(err) => return cx.fail_with(&req, &err),
        };
        if query.wants_inactive()
            && let Some(early) = &mut self.early
        {
            early.push(req);
            return;
        }
        let after = (query.wants_inactive() && self.archive.has_rows()).then_some(Rank::FIRST);
        self.next_stream += 1;
        let stream = Stream {
            left: max,
            active: self.active_matches(&query, max),
            recent: self.recent_matches(&query),
            after,
            seq_max: self.archive.confirmed,
            window: WINDOW_MIN,
            wait: Duration::ZERO,
            first: true,
            body: (!req.is_streaming()).then(|| b"{\"jobs\":[".to_vec()),
            query: Some(Box::new(query)),
            header: Message { payload: None, ..req },
        };
        let id = self.next_stream;
        self.streams.insert(id, stream);
        self.advance(cx, id);
    }

    /// Sends the next part of a list, or sees to it that it comes.
    fn advance(&mut self, cx: &mut Cx<'_>, id: u64) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return; // the client left
        };
        if stream.body.is_none() && cx.backlog(&stream.header) > BACKLOG_MAX {
            let [least, most] = WAIT;
            stream.wait = (stream.wait * 2).clamp(least, most);
            cx.timer(stream.wait, move |me: &mut JobList, cx| me.advance(cx, id));
            return;
        }
        stream.wait = Duration::ZERO;
        let attrs = match &stream.query {
            Some(query) => query.attrs,
            None => return,
        };
        let mut sent = 0;
        while sent < PART && stream.left > 0 {
            let Some(job) = stream.active.pop_front() else {
                break;
            };
            stream.send(cx, &object(&job.view(), attrs));
            sent += 1;
        }
        if stream.left > 0 && !stream.active.is_empty() {
            return self.advance_later(cx, id);
        }
        if let Some(after) = stream.after.filter(|_| stream.left > 0) {
            return self.ask(cx, id, after);
        }
        while sent < PART && stream.left > 0 {
            let Some(row) = stream.recent.pop_front() else {
                break;
            };
            stream.send(cx, &object(&row.view(), attrs));
            sent += 1;
        }
        if stream.left > 0 && !stream.recent.is_empty() {
            return self.advance_later(cx, id);
        }
        if let Some(stream) = self.streams.remove(&id) {
            stream.finish(cx);
        }
    }

    /// Goes on when the hub has looked at its other work.
    fn advance_later(&mut self, cx: &mut Cx<'_>, id: u64) {
        cx.timer(Duration::ZERO, move |me: &mut JobList, cx| me.advance(cx, id));
    }

    /// Asks the database for the next part.
    fn ask(&mut self, cx: &mut Cx<'_>, id: u64, after: Rank) {
        let without = self.archive.doomed.clone();
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let Some(query) = stream.query.take() else { return };
        let part = Part {
            after,
            seq_max: stream.seq_max,
            window: stream.window,
            limit: PART.min(stream.left),
            without,
        };
        let work = Box::new(move |db: &mut super::db::Db| -> super::lane::Reply {
            let started = Instant::now();
            let result = db.select(&query, &part);
            let time = started.elapsed();
            Box::new(move |me, cx| me.answered(cx, id, query, time, result))
        });
        self.read_rows(cx, work);
    }

    fn answered(
        &mut self,
        cx: &mut Cx<'_>,
        id: u64,
        query: Box<Query>,
        time: Duration,
        result: Result<Found, StoreError>,
    ) {
        let found = match result {
            Ok(found) => found,
            Err(err) => {
                if err.is_damage() {
                    self.damage(cx, &err);
                } else if let Some(stream) = self.streams.remove(&id) {
                    stream.fail(cx, &err.into());
                }
                return;
            }
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let attrs = query.attrs;
        stream.query = Some(query);
        for (rank, job) in found.jobs {
            while let Some(row) = stream.recent.pop_front_if(|row| row.rank().precedes(rank)) {
                stream.send(cx, &object(&row.view(), attrs));
            }
            stream.send(cx, &job);
        }
        stream.after = found.next;
        if time < PART_TIME {
            stream.window = (stream.window * 2).min(WINDOW_MAX);
        }
        self.advance(cx, id);
    }

    /// Fails all lists that are being answered.
    pub(super) fn fail_streams(&mut self, cx: &mut Cx<'_>, err: &RpcError) {
        for (_, stream) in std::mem::take(&mut self.streams) {
            stream.fail(cx, err);
        }
    }

    pub(super) fn forget_streams(&mut self, sender: Option<&Bytes>) {
        self.streams.retain(|_, stream| stream.header.sender() != sender);
    }
}

impl Stream {
    fn send(&mut self, cx: &mut Cx<'_>, job: &[u8]) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let first = std::mem::take(&mut self.first);
        if let Some(body) = &mut self.body {
            if !first {
                body.push(b',');
            }
            body.extend_from_slice(job);
            if body.len() > BODY_MAX {
                self.left = 0;
            }
            return;
        }
        let head: &[u8] = if first {
            b"{\"version\":1,\"jobs\":["
        } else {
            b"{\"jobs\":["
        };
        let payload = [head, job, b"]}\0"].concat();
        cx.respond_payload(&self.header, Some(Bytes::from(payload)));
    }

    fn finish(self, cx: &mut Cx<'_>) {
        match self.body {
            Some(body) if body.len() > BODY_MAX => {
                let text = format!(
                    "the list is larger than {} MiB: use a streaming request, max_entries or a constraint",
                    BODY_MAX >> 20
                );
                cx.fail(&self.header, errno::EOVERFLOW, &text);
            }
            Some(mut body) => {
                body.extend_from_slice(b"]}\0");
                cx.respond_payload(&self.header, Some(Bytes::from(body)));
            }
            None => {
                if self.first {
                    cx.respond(&self.header, &json!({ "version": 1, "jobs": [] }));
                }
                cx.fail(&self.header, errno::ENODATA, "");
            }
        }
    }

    fn fail(self, cx: &mut Cx<'_>, err: &RpcError) {
        cx.fail_with(&self.header, err);
    }
}
