//! The Flux broker: an overlay of brokers in a tree, services as actors on one thread, a local connector.

pub mod attrs;
pub mod bootstrap;
pub mod children;
pub mod config_file;
pub mod connector_local;
pub mod lifecycle;
pub mod log;
pub mod modules;
pub mod overlay;
pub mod parent;
pub mod router;
pub mod rundir;
pub mod service;
pub mod start;
pub mod state_machine;
mod sys;
pub mod trace_log;
