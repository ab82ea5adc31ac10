//! A job may not ask for more, or less, nodes, cores and GPUs than `policy.limits.job-size`; a queue's own limits, or those of its parent, go first.

use std::collections::HashMap;

use flux_policy_sdk::{Job, Jobtap, JobtapHost, Refusal, export_jobtap, json};
use serde_json::Value;

/// What is limited, in the order of the checks.
const KINDS: [&str; 3] = ["nnodes", "ncores", "ngpus"];
const UNLIMITED: i64 = -1;

/// One limit per kind, as far as they are set.
type Sizes = [Option<i64>; 3];

/// Upper and lower limits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Limits {
    max: Sizes,
    min: Sizes,
}

/// The plugin.
#[derive(Debug, Default)]
pub struct LimitJobSize {
    general: Limits,
    queues: HashMap<String, Limits>,
}

impl Limits {
    /// Reads the limits of `[policy]` or of a queue; `place` names it in errors.
    fn read(table: &Value, place: &str) -> Result<Limits, Refusal> {
        let sizes = |bound: &str| {
            let mut sizes = Sizes::default();
            let Some(table) = table.pointer(&format!("/policy/limits/job-size/{bound}")) else {
                return Ok(sizes);
            };
            for (kind, size) in KINDS.iter().zip(&mut sizes) {
                let Some(value) = table.get(kind) else { continue };
                let number = value.as_i64().filter(|number| *number >= UNLIMITED);
                *size = Some(number.ok_or_else(|| {
                    Refusal::invalid(format!(
                        "{place}policy.limits.job-size.{bound}: size must be -1 (unlimited), or >= 0"
                    ))
                })?);
            }
            Ok(sizes)
        };
        Ok(Limits {
            max: sizes("max")?,
            min: sizes("min")?,
        })
    }

    /// Returns these limits where the others have none.
    fn or(self, other: Limits) -> Limits {
        let either = |mine: Sizes, other: Sizes| [0, 1, 2].map(|kind| mine[kind].or(other[kind]));
        Limits {
            max: either(self.max, other.max),
            min: either(self.min, other.min),
        }
    }

    fn is_set(&self) -> bool {
        self.max
            .iter()
            .chain(&self.min)
            .flatten()
            .any(|limit| *limit != UNLIMITED)
    }
}

impl LimitJobSize {
    fn read(config: &Value) -> Result<LimitJobSize, Refusal> {
        let mut read = LimitJobSize {
            general: Limits::read(config, "")?,
            queues: HashMap::new(),
        };
        let none = serde_json::Map::new();
        let queues = config.get("queues").and_then(Value::as_object).unwrap_or(&none);
        for (name, entry) in queues {
            let mut limits = Limits::read(entry, &format!("queues.{name}."))?;
            if let Some(parent) = entry.get("parent").and_then(Value::as_str) {
                let entry = queues.get(parent).unwrap_or(&Value::Null);
                limits = limits.or(Limits::read(entry, &format!("queues.{parent}."))?);
            }
            read.queues.insert(name.clone(), limits);
        }
        Ok(read)
    }

    fn check(&self, queue: Option<&str>, counts: [i64; 3]) -> Result<(), Refusal> {
        let of_queue = queue
            .and_then(|queue| self.queues.get(queue))
            .copied()
            .unwrap_or_default();
        let limits = of_queue.or(self.general);
        let place = queue
            .map(|queue| format!(" for queue {queue}"))
            .unwrap_or_default();
        type IsBeyond = fn(i64, i64) -> bool;
        let checks: [(&str, Sizes, IsBeyond); 2] = [
            ("exceeds", limits.max, |count, limit| count > limit),
            ("is under", limits.min, |count, limit| count < limit),
        ];
        for (how, limits, is_beyond) in checks {
            for ((kind, limit), count) in KINDS.iter().zip(limits).zip(counts) {
                let Some(limit) = limit.filter(|limit| *limit != UNLIMITED) else {
                    continue;
                };
                if is_beyond(count, limit) {
                    return Err(Refusal::invalid(format!(
                        "requested {kind} ({count}) {how} policy limit of {limit}{place}"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// What a job asks for: nodes (0 when it leaves them to the scheduler), cores and GPUs.
fn counts(resources: &Value) -> Result<[i64; 3], String> {
    let mut found = Found {
        nodes: 0,
        slots: 0,
        cores: 0,
        gpus: 0,
    };
    found.read_level(resources, 0, 1)?;
    if found.slots <= 0 {
        return Err("Unable to determine slot count".to_owned());
    }
    if found.cores <= 0 {
        return Err("Unable to determine slot size".to_owned());
    }
    let slots = if found.nodes > 0 {
        found.slots.saturating_mul(found.nodes)
    } else {
        found.slots
    };
    Ok([
        found.nodes,
        slots.saturating_mul(found.cores),
        slots.saturating_mul(found.gpus),
    ])
}

struct Found {
    nodes: i64,
    slots: i64,
    cores: i64,
    gpus: i64,
}

impl Found {
    fn read_level(&mut self, list: &Value, level: usize, factor: i64) -> Result<(), String> {
        let list = list
            .as_array()
            .ok_or_else(|| format!("level {level}: must be an array"))?;
        for vertex in list {
            let kind = vertex.get("type").and_then(Value::as_str);
            let kind = kind.ok_or_else(|| format!("level {level}: type must be a string"))?;
            let count = vertex.get("count").and_then(Value::as_i64);
            let count = count.ok_or_else(|| format!("level {level}: count must be an integer"))?;
            if count <= 0 {
                return Err(format!("Invalid count {count} for type '{kind}'"));
            }
            let factor = factor.saturating_mul(count);
            match kind {
                "node" => self.nodes = factor,
                "slot" => self.slots = count,
                "core" => self.cores = count,
                "gpu" => self.gpus = count,
                _ => {}
            }
            if let Some(with) = vertex.get("with") {
                self.read_level(with, level + 1, factor)?;
            }
        }
        Ok(())
    }
}

fn read(host: &dyn JobtapHost) -> Result<LimitJobSize, Refusal> {
    let mut config = serde_json::Map::new();
    for key in ["policy", "queues"] {
        let part = host.config(key).and_then(|text| serde_json::from_str(&text).ok());
        config.insert(key.to_owned(), part.unwrap_or(Value::Null));
    }
    LimitJobSize::read(&Value::Object(config))
}

impl Jobtap for LimitJobSize {
    fn configure(host: &dyn JobtapHost) -> Result<Self, Refusal> {
        read(host)
    }

    fn reconfigure(&mut self, host: &dyn JobtapHost) -> Result<(), Refusal> {
        *self = read(host)?;
        Ok(())
    }

    fn topics(&self) -> Vec<String> {
        if self.general.is_set() || self.queues.values().any(Limits::is_set) {
            vec!["job.validate".to_owned()]
        } else {
            Vec::new()
        }
    }

    fn validate(&mut self, _: &dyn JobtapHost, job: &dyn Job) -> Result<(), Refusal> {
        let resources = job.attribute("resources").unwrap_or_default();
        let resources = serde_json::from_str(&resources).unwrap_or(Value::Null);
        let counts = counts(&resources).map_err(Refusal::invalid)?;
        let queue = job
            .attribute("attributes.system.queue")
            .and_then(|text| json::string(&text));
        self.check(queue.as_deref(), counts)
    }
}

export_jobtap!(LimitJobSize);

#[cfg(test)]
mod tests;
