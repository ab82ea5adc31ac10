//! Which jobs are there, and how do they do? Lists and statistics (RFC 43), fed by the job manager's journal.
//!
//! Active jobs are in memory; inactive ones are behind [`store::InactiveStore`], as compact records that share
//! what jobs have in common (jobspec summary, allocation, annotations).

mod apply;
mod attrs;
mod constraint;
mod intern;
mod job;
mod list;
mod service;
mod stats;
mod store;
#[cfg(test)]
mod tests;

pub use service::JobList;
