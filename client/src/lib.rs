//! How does a program talk to a Flux broker? A blocking handle without a runtime: connect, RPCs (also many in
//! flight), streams, events, services, and one poll loop together with other file descriptors.
//!
//! ```no_run
//! use flux_client::{Handle, NODEID_ANY, attr};
//! # fn main() -> Result<(), flux_client::Error> {
//! let mut handle = Handle::open(None)?;
//! let size = attr::get(&mut handle, "size")?;
//! // Pipelined: both requests leave in one write.
//! let one = handle.rpc("attr.get", NODEID_ANY, &serde_json::json!({"name": "rank"}))?;
//! let two = handle.rpc("attr.get", NODEID_ANY, &serde_json::json!({"name": "size"}))?;
//! let first: serde_json::Value = handle.get(&one)?;
//! let second: serde_json::Value = handle.get(&two)?;
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

pub mod attr;
mod connector;
mod error;
mod event;
mod handle;
pub mod job;
pub mod kvs;
pub mod log;
mod matchtag;
mod rpc;
mod ssh;
#[cfg(test)]
mod tests;
mod trace;
pub mod uri;

pub use connector::ConnectOptions;
pub use error::{Error, RpcError};
pub use flux_formats::msg::{self, Kind, Message, NODEID_ANY, NODEID_UPSTREAM, Topic};
pub use handle::{Handle, Incoming, Other, poll_others};
pub use nix::poll::PollFlags;
pub use rpc::Rpc;
