//! What does the broker's sched module say to the scheduler engine, and what does it answer?

use flux_formats::idset::IdSet;

use crate::pool::Request;

/// A job that waits for resources.
#[derive(Clone, Debug)]
pub struct Submit {
    /// Job id.
    pub id: u64,
    /// 0 to 4294967295.
    pub priority: u64,
    /// Job owner.
    pub userid: u32,
    /// Submission time in seconds since the epoch.
    pub t_submit: f64,
    /// Its queue; empty when it is in none.
    pub queue: Box<str>,
    /// What it asks for, see [`Request::from_jobspec`].
    pub request: Request,
}

/// One message to the scheduler. Commands of one batch are applied in order; then the policy is asked once.
#[derive(Debug)]
pub enum SchedCommand {
    /// Sets all resources from R (JSON text), everything up; forgets what jobs hold. Answered by [`SchedAnswer::Defined`].
    Define {
        /// R as `resource.acquire` gives it.
        r: Box<str>,
    },
    /// Ranks that may be scheduled.
    Up(IdSet),
    /// Ranks that may not (offline, drained).
    Down(IdSet),
    /// Ranks that are gone for good.
    Shrink(IdSet),
    /// The instance ends then (seconds since the epoch, 0 never).
    Expiration(f64),
    /// A job that runs already and holds R (JSON text), as `sched-hello` tells. Answered by [`SchedAnswer::AdoptFailed`] on failure only.
    Adopt {
        /// Job.
        id: u64,
        /// Its R.
        r: Box<str>,
    },
    /// A job that waits. Answered by `Alloc`, `Deny` or `Cancelled`, once.
    Submit(Box<Submit>),
    /// The job no longer waits. Answered by `Cancelled` unless it was answered before.
    Cancel {
        /// Job.
        id: u64,
    },
    /// Other priorities of waiting jobs.
    Prioritize(Vec<(u64, u64)>),
    /// The job releases `ranks`, or everything.
    Free {
        /// Job.
        id: u64,
        /// Ranks of the R that is released; see [`crate::pool::ranks_of`].
        ranks: Option<IdSet>,
    },
    /// The job that runs ends at another time (seconds since the epoch, 0 never).
    Extend {
        /// Job.
        id: u64,
        /// When it must end.
        expiration: f64,
    },
    /// Asks whether a request could ever be met. Answered by `Feasible`.
    CheckFeasible {
        /// Comes back.
        token: u64,
        /// The request.
        request: Box<Request>,
    },
    /// Asks for all, down and allocated resources. Answered by `Status`.
    Status {
        /// Comes back.
        token: u64,
    },
}

/// One message from the scheduler.
#[derive(Clone, Debug, PartialEq)]
pub enum SchedAnswer {
    /// To `Define`: nothing, or why R was refused.
    Defined(Result<(), String>),
    /// A running job's R cannot be booked: raise an exception on it.
    AdoptFailed {
        /// Job.
        id: u64,
        /// Why.
        note: String,
    },
    /// The job has resources.
    Alloc {
        /// Job.
        id: u64,
        /// R as JSON text, for the KVS and the response alike.
        r: String,
        /// Annotations as JSON text: `{"sched":{"resource_summary":"rank0/core0"}}`; with `backfill`, the job it
        /// passed, and nulls for what was said while it waited.
        annotations: String,
    },
    /// Something to tell of a job that waits.
    Annotate {
        /// Job.
        id: u64,
        /// JSON text of an object to merge; null deletes.
        annotations: String,
    },
    /// The job can never run.
    Deny {
        /// Job.
        id: u64,
        /// Text of the exception.
        note: String,
    },
    /// The job was cancelled.
    Cancelled {
        /// Job.
        id: u64,
    },
    /// To `CheckFeasible`.
    Feasible {
        /// From the command.
        token: u64,
        /// Nothing, or why not.
        result: Result<(), String>,
    },
    /// To `Status`: three R as JSON text.
    Status {
        /// From the command.
        token: u64,
        /// All resources.
        all: String,
        /// Those of ranks that are down.
        down: String,
        /// Those that jobs hold.
        allocated: String,
    },
}
