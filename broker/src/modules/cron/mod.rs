//! Service `cron`: which commands run on timers, dates and events? (rank 0; flux-core: modules/cron, behaviour)
//!
//! ```text
//! timer, date, event ──> entry ──> (sync event?) ──> rexec.exec at its rank ──> log, history of the entry
//! ```
//!
//! Entries live as long as the module. rc1 reads crontabs from the directory of attribute `cron.directory`.

mod date;
mod entry;
mod run;
mod service;
#[cfg(test)]
mod tests;

pub use service::Cron;
