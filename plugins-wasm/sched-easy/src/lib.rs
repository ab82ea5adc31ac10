//! Scheduler `easy`: as fcfs, but while the first job waits, later ones run where that does not delay it.
//!
//! The first job's resources are planned from the time at which running jobs will have released them; the broker gives them only to
//! jobs that end before.

flux_sched_core::scheduler!(Easy, Easy);
flux_policy_sdk::export_scheduler!(Easy);
