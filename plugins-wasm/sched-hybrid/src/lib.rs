//! Scheduler `hybrid`: between `easy` and `conservative`: the first `reservation-depth` waiting jobs have plans.

flux_sched_core::scheduler!(Hybrid, Hybrid);
flux_policy_sdk::export_scheduler!(Hybrid);
