//! What is known of one job? Look-ups and watches of its keys and eventlogs (RFC 41), for its owner.

mod lookup;
mod service;
#[cfg(test)]
mod tests;
mod update;
mod watch;

pub use service::JobInfo;
