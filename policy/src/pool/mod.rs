//! What resources are there, who holds them, and can a request be met now, later or never?
//!
//! This is the trusted side of scheduling: a policy says which job is next, the pool finds the resources. It holds nodes by
//! *position* (index in ascending order of rank) and keeps the schedulable ones in buckets by free cores and GPUs, so that the
//! worst-fit order of flux-core's `sched-simple` (most free cores first, then most free GPUs, then lowest rank) is read off instead of
//! sorted out.

mod alloc;
mod bits;
mod constraint;
mod feasible;
mod inventory;
mod request;
mod rset;
mod state;

#[cfg(test)]
mod tests;

pub use alloc::{AllocError, Grant};
pub use constraint::{Constraint, ConstraintError};
pub use feasible::Infeasible;
pub use inventory::{ResourceError, ranks_of};
pub use request::{Request, RequestError};
pub use state::{Counts, ResourcePool};
