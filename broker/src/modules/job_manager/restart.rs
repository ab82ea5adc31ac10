//! How do jobs of a former run come back? Their eventlogs are replayed (RFC 16 layout, RFC 21 events).
//!
//! Until that is done every request and typed call waits. Jobs that waited for resources go back to PRIORITY
//! (`flux-restart`); jobs that had resources are handed to the execution service to find their shells, never to
//! start them again (DESIGN §6).

use super::JobManager;
use super::api::JobEvent;
use super::commit::Call;
use super::event::Event;
use super::index;
use super::index_store::Read;
use super::job::Job;
use super::ports::Change;
use super::state::State;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::eventlog;
use flux_formats::jobid::JobId;
use flux_formats::jobspec::Apart;
use flux_formats::msg::Message;
use flux_formats::rpc::job_ingest::flags::WAITABLE;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::rc::Rc;

/// KVS key of what is remembered besides eventlogs.
pub(super) const CHECKPOINT: &str = "checkpoint.job-manager";
/// Its version.
const CHECKPOINT_VERSION: u64 = 1;
/// Directories and jobs read at a time.
const WINDOW: usize = 64;
/// Levels of directories below `job` (RFC 16).
const LEVELS: usize = 4;

/// A restart under way.
#[derive(Default)]
pub(super) struct Restart {
    deferred: Vec<Deferred>,
    /// Directories to be read, and jobs.
    todo: Vec<String>,
    outstanding: usize,
    count: usize,
    /// The index of jobs, while it is read.
    pub(super) index: Option<Read>,
    /// There was no index: all jobs are looked at.
    walked: bool,
}

enum Deferred {
    Request(Message),
    Call(Call),
}

/// Why a job cannot be replayed.
#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error("eventlog is not readable")]
    Log(#[from] eventlog::EventlogError),
    #[error("event {name} has a bad context")]
    Context {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error(transparent)]
    Illegal(#[from] super::state::IllegalEvent),
    #[error("jobspec or R is not JSON")]
    Json(#[from] serde_json::Error),
    #[error("{0} cannot be read: {1}")]
    Lookup(&'static str, RpcError),
}

impl Restart {
    pub(super) fn defer(&mut self, request: Message) {
        self.deferred.push(Deferred::Request(request));
    }
}

impl JobManager {
    /// Runs a call now, or when the jobs of a former run are restored.
    pub(super) fn when_restored(
        &mut self,
        cx: &mut Cx<'_>,
        call: impl FnOnce(&mut JobManager, &mut Cx<'_>) + 'static,
    ) {
        match &mut self.restart {
            Some(restart) => restart.deferred.push(Deferred::Call(Box::new(call))),
            None => call(self, cx),
        }
    }

    /// Looks at all jobs that a former run left in the KVS.
    pub(super) fn walk_jobs(&mut self, cx: &mut Cx<'_>) {
        if let Some(restart) = &mut self.restart {
            restart.walked = true;
            restart.todo.push("job".to_owned());
        }
        self.read_more(cx);
    }

    /// Replays these jobs; there are `inactive` others.
    pub(super) fn replay_jobs(&mut self, cx: &mut Cx<'_>, active: &BTreeSet<JobId>, inactive: usize) {
        if let Some(restart) = &mut self.restart {
            restart.count = inactive;
            restart.todo = active.iter().rev().map(|id| id.kvs_path()).collect();
        }
        self.read_more(cx);
    }

    fn read_more(&mut self, cx: &mut Cx<'_>) {
        loop {
            let Some(restart) = &mut self.restart else { return };
            if restart.outstanding >= WINDOW {
                return;
            }
            let Some(key) = restart.todo.pop() else { break };
            restart.outstanding += 1;
            if key.matches('.').count() == LEVELS {
                self.read_job(cx, key);
            } else {
                self.read_dir(cx, key);
            }
        }
        if self
            .restart
            .as_ref()
            .is_some_and(|restart| restart.outstanding == 0)
        {
            self.store.lookup(
                cx,
                CHECKPOINT,
                Box::new(|me, cx, result| me.restore_checkpoint(cx, result)),
            );
        }
    }

    fn read_dir(&mut self, cx: &mut Cx<'_>, key: String) {
        let store = &mut self.store;
        let dir = key.clone();
        store.lookup_dir(
            cx,
            &dir,
            Box::new(move |me, cx, names| {
                let Some(restart) = &mut me.restart else { return };
                restart.outstanding -= 1;
                match names {
                    Ok(names) => restart.todo.extend(names.into_iter().rev().map(|name| format!("{key}.{name}"))),
                    Err(err) if err.errnum == errno::ENOENT => {}
                    Err(err) => {
                        // jobs that cannot be seen would be lost silently
                        tracing::error!(key, err = %err, "jobs of a former run cannot be read: the broker stops");
                        cx.log_as_me(0, &format!("restart: could not look up {key}: {}", err.text));
                        cx.request_exit(1);
                        return;
                    }
                }
                me.read_more(cx);
            }),
        );
    }

    fn read_job(&mut self, cx: &mut Cx<'_>, key: String) {
        let Ok(id) = key.parse::<JobId>() else {
            tracing::warn!(key, "KVS directory is not a job");
            self.job_done(cx);
            return;
        };
        self.store.lookup(
            cx,
            &id.kvs_key("eventlog"),
            Box::new(
                move |me, cx, log| match log.map_err(|err| ReplayError::Lookup("eventlog", err)) {
                    Ok(log) => me.first_replay(cx, id, &log),
                    Err(ReplayError::Lookup(_, err)) if err.errnum == errno::ENOENT && me.index.on => {
                        me.no_such_job(cx, id);
                    }
                    Err(err) => me.not_replayed(cx, id, &err),
                },
            ),
        );
    }

    /// Replays the eventlog alone: enough for an inactive job.
    fn first_replay(&mut self, cx: &mut Cx<'_>, id: JobId, log: &Bytes) {
        let text = String::from_utf8_lossy(log).into_owned();
        let mut job = Job::new(id, Rc::new(Value::Null));
        match replay(&mut job, &text, |_, _, _| {}) {
            Err(err) => self.not_replayed(cx, id, &err),
            Ok(()) if job.state == State::Inactive => {
                self.max_jobid = self.max_jobid.max(id);
                self.inactive.insert(&job);
                self.job_done(cx);
            }
            Ok(()) => self.read_rest(cx, id, text),
        }
    }

    fn read_rest(&mut self, cx: &mut Cx<'_>, id: JobId, log: String) {
        self.read_parts(cx, id, move |me, cx, parts| {
            let [_, jobspec, r] = parts.unwrap_or_default();
            match restored(id, &log, &jobspec, &r, &mut me.sequence, &mut me.names) {
                Err(err) => me.not_replayed(cx, id, &err),
                Ok(job) => {
                    me.max_jobid = me.max_jobid.max(id);
                    if job.has_flag(WAITABLE) {
                        me.waits.add_waitable();
                    }
                    me.running += usize::from(job.state.is_running());
                    me.active.insert(id, job);
                    me.job_done(cx);
                }
            }
        });
    }

    /// Reads an inactive job with its events; `done` gets `None` for one that was purged or cannot be read.
    pub(super) fn read_stored(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        done: impl FnOnce(&mut Cx<'_>, Option<Vec<JobEvent>>) + 'static,
    ) {
        if !self.inactive.contains(id) {
            return done(cx, None);
        }
        self.read_parts(cx, id, move |me, cx, parts| {
            let Some([log, jobspec, r]) = parts else {
                return done(cx, None);
            };
            let jobspec = if jobspec.is_empty() { "null" } else { &jobspec };
            match restored(id, &log, jobspec, &r, &mut 0, &mut me.names) {
                Ok(job) => done(cx, Some(job.events)),
                Err(err) => {
                    cx.log_as_me(4, &format!("inactive job {id} cannot be listed: {err}"));
                    done(cx, None);
                }
            }
        });
    }

    /// A job is in the index, but not in the KVS: its submission failed and was never acknowledged.
    fn no_such_job(&mut self, cx: &mut Cx<'_>, id: JobId) {
        tracing::debug!(jobid = %id, "not in the KVS");
        let mut line = String::new();
        index::purged(&mut line, id);
        self.batch(cx).index_lines(&line);
        self.job_done(cx);
    }

    fn not_replayed(&mut self, cx: &mut Cx<'_>, id: JobId, err: &ReplayError) {
        let source = std::error::Error::source(err)
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        cx.log_as_me(3, &format!("job {id} not replayed: {err}{source}"));
        self.job_done(cx);
    }

    fn job_done(&mut self, cx: &mut Cx<'_>) {
        let Some(restart) = &mut self.restart else { return };
        restart.outstanding -= 1;
        restart.count += 1;
        self.read_more(cx);
    }

    fn restore_checkpoint(&mut self, cx: &mut Cx<'_>, result: Result<Bytes, RpcError>) {
        let saved = result
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        if let Some(saved) = &saved {
            let version = saved.get("version").and_then(Value::as_u64).unwrap_or(0);
            if version > CHECKPOINT_VERSION {
                cx.log_as_me(
                    0,
                    &format!("{CHECKPOINT} has version {version}, newer than this broker knows"),
                );
                cx.request_exit(1);
                return;
            }
            let max = saved.get("max_jobid").and_then(Value::as_u64).unwrap_or(0);
            self.max_jobid = self.max_jobid.max(JobId(max));
            self.queues.restore(saved.get("queue").unwrap_or(&Value::Null));
        }
        let Some(restart) = &self.restart else {
            return;
        };
        if self.config.stop_queues_on_restart && (saved.is_some() || restart.count > 0) {
            self.queues.stop_for_restart();
        }
        if restart.count > 0 {
            cx.log_as_me(6, &format!("restart: {} jobs", restart.count));
            cx.log_as_me(6, &format!("restart: {} running jobs", self.running));
        }
        self.start_plugins(cx);
    }

    /// The jobs of a former run are known, and the plugins are there: goes on with everything.
    pub(super) fn finish_restart(&mut self, cx: &mut Cx<'_>) {
        let Some(restart) = self.restart.take() else {
            return;
        };
        self.begin_index(cx, restart.walked);
        self.tap_learn_expiration(cx);
        self.tell_known(cx, None);
        self.replay_to(cx, None);
        self.resume_jobs(cx);
        for deferred in restart.deferred {
            match deferred {
                Deferred::Request(req) => self.handle(cx, &req),
                Deferred::Call(call) => call(self, cx),
            }
        }
    }

    fn resume_jobs(&mut self, cx: &mut Cx<'_>) {
        self.journal.skip_to(self.sequence);
        let ids: Vec<JobId> = self.active.keys().copied().collect();
        for id in ids {
            let Some(job) = self.active.get_mut(&id) else {
                continue;
            };
            match job.state {
                State::New => self.post_sure(cx, id, &Event::Validate),
                State::Sched => {
                    job.priority = None;
                    self.post_sure(cx, id, &Event::FluxRestart);
                }
                State::Run | State::Cleanup => {
                    job.marks.reattach = true;
                    self.debug_event(cx, id, "exec-reattach-start");
                    self.drive(cx, id);
                }
                _ => self.drive(cx, id),
            }
        }
    }

    /// Returns the change that stores what is not in eventlogs.
    pub(super) fn checkpoint_change(&self) -> Change {
        let saved = json!({
            "version": CHECKPOINT_VERSION, "max_jobid": self.max_jobid, "queue": self.queues().save(),
        });
        Change::Put(CHECKPOINT.to_owned(), Bytes::from(saved.to_string()))
    }
}

/// Replays an eventlog; `each` sees every line with its event.
fn replay(
    job: &mut Job,
    log: &str,
    mut each: impl FnMut(&mut Job, &str, (&Event, f64)),
) -> Result<(), ReplayError> {
    for line in log.split_inclusive('\n') {
        // a crash may cut nothing: appends are atomic; anything else is damage
        let entry =
            eventlog::EventRef::decode(line.strip_suffix('\n').ok_or(eventlog::EventlogError::Newline)?)?;
        let event = Event::parse(&entry).map_err(|source| ReplayError::Context {
            name: entry.name.to_string(),
            source,
        })?;
        job.apply(&event, entry.timestamp)?;
        each(job, line, (&event, entry.timestamp));
    }
    Ok(())
}

/// Replays an active job with all its parts.
fn restored(
    id: JobId,
    log: &str,
    jobspec: &str,
    r: &str,
    sequence: &mut u64,
    names: &mut super::names::Names,
) -> Result<Job, ReplayError> {
    let mut job = Job::new(id, Rc::new(Apart::read(jobspec)?.jobspec));
    if !r.is_empty() {
        let mut r: Value = serde_json::from_str(r)?;
        if let Value::Object(r) = &mut r {
            r.shift_remove("scheduling");
        }
        job.r = Some(Rc::new(r));
    }
    replay(&mut job, log, |job, line, (event, timestamp)| {
        *sequence += 1;
        let entry = JobEvent {
            id,
            userid: job.userid,
            timestamp,
            sequence: *sequence,
            name: names.get(&event.name()),
            line: Rc::from(line),
            jobspec: matches!(event, Event::Submit { .. } | Event::JobspecUpdate { .. })
                .then(|| job.jobspec.clone()),
            r: match event {
                Event::Alloc { .. } | Event::ResourceUpdate { .. } => job.r.clone(),
                _ => None,
            },
        };
        job.events.push(entry);
    })?;
    Ok(job)
}
