//! Scheduler `fcfs`: first come, first served, in order of priority.
//!
//! In each queue the job with the highest priority, among equals the one with the lowest id, is tried first; while it must wait nobody of
//! its queue passes it.

flux_sched_core::scheduler!(Fcfs, Fcfs);
flux_policy_sdk::export_scheduler!(Fcfs);
