//! When is an event in the KVS, and what happens then? One commit for all jobs of a turn (DESIGN §6).
//!
//! ```text
//!   events of a turn ─> open batch ─(end of turn)─> commit ─> journal, then what waited for it
//!                           ▲                          │
//!                           └── the next batch ────────┘   one commit in flight; it carries what came meanwhile
//! ```
//!
//! A failed commit ends the broker, except when the store is full or unwritable: then submissions that were not
//! answered fail with the store's error, everything else is kept and tried again until the store works.

use super::JobManager;
use super::api::{Answer, JobEvent};
use super::inactive::Inactive;
use super::index;
use super::index_store::version_change;
use super::ports::Change;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use indexmap::IndexMap;
use std::time::Duration;

/// Time between attempts to write to a store that is full.
const RETRY: Duration = Duration::from_secs(1);

/// A call into the job manager, put off.
pub(super) type Call = Box<dyn FnOnce(&mut JobManager, &mut Cx<'_>)>;

/// What waits for a commit.
pub(super) enum After {
    /// Start the job's shells.
    Start(JobId),
    /// Give resources back to the scheduler.
    Free { id: JobId, ranks: Option<IdSet> },
    /// Forget an inactive job.
    Retire(JobId),
    /// Answer a request.
    Respond(Message, Option<Bytes>),
    /// Answer a submission.
    Submitted(Answer, Vec<Result<JobId, RpcError>>),
    /// Let a journal subscriber in.
    Call(Call),
}

/// Changes to one job's directory.
#[derive(Debug, Default)]
struct JobChanges {
    /// Values to set, by their name in the directory.
    puts: Vec<(&'static str, Bytes)>,
    /// Text to append to the eventlog.
    eventlog: String,
    /// The job's `submit` event is among them.
    is_new: bool,
    /// Its `clean` event is among them.
    ended: Option<Inactive>,
}

/// Events and changes that share one commit.
#[derive(Default)]
pub(super) struct Batch {
    jobs: IndexMap<JobId, JobChanges>,
    other: Vec<Change>,
    events: Vec<JobEvent>,
    after: Vec<After>,
    durable: bool,
    /// Lines for the index of jobs, besides those of the events.
    index_lines: String,
    /// Where in the index the lines go; `None` when no index is kept.
    index_key: Option<String>,
}

impl Batch {
    /// Returns true when somebody waits to be let in.
    fn has_calls(&self) -> bool {
        self.after.iter().any(|after| matches!(after, After::Call(_)))
    }

    fn is_empty(&self) -> bool {
        self.jobs.is_empty()
            && self.other.is_empty()
            && self.events.is_empty()
            && self.after.is_empty()
            && self.index_lines.is_empty()
    }

    /// Adds lines for the index of jobs.
    pub(super) fn index_lines(&mut self, lines: &str) {
        self.index_lines.push_str(lines);
    }

    /// Notes that a job's `clean` event is in this batch.
    pub(super) fn ended(&mut self, id: JobId, job: Inactive) {
        self.jobs.entry(id).or_default().ended = Some(job);
    }

    /// Returns the lines that the index of jobs gets.
    fn index_text(&self) -> String {
        let mut text = String::new();
        for (id, job) in &self.jobs {
            if job.is_new {
                index::submitted(&mut text, *id);
            }
            if let Some(ended) = &job.ended {
                index::ended(&mut text, *id, ended);
            }
        }
        text.push_str(&self.index_lines);
        text
    }

    /// Adds an event; `logged` ones go to the eventlog, all to the journal.
    pub(super) fn event(&mut self, event: JobEvent, logged: bool, durable: bool) {
        if logged {
            let changes = self.jobs.entry(event.id).or_default();
            changes.eventlog.push_str(&event.line);
            changes.is_new |= &*event.name == "submit";
        }
        self.durable |= durable;
        self.events.push(event);
    }

    /// Sets a value in a job's directory.
    pub(super) fn put(&mut self, id: JobId, name: &'static str, value: impl Into<Bytes>) {
        self.jobs.entry(id).or_default().puts.push((name, value.into()));
    }

    /// Adds a change outside of jobs' directories, to be durable.
    pub(super) fn change(&mut self, change: Change) {
        self.other.push(change);
        self.durable = true;
    }

    /// Adds what waits for this batch.
    pub(super) fn after(&mut self, after: After) {
        self.after.push(after);
    }

    fn changes(&self) -> Vec<Change> {
        let mut changes = self.other.clone();
        for (id, job) in &self.jobs {
            for (name, value) in &job.puts {
                changes.push(Change::Put(id.kvs_key(name), value.clone()));
            }
            if !job.eventlog.is_empty() {
                let log = Bytes::copy_from_slice(job.eventlog.as_bytes());
                let key = id.kvs_key("eventlog");
                changes.push(if job.is_new {
                    Change::Put(key, log)
                } else {
                    Change::Append(key, log)
                });
            }
        }
        if let Some(key) = &self.index_key {
            changes.push(Change::Append(key.clone(), Bytes::from(self.index_text())));
        }
        changes
    }

    /// Takes out the jobs whose submission is in this batch; returns them.
    fn withdraw_submissions(&mut self) -> Vec<JobId> {
        let new: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.is_new)
            .map(|(id, _)| *id)
            .collect();
        self.jobs.retain(|_, job| !job.is_new);
        self.events.retain(|event| !new.contains(&event.id));
        new
    }
}

impl JobManager {
    /// Returns the batch that is open, and sees to it that it is committed at the end of this turn.
    pub(super) fn batch(&mut self, cx: &mut Cx<'_>) -> &mut Batch {
        self.arm(cx);
        &mut self.open
    }

    /// Arms the flush at the end of the turn.
    pub(super) fn arm(&mut self, cx: &mut Cx<'_>) {
        if !self.armed {
            self.armed = true;
            cx.later(|me: &mut JobManager, cx| me.flush(cx));
        }
    }

    fn flush(&mut self, cx: &mut Cx<'_>) {
        self.armed = false;
        self.tap_flush(cx);
        self.send_sched_requests(cx);
        self.commit_next(cx);
    }

    /// Commits the open batch unless one is in flight.
    fn commit_next(&mut self, cx: &mut Cx<'_>) {
        if self.in_flight.is_some() || self.open.is_empty() {
            return;
        }
        let mut batch = std::mem::take(&mut self.open);
        if self.index.on {
            self.place_in_index(&mut batch);
        }
        let (changes, durable) = (batch.changes(), batch.durable);
        self.in_flight = Some(batch);
        if changes.is_empty() {
            self.committed(cx, Ok(()));
        } else {
            self.store.commit(
                cx,
                changes,
                durable,
                Box::new(|me, cx, result| me.committed(cx, result)),
            );
        }
    }

    /// Chooses where the lines of a batch go in the index of jobs.
    fn place_in_index(&mut self, batch: &mut Batch) {
        let text = batch.index_text();
        if text.is_empty() {
            return;
        }
        batch.index_key = Some(self.index.append(&text));
        if !self.index.complete && !self.index.rewriting {
            self.index.complete = true;
            batch.other.push(version_change());
        }
    }

    /// Calls back when subscribers of the journal have been told of all events that readers of the KVS may have seen: a
    /// commit is visible before it is durable, and after a start subscribers are let in with the next one. Does not wait
    /// for a store that is full.
    pub(super) fn when_delivered(&mut self, cx: &mut Cx<'_>, call: Call) {
        if self.restart.is_some() {
            self.when_restored(cx, move |me, cx| me.when_delivered(cx, call));
        } else if self.open.has_calls() && self.store_error.is_none() {
            self.open.after(After::Call(call));
        } else if self.in_flight.is_some() && self.store_error.is_none() {
            self.delivered_waiters.push(call);
        } else {
            call(self, cx);
        }
    }

    fn wake_delivered_waiters(&mut self, cx: &mut Cx<'_>) {
        for call in std::mem::take(&mut self.delivered_waiters) {
            call(self, cx);
        }
    }

    fn committed(&mut self, cx: &mut Cx<'_>, result: Result<(), RpcError>) {
        if let Err(err) = result {
            self.commit_failed(cx, &err);
            self.wake_delivered_waiters(cx);
            return;
        }
        if let Some(why) = self.store_error.take() {
            cx.log_as_me(5, &format!("eventlogs are written again (earlier: {why})"));
        }
        let Some(batch) = self.in_flight.take() else {
            return;
        };
        self.deliver(cx, batch.events);
        for after in batch.after {
            self.perform_after(cx, after);
        }
        self.wake_delivered_waiters(cx);
        self.arm(cx);
    }

    fn perform_after(&mut self, cx: &mut Cx<'_>, after: After) {
        match after {
            After::Start(id) => self.start_intended(cx, id),
            After::Free { id, ranks: None } if self.housekeeping_begin(cx, id) => {}
            After::Free { id, ranks } => self.sched_free(cx, id, ranks),
            After::Retire(id) => self.retire(cx, id),
            After::Respond(request, payload) => cx.respond_payload(&request, payload),
            After::Submitted(answer, results) => answer(cx, results),
            After::Call(call) => call(self, cx),
        }
    }

    fn commit_failed(&mut self, cx: &mut Cx<'_>, err: &RpcError) {
        if !matches!(err.errnum, errno::ENOSPC | errno::EIO) {
            // job events that are not stored would make everyone's view of jobs unreliable
            tracing::error!(service = "job-manager", err = %err, "eventlog update failed: the broker stops");
            cx.log_as_me(
                0,
                &format!("eventlog update failed: {}: the broker stops", err.text),
            );
            cx.request_exit(1);
            return;
        }
        if self.store_error.is_none() {
            cx.log_as_me(
                2,
                &format!(
                    "eventlogs cannot be written: {}: submissions are refused",
                    err.text
                ),
            );
        }
        self.store_error = Some(err.text.clone());
        self.refuse_submissions(cx, err);
        cx.timer(RETRY, |me: &mut JobManager, cx| me.retry(cx));
    }

    /// Fails the submissions that were not answered; their jobs are forgotten.
    fn refuse_submissions(&mut self, cx: &mut Cx<'_>, err: &RpcError) {
        let mut gone = Vec::new();
        let mut answers = Vec::new();
        for batch in [self.in_flight.as_mut(), Some(&mut self.open)]
            .into_iter()
            .flatten()
        {
            let new = batch.withdraw_submissions();
            for id in &new {
                batch.jobs.shift_remove(id);
                // the failed commit may be visible all the same
                batch.other.push(Change::Unlink(id.kvs_path()));
            }
            gone.extend(new);
            let (submitted, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut batch.after)
                .into_iter()
                .partition(|after| matches!(after, After::Submitted(..)));
            batch.after = rest;
            answers.extend(submitted);
        }
        // events of the new jobs that came after their submission
        self.open.jobs.retain(|id, _| !gone.contains(id));
        self.open.events.retain(|event| !gone.contains(&event.id));
        for id in gone {
            self.expunge(cx, id);
        }
        for after in answers {
            if let After::Submitted(answer, results) = after {
                let results = results
                    .into_iter()
                    .map(|result| result.and(Err(err.clone())))
                    .collect();
                answer(cx, results);
            }
        }
    }

    /// Tries the failed batch again, unless its commit turns out to be visible: then only durability is asked for.
    pub(super) fn retry(&mut self, cx: &mut Cx<'_>) {
        let Some(batch) = &self.in_flight else { return };
        let logged = batch.jobs.iter().find(|(_, job)| !job.eventlog.is_empty());
        let Some((id, job)) = logged else {
            self.recommit(cx, false);
            return;
        };
        let (key, tail) = (
            id.kvs_key("eventlog"),
            Bytes::copy_from_slice(job.eventlog.as_bytes()),
        );
        self.store.lookup(
            cx,
            &key,
            Box::new(move |me, cx, log| {
                let visible = log.is_ok_and(|log| log.ends_with(&tail));
                me.recommit(cx, visible);
            }),
        );
    }

    fn recommit(&mut self, cx: &mut Cx<'_>, visible: bool) {
        let Some(batch) = &self.in_flight else { return };
        let mut changes = if visible {
            batch.other.clone()
        } else {
            batch.changes()
        };
        let durable = batch.durable;
        changes.push(self.checkpoint_change());
        self.store.commit(
            cx,
            changes,
            durable,
            Box::new(|me, cx, result| me.committed(cx, result)),
        );
    }
}
