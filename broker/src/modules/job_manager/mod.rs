//! What happens to a job between its submission and its end? The job manager (rank 0).
//!
//! It owns the life of every job: the RFC 21 state machine ([`state`]), the eventlogs, the journal, the queues, and
//! who is asked to do what next (scheduler, execution). Other local services talk to it through [`api`].
//!
//! Pure: `state` (the table), `job` (one job and its next step), `event`, `queue`, `annotate`, `inactive`,
//! `index`.
//! The actor: `service` (state and methods), `post` (events and steps), `commit` (one commit per turn), and a file per
//! family of requests.

mod alloc;
mod annotate;
pub mod api;
mod change;
mod commit;
mod config;
mod event;
mod exec;
mod housekeeping;
mod inactive;
mod index;
mod index_store;
mod job;
mod journal;
mod names;
mod ports;
mod post;
mod program;
mod purge;
mod query;
mod queue;
mod raise;
mod requeue;
mod restart;
mod service;
mod specs;
pub mod state;
mod submit;
mod tap;
mod wait;
mod why;

#[cfg(test)]
pub(crate) mod tests;

pub(crate) use ports::SchedRequest;
pub use service::JobManager;
