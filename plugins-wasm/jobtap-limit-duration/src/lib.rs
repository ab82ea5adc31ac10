//! A job may not ask for more time than `policy.limits.duration`; a queue's own limit, or that of its parent, goes first.

use std::collections::HashMap;

use flux_policy_sdk::{Job, Jobtap, JobtapHost, Refusal, export_jobtap, fsd, json};
use serde_json::Value;

/// The plugin. A limit of 0 is none.
#[derive(Debug, Default)]
pub struct LimitDuration {
    general: Option<f64>,
    queues: HashMap<String, Option<f64>>,
}

/// Reads the limit of `[policy]` or of a queue; `place` names it in errors.
fn limit(table: &Value, place: &str) -> Result<Option<f64>, Refusal> {
    let Some(value) = table.pointer("/policy/limits/duration") else {
        return Ok(None);
    };
    let text = value
        .as_str()
        .ok_or_else(|| Refusal::invalid(format!("{place}policy.limits.duration: must be a string in FSD")))?;
    let limit = fsd::parse(text)
        .ok_or_else(|| Refusal::invalid(format!("{place}policy.limits.duration: FSD value is malformed")))?;
    Ok(Some(limit))
}

impl LimitDuration {
    fn read(config: &Value) -> Result<LimitDuration, Refusal> {
        let mut read = LimitDuration {
            general: limit(config, "")?,
            queues: HashMap::new(),
        };
        let none = serde_json::Map::new();
        let queues = config.get("queues").and_then(Value::as_object).unwrap_or(&none);
        for (name, entry) in queues {
            let own = limit(entry, &format!("queues.{name}."))?;
            let parent = entry.get("parent").and_then(Value::as_str);
            let inherited = match parent {
                Some(parent) => limit(
                    queues.get(parent).unwrap_or(&Value::Null),
                    &format!("queues.{parent}."),
                )?,
                None => None,
            };
            read.queues.insert(name.clone(), own.or(inherited));
        }
        Ok(read)
    }

    fn of_queue(&self, queue: Option<&str>) -> Option<f64> {
        let own = queue.and_then(|queue| self.queues.get(queue).copied().flatten());
        own.or(self.general).filter(|limit| *limit != 0.0)
    }
}

fn read(host: &dyn JobtapHost) -> Result<LimitDuration, Refusal> {
    let part = |path: &str| {
        let text = host.config(path)?;
        serde_json::from_str(&text).ok()
    };
    let mut config = serde_json::Map::new();
    for key in ["policy", "queues"] {
        config.insert(key.to_owned(), part(key).unwrap_or(Value::Null));
    }
    LimitDuration::read(&Value::Object(config))
}

impl Jobtap for LimitDuration {
    fn configure(host: &dyn JobtapHost) -> Result<Self, Refusal> {
        read(host)
    }

    fn reconfigure(&mut self, host: &dyn JobtapHost) -> Result<(), Refusal> {
        *self = read(host)?;
        Ok(())
    }

    fn topics(&self) -> Vec<String> {
        let limited = |limit: &Option<f64>| limit.is_some_and(|limit| limit != 0.0);
        if limited(&self.general) || self.queues.values().any(limited) {
            vec!["job.validate".to_owned()]
        } else {
            Vec::new()
        }
    }

    fn validate(&mut self, _: &dyn JobtapHost, job: &dyn Job) -> Result<(), Refusal> {
        let queue = job
            .attribute("attributes.system.queue")
            .and_then(|text| json::string(&text));
        let Some(limit) = self.of_queue(queue.as_deref()) else {
            return Ok(());
        };
        let duration = match job.attribute("attributes.system.duration") {
            None => 0.0,
            Some(text) => text
                .parse::<f64>()
                .map_err(|_| Refusal::invalid("limit-duration: duration must be a number"))?,
        };
        if duration != 0.0 && duration <= limit {
            return Ok(());
        }
        let requested = if duration == 0.0 {
            "unlimited".to_owned()
        } else {
            fsd::format(duration)
        };
        let place = queue
            .map(|queue| format!(" for queue {queue}"))
            .unwrap_or_default();
        Err(Refusal::invalid(format!(
            "requested duration ({requested}) exceeds policy limit of {}{place}",
            fsd::format(limit)
        )))
    }
}

export_jobtap!(LimitDuration);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};
    use serde_json::json;

    fn job(duration: f64, queue: Option<&str>) -> FakeJob {
        let mut system = json!({ "duration": duration });
        if let Some(queue) = queue {
            system["queue"] = queue.into();
        }
        FakeJob::new(json!({"attributes": {"system": system}}).to_string())
    }

    /// The configuration of the administrator's guide.
    fn guide() -> Value {
        json!({
            "policy": {"limits": {"duration": "1h"}},
            "queues": {
                "debug": {"policy": {"limits": {"duration": "30m"}}},
                "batch": {"policy": {"limits": {"duration": "8h"}}},
                "free": {"policy": {"limits": {"duration": "0"}}},
                "other": {},
                "late": {"parent": "batch"},
            }
        })
    }

    #[test]
    fn queues_go_before_the_general_limit() {
        let host = FakeHost::new(guide());
        let mut plugin = LimitDuration::configure(&host).unwrap();
        assert_eq!(plugin.topics(), ["job.validate"]);
        let mut check = |duration: f64, queue: Option<&str>| plugin.validate(&host, &job(duration, queue));
        assert_eq!(check(3600.0, None), Ok(()));
        assert_eq!(check(1800.0, Some("debug")), Ok(()));
        assert_eq!(check(28_800.0, Some("batch")), Ok(()));
        assert_eq!(check(28_800.0, Some("late")), Ok(()));
        assert_eq!(check(0.0, Some("free")), Ok(()));
        for (duration, queue, text) in [
            (7200.0, None, "requested duration (2h) exceeds policy limit of 1h"),
            (
                0.0,
                None,
                "requested duration (unlimited) exceeds policy limit of 1h",
            ),
            (
                3600.0,
                Some("debug"),
                "requested duration (1h) exceeds policy limit of 30m for queue debug",
            ),
            (
                7200.0,
                Some("other"),
                "requested duration (2h) exceeds policy limit of 1h for queue other",
            ),
            (
                36_000.0,
                Some("late"),
                "requested duration (10h) exceeds policy limit of 8h for queue late",
            ),
        ] {
            assert_eq!(check(duration, queue).unwrap_err().text, text);
        }
    }

    #[test]
    fn no_limit_costs_nothing_and_bad_ones_are_named() {
        let mut plugin = LimitDuration::configure(&FakeHost::new(guide())).unwrap();
        plugin
            .reconfigure(&FakeHost::new(json!({"queues": {"a": {}}})))
            .unwrap();
        assert!(plugin.topics().is_empty());
        for (bad, text) in [
            (
                json!({"policy": {"limits": {"duration": "x"}}}),
                "policy.limits.duration: FSD value is malformed",
            ),
            (
                json!({"queues": {"q": {"policy": {"limits": {"duration": 5}}}}}),
                "queues.q.policy.limits.duration",
            ),
        ] {
            let refused = LimitDuration::configure(&FakeHost::new(bad)).unwrap_err();
            assert!(refused.text.contains(text), "{}", refused.text);
        }
    }
}
