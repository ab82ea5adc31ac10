//! Frobnicator `defaults`: gives a job the attributes that it does not set, from `policy.jobspec.defaults.system`.
//!
//! Layers, the later wins: the instance's defaults, those of the parent of the job's queue, those of the queue. A `duration` of 0 counts as
//! not set (RFC 33).

use std::collections::BTreeMap;

use flux_policy_sdk::json::{self, Object};
use flux_policy_sdk::{Frobnicator, Host, Job, Refusal};
use serde_json::{Map, Value};

flux_policy_sdk::export_frobnicator!(Defaults);

/// The policy.
#[derive(Debug, Default)]
pub struct Defaults {
    /// Of the instance.
    general: Layer,
    /// Effective defaults of each queue, all layers applied; empty when no queues are configured.
    queues: BTreeMap<String, Layer>,
}

/// Attribute names and JSON texts, in the order of the configuration.
type Layer = Vec<(String, String)>;

impl Frobnicator for Defaults {
    fn configure(host: &dyn Host) -> Result<Self, Refusal> {
        let read = |path: &str| {
            host.config(path)
                .and_then(|text| serde_json::from_str::<Value>(&text).ok())
        };
        let general = layer(
            &mut Vec::new(),
            read("policy.jobspec.defaults.system").as_ref(),
            "policy",
        )?;
        let tables = match read("queues") {
            None => Map::new(),
            Some(Value::Object(tables)) => tables,
            Some(_) => return Err(Refusal::invalid("queues must be a table")),
        };
        let mut queues = BTreeMap::new();
        for (name, queue) in &tables {
            let mut effective = general.clone();
            if let Some(parent) = queue.get("parent") {
                let parent = parent.as_str().unwrap_or("");
                let table = tables.get(parent).ok_or_else(|| {
                    Refusal::invalid(format!(
                        "queue '{name}': parent queue '{parent}' is not configured"
                    ))
                })?;
                effective = layer(&mut effective, system_defaults(table), parent)?;
            }
            effective = layer(&mut effective, system_defaults(queue), name)?;
            queues.insert(name.clone(), effective);
        }
        let default = value(&general, "queue").and_then(json::string);
        if let Some(name) = default.filter(|name| !queues.contains_key(name)) {
            return Err(Refusal::invalid(format!(
                "default queue '{name}' must be in [queues]"
            )));
        }
        Ok(Defaults { general, queues })
    }

    fn frobnicate(&mut self, _host: &dyn Host, job: &dyn Job) -> Result<Option<String>, Refusal> {
        if self.general.is_empty() && self.queues.is_empty() {
            return Ok(None);
        }
        self.apply(&job.jobspec())
    }
}

impl Defaults {
    fn apply(&self, text: &str) -> Result<Option<String>, Refusal> {
        let not_object = |what: &str| Refusal::invalid(format!("{what} must be an object"));
        let mut jobspec = Object::parse(text).ok_or_else(|| not_object("jobspec"))?;
        let attributes = jobspec.get("attributes").unwrap_or("{}").to_owned();
        let mut attributes = Object::parse(&attributes).ok_or_else(|| not_object("attributes"))?;
        let system = attributes.get("system").unwrap_or("{}").to_owned();
        let mut system = Object::parse(&system).ok_or_else(|| not_object("attributes.system"))?;

        let queue = system.get("queue").or_else(|| value(&self.general, "queue"));
        let defaults = match queue {
            None if self.queues.is_empty() => &self.general,
            None => return Err(Refusal::invalid("no queue specified")),
            // without queues any name passes here; the job manager refuses it later
            Some(_) if self.queues.is_empty() => &self.general,
            Some(queue) => {
                let name = json::string(queue).ok_or_else(|| Refusal::invalid("queue must be a string"))?;
                let known = self.queues.get(&name);
                known.ok_or_else(|| Refusal::invalid(format!("Invalid queue '{name}' specified")))?
            }
        };
        let mut changed = false;
        for (name, value) in defaults {
            let unset = match system.get(name) {
                None => true,
                Some(given) => name == "duration" && given.parse::<f64>() == Ok(0.0),
            };
            if unset {
                system.set(name, value.clone());
                changed = true;
            }
        }
        if !changed {
            return Ok(None);
        }
        attributes.set("system", system.to_string());
        jobspec.set("attributes", attributes.to_string());
        Ok(Some(jobspec.to_string()))
    }
}

/// Returns a queue's own defaults.
fn system_defaults(queue: &Value) -> Option<&Value> {
    queue.pointer("/policy/jobspec/defaults/system")
}

/// Lays a table of defaults over others.
fn layer(below: &mut Layer, table: Option<&Value>, owner: &str) -> Result<Layer, Refusal> {
    let mut layer = std::mem::take(below);
    let Some(table) = table else {
        return Ok(layer);
    };
    let bad = |what: &str| Refusal::invalid(format!("{owner}: jobspec.defaults.system{what}"));
    for (name, value) in table.as_object().ok_or_else(|| bad(" must be a table"))? {
        let text = if name == "duration" {
            let seconds = duration(value).ok_or_else(|| bad(".duration must be a duration, not negative"))?;
            serde_json::to_string(&seconds).unwrap_or_default()
        } else {
            value.to_string()
        };
        match layer.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = text,
            None => layer.push((name.clone(), text)),
        }
    }
    Ok(layer)
}

fn value<'a>(layer: &'a Layer, name: &str) -> Option<&'a str> {
    layer
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

/// Returns the seconds of a number or of a duration as RFC 23 writes it.
fn duration(value: &Value) -> Option<f64> {
    let seconds = match value {
        Value::String(text) => {
            let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
            let (number, unit) = text.split_at_checked(unit)?;
            let factor = match unit {
                "ms" => 0.001,
                "" | "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return None,
            };
            number.parse::<f64>().ok()? * factor
        }
        other => other.as_f64()?,
    };
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};
    use serde_json::json;

    fn frob(config: Value, system: &str) -> Result<Option<String>, String> {
        let host = FakeHost::new(config);
        let mut policy = Defaults::configure(&host).map_err(|refusal| refusal.text)?;
        let jobspec =
            format!(r#"{{"version": 1,"attributes":{{"system":{system},"user":{{"n": 1.50}}}},"tasks":[]}}"#);
        let result = policy
            .frobnicate(&host, &FakeJob::new(jobspec))
            .map_err(|refusal| refusal.text)?;
        Ok(result.map(|text| {
            let head = r#"{"version":1,"attributes":{"system":"#;
            let tail = r#","user":{"n": 1.50}},"tasks":[]}"#;
            text.strip_prefix(head)
                .and_then(|text| text.strip_suffix(tail))
                .expect(&text)
                .to_owned()
        }))
    }

    fn queues() -> Value {
        json!({
            "policy": {"jobspec": {"defaults": {"system": {"duration": "1h", "queue": "batch", "bank": "x"}}}},
            "queues": {
                "batch": {"policy": {"jobspec": {"defaults": {"system": {"duration": "8h"}}}}},
                "debug": {},
                "small": {"parent": "batch", "policy": {"jobspec": {"defaults": {"system": {"bank": "y"}}}}}
            }
        })
    }

    #[test]
    fn layers_in_order() {
        let given = |system: &str| frob(queues(), system).unwrap().unwrap();
        assert_eq!(
            given(r#"{"duration": 0}"#),
            r#"{"duration":28800.0,"queue":"batch","bank":"x"}"#
        );
        assert_eq!(
            given(r#"{"duration":0.0,"queue":"debug"}"#),
            r#"{"duration":3600.0,"queue":"debug","bank":"x"}"#
        );
        assert_eq!(
            given(r#"{"queue":"small"}"#),
            r#"{"queue":"small","duration":28800.0,"bank":"y"}"#
        );
        assert_eq!(
            given(r#"{"duration":5,"queue":"debug"}"#),
            r#"{"duration":5,"queue":"debug","bank":"x"}"#
        );
        assert_eq!(
            frob(queues(), r#"{"duration":5,"queue":"debug","bank":"z"}"#),
            Ok(None)
        );
        assert_eq!(
            frob(queues(), r#"{"queue":"nope"}"#),
            Err("Invalid queue 'nope' specified".into())
        );
    }

    #[test]
    fn nothing_configured_changes_nothing() {
        assert_eq!(frob(json!({}), r#"{"duration":0}"#), Ok(None));
        assert_eq!(frob(json!({}), r#"{"queue":"any"}"#), Ok(None));
    }

    #[test]
    fn bad_configurations_are_refused() {
        let no_default = json!({"queues": {"batch": {}}});
        assert_eq!(frob(no_default, "{}"), Err("no queue specified".into()));
        let system = |system: Value| json!({"policy": {"jobspec": {"defaults": {"system": system}}}});
        assert_eq!(
            frob(system(json!({"queue": "q"})), "{}"),
            Err("default queue 'q' must be in [queues]".into())
        );
        assert!(frob(system(json!({"duration": "-1"})), "{}").is_err());
        assert!(frob(system(json!({"duration": "1y"})), "{}").is_err());
        assert!(frob(json!({"queues": []}), "{}").is_err());
        assert!(
            frob(json!({"queues": {"a": {"parent": "b"}}}), "{}")
                .unwrap_err()
                .contains("parent queue 'b'")
        );
    }
}
