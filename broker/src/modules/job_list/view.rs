//! What does a list show of a job, wherever the job is kept? One borrowed form for memory and database.

use super::job::Job;
use flux_formats::jobid::JobId;
use flux_formats::jobstate::{JobResult, JobState};

/// A job as lists and constraints see it. Times are seconds since the epoch, 0 for "not yet".
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) id: JobId,
    pub(super) userid: u32,
    pub(super) urgency: u8,
    pub(super) state: JobState,
    /// -1 before the job has one.
    pub(super) priority: i64,
    pub(super) t_submit: f64,
    pub(super) t_depend: f64,
    pub(super) t_priority: f64,
    pub(super) t_sched: f64,
    pub(super) t_run: f64,
    pub(super) t_cleanup: f64,
    pub(super) t_inactive: f64,
    pub(super) expiration: f64,
    pub(super) waitstatus: Option<i32>,
    pub(super) name: &'a str,
    pub(super) cwd: Option<&'a str>,
    pub(super) queue: Option<&'a str>,
    pub(super) project: Option<&'a str>,
    pub(super) bank: Option<&'a str>,
    pub(super) ntasks: u32,
    /// 0 when that is not known.
    pub(super) ncores: u32,
    /// 0 when that is not known.
    pub(super) nnodes: u32,
    /// Seconds.
    pub(super) duration: f64,
    pub(super) place: Option<Place<'a>>,
    pub(super) fault: Option<Cause<'a>>,
    /// Of inactive jobs.
    pub(super) result: Option<JobResult>,
    /// JSON object.
    pub(super) annotations: Option<&'a str>,
    pub(super) dependencies: Dependencies<'a>,
}

/// Where a job ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) ranks: &'a str,
    pub(super) nodelist: &'a str,
}

/// The gravest exception of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cause<'a> {
    pub(super) severity: u8,
    pub(super) kind: &'a str,
    pub(super) note: &'a str,
}

/// What a job waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dependencies<'a> {
    None,
    List(&'a [String]),
    /// JSON array.
    Text(&'a str),
}

impl View<'_> {
    /// Returns true when the job is over.
    pub(super) fn is_inactive(&self) -> bool {
        self.state == JobState::Inactive
    }
}

impl Job {
    /// Returns what a list shows of it.
    pub(super) fn view(&self) -> View<'_> {
        let spec = &*self.spec;
        View {
            id: self.id,
            userid: self.userid,
            urgency: self.urgency,
            state: self.state,
            priority: self.priority,
            t_submit: self.t_submit,
            t_depend: self.t_depend,
            t_priority: self.t_priority,
            t_sched: self.t_sched,
            t_run: self.t_run,
            t_cleanup: self.t_cleanup,
            t_inactive: self.t_inactive,
            expiration: self.expiration,
            waitstatus: self.waitstatus,
            name: &spec.name,
            cwd: spec.cwd.as_deref(),
            queue: spec.queue.as_deref(),
            project: spec.project.as_deref(),
            bank: spec.bank.as_deref(),
            ntasks: self.ntasks(),
            ncores: self.ncores(),
            nnodes: self.nnodes(),
            duration: spec.duration,
            place: self.alloc.as_deref().map(|alloc| Place {
                ranks: &alloc.ranks,
                nodelist: &alloc.nodelist,
            }),
            fault: self.fault.as_deref().map(|fault| Cause {
                severity: fault.severity,
                kind: &fault.kind,
                note: &fault.note,
            }),
            result: self.is_inactive().then(|| self.result()),
            annotations: self.annotations.as_deref(),
            dependencies: match &self.dependencies {
                None => Dependencies::None,
                Some(list) => Dependencies::List(list),
            },
        }
    }
}
