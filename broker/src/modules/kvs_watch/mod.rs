//! Module `kvs-watch`: who is told when a key changes? (flux-core: modules/kvs-watch, behaviour)
//!
//! The watches live beside the roots they look at, in the `kvs` module; this one is their address for clients.

pub mod local;
mod service;

pub use local::{WatchId, cancel_watch, watch_appends};
pub use service::KvsWatch;
