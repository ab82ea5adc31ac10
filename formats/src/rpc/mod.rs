//! Typed RPC payloads: one file per service, named by the service.
pub mod cron;
pub mod job_exec;
pub mod job_info;
pub mod job_ingest;
pub mod job_list;
pub mod job_manager;
pub mod resource;
pub mod rexec;
pub mod sched;
