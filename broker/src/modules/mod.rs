//! The broker's modules, one directory each, named by their service.

pub mod attr;
pub mod broker;
pub mod config;
pub mod content;
pub mod content_sqlite;
pub mod cron;
pub mod groups;
pub mod heartbeat;
pub mod job_exec;
pub mod job_info;
pub mod job_ingest;
pub mod job_list;
pub mod job_manager;
pub mod kvs;
pub mod kvs_watch;
pub mod log;
pub mod module;
pub(crate) mod policy_link;
pub mod registry;
pub mod resource;
pub mod rexec;
pub mod sched;
