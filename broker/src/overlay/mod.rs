//! The overlay: how do brokers find, trust and watch each other?
//!
//! ```text
//!  child: connect ─> CURVE ─> overlay.hello ─> parent checks version, rank, identity ─> joined
//!  then: requests, responses, events as one-part ZeroMQ messages (RFC 3 encoding); control: status, heartbeat
//!  loss: peer Down ─> RPCs across it EHOSTUNREACH, subtree leaves every group, status lost
//! ```

mod health;
mod hello;
mod link;
mod service;
mod status;
pub mod topology;

pub use service::{Overlay, accept, goodbye, join};
pub use status::SubtreeStatus;

use std::time::Duration;

/// Returns how often peers prove that they live, and after which silence they are lost.
///
/// A broker that is stopped or stuck is not lost: its kernel still acknowledges, it is torpid, and may come round. One
/// whose host is gone does not acknowledge the proofs, and `tcp_user_timeout` ends it.
pub fn heartbeat() -> flux_zmtp::Heartbeat {
    flux_zmtp::Heartbeat {
        interval: Duration::from_secs(4),
        timeout: Duration::from_secs(300),
    }
}
