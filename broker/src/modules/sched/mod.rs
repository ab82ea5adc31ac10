//! Which job gets which resources? Module `sched-simple`: services `sched` and `feasibility` (rank 0, RFC 27).
//!
//! The decision is made on the policy thread by [`flux_policy::SchedEngine`]: a trusted pool and a policy component.

pub mod api;
mod engine;
mod service;

#[cfg(test)]
pub(crate) mod tests;

pub use service::Sched;
