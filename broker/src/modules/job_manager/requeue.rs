//! May a job be in another queue? What its constraints become there is decided by the plugin `update-queue`.

use super::job::Job;
use super::queue::Queues;
use crate::service::RpcError;
use flux_formats::errno;
use serde_json::Value;

/// Key of an update that names the queue.
pub(super) const QUEUE: &str = "attributes.system.queue";

/// Checks what no plugin can know or may pass over: the job does not run, and the queue is there and takes jobs.
///
/// # Errors
/// EINVAL with the reason.
pub(super) fn check(queues: &Queues, job: &Job, value: &Value) -> Result<(), RpcError> {
    let inval = |text: String| RpcError::new(errno::EINVAL, text);
    let Some(name) = value.as_str() else {
        return Err(inval("queue must be a string".to_owned()));
    };
    if job.state.is_running() {
        return Err(inval("update of queue for running job not supported".to_owned()));
    }
    queues.check_submit(Some(name)).map_err(|err| match err {
        super::queue::QueueError::DisabledNamed(..) => inval(format!("queue {name} is currently disabled")),
        other => inval(other.to_string()),
    })
}
