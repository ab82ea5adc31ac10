//! What do `sched` and `feasibility` requests and responses hold? (RFC 27)

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// `feasibility.check`: could this jobspec ever run here? Answered empty, or EINVAL with a text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeasibilityRequest {
    /// Jobspec (RFC 25).
    pub jobspec: Value,
}

/// Response of `sched.resource-status`: three R (RFC 20).
#[derive(Debug, Serialize, Deserialize)]
pub struct ResourceStatusResponse {
    /// All resources.
    pub all: Box<RawValue>,
    /// Those that are down.
    pub down: Box<RawValue>,
    /// Those that jobs hold.
    pub allocated: Box<RawValue>,
}

/// `sched.expiration`: another time limit for a running job (owner).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpirationRequest {
    /// The job.
    pub id: crate::jobid::JobId,
    /// Seconds since the epoch, 0 never.
    pub expiration: f64,
}
