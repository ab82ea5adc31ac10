//! What do `job-exec.*` requests hold? (RFC 32; flux-core: src/modules/job-exec, behaviour)

use crate::idset::IdSet;
use crate::jobid::JobId;
use serde::{Deserialize, Serialize};

/// `job-exec.shell-barrier`: a shell waits for the others (job owner).
///
/// Carries NORESPONSE, but is answered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BarrierRequest {
    /// The job.
    pub id: JobId,
    /// Broker rank of the shell.
    pub rank: u32,
    /// Which barrier is meant, from 1; only shells that outlive their broker say so, since an answer may get lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
}

/// `job-exec.shell-hello`: a shell has found its broker again (job owner). Not in flux-core.
///
/// ENOENT means that the job is over: the shell ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ShellHelloRequest {
    /// The job.
    pub id: JobId,
    /// Broker rank of the shell.
    pub rank: u32,
    /// Barriers that it has passed.
    pub barriers: u32,
}

/// `job-exec.agent-hello`: a broker runs, and shells were found on its node (owner). Not in flux-core.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentHelloRequest {
    /// The broker.
    pub rank: u32,
    /// Jobs whose shells claim to run there.
    pub jobs: Vec<JobId>,
}

/// Answer to [`AgentHelloRequest`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentHelloResponse {
    /// Jobs that are over: their shells are to be ended.
    pub stop: Vec<JobId>,
}

/// `job-exec.shell-exit`: a shell is about to exit (job owner). Not in flux-core.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ShellExitRequest {
    /// The job.
    pub id: JobId,
    /// Broker rank of the shell.
    pub rank: u32,
    /// Wait status it is going to have.
    pub status: i32,
}

/// `job-exec.critical-ranks`: only the loss of these shells is fatal (job owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CriticalRanksRequest {
    /// The job.
    pub id: JobId,
    /// Shell ranks.
    pub ranks: IdSet,
}

/// `job-exec.expiration`: another time limit (owner).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ExpirationRequest {
    /// The job.
    pub id: JobId,
    /// Seconds since the epoch, 0 never.
    pub expiration: f64,
}

/// `job-exec.override`: starts or finishes a mock job (owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OverrideRequest {
    /// `start` or `finish`.
    pub event: String,
    /// The job.
    pub jobid: JobId,
    /// Wait status, with `finish`.
    #[serde(default)]
    pub status: i32,
}
