//! What of the scheduler may a guest's call reach? (The trusted side, lent for the length of one call.)

use std::collections::HashMap;

use flux_formats::jobid::JobId;
use serde_json::{Map, Value, json};

use crate::guest::Failure;
use crate::pool::{
    AllocError, ById, Constraint, Counts, Grant, Placement, PlanError, PlanId, Request, ResourcePool,
    push_quoted,
};

use super::annotate::Annotator;
use super::message::{SchedAnswer, Submit};
use super::settings::Settings;

/// Allocations that one `schedule` call may make; then others on the policy thread get their turn.
const ALLOCATIONS_PER_CALL: u32 = 64;
/// Steps of planning that one call may make, some tens of nanoseconds each; the plan that exceeds it is still made.
const PLANNING_PER_CALL: u64 = 1_000_000;
/// Most queues with a number of their own.
const QUEUES_MAX: usize = 4096;

/// Resources, pending jobs and answers.
#[derive(Debug, Default)]
pub(crate) struct Trusted {
    pub(super) pool: ResourcePool,
    pub(super) pending: ById<u64, Box<Submit>>,
    pub(super) answers: Vec<SchedAnswer>,
    pub(super) now: f64,
    /// Jobs that left the pending set in this call.
    pub(super) decided: u32,
    /// Plans made in this call.
    pub(super) planned: u32,
    planning_work: u64,
    queues: Vec<Box<str>>,
    classes: HashMap<Class, u32>,
    /// The class of the job before: neighbours are mostly alike.
    last_class: Option<(Class, u32)>,
    pub(super) settings: Settings,
    pub(super) annotator: Annotator,
}

/// Most classes with a number of their own at one time.
const CLASSES_MAX: usize = 65_536;

/// What makes two requests equal, time apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Class {
    counts: [u32; 4],
    exclusive: bool,
    constraint: Option<Box<str>>,
}

/// The trusted side, when it is lent.
#[derive(Debug, Default)]
pub(crate) struct SchedSlot {
    pub(super) lent: Option<Box<Trusted>>,
    /// Plans that the guest dropped while nothing was lent.
    pub(super) dropped: Vec<PlanId>,
}

impl SchedSlot {
    /// Carries out `pool.allocate`.
    pub(crate) fn allocate(&mut self, id: u64, placement: Option<Placement>) -> Result<(), Failure> {
        match &mut self.lent {
            Some(trusted) => trusted.allocate(id, placement),
            None => Err(Failure::NotPending),
        }
    }

    /// Carries out `pool.count`.
    pub(crate) fn counts(&self) -> Counts {
        self.lent
            .as_ref()
            .map_or_else(Counts::default, |trusted| trusted.pool.counts())
    }

    /// Carries out `pool.query`.
    pub(crate) fn query(&mut self, constraint: &str) -> Result<Counts, String> {
        let value: Value =
            serde_json::from_str(constraint).map_err(|error| format!("constraint: {error}"))?;
        let constraint = Constraint::from_json(&value).map_err(|error| error.to_string())?;
        let trusted = self.lent.as_mut();
        Ok(trusted.map_or_else(Counts::default, |trusted| trusted.pool.counts_of(&constraint)))
    }

    /// Carries out `pool.earliest`.
    pub(crate) fn earliest(&mut self, id: u64, after: f64) -> Result<Option<f64>, Failure> {
        let trusted = self.lent.as_mut().ok_or(Failure::NotPending)?;
        trusted.check_planning()?;
        let job = trusted.pending.get(&id).ok_or(Failure::NotPending)?;
        let after = if after.is_finite() {
            after.max(trusted.now)
        } else {
            trusted.now
        };
        let result = trusted.pool.earliest(id, &job.request, after);
        trusted.planning_work += trusted.pool.take_planning_work();
        result.map_err(failure)
    }

    /// Carries out `pool.reserve`; the answer is the number of the plan.
    pub(crate) fn reserve(&mut self, id: u64, at: Option<f64>) -> Result<u32, Failure> {
        let trusted = self.lent.as_mut().ok_or(Failure::NotPending)?;
        trusted.check_planning()?;
        let job = trusted.pending.get(&id).ok_or(Failure::NotPending)?;
        let at = at.filter(|at| at.is_finite());
        let result = trusted.pool.reserve(id, &job.request, at, trusted.now);
        trusted.planning_work += trusted.pool.take_planning_work();
        trusted.planned += 1;
        result.map(|reservation| reservation.plan.0).map_err(failure)
    }

    /// Carries out `plan.renew`.
    pub(crate) fn renew(&mut self, plan: u32) -> Result<Option<f64>, Failure> {
        let trusted = self.lent.as_mut().ok_or(Failure::NotPending)?;
        trusted.check_planning()?;
        let id = trusted.pool.job_of(PlanId(plan)).ok_or(Failure::NotPending)?;
        let job = trusted.pending.get(&id).ok_or(Failure::NotPending)?;
        let result = trusted.pool.renew(PlanId(plan), &job.request, trusted.now);
        trusted.planning_work += trusted.pool.take_planning_work();
        trusted.planned += 1;
        result.map(|reservation| reservation.start).map_err(failure)
    }

    /// Undoes a plan.
    pub(crate) fn undo(&mut self, plan: u32) {
        match &mut self.lent {
            Some(trusted) => trusted.pool.undo(PlanId(plan)),
            None => self.dropped.push(PlanId(plan)),
        }
    }

    /// Returns when a plan starts.
    pub(crate) fn start(&self, plan: u32) -> Option<f64> {
        self.lent.as_ref()?.pool.start_of(PlanId(plan))
    }

    /// Returns the name of a queue.
    pub(crate) fn queue_name(&self, number: u32) -> String {
        let trusted = self.lent.as_ref();
        trusted.map_or_else(String::new, |trusted| trusted.queue_name(number).to_owned())
    }
}

fn failure(error: PlanError) -> Failure {
    match error {
        PlanError::Unavailable => Failure::Unavailable,
        PlanError::InUse => Failure::Busy,
    }
}

impl Trusted {
    /// Prepares for a call of `schedule`.
    pub(super) fn begin(&mut self) {
        self.decided = 0;
        self.planned = 0;
        self.planning_work = 0;
    }

    fn check_planning(&self) -> Result<(), Failure> {
        if self.planning_work >= PLANNING_PER_CALL {
            Err(Failure::Budget)
        } else {
            Ok(())
        }
    }

    /// Returns the number of a queue, a new one for a new name.
    pub(super) fn queue_number(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let known = self.queues.iter().position(|known| &**known == name);
        let at = known.unwrap_or_else(|| {
            if self.queues.len() < QUEUES_MAX {
                self.queues.push(name.into());
            }
            self.queues.len() - 1
        });
        u32::try_from(at + 1).unwrap_or(0)
    }

    /// Returns the number of a request's class.
    pub(super) fn class_number(&mut self, request: &Request) -> u32 {
        let class = Class {
            counts: [
                request.nnodes,
                request.nslots,
                request.cores_per_slot,
                request.gpus_per_slot,
            ],
            exclusive: request.exclusive,
            constraint: request
                .constraint
                .as_ref()
                .map(|constraint| constraint.text().into()),
        };
        if let Some((last, number)) = &self.last_class
            && *last == class
        {
            return *number;
        }
        let number = match self.classes.get(&class) {
            Some(known) => *known,
            None if self.classes.len() >= CLASSES_MAX => return 0,
            None => {
                let next = u32::try_from(self.classes.len() + 1).unwrap_or(0);
                self.classes.insert(class.clone(), next);
                next
            }
        };
        self.last_class = Some((class, number));
        number
    }

    fn queue_name(&self, number: u32) -> &str {
        let at = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_sub(1));
        at.and_then(|at| self.queues.get(at)).map_or("", |name| name)
    }

    /// Allocates for a pending job, checked, and answers for it. A job that can no longer be met is denied and reported as not pending.
    pub(super) fn allocate(&mut self, id: u64, placement: Option<Placement>) -> Result<(), Failure> {
        if self.decided >= ALLOCATIONS_PER_CALL {
            return Err(Failure::Budget);
        }
        let job = self.pending.get(&id).ok_or(Failure::NotPending)?;
        let placement = placement.unwrap_or_else(|| self.settings.placement(&job.queue));
        let head = self
            .pool
            .planned()
            .next()
            .map(|(head, _)| head)
            .filter(|head| *head != id);
        let answer = match self.pool.allocate_placed(id, &job.request, self.now, placement) {
            Err(AllocError::Busy) => return Err(Failure::Busy),
            Ok(grant) => SchedAnswer::Alloc {
                id,
                annotations: annotations(&grant, head, &self.annotator.forget(id)),
                r: grant.r,
            },
            Err(error) => {
                self.annotator.forget(id);
                SchedAnswer::Deny {
                    id,
                    note: error.to_string(),
                }
            }
        };
        let granted = matches!(answer, SchedAnswer::Alloc { .. });
        self.pending.remove(&id);
        self.decided += 1;
        self.answers.push(answer);
        if granted { Ok(()) } else { Err(Failure::NotPending) }
    }

    /// Forgets a pending job; returns true when there was one.
    pub(super) fn forget(&mut self, id: u64) -> bool {
        self.annotator.forget(id);
        self.pool.undo_plans_of(id);
        self.pending.remove(&id).is_some()
    }
}

/// Returns the annotations of a job that starts: what it got, the job that it passed, and nulls for what was said while it waited.
fn annotations(grant: &Grant, passed: Option<u64>, said: &[&'static str]) -> String {
    if passed.is_none() && said.is_empty() {
        // nearly every job
        let mut text = String::with_capacity(64);
        text.push_str(r#"{"sched":{"resource_summary":"#);
        push_quoted(&mut text, &grant.summary);
        text.push_str("}}");
        return text;
    }
    let mut sched: Map<String, Value> = said.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
    sched.insert("resource_summary".to_owned(), Value::from(grant.summary.as_str()));
    if let Some(head) = passed {
        sched.insert("backfill".to_owned(), Value::from(JobId(head).to_string()));
    }
    json!({ "sched": sched }).to_string()
}
