//! What does a policy implement?

use std::fmt;

use crate::host::Host;

/// EINVAL, what most refusals carry.
const EINVAL: u32 = 22;

/// Why a policy says no; the user reads the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Linux error number.
    pub errnum: u32,
    /// Says what is wrong and where.
    pub text: String,
}

impl Refusal {
    /// Returns a refusal with EINVAL.
    pub fn invalid(text: impl Into<String>) -> Refusal {
        Refusal {
            errnum: EINVAL,
            text: text.into(),
        }
    }
}

/// A job as a policy sees it; what is not asked for costs nothing.
pub trait Job {
    /// Returns the job id, 0 at submission.
    fn id(&self) -> u64;
    /// Returns the job's owner.
    fn userid(&self) -> u32;
    /// Returns the owner's roles: bit 0 instance owner, bit 1 user.
    fn rolemask(&self) -> u32;
    /// Returns the urgency, 0 to 31.
    fn urgency(&self) -> u32;
    /// Returns the submit flags.
    fn flags(&self) -> u32;
    /// Returns the jobspec as JSON text.
    fn jobspec(&self) -> String;
    /// Returns the JSON text at a dotted path of the jobspec; cheaper than all of it.
    fn attribute(&self, path: &str) -> Option<String>;
    /// Returns the state's bit (RFC 21), 0 at ingest.
    fn state(&self) -> u32;
    /// Returns the priority, -1 while there is none.
    fn priority(&self) -> i64;
    /// Returns the submission time.
    fn t_submit(&self) -> f64;
    /// Returns R as JSON text.
    fn resources(&self) -> Option<String>;
    /// Returns true when `alloc`, `start` or `finish` was posted.
    fn posted(&self, event: &str) -> bool;
    /// Returns the result (RFC 21), 0 while the job is active.
    fn result(&self) -> u32;
    /// Returns `exception`, `finish` or an empty text.
    fn ended_by(&self) -> String;
}

/// Says whether a job may be submitted.
pub trait Validator: Sized {
    /// Makes the policy of its configuration; called again whenever that changes.
    ///
    /// # Errors
    /// A refusal keeps the plugin from loading, or the new configuration from taking effect.
    fn configure(host: &dyn Host) -> Result<Self, Refusal>;

    /// Checks one job.
    ///
    /// # Errors
    /// A refusal ends the submission.
    fn validate(&mut self, host: &dyn Host, job: &dyn Job) -> Result<(), Refusal>;
}

/// Completes or changes a jobspec at submission.
pub trait Frobnicator: Sized {
    /// Makes the policy of its configuration; called again whenever that changes.
    ///
    /// # Errors
    /// A refusal keeps the plugin from loading, or the new configuration from taking effect.
    fn configure(host: &dyn Host) -> Result<Self, Refusal>;

    /// Returns the changed jobspec, or none when nothing changes.
    ///
    /// # Errors
    /// A refusal ends the submission.
    fn frobnicate(&mut self, host: &dyn Host, job: &dyn Job) -> Result<Option<String>, Refusal>;
}

/// A job that waits for resources.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pending {
    /// Job id.
    pub id: u64,
    /// Higher goes first.
    pub priority: u64,
    /// Owner.
    pub userid: u32,
    /// Submission time in seconds since the epoch.
    pub t_submit: f64,
    /// Nodes asked for; 0 when slots may go anywhere.
    pub nnodes: u32,
    /// Slots in all.
    pub nslots: u32,
    /// Cores of each slot.
    pub cores_per_slot: u32,
    /// GPUs of each slot.
    pub gpus_per_slot: u32,
    /// Whole nodes.
    pub exclusive: bool,
    /// Time limit in seconds; 0 is none.
    pub duration: f64,
    /// Number of the queue, see [`Pool::queue_name`]; 0 in none.
    pub queue: u32,
    /// Jobs with the same number ask for the same resources, time apart; 0 says nothing.
    pub class: u32,
}

/// What happened since a scheduler was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Jobs came, went or have another priority.
    pub queue: bool,
    /// Resources were freed, came up, went down or away.
    pub resources: bool,
}

/// Why nothing was allocated or planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocFailure {
    /// Not now.
    Busy,
    /// Forget the job: it is not pending (any more).
    NotPending,
    /// Enough for this call: return true and go on in the next.
    Budget,
    /// Nodes are needed that are down: nothing can be planned.
    Unavailable,
}

/// Which of several possible nodes, cores and GPUs a job gets; those with `x` give nodes whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// What the site configured.
    Configured,
    /// Nodes with most free cores first.
    Worstfit,
    /// In order of rank.
    First,
    /// As `First`, whole nodes.
    Firstnodex,
    /// Lowest nodes and cores.
    Low,
    /// Highest nodes and cores.
    High,
    /// As `Low`.
    Lonode,
    /// As `High`.
    Hinode,
    /// As `Low`, whole nodes.
    Lonodex,
    /// As `High`, whole nodes.
    Hinodex,
}

/// Resources that are kept for a pending job. Dropping it undoes the plan.
pub struct Plan {
    start: Option<f64>,
    renew: Renew,
}

/// Owns the plan, so that dropping it drops the plan.
type Renew = Box<dyn Fn() -> Result<Option<f64>, AllocFailure>>;

impl Plan {
    /// Returns a plan that lasts as long as `kept`.
    pub fn new<T: 'static>(
        start: Option<f64>,
        kept: T,
        renew: impl Fn(&T) -> Result<Option<f64>, AllocFailure> + 'static,
    ) -> Plan {
        Plan {
            start,
            renew: Box::new(move || renew(&kept)),
        }
    }

    /// Returns when the job can start, in seconds since the epoch; none when that depends on jobs without a time limit.
    pub fn start(&self) -> Option<f64> {
        self.start
    }

    /// Plans the job anew, as early as possible; cheap when nothing better is there.
    ///
    /// # Errors
    /// As of [`Pool::reserve`]; but for `Budget` the plan is undone.
    pub fn renew(&mut self) -> Result<Option<f64>, AllocFailure> {
        self.start = (self.renew)()?;
        Ok(self.start)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes that are up.
    pub nodes_up: u32,
    /// Cores that are up and free.
    pub cores_free: u64,
    /// GPUs that are up and free.
    pub gpus_free: u64,
}

/// The broker's resources.
pub trait Pool {
    /// Gives a pending job what it asks for; on success it is pending no more.
    ///
    /// # Errors
    /// When it must wait, is not pending, or the call has done enough.
    fn allocate(&self, id: u64) -> Result<(), AllocFailure>;

    /// As [`allocate`](Self::allocate), by a placement of the policy's choice.
    ///
    /// # Errors
    /// As of `allocate`.
    fn allocate_placed(&self, id: u64, placement: Placement) -> Result<(), AllocFailure>;

    /// Returns how much there is.
    fn count(&self) -> Counts;

    /// Returns how much there is on the nodes that a constraint allows (RFC 31, JSON text).
    ///
    /// # Errors
    /// Why the constraint cannot be read.
    fn query(&self, constraint: &str) -> Result<Counts, String>;

    /// Returns the earliest time from `after` on at which a pending job could start; none when that depends on jobs without a time limit.
    ///
    /// # Errors
    /// When it is not pending, nodes are down, or the call has planned enough.
    fn earliest(&self, id: u64, after: f64) -> Result<Option<f64>, AllocFailure>;

    /// Keeps resources for a pending job from `at` on, or as early as possible.
    ///
    /// # Errors
    /// When it is not pending, nodes are down, the call has planned enough, or `at` is too early.
    fn reserve(&self, id: u64, at: Option<f64>) -> Result<Plan, AllocFailure>;

    /// Returns the name of a queue by its number.
    fn queue_name(&self, number: u32) -> String;
}

/// Orders pending jobs.
pub trait Scheduler: Sized {
    /// Makes a policy with an empty queue.
    ///
    /// # Errors
    /// A refusal keeps the plugin from loading.
    fn configure(host: &dyn Host) -> Result<Self, Refusal>;

    /// Takes a changed configuration; the queue stays.
    ///
    /// # Errors
    /// A refusal keeps the new configuration from taking effect.
    fn reconfigure(&mut self, host: &dyn Host) -> Result<(), Refusal> {
        let _ = host;
        Ok(())
    }

    /// Adds jobs; `replay` when they come again after a restart or trap.
    fn submitted(&mut self, jobs: Vec<Pending>, replay: bool);

    /// Removes jobs.
    fn removed(&mut self, ids: Vec<u64>);

    /// Changes priorities: (id, priority).
    fn reprioritized(&mut self, jobs: Vec<(u64, u64)>);

    /// Starts what can be started; returns true when there is more to do.
    fn schedule(&mut self, host: &dyn Host, pool: &dyn Pool, changes: Changes) -> bool;
}
