//! Frobnicator `constraints`: a job in a queue gets the queue's `requires` properties as a constraint (RFC 31, 33).
//!
//! A virtual queue has no `requires` of its own: its parent's count.

use std::collections::BTreeMap;

use flux_policy_sdk::json::{self, Object};
use flux_policy_sdk::{Frobnicator, Host, Job, Refusal};
use serde_json::Value;

flux_policy_sdk::export_frobnicator!(Constraints);

/// The policy: properties that each queue requires.
#[derive(Debug, Default)]
pub struct Constraints {
    queues: BTreeMap<String, Option<Vec<String>>>,
}

impl Frobnicator for Constraints {
    fn configure(host: &dyn Host) -> Result<Self, Refusal> {
        let mut queues = BTreeMap::new();
        let Some(text) = host.config("queues") else {
            return Ok(Constraints { queues });
        };
        let tables: Value = serde_json::from_str(&text).unwrap_or_default();
        let tables = tables
            .as_object()
            .ok_or_else(|| Refusal::invalid("queues must be a table"))?;
        for (name, queue) in tables {
            let table = match queue.get("parent") {
                None => queue,
                Some(parent) => {
                    let parent = parent.as_str().unwrap_or("");
                    tables.get(parent).ok_or_else(|| {
                        Refusal::invalid(format!(
                            "queue '{name}': parent queue '{parent}' is not configured"
                        ))
                    })?
                }
            };
            queues.insert(name.clone(), requires(name, table)?);
        }
        Ok(Constraints { queues })
    }

    fn frobnicate(&mut self, _host: &dyn Host, job: &dyn Job) -> Result<Option<String>, Refusal> {
        if self.queues.is_empty() {
            // a queue name without queues is refused by the job manager, which knows what else may be wrong
            return Ok(None);
        }
        self.apply(&job.jobspec())
    }
}

impl Constraints {
    fn apply(&self, text: &str) -> Result<Option<String>, Refusal> {
        let not_object = |what: &str| Refusal::invalid(format!("{what} must be an object"));
        let mut jobspec = Object::parse(text).ok_or_else(|| not_object("jobspec"))?;
        let attributes = jobspec.get("attributes").unwrap_or("{}").to_owned();
        let mut attributes = Object::parse(&attributes).ok_or_else(|| not_object("attributes"))?;
        let system = attributes.get("system").unwrap_or("{}").to_owned();
        let mut system = Object::parse(&system).ok_or_else(|| not_object("attributes.system"))?;
        let Some(queue) = system.get("queue") else {
            return Ok(None);
        };
        let name = json::string(queue).ok_or_else(|| Refusal::invalid("queue must be a string"))?;
        let known = self.queues.get(&name);
        let required = known.ok_or_else(|| Refusal::invalid(format!("Invalid queue '{name}' specified")))?;
        let Some(required) = required else {
            return Ok(None);
        };
        let constraints = match system.get("constraints").map(str::to_owned) {
            None => format!(r#"{{"properties":{}}}"#, list(required)),
            Some(given) => {
                let Some(combined) = combine(&given, required)? else {
                    return Ok(None);
                };
                combined
            }
        };
        system.set("constraints", constraints);
        attributes.set("system", system.to_string());
        jobspec.set("attributes", attributes.to_string());
        Ok(Some(jobspec.to_string()))
    }
}

/// Adds required properties to a constraint; none when all are there.
fn combine(given: &str, required: &[String]) -> Result<Option<String>, Refusal> {
    let bad = |what: &str| Refusal::invalid(format!("attributes.system.constraints{what}"));
    let mut constraint = Object::parse(given).ok_or_else(|| bad(" must be an object"))?;
    let Some(properties) = constraint.get("properties") else {
        return Ok(Some(format!(
            r#"{{"and":[{given},{{"properties":{}}}]}}"#,
            list(required)
        )));
    };
    let mut properties: Vec<String> =
        serde_json::from_str(properties).map_err(|_| bad(".properties must be an array of strings"))?;
    let before = properties.len();
    for name in required {
        if !properties.contains(name) {
            properties.push(name.clone());
        }
    }
    if properties.len() == before {
        return Ok(None);
    }
    constraint.set("properties", list(&properties));
    Ok(Some(constraint.to_string()))
}

fn requires(name: &str, table: &Value) -> Result<Option<Vec<String>>, Refusal> {
    let Some(requires) = table.get("requires") else {
        return Ok(None);
    };
    let bad = || Refusal::invalid(format!("queues.{name}.requires must be an array of strings"));
    let names = requires.as_array().ok_or_else(bad)?;
    names
        .iter()
        .map(|name| name.as_str().map(str::to_owned).ok_or_else(bad))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn list(names: &[String]) -> String {
    serde_json::to_string(names).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};
    use serde_json::json;

    fn frob(config: Value, system: &str) -> Result<Option<String>, String> {
        let host = FakeHost::new(config);
        let mut policy = Constraints::configure(&host).map_err(|refusal| refusal.text)?;
        let jobspec = format!(r#"{{"attributes":{{"system":{system}}}}}"#);
        let result = policy
            .frobnicate(&host, &FakeJob::new(jobspec))
            .map_err(|refusal| refusal.text)?;
        Ok(result.map(|text| {
            let text = text.strip_prefix(r#"{"attributes":{"system":"#).expect(&text);
            text.strip_suffix("}}").unwrap().to_owned()
        }))
    }

    fn queues() -> Value {
        json!({"queues": {"batch": {"requires": ["b"]}, "all": {}, "small": {"parent": "batch", "requires": ["no"]}}})
    }

    #[test]
    fn adds_what_the_queue_requires() {
        for (given, expected) in [
            (
                r#"{"queue":"batch"}"#,
                r#"{"queue":"batch","constraints":{"properties":["b"]}}"#,
            ),
            (
                r#"{"queue":"small"}"#,
                r#"{"queue":"small","constraints":{"properties":["b"]}}"#,
            ),
            (
                r#"{"queue":"batch","constraints":{"properties":["a"]},"x":1.0}"#,
                r#"{"queue":"batch","constraints":{"properties":["a","b"]},"x":1.0}"#,
            ),
            (
                r#"{"queue":"batch","constraints":{"hostlist": ["n1"]}}"#,
                r#"{"queue":"batch","constraints":{"and":[{"hostlist": ["n1"]},{"properties":["b"]}]}}"#,
            ),
        ] {
            assert_eq!(frob(queues(), given), Ok(Some(expected.to_owned())));
        }
    }

    #[test]
    fn leaves_others_alone() {
        assert_eq!(frob(queues(), r#"{"queue":"all"}"#), Ok(None));
        assert_eq!(frob(queues(), "{}"), Ok(None));
        assert_eq!(
            frob(
                queues(),
                r#"{"queue":"batch","constraints":{"properties":["b"]}}"#
            ),
            Ok(None)
        );
        assert_eq!(frob(json!({}), r#"{"queue":"x"}"#), Ok(None));
    }

    #[test]
    fn refuses_unknown_queues_and_bad_tables() {
        assert_eq!(
            frob(queues(), r#"{"queue":"x"}"#),
            Err("Invalid queue 'x' specified".into())
        );
        assert!(frob(json!({"queues": {"a": {"requires": "b"}}}), "{}").is_err());
        assert!(frob(json!({"queues": {"a": {"parent": "b"}}}), "{}").is_err());
    }
}
