//! `flux update JOBID queue=NAME`: a pending job moves to another queue, and its constraints become those of the queue.
//!
//! Whether the queue is there and takes jobs is checked by the job manager; the limits of the new queue are checked by the plugins that check those.

use flux_policy_sdk::{Job, Jobtap, JobtapHost, Refusal, Update, export_jobtap};
use serde_json::{Map, Value, json};

const KEY: &str = "attributes.system.queue";
const CONSTRAINTS: &str = "attributes.system.constraints";
/// RUN and CLEANUP.
const RUNNING: u32 = 48;

/// The plugin.
#[derive(Debug)]
pub struct UpdateQueue;

/// Returns what jobs of a queue must have: its own `requires`, or that of its parent.
fn constraints_of(queues: &Value, queue: Option<&str>) -> Value {
    let requires = || {
        let entry = queues.get(queue?)?;
        entry
            .get("requires")
            .or_else(|| queues.get(entry.get("parent")?.as_str()?)?.get("requires"))
    };
    requires().map_or_else(|| json!({}), |names| json!({"properties": names}))
}

fn is_empty(constraints: &Value) -> bool {
    constraints.as_object().is_none_or(Map::is_empty)
}

impl Jobtap for UpdateQueue {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(UpdateQueue)
    }

    fn topics(&self) -> Vec<String> {
        vec![format!("job.update.{KEY}")]
    }

    fn update(
        &mut self,
        host: &dyn JobtapHost,
        job: &dyn Job,
        update: &Update<'_>,
    ) -> Result<Vec<(String, String)>, Refusal> {
        let read = |text: Option<String>| text.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let Ok(Value::String(name)) = serde_json::from_str(update.value) else {
            return Err(Refusal::invalid("queue must be a string"));
        };
        if job.state() & RUNNING != 0 {
            return Err(Refusal::invalid("update of queue for running job not supported"));
        }
        let current = read(job.attribute(KEY));
        let current = current.as_ref().and_then(Value::as_str);
        if current == Some(&name) {
            return Err(Refusal::invalid(format!("job queue is already set to {name}")));
        }
        let queues = read(host.config("queues")).unwrap_or_default();
        let expected = constraints_of(&queues, current);
        let own = read(job.attribute(CONSTRAINTS)).unwrap_or_default();
        if own != expected && !(is_empty(&own) && is_empty(&expected)) {
            return Err(Refusal::invalid(format!(
                "job appears to have non-queue constraints, unable to update queue to {name}"
            )));
        }
        let further = json!({CONSTRAINTS: constraints_of(&queues, Some(&name))});
        Ok(vec![("updates".to_owned(), further.to_string())])
    }
}

export_jobtap!(UpdateQueue);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};

    #[test]
    fn a_queue_and_its_constraints() {
        let host = FakeHost::new(json!({"queues": {
            "batch": {}, "debug": {"requires": ["fast"]}, "night": {"parent": "debug"}}}));
        let mut plugin = UpdateQueue::configure(&host).unwrap();
        assert_eq!(plugin.topics(), ["job.update.attributes.system.queue"]);
        let mut ask = |system: Value, state: u32, value: &str| {
            let job = FakeJob {
                state,
                ..FakeJob::new(json!({"attributes": {"system": system}}).to_string())
            };
            let update = Update {
                key: KEY,
                value,
                userid: 7,
                rolemask: 2,
            };
            plugin
                .update(&host, &job, &update)
                .map_err(|refusal| refusal.text)
        };
        let batch = json!({"queue": "batch"});
        let fast = json!({"queue": "debug", "constraints": {"properties": ["fast"]}});
        let said = ask(batch.clone(), 8, "\"night\"").unwrap();
        assert_eq!(
            said,
            [(
                "updates".to_owned(),
                json!({CONSTRAINTS: {"properties": ["fast"]}}).to_string()
            )]
        );
        let said = ask(fast.clone(), 8, "\"batch\"").unwrap();
        assert_eq!(
            said,
            [("updates".to_owned(), json!({CONSTRAINTS: {}}).to_string())]
        );
        for (system, state, value, text) in [
            (batch.clone(), 8, "7", "must be a string"),
            (batch.clone(), 8, "\"batch\"", "already set to batch"),
            (batch, 16, "\"debug\"", "running job"),
            (
                json!({"queue": "batch", "constraints": {"hostlist": ["a"]}}),
                8,
                "\"debug\"",
                "non-queue constraints",
            ),
            (json!({"queue": "debug"}), 8, "\"batch\"", "non-queue constraints"),
        ] {
            let said = ask(system, state, value).unwrap_err();
            assert!(said.contains(text), "{said}");
        }
    }
}
