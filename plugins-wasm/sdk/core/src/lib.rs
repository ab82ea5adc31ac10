//! The traits that policies implement, and stand-ins for the broker in their tests. Use it through `flux-policy-sdk`.

pub mod fake;
pub mod fsd;
mod glue;
mod host;
mod jobtap;
pub mod json;
mod policy;

pub use host::{Host, Level};
pub use jobtap::{Bypass, Dependency, Exec, Exited, Jobtap, JobtapHost, Priority, Request, Update};
pub use policy::{
    AllocFailure, Changes, Counts, Frobnicator, Job, Pending, Placement, Plan, Pool, Refusal, Scheduler,
    Validator,
};
