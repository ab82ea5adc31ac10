//! The broker's modules, one directory each, named by their service.

pub mod attr;
pub mod broker;
pub mod config;
pub mod content;
pub mod groups;
pub mod heartbeat;
pub mod log;
pub mod module;
pub mod job_manager;
pub mod kvs;
pub mod kvs_watch;
pub mod registry;
pub mod job_exec;
pub mod resource;
pub mod sched;
pub mod rexec;
