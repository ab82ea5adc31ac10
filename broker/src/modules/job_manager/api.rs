//! How do other services of this broker talk to the job manager? Typed calls, without encoding.
//!
//! Every call is queued and runs after the caller's turn; calls of one service arrive in order.

use super::JobManager;
use super::commit::After;
use crate::service::{Cx, RpcError, Service};
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use serde_json::Value;
use serde_json::value::RawValue;
use std::cell::RefCell;
use std::rc::Rc;

/// Service name of the job manager.
pub const SERVICE: &str = "job-manager";

/// One event of a job's eventlog (RFC 18, 21), as journal subscribers see it.
#[derive(Clone, Debug)]
pub struct JobEvent {
    /// The job.
    pub id: JobId,
    /// The job's user.
    pub userid: u32,
    /// Seconds since the epoch, the event's `timestamp`.
    pub timestamp: f64,
    /// Position among all events of all jobs since the job manager started.
    pub sequence: u64,
    /// Event name. Besides those of the eventlog there are `annotations` (context `annotations`: all there are now,
    /// or null) and `invalidate` (the job was refused after `submit`: forget it).
    pub name: Rc<str>,
    /// The RFC 18 line, with its newline.
    pub line: Rc<str>,
    /// The jobspec without environment: with `submit`, and the updated one with `jobspec-update`.
    pub jobspec: Option<Rc<Value>>,
    /// R: with `alloc`, and the updated one with `resource-update`.
    pub r: Option<Rc<Value>>,
}

/// What job-exec reports of a job (RFC 32 response types).
#[derive(Clone, Debug)]
pub enum ExecEvent {
    /// The job's shells run.
    Start,
    /// The shells of a job that ran before a restart were found.
    Reattached,
    /// Resources of these ranks are not used any more.
    Release {
        /// Broker ranks.
        ranks: IdSet,
        /// Nothing follows for this job.
        last: bool,
    },
    /// Something went wrong.
    Exception {
        /// 0 (fatal) to 7.
        severity: u8,
        /// Exception type.
        kind: String,
        /// Text for people.
        note: String,
        /// Who caused it; `None` writes the instance owner.
        userid: Option<u32>,
    },
    /// All tasks ended.
    Finish {
        /// Wait status.
        status: i32,
    },
}

/// What the scheduler answers (RFC 27 response types).
#[derive(Clone, Debug)]
pub enum SchedEvent {
    /// The job has resources.
    Alloc {
        /// R of the job (RFC 20) as JSON text, as it is stored.
        r: String,
        /// Annotations to merge, the JSON text of an object such as `{"sched":{"resource_summary":"rank0/core0"}}`.
        annotations: String,
    },
    /// Annotations to merge; null deletes.
    Annotate {
        /// JSON text of an object.
        annotations: String,
    },
    /// The job can never run.
    Deny {
        /// Text for people.
        note: String,
    },
    /// The pending request was withdrawn, as asked.
    Cancelled,
}

/// Gives `each` the events of all jobs, in order, in batches, after they are in the KVS.
///
/// The first batches hold the events so far of all active jobs. Returns false when the job manager is not loaded.
pub fn subscribe_journal<S: Service>(
    cx: &mut Cx<'_>,
    each: impl FnMut(&mut S, &mut Cx<'_>, &[JobEvent]) + 'static,
) -> bool {
    let slot = cx.slot();
    let each = Rc::new(RefCell::new(each));
    let deliver: Deliver = Box::new(move |cx, events| {
        let each = each.clone();
        cx.to_slot::<S>(slot, move |me, cx| {
            // never entered twice: the hub runs one call at a time
            if let Ok(mut each) = each.try_borrow_mut() {
                each(me, cx, &events);
            }
        });
    });
    cx.to::<JobManager>(SERVICE, move |jobs, cx| {
        jobs.when_restored(cx, move |jobs, cx| jobs.on_subscribe(cx, deliver));
    })
}

/// Calls back when subscribers of the journal have been told of every event that somebody may have read in the KVS by
/// now. Returns false when the job manager is not loaded.
pub fn when_delivered<S: Service>(cx: &mut Cx<'_>, done: impl FnOnce(&mut S, &mut Cx<'_>) + 'static) -> bool {
    let slot = cx.slot();
    cx.to::<JobManager>(SERVICE, move |jobs, cx| {
        jobs.when_delivered(cx, Box::new(move |_, cx| cx.to_slot::<S>(slot, done)));
    })
}

/// Asks which jobs are inactive, and when each became so (seconds since the epoch), in any order.
///
/// A job whose `clean` event was delivered before is among them; one whose `clean` event is delivered later is not,
/// for a subscriber that asks right after [`subscribe_journal`]. Returns false when the job manager is not loaded.
pub fn inactive_jobs<S: Service>(
    cx: &mut Cx<'_>,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Vec<(JobId, f64)>) + 'static,
) -> bool {
    let slot = cx.slot();
    cx.to::<JobManager>(SERVICE, move |jobs, cx| {
        jobs.when_restored(cx, move |jobs, cx| {
            jobs.on_inactive_jobs(
                cx,
                Box::new(move |cx, ends| cx.to_slot::<S>(slot, move |me, cx| done(me, cx, ends))),
            );
        });
    })
}

/// Reads an inactive job from the KVS; `done` gets its events as the journal brought them, or `None` when it was
/// purged or cannot be read. Returns false when the job manager is not loaded.
pub fn stored_job<S: Service>(
    cx: &mut Cx<'_>,
    id: JobId,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Option<Vec<JobEvent>>) + 'static,
) -> bool {
    let slot = cx.slot();
    cx.to::<JobManager>(SERVICE, move |jobs, cx| {
        jobs.read_stored(cx, id, move |cx, events| {
            cx.to_slot::<S>(slot, move |me, cx| done(me, cx, events));
        });
    })
}

/// Brings a batch to a subscriber's service.
pub(super) type Deliver = Box<dyn FnMut(&mut Cx<'_>, Rc<[JobEvent]>)>;

/// Reports an event of a job's execution.
pub fn exec_event(cx: &mut Cx<'_>, id: JobId, event: ExecEvent) {
    cx.to::<JobManager>(SERVICE, move |jobs, cx| jobs.on_exec_event(cx, id, event));
}

/// Calls when all events reported so far are kept: in the KVS and, those that must be, on stable storage.
pub fn when_kept(cx: &mut Cx<'_>, call: impl FnOnce(&mut Cx<'_>) + 'static) {
    cx.to::<JobManager>(SERVICE, move |jobs, cx| {
        jobs.batch(cx).after(After::Call(Box::new(move |_, cx| call(cx))));
    });
}

/// Tells that job-exec is ready: jobs that wait for it are started, running ones are started with `reattach`.
pub fn exec_hello(cx: &mut Cx<'_>) {
    cx.to::<JobManager>(SERVICE, |jobs, cx| {
        jobs.when_restored(cx, JobManager::on_exec_hello)
    });
}

/// Reports a decision of the scheduler.
pub fn sched_event(cx: &mut Cx<'_>, id: JobId, event: SchedEvent) {
    sched_events(cx, vec![(id, event)]);
}

/// Reports decisions of the scheduler, many at once.
pub fn sched_events(cx: &mut Cx<'_>, events: Vec<(JobId, SchedEvent)>) {
    cx.to::<JobManager>(SERVICE, move |jobs, cx| jobs.on_sched_events(cx, events));
}

/// Tells that the scheduler is ready for requests, or gone.
///
/// On ready it gets the jobs that hold resources, then all pending requests.
pub fn sched_ready(cx: &mut Cx<'_>, ready: bool) {
    cx.to::<JobManager>(SERVICE, move |jobs, cx| {
        jobs.when_restored(cx, move |jobs, cx| jobs.on_sched_ready(cx, ready));
    });
}

/// Raises an exception on a job in the instance owner's name; unknown and inactive jobs are ignored.
pub fn raise(cx: &mut Cx<'_>, id: JobId, severity: u8, kind: &str, note: &str) {
    let (kind, note) = (kind.to_owned(), note.to_owned());
    cx.to::<JobManager>(SERVICE, move |jobs, cx| {
        jobs.on_raise_local(cx, id, severity, &kind, &note)
    });
}

/// An active job, as [`active_job`] shows it.
#[derive(Clone, Debug)]
pub struct ActiveJob {
    /// The job.
    pub id: JobId,
    /// Its user.
    pub userid: u32,
    /// State bit of RFC 21 (DEPEND 2 … CLEANUP 32).
    pub state: u32,
    /// The jobspec without environment.
    pub jobspec: Option<Rc<Value>>,
    /// R, once allocated.
    pub r: Option<Rc<Value>>,
}

/// Looks up an active job; `done` gets `None` for inactive and unknown ones.
pub fn active_job<S: Service>(
    cx: &mut Cx<'_>,
    id: JobId,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Option<ActiveJob>) + 'static,
) {
    let slot = cx.slot();
    cx.to::<JobManager>(SERVICE, move |jobs, cx| {
        let found = jobs.local_active_job(id);
        cx.to_slot::<S>(slot, move |me, cx| done(me, cx, found));
    });
}

/// Returns the ids of all jobs, newest first.
#[cfg(test)]
pub(super) fn known_jobs<S: Service>(
    cx: &mut Cx<'_>,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Vec<u64>) + 'static,
) {
    let slot = cx.slot();
    cx.to::<JobManager>(SERVICE, move |jobs, cx| {
        let ids = jobs.known_jobs().into_iter().rev().map(|(id, _)| id).collect();
        cx.to_slot::<S>(slot, move |me, cx| done(me, cx, ids));
    });
}

/// Asks for the largest job id that was ever given out here; `done` runs once the jobs of a former run are restored.
///
/// Returns false when the job manager is not loaded.
pub fn max_jobid<S: Service>(
    cx: &mut Cx<'_>,
    done: impl FnOnce(&mut S, &mut Cx<'_>, JobId) + 'static,
) -> bool {
    let slot = cx.slot();
    cx.to::<JobManager>(SERVICE, move |jobs, cx| {
        jobs.when_restored(cx, move |jobs, cx| {
            let max = jobs.max_jobid;
            cx.to_slot::<S>(slot, move |me, cx| done(me, cx, max));
        });
    })
}

/// A job that passed job-ingest.
#[derive(Debug)]
pub struct Submission {
    /// New id.
    pub id: JobId,
    /// Submitting user.
    pub userid: u32,
    /// 0 to 31.
    pub urgency: u8,
    /// Submit flags (`DEBUG` 2, `WAITABLE` 4, `NOVALIDATE` 8).
    pub flags: u32,
    /// Submission time, seconds since the epoch.
    pub t_submit: f64,
    /// The jobspec after frobnicators, without environment.
    pub jobspec: Value,
    /// `attributes.system.environment` of the jobspec, as text.
    pub environment: Option<Box<RawValue>>,
    /// The JSON text of `jobspec`, as it is stored.
    pub jobspec_text: Vec<u8>,
    /// The signed jobspec as the user sent it.
    pub j: Rc<str>,
}

/// Hands over submitted jobs; `done` gets one result per job, in order, once what was accepted is durable.
///
/// J, jobspec and the first events of all jobs of one turn are one KVS commit.
pub fn submit<S: Service>(
    cx: &mut Cx<'_>,
    jobs: Vec<Submission>,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Vec<Result<JobId, RpcError>>) + 'static,
) -> bool {
    let slot = cx.slot();
    let answer: Answer =
        Box::new(move |cx, results| cx.to_slot::<S>(slot, move |me, cx| done(me, cx, results)));
    cx.to::<JobManager>(SERVICE, move |manager, cx| {
        manager.when_restored(cx, move |manager, cx| manager.on_submissions(cx, jobs, answer));
    })
}

/// Tells when the instance ends, in seconds since the epoch; 0 is never.
pub fn instance_expiration(cx: &mut Cx<'_>, at: f64) {
    cx.to::<JobManager>(SERVICE, move |jobs, cx| jobs.on_expiration(cx, at));
}

/// Brings the results of a submission to its submitter.
pub(super) type Answer = Box<dyn FnOnce(&mut Cx<'_>, Vec<Result<JobId, RpcError>>)>;
