//! Scheduler `conservative`: every waiting job within the queue depth has a plan; a job runs early only where that delays nobody before it.

flux_sched_core::scheduler!(Conservative, Conservative);
flux_policy_sdk::export_scheduler!(Conservative);
