//! What do `job-list.*` requests hold? (RFC 43)

use crate::jobid::JobId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// All attributes of a job, besides `id` which is always there.
pub const ATTRIBUTES: [&str; 32] = [
    "userid",
    "urgency",
    "priority",
    "t_submit",
    "t_depend",
    "t_priority",
    "t_sched",
    "t_run",
    "t_cleanup",
    "t_inactive",
    "state",
    "name",
    "cwd",
    "queue",
    "project",
    "bank",
    "ntasks",
    "ncores",
    "duration",
    "nnodes",
    "ranks",
    "nodelist",
    "success",
    "exception_occurred",
    "exception_type",
    "exception_severity",
    "exception_note",
    "result",
    "expiration",
    "annotations",
    "waitstatus",
    "dependencies",
];

/// `job-list.list`: jobs that match a constraint (streaming: one job per response).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListRequest {
    /// Most jobs to return; 0 for all.
    pub max_entries: u32,
    /// Attributes wanted, or `all`.
    pub attrs: Vec<String>,
    /// Leave out jobs that were inactive by then: seconds since the epoch.
    #[serde(default)]
    pub since: f64,
    /// RFC 31 constraint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Value>,
    /// Old form: a user, -1 or 0xFFFFFFFF for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userid: Option<i64>,
    /// Old form: bits of states, 0 for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub states: Option<u32>,
    /// Old form: bits of results, 0 for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<u32>,
    /// Old form: a job name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Old form: a queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
}

/// `job-list.list-id`: one job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListIdRequest {
    /// The job.
    pub id: JobId,
    /// Attributes wanted, or `all`.
    pub attrs: Vec<String>,
    /// Answer once the job has reached this state (one bit), or is past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<u32>,
}
