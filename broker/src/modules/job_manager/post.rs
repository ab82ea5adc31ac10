//! How does an event happen to a job, and what follows from it?

use super::JobManager;
use super::api::JobEvent;
use super::commit::After;
use super::event::{Event, Exception};
use super::inactive::Inactive;
use super::job::{Alloc, Exec, Job, Step, Surroundings};
use super::ports::SchedRequest;
use super::state::State;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::rpc::job_ingest::flags;
use std::cmp::Reverse;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Steps that a job may take in a row; far more than any path through the table.
const STEPS_MAX: u32 = 64;

impl JobManager {
    /// Returns the time in seconds since the epoch; it never goes back.
    pub(super) fn now(&mut self) -> f64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        self.last_time = self.last_time.max(now);
        self.last_time
    }

    /// Posts an event to a job and does what follows from it.
    ///
    /// # Errors
    /// EINVAL when RFC 21 does not allow the event now, ENOENT when the job is not active.
    pub(super) fn post(&mut self, cx: &mut Cx<'_>, id: JobId, event: &Event) -> Result<(), RpcError> {
        let now = self.now();
        self.record(cx, id, event, now)?;
        self.drive(cx, id);
        Ok(())
    }

    /// Posts an event that cannot be refused in the job's state; a refusal is logged.
    pub(super) fn post_sure(&mut self, cx: &mut Cx<'_>, id: JobId, event: &Event) {
        if let Err(err) = self.post(cx, id, event) {
            tracing::error!(jobid = %id, event = %event.name(), err = %err, "event not posted");
        }
    }

    /// Records an event: the job's state, its eventlog, the journal.
    ///
    /// # Errors
    /// As [`JobManager::post`].
    pub(super) fn record(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        event: &Event,
        timestamp: f64,
    ) -> Result<(), RpcError> {
        let job = self
            .active
            .get_mut(&id)
            .ok_or_else(|| RpcError::bare(errno::ENOENT))?;
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        event
            .write(&mut line, timestamp)
            .map_err(|err| RpcError::new(errno::EINVAL, err.to_string()))?;
        let before = job.state;
        job.apply(event, timestamp)
            .map_err(|err| RpcError::new(errno::EINVAL, err.to_string()))?;
        self.running += usize::from(job.state.is_running());
        self.running -= usize::from(before.is_running());
        self.sequence += 1;
        let entry = JobEvent {
            id,
            userid: job.userid,
            timestamp,
            sequence: self.sequence,
            name: self.names.get(&event.name()),
            line: Rc::from(line.as_str()),
            jobspec: matches!(event, Event::Submit { .. } | Event::JobspecUpdate { .. })
                .then(|| job.jobspec.clone()),
            r: match event {
                Event::Alloc { .. } | Event::ResourceUpdate { .. } => job.r.clone(),
                _ => None,
            },
        };
        if job.state != before || self.tap_is_watched(id) {
            self.tell_plugins(cx, id, before, &entry);
        }
        self.line = line;
        let Some(job) = self.active.get_mut(&id) else {
            return Ok(());
        };
        let ended = (job.state == State::Inactive && before != State::Inactive).then(|| Inactive::of(job));
        let logged = event.is_logged();
        if logged {
            job.events.push(entry.clone());
        }
        let batch = self.batch(cx);
        batch.event(entry, logged, event.is_durable());
        if let Some(ended) = ended.filter(|_| logged) {
            batch.ended(id, ended);
        }
        Ok(())
    }

    /// Tells plugins that want to know of a job's new state, and of an event of a job that they watch.
    fn tell_plugins(&mut self, cx: &mut Cx<'_>, id: JobId, before: State, entry: &JobEvent) {
        if self.active.get(&id).is_some_and(|job| job.state != before) {
            self.tap_state(cx, id);
        }
        if self.tap_is_watched(id) {
            let name: std::sync::Arc<str> = std::sync::Arc::from(&*entry.name);
            self.tap_event(cx, id, &name, &entry.line);
        }
    }

    /// Does what follows from a job's state, until it waits for somebody.
    pub(super) fn drive(&mut self, cx: &mut Cx<'_>, id: JobId) {
        for _ in 0..STEPS_MAX {
            let Some(job) = self.active.get(&id) else { return };
            if job.tap.waiting > 0 {
                return; // a plugin has the word
            }
            let around = Surroundings {
                queue_started: self.queues.is_started(job.queue.as_deref()),
                exec_ready: self.executor.is_ready(cx),
                asks_priority: job.state == State::Priority && self.tap.asks_priority(job),
            };
            let Some(step) = job.next_step(around) else { return };
            self.take_step(cx, id, step);
        }
        tracing::error!(jobid = %id, "job does not come to rest");
    }

    fn take_step(&mut self, cx: &mut Cx<'_>, id: JobId, step: Step) {
        match step {
            Step::Post(event) => {
                let now = self.now();
                if let Err(err) = self.record(cx, id, &event, now) {
                    tracing::error!(jobid = %id, event = %event.name(), err = %err, "event not posted");
                }
                if event == Event::Free {
                    self.housekeeping_adopt(id);
                    self.batch(cx).after(After::Free { id, ranks: None });
                }
            }
            Step::Enqueue => self.enqueue(cx, id),
            Step::Dequeue => self.dequeue(id),
            Step::AskPriority => self.tap_ask_priority(cx, id),
            Step::Prioritize => {
                let Some(job) = self.active.get_mut(&id) else {
                    return;
                };
                let priority = job.priority.unwrap_or(0);
                job.alloc = Alloc::Pending(priority);
                self.sched_request(cx, SchedRequest::Prioritize(vec![(id, priority)]));
            }
            Step::Cancel => {
                self.set_alloc(id, Alloc::Cancelling);
                self.sched_request(cx, SchedRequest::Cancel(id));
            }
            Step::CancelAndForget => self.cancel_and_forget(cx, id),
            Step::Start => {
                let Some(job) = self.active.get_mut(&id) else {
                    return;
                };
                job.exec = Exec::Intended;
                self.batch(cx).after(After::Start(id));
            }
            Step::Retire => {
                let Some(job) = self.active.get_mut(&id) else {
                    return;
                };
                job.marks.retiring = true;
                self.batch(cx).after(After::Retire(id));
            }
        }
    }

    /// Puts a job into the queue for the scheduler, and on to the scheduler when it is there.
    fn enqueue(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        let priority = job.priority.unwrap_or(0);
        job.alloc = Alloc::Queued(priority);
        self.queued.insert((Reverse(priority), id));
        if self.sched_ready {
            self.arm(cx);
        }
    }

    fn dequeue(&mut self, id: JobId) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        if let Alloc::Queued(priority) = job.alloc {
            self.queued.remove(&(Reverse(priority), id));
            job.alloc = Alloc::None;
        }
    }

    fn cancel_and_forget(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let pending = self
            .active
            .get(&id)
            .is_some_and(|job| matches!(job.alloc, Alloc::Pending(_)));
        self.set_alloc(id, Alloc::None);
        if pending {
            self.sched_request(cx, SchedRequest::Cancel(id));
        }
        self.clear_annotations(cx, id, None);
    }

    /// Sets where a job stands with the scheduler, and counts.
    pub(super) fn set_alloc(&mut self, id: JobId, alloc: Alloc) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        let with_sched = |alloc: Alloc| usize::from(matches!(alloc, Alloc::Pending(_) | Alloc::Cancelling));
        self.alloc_pending += with_sched(alloc);
        self.alloc_pending -= with_sched(job.alloc);
        if !matches!(alloc, Alloc::Pending(_) | Alloc::Cancelling) {
            job.marks.request_stale = false;
        }
        job.alloc = alloc;
    }

    /// Removes annotations (`sched` only, or all) and tells the journal when none is left.
    pub(super) fn clear_annotations(&mut self, cx: &mut Cx<'_>, id: JobId, key: Option<&str>) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        if job.annotations.is_empty() {
            return;
        }
        match key {
            Some(key) => drop(job.annotations.shift_remove(key)),
            None => job.annotations.clear(),
        }
        if job.annotations.is_empty() {
            let now = self.now();
            let recorded = self.record(cx, id, &Event::Annotations { annotations: None }, now);
            debug_assert!(recorded.is_ok());
        }
    }

    /// Posts an exception, tells the execution service, and publishes `job-exception`.
    ///
    /// # Errors
    /// As [`JobManager::post`].
    pub(super) fn raise(&mut self, cx: &mut Cx<'_>, id: JobId, exception: Exception) -> Result<(), RpcError> {
        let (severity, kind, wait_status) =
            (exception.severity, exception.kind.clone(), exception.wait_status);
        let job = self
            .active
            .get(&id)
            .ok_or_else(|| RpcError::bare(errno::ENOENT))?;
        let (userid, with_exec) = (job.userid, job.exec == Exec::Requested);
        let now = self.now();
        self.record(cx, id, &Event::Exception(exception), now)?;
        let mut event = serde_json::json!({"id": id, "type": kind, "severity": severity});
        if let Some(status) = wait_status {
            event["wait_status"] = status.into();
        }
        cx.publish_private("job-exception", userid, &event);
        if with_exec {
            self.executor.exception(cx, id, severity, &kind, wait_status);
        }
        self.drive(cx, id);
        Ok(())
    }

    /// Posts a `debug.*` event when the job was submitted with the debug flag.
    pub(super) fn debug_event(&mut self, cx: &mut Cx<'_>, id: JobId, name: &str) {
        if self.active.get(&id).is_some_and(|job| job.has_flag(flags::DEBUG)) {
            let event = Event::Other {
                name: format!("debug.{name}"),
                context: None,
            };
            self.post_sure(cx, id, &event);
        }
    }

    /// Forgets an inactive job except for what later requests need.
    pub(super) fn retire(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.active.remove(&id) else {
            return;
        };
        debug_assert_eq!(job.state, State::Inactive);
        self.release_secrets(&job);
        self.tap_retired(cx, &job);
        self.inactive.insert(&job);
        self.wait_inactive(cx, &job);
        self.check_drain(cx);
    }

    /// Forgets a job that was never acknowledged.
    pub(super) fn expunge(&mut self, cx: &mut Cx<'_>, id: JobId) {
        if self.active.get(&id).is_some_and(|job| job.alloc != Alloc::None) {
            self.dequeue(id);
            self.cancel_and_forget(cx, id);
        }
        let Some(job) = self.active.remove(&id) else {
            return;
        };
        self.release_secrets(&job);
        self.running -= usize::from(job.state.is_running());
        if job.marks.has_resources {
            self.sched_free(cx, id, None);
        }
        self.tap_purged(cx, id);
        self.wait_forget(cx, &job);
        self.check_drain(cx);
    }

    /// Returns an active job or the error that says why it is none.
    ///
    /// # Errors
    /// `errnum` with `unknown` or "job is inactive".
    pub(super) fn find(&self, id: JobId, errnum: u32, unknown: &str) -> Result<&Job, RpcError> {
        match self.active.get(&id) {
            Some(job) if job.state != State::Inactive => Ok(job),
            Some(_) => Err(RpcError::new(errnum, "job is inactive")),
            None if self.inactive.contains(id) => Err(RpcError::new(errnum, "job is inactive")),
            None => Err(RpcError::new(errnum, unknown)),
        }
    }
}
