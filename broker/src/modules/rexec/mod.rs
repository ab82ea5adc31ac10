//! How are processes started on any node? RFC 42 subprocess server, and the agent that starts job shells.
//!
//! Loaded on every rank. A process is watched through its pidfd and its pipes by tasks on the broker's runtime;
//! there is no thread per process.

pub mod agent;
mod claims;
mod process;
mod requests;
mod service;
mod shells;
mod stream;
#[cfg(test)]
mod tests;
mod wait;

pub use service::Rexec;
