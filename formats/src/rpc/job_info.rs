//! What do `job-info.*` requests hold? (RFC 41; flux-core: src/modules/job-info, behaviour)

use crate::jobid::JobId;
use serde::{Deserialize, Serialize};

/// `job-info.lookup` flag: R and jobspec are answered as objects, not as text.
pub const LOOKUP_JSON_DECODE: u32 = 1;
/// `job-info.lookup` flag: R and jobspec are answered with later updates applied.
pub const LOOKUP_CURRENT: u32 = 2;
/// `job-info.eventlog-watch` flag: an eventlog that does not exist yet is waited for.
pub const WATCH_WAITCREATE: u32 = 1;
/// `job-info.eventlog-watch` flag: an empty response follows what was there at the beginning.
pub const WATCH_INITIAL_SENTINEL: u32 = 2;

/// `job-info.lookup`: reads keys of a job (job owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LookupRequest {
    /// The job.
    pub id: JobId,
    /// `J`, `R`, `jobspec`, `eventlog`, `guest.exec.eventlog`, …
    pub keys: Vec<String>,
    /// Bits `LOOKUP_*`.
    #[serde(default)]
    pub flags: u32,
}

/// `job-info.eventlog-watch`: follows an eventlog of a job (job owner, streaming).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventlogWatchRequest {
    /// The job.
    pub id: JobId,
    /// `eventlog`, `guest.exec.eventlog`, `guest.output` or `guest.input`.
    pub path: String,
    /// Bits `WATCH_*`.
    #[serde(default)]
    pub flags: u32,
}

/// Response of `job-info.eventlog-watch`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventlogWatchResponse<'a> {
    /// One RFC 18 line with its newline.
    #[serde(borrow)]
    pub event: std::borrow::Cow<'a, str>,
}

/// `job-info.update-watch` and `update-lookup`: R or jobspec with updates (job owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpdateRequest {
    /// The job.
    pub id: JobId,
    /// `R` or `jobspec`.
    pub key: String,
    /// Must be 0.
    #[serde(default)]
    pub flags: u32,
}

/// `job-info.*-cancel`: ends a stream of the same sender.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Matchtag of the streaming request.
    pub matchtag: u32,
}
