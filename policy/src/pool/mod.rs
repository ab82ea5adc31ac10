//! What resources are there, who holds them, and can a request be met now, later or never?
//!
//! This is the trusted side of scheduling: a policy says which job is next, the pool finds the resources. It holds nodes by
//! *position* (index in ascending order of rank) and keeps the schedulable ones in buckets by free cores and GPUs, so that the
//! worst-fit order of flux-core's `sched-simple` (most free cores first, then most free GPUs, then lowest rank) is read off instead of
//! sorted out.
//!
//! The future is kept by a *planner* that is made when a policy first asks: when jobs must end, and *plans*, resources that are kept
//! for a pending job from a time on. An allocation never takes what a plan needs before it ends.

mod alloc;
mod bits;
mod by_id;
mod constraint;
mod feasible;
mod future;
mod gaps;
mod index;
mod inventory;
mod look;
mod placement;
mod planner;
mod request;
mod rset;
mod state;
mod time;

#[cfg(test)]
mod tests;

pub use alloc::{AllocError, Grant};
pub(crate) use by_id::ById;
pub use constraint::{Constraint, ConstraintError};
pub use feasible::Infeasible;
pub use inventory::{ResourceError, ranks_of};
pub use placement::{Placement, UnknownPlacement};
pub use planner::{PlanError, PlanId, Reservation};
pub use request::{Request, RequestError};
pub(crate) use rset::push_quoted;
pub use state::{Counts, ResourcePool};
pub use time::Time;
