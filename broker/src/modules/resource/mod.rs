//! Which resources does the instance have, and which of them may be used now?
//!
//! Rank 0 knows R (from the configuration, the enclosing instance, an earlier life of the instance, or what all brokers
//! report), who is online, drained or excluded, and tells schedulers (RFC 28), tools and the eventlog. Followers report what
//! their host has and answer `resource.topo-get`.
//!
//! ```text
//! start ─> old eventlog ─> configuration?  ──yes──> define ─> acquire, status, journal
//!                             ├no─> R of the job in the enclosing instance? ─yes─^
//!                             └no─> resource.R in the KVS? ─yes─^
//!                                      └no─> reports of all brokers ─^
//! ```

mod acquire;
pub mod api;
mod config;
mod discover;
mod drain;
mod enclosing;
mod journal;
mod reduce;
mod service;
mod state;
#[cfg(test)]
mod tests;
mod topo;

pub use service::Resource;
