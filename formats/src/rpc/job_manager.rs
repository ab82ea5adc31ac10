//! What do `job-manager` requests and responses hold? (RFC 21, 30, 33)
//!
//! Unless a type says otherwise, a guest may use a request on jobs of its own only.

use crate::jobid::JobId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One job of a `job-manager.submit` request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubmitJob {
    /// Its id.
    pub id: JobId,
    /// Its user.
    pub userid: u32,
    /// 0 to 31.
    pub urgency: u8,
    /// Submit flags.
    pub flags: u32,
    /// Seconds since the epoch.
    pub t_submit: f64,
    /// Jobspec without environment.
    pub jobspec: Value,
}

/// `job-manager.submit` (owner): jobs whose J and jobspec are in the KVS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SubmitRequest {
    /// The jobs.
    pub jobs: Vec<SubmitJob>,
}

/// Response to [`SubmitRequest`]: those that were refused.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SubmitResponse {
    /// Job and reason.
    #[serde(default)]
    pub errors: Vec<(JobId, String)>,
}

/// A request that names a job only: `wait`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct IdRequest {
    /// The job; for `wait` may be [`JobId::ANY`].
    #[serde(deserialize_with = "any_id")]
    pub id: JobId,
}

/// Reads an id that a client may have sent as a signed number (-1 is [`JobId::ANY`]).
fn any_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<JobId, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let id = number
        .as_u64()
        .or_else(|| number.as_i64().map(i64::cast_unsigned));
    id.map(JobId)
        .ok_or_else(|| serde::de::Error::custom("job id must be an integer"))
}

/// Response of `job-manager.wait` (owner).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitResponse {
    /// The job.
    pub id: JobId,
    /// It ended with status 0 and without fatal exception.
    pub success: bool,
    /// Text for people.
    pub errstr: String,
}

/// `job-manager.getattr`: parts of an active job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GetattrRequest {
    /// The job.
    pub id: JobId,
    /// `jobspec`, `R`, `eventlog`.
    pub attrs: Vec<Value>,
}

/// `job-manager.list` (owner).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ListRequest {
    /// Most jobs to answer; 0 is no limit.
    pub max_entries: i64,
}

/// `job-manager.urgency`: another urgency for a job that has no resources.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct UrgencyRequest {
    /// The job.
    pub id: JobId,
    /// 0 (hold) to 31 (expedite); guests at most 16, or what the job has.
    pub urgency: i64,
}

/// `job-manager.raise`: an exception.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RaiseRequest {
    /// The job.
    pub id: JobId,
    /// 0 (fatal) to 7.
    pub severity: i64,
    /// A word.
    #[serde(rename = "type")]
    pub kind: String,
    /// Text for people.
    #[serde(default)]
    pub note: Option<String>,
    /// Wait status that the job's end shall show.
    #[serde(default)]
    pub wait_status: Option<i64>,
}

/// `job-manager.raiseall`: an exception on all matching jobs; guests must name themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RaiseAllRequest {
    /// Count only.
    pub dry_run: Flag,
    /// User, or -1 for all.
    pub userid: i64,
    /// Mask of state bits.
    pub states: u32,
    /// 0 to 7.
    pub severity: i64,
    /// A word.
    #[serde(rename = "type")]
    pub kind: String,
    /// Text for people.
    #[serde(default)]
    pub note: Option<String>,
}

/// `job-manager.kill`: a signal to a running job.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct KillRequest {
    /// The job.
    pub id: JobId,
    /// 1 to 64.
    pub signum: i64,
}

/// `job-manager.killall`: a signal to all running jobs; guests must name themselves.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct KillAllRequest {
    /// Count only.
    pub dry_run: Flag,
    /// User, or -1 for all.
    pub userid: i64,
    /// 1 to 64.
    pub signum: i64,
}

/// Response of `raiseall` and `killall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountResponse {
    /// Jobs that matched.
    pub count: u64,
    /// Jobs on which it failed.
    pub errors: u64,
}

/// `job-manager.update`: other values in a job's jobspec.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpdateRequest {
    /// The job.
    pub id: JobId,
    /// Dotted key to value, e.g. `attributes.system.duration`.
    pub updates: Value,
}

/// `job-manager.memo`: notes of the user, shown as `annotations.user`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoRequest {
    /// The job.
    pub id: JobId,
    /// Keys to merge; null deletes.
    pub memo: Map<String, Value>,
    /// True: not in the eventlog.
    #[serde(default)]
    pub volatile: bool,
}

/// `job-manager.queue-status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct QueueStatusRequest {
    /// A named queue.
    #[serde(default)]
    pub name: Option<String>,
}

/// `job-manager.queue-enable` (owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueEnableRequest {
    /// A named queue.
    #[serde(default)]
    pub name: Option<String>,
    /// Accept submissions or not.
    pub enable: Flag,
    /// Required to disable.
    #[serde(default)]
    pub reason: Option<String>,
    /// All queues; required when there are named queues and no name is given.
    pub all: Flag,
}

/// `job-manager.queue-start` (owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueStartRequest {
    /// A named queue.
    #[serde(default)]
    pub name: Option<String>,
    /// Give jobs to the scheduler or not.
    pub start: Flag,
    /// Why it is stopped.
    #[serde(default)]
    pub reason: Option<String>,
    /// All queues; required when there are named queues and no name is given.
    pub all: Flag,
    /// The change is forgotten at a restart.
    #[serde(default)]
    pub nocheckpoint: Option<Flag>,
}

/// A boolean; stock clients may send 0 or 1 as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(flag) => Ok(Flag(flag)),
            Value::Number(number) => Ok(Flag(number.as_i64() != Some(0))),
            _ => Err(serde::de::Error::custom("expected a boolean")),
        }
    }
}

/// `job-manager.purge` (owner): forgets inactive jobs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PurgeRequest {
    /// Seconds since the end; -1 is no limit.
    pub age_limit: f64,
    /// Jobs to keep; -1 is no limit.
    pub num_limit: i64,
    /// Most jobs to purge in this request, 1 to 100.
    pub batch: i64,
    /// False: count only.
    pub force: Flag,
}

/// `job-manager.purge-id` (owner).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PurgeIdRequest {
    /// The job.
    pub id: JobId,
    /// False: check only.
    pub force: Flag,
}

/// `job-manager.housekeeping-kill` (owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HousekeepingKillRequest {
    /// The signal.
    pub signum: i32,
    /// Housekeeping after this job; after all jobs if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobid: Option<JobId>,
    /// Idset of brokers; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<String>,
}

/// `job-manager.events-journal` (owner, streaming).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EventsJournalRequest {
    /// Names of events wanted, as keys.
    #[serde(default)]
    pub allow: Option<Value>,
    /// Names of events not wanted, as keys.
    #[serde(default)]
    pub deny: Option<Value>,
    /// Inactive jobs first.
    #[serde(default)]
    pub full: Option<Flag>,
}

/// `job-manager.history.get`: own jobs, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HistoryRequest {
    /// A Python slice such as `[:1]`.
    pub slice: String,
}

/// `job-manager.post-event.post` (owner).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PostEventRequest {
    /// The job.
    pub id: JobId,
    /// Event name.
    pub name: String,
    /// Its context.
    #[serde(default)]
    pub context: Option<Map<String, Value>>,
}

/// `job-manager.set-batch-timeout` (owner).
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct BatchTimeoutRequest {
    /// Seconds.
    pub timeout: f64,
}

/// A request that cancels a stream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Matchtag of the streaming request.
    pub matchtag: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_id_in_both_forms() {
        for text in ["{\"id\":-1}", "{\"id\":18446744073709551615}"] {
            assert_eq!(serde_json::from_str::<IdRequest>(text).unwrap().id, JobId::ANY);
        }
        assert!(serde_json::from_str::<IdRequest>("{\"id\":\"x\"}").is_err());
    }

    #[test]
    fn flags_as_numbers() {
        let purge: PurgeIdRequest = serde_json::from_str("{\"id\":1,\"force\":1}").unwrap();
        assert!(purge.force.0);
        assert!(serde_json::from_str::<Flag>("\"yes\"").is_err());
        assert_eq!(serde_json::to_string(&Flag(true)).unwrap(), "true");
    }
}
