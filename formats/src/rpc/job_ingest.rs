//! What do `job-ingest` requests and responses hold?

use crate::jobid::JobId;
use serde::{Deserialize, Serialize};

/// Submit flags (flux-core: `enum job_submit_flags`).
pub mod flags {
    /// Posts extra `debug.*` events.
    pub const DEBUG: u32 = 2;
    /// The job can be waited for; owner only.
    pub const WAITABLE: u32 = 4;
    /// Validators are skipped; owner only.
    pub const NOVALIDATE: u32 = 8;
    /// All that a submission may carry.
    pub const ALL: u32 = DEBUG | WAITABLE | NOVALIDATE;
}

/// `job-ingest.submit`: a signed jobspec. Any user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubmitRequest {
    /// Signed jobspec (RFC 39).
    #[serde(rename = "J")]
    pub j: String,
    /// 0 to 31 (RFC 30); guests up to 16.
    pub urgency: i64,
    /// Bits of [`flags`].
    pub flags: i64,
}

/// Response to [`SubmitRequest`]: the job is durable when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitResponse {
    /// The new job.
    pub id: JobId,
}

/// Response of `job-ingest.getinfo` (owner).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetinfoResponse {
    /// Milliseconds of the FLUID clock (RFC 19).
    pub timestamp: u64,
}
