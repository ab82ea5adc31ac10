//! May a job move to another queue, and what do its constraints become? (flux-core: job-manager/queue.c, behaviour)

use super::job::Job;
use super::queue::Queues;
use crate::service::RpcError;
use flux_formats::errno;
use serde_json::{Map, Value, json};

/// Key of an update that names the queue.
pub(super) const QUEUE: &str = "attributes.system.queue";
/// Key that a change of the queue changes too.
pub(super) const CONSTRAINTS: &str = "attributes.system.constraints";

fn inval(text: String) -> RpcError {
    RpcError::new(errno::EINVAL, text)
}

/// Returns the properties that a queue requires: its own, or those of its parent.
fn requires<'c>(config: &'c Value, queue: Option<&str>) -> Option<&'c Value> {
    let queues = config.get("queues")?;
    let entry = queues.get(queue?)?;
    entry.get("requires").or_else(|| {
        let parent = entry.get("parent")?.as_str()?;
        queues.get(parent)?.get("requires")
    })
}

/// Returns the constraints of jobs in a queue; an empty object when it requires nothing.
fn constraints_of(config: &Value, queue: Option<&str>) -> Value {
    requires(config, queue).map_or_else(
        || Value::Object(Map::new()),
        |names| json!({ "properties": names }),
    )
}

/// Checks that a job may move to a queue; returns its constraints there.
///
/// # Errors
/// EINVAL with the reason.
pub(super) fn check(config: &Value, queues: &Queues, job: &Job, value: &Value) -> Result<Value, RpcError> {
    let Some(name) = value.as_str() else {
        return Err(inval("queue must be a string".to_owned()));
    };
    if job.state.is_running() {
        return Err(inval("update of queue for running job not supported".to_owned()));
    }
    let current = job.queue.as_deref();
    if current == Some(name) {
        return Err(inval(format!("job queue is already set to {name}")));
    }
    queues.check_submit(Some(name)).map_err(|err| match err {
        super::queue::QueueError::DisabledNamed(..) => inval(format!("queue {name} is currently disabled")),
        other => inval(other.to_string()),
    })?;
    let own = job.jobspec.pointer("/attributes/system/constraints");
    let is_empty = |value: &Value| value.as_object().is_none_or(Map::is_empty);
    let expected = constraints_of(config, current);
    let matches = match own {
        None => is_empty(&expected),
        Some(own) => *own == expected || (is_empty(own) && is_empty(&expected)),
    };
    if !matches {
        return Err(inval(format!(
            "job appears to have non-queue constraints, unable to update queue to {name}"
        )));
    }
    Ok(constraints_of(config, Some(name)))
}
