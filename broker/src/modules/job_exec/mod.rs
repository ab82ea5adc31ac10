//! How is a job run on its nodes? The execution service (rank 0).
//!
//! It starts one shell per rank of R through the agents ([`crate::modules::rexec::agent`]), keeps the exec
//! eventlog (RFC 50) in the guest namespace, watches for the end of the shells (their own report or the agent's,
//! whichever comes first), enforces the time limit, and at the end moves the guest namespace into the job's
//! directory. Between start and release there is no timer and nothing waits for a disk. With a state directory shells
//! outlive the broker and are found again: design note 0006.

pub mod api;
mod config;
mod end;
mod job;
mod kill;
mod mock;
mod mock_run;
mod reattach;
mod requests;
mod run;
mod service;
#[cfg(test)]
mod tests;

pub use service::JobExec;
