//! What of the scheduler may a guest's call reach? (The trusted side, lent for the length of one call.)

use std::collections::HashMap;

use crate::guest::Failure;
use crate::pool::{AllocError, Counts, ResourcePool};

use super::message::{SchedAnswer, Submit};

/// Allocations that one `schedule` call may make; then others on the policy thread get their turn.
const ALLOCATIONS_PER_CALL: u32 = 64;

/// Resources, pending jobs and answers.
#[derive(Debug, Default)]
pub(crate) struct Trusted {
    pub(super) pool: ResourcePool,
    pub(super) pending: HashMap<u64, Submit>,
    pub(super) answers: Vec<SchedAnswer>,
    pub(super) now: f64,
    /// Jobs that left the pending set in this call.
    pub(super) decided: u32,
}

/// The trusted side, when it is lent.
#[derive(Debug, Default)]
pub(crate) struct SchedSlot(pub(super) Option<Box<Trusted>>);

impl SchedSlot {
    /// Carries out `pool.allocate`.
    pub(crate) fn allocate(&mut self, id: u64) -> Result<(), Failure> {
        self.0
            .as_mut()
            .map_or(Err(Failure::NotPending), |trusted| trusted.allocate(id))
    }

    /// Carries out `pool.count`.
    pub(crate) fn counts(&self) -> Counts {
        self.0
            .as_ref()
            .map_or_else(Counts::default, |trusted| trusted.pool.counts())
    }
}

impl Trusted {
    /// Allocates for a pending job, checked, and answers for it. A job that can no longer be met is denied and reported as not pending.
    pub(super) fn allocate(&mut self, id: u64) -> Result<(), Failure> {
        if self.decided >= ALLOCATIONS_PER_CALL {
            return Err(Failure::Budget);
        }
        let job = self.pending.get(&id).ok_or(Failure::NotPending)?;
        let answer = match self.pool.allocate(id, &job.request, self.now) {
            Err(AllocError::Busy) => return Err(Failure::Busy),
            Ok(grant) => {
                let summary = serde_json::Value::from(grant.summary);
                let annotations = format!(r#"{{"sched":{{"resource_summary":{summary}}}}}"#);
                SchedAnswer::Alloc {
                    id,
                    r: grant.r,
                    annotations,
                }
            }
            Err(error) => SchedAnswer::Deny {
                id,
                note: error.to_string(),
            },
        };
        let granted = matches!(answer, SchedAnswer::Alloc { .. });
        self.pending.remove(&id);
        self.decided += 1;
        self.answers.push(answer);
        if granted { Ok(()) } else { Err(Failure::NotPending) }
    }
}
