//! What does the site say about queues? (`[sched-simple]`, and the keys of `[sched-fluxion-qmanager]` that existing sites have.)

use std::collections::HashMap;

use flux_policy_sdk::{Host, Level, Refusal};
use serde_json::{Map, Value};

/// How many jobs of a queue may have plans, and whether others may pass them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nobody passes the first job.
    Fcfs,
    /// The first waiting job is not delayed.
    Easy,
    /// No waiting job is delayed by one behind it.
    Conservative,
    /// The first waiting jobs are not delayed.
    Hybrid,
}

impl Kind {
    fn parse(name: &str) -> Option<Kind> {
        Some(match name {
            "fcfs" => Kind::Fcfs,
            "easy" => Kind::Easy,
            "conservative" => Kind::Conservative,
            "hybrid" => Kind::Hybrid,
            _ => return None,
        })
    }
}

/// Fluxion's defaults.
const QUEUE_DEPTH: usize = 32;
const QUEUE_DEPTH_MAX: usize = 1_000_000;
const RESERVATION_DEPTH: usize = 64;
const RESERVATION_DEPTH_MAX: usize = 100_000;

/// The policy of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    kind: Kind,
    queue_depth: usize,
    reservation_depth: usize,
    queue_depth_max: usize,
    reservation_depth_max: usize,
}

impl Rules {
    fn new(kind: Kind) -> Rules {
        Rules {
            kind,
            queue_depth: QUEUE_DEPTH,
            reservation_depth: RESERVATION_DEPTH,
            queue_depth_max: QUEUE_DEPTH_MAX,
            reservation_depth_max: RESERVATION_DEPTH_MAX,
        }
    }

    /// Returns how many waiting jobs of the queue are looked at.
    pub(crate) fn depth(&self) -> usize {
        self.queue_depth.min(self.queue_depth_max)
    }

    /// Returns how many of them get a plan.
    pub(crate) fn plans_max(&self) -> usize {
        match self.kind {
            Kind::Fcfs => 0,
            Kind::Easy => 1,
            Kind::Conservative => self.reservation_depth_max,
            Kind::Hybrid => self.reservation_depth.min(self.reservation_depth_max),
        }
    }

    /// Returns true when nobody may pass a job that waits.
    pub(crate) fn is_strict(&self) -> bool {
        self.kind == Kind::Fcfs
    }
}

/// The policies of all queues.
#[derive(Debug)]
pub(crate) struct Settings {
    rules: Rules,
    queues: HashMap<String, Rules>,
}

impl Settings {
    /// Reads the configuration; `kind` is the scheduler's own policy.
    pub(crate) fn read(host: &dyn Host, kind: Kind) -> Result<Settings, Refusal> {
        let mut settings = Settings {
            rules: Rules::new(kind),
            queues: HashMap::new(),
        };
        settings.read_fluxion(host, &table(host, "sched-fluxion-qmanager")?)?;
        settings.read_own(&table(host, "sched-simple")?)?;
        Ok(settings)
    }

    /// Returns the policy of a queue.
    pub(crate) fn rules(&self, queue: &str) -> Rules {
        self.queues.get(queue).copied().unwrap_or(self.rules)
    }

    fn queue(&mut self, name: &str) -> &mut Rules {
        self.queues.entry(name.to_owned()).or_insert(self.rules)
    }

    fn read_own(&mut self, own: &Map<String, Value>) -> Result<(), Refusal> {
        depths(&mut self.rules, own, "sched-simple")?;
        let Some(queues) = own.get("queues") else {
            return Ok(());
        };
        let queues = queues
            .as_object()
            .ok_or_else(|| Refusal::invalid("sched-simple.queues must be a table"))?;
        for (name, table) in queues {
            let key = format!("sched-simple.queues.{name}");
            let table = table
                .as_object()
                .ok_or_else(|| Refusal::invalid(format!("{key} must be a table")))?;
            let rules = self.queue(name);
            depths(rules, table, &key)?;
            if let Some(policy) = table.get("policy") {
                rules.kind = kind(policy.as_str().unwrap_or(""), &format!("{key}.policy"))?;
            }
            if let Some(unknown) = table.keys().find(|key| {
                !matches!(
                    key.as_str(),
                    "policy" | "match-policy" | "queue-depth" | "reservation-depth"
                )
            }) {
                return Err(Refusal::invalid(format!(
                    "{key}.{unknown} is not known; known are policy, match-policy, queue-depth and reservation-depth"
                )));
            }
        }
        Ok(())
    }

    fn read_fluxion(&mut self, host: &dyn Host, fluxion: &Map<String, Value>) -> Result<(), Refusal> {
        const TABLE: &str = "sched-fluxion-qmanager";
        for (name, value) in fluxion {
            let key = format!("{TABLE}.{name}");
            match name.as_str() {
                // which component runs is the broker's part
                "queue-policy" => {
                    kind(value.as_str().unwrap_or(""), &key)?;
                }
                "queue-params" | "policy-params" => params(&mut self.rules, value, &key)?,
                _ => {}
            }
        }
        for (name, value) in fluxion {
            let key = format!("{TABLE}.{name}");
            match name.as_str() {
                "queue-policy" | "queue-params" | "policy-params" => {}
                "queue-policy-per-queue" => {
                    for (queue, policy) in pairs(value, ':', &key)? {
                        self.queue(&queue).kind = kind(&policy, &key)?;
                    }
                }
                "queue-params-per-queue" | "policy-params-per-queue" => {
                    for (queue, list) in pairs(value, ':', &key)? {
                        let rules = self.queue(&queue);
                        params(rules, &Value::from(list), &key)?;
                    }
                }
                _ => host.log(Level::Warning, &format!("{key} is not supported and ignored")),
            }
        }
        Ok(())
    }
}

fn table(host: &dyn Host, name: &str) -> Result<Map<String, Value>, Refusal> {
    let Some(text) = host.config(name) else {
        return Ok(Map::new());
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(table)) => Ok(table),
        _ => Err(Refusal::invalid(format!("{name} must be a table"))),
    }
}

fn kind(name: &str, key: &str) -> Result<Kind, Refusal> {
    Kind::parse(name).ok_or_else(|| {
        Refusal::invalid(format!(
            "{key}: unknown policy '{name}'; known are fcfs, easy, conservative and hybrid"
        ))
    })
}

/// Reads the two depths of a table.
fn depths(rules: &mut Rules, table: &Map<String, Value>, key: &str) -> Result<(), Refusal> {
    for (name, to) in [
        ("queue-depth", &mut rules.queue_depth),
        ("reservation-depth", &mut rules.reservation_depth),
    ] {
        if let Some(value) = table.get(name) {
            *to = depth(value, &format!("{key}.{name}"))?;
        }
    }
    Ok(())
}

/// Reads Fluxion's parameters, a table or `name=number,...`.
fn params(rules: &mut Rules, value: &Value, key: &str) -> Result<(), Refusal> {
    for (name, value) in pairs(value, '=', key)? {
        let key = format!("{key}.{name}");
        let to = match name.as_str() {
            "queue-depth" => &mut rules.queue_depth,
            "max-queue-depth" => &mut rules.queue_depth_max,
            "reservation-depth" => &mut rules.reservation_depth,
            "max-reservation-depth" => &mut rules.reservation_depth_max,
            _ => {
                return Err(Refusal::invalid(format!(
                    "{key} is not supported; supported are queue-depth, max-queue-depth, reservation-depth and max-reservation-depth"
                )));
            }
        };
        *to = depth(&Value::from(value), &key)?;
    }
    Ok(())
}

/// Reads a table, or words with a separator between name and value.
fn pairs(value: &Value, separator: char, key: &str) -> Result<Vec<(String, String)>, Refusal> {
    match value {
        Value::Object(table) => Ok(table
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) => (name.clone(), text.clone()),
                other => (name.clone(), other.to_string()),
            })
            .collect()),
        Value::String(text) => text
            // parameters are separated by commas, queues by blanks
            .split(if separator == '=' { ',' } else { ' ' })
            .filter(|word| !word.is_empty())
            .map(|word| {
                let pair = word.split_once(separator);
                pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .ok_or_else(|| Refusal::invalid(format!("{key}: '{word}' has no '{separator}'")))
            })
            .collect(),
        _ => Err(Refusal::invalid(format!("{key} must be a table or a string"))),
    }
}

fn depth(value: &Value, key: &str) -> Result<usize, Refusal> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    number
        .filter(|&number| number > 0)
        .map(|number| usize::try_from(number).unwrap_or(usize::MAX))
        .ok_or_else(|| Refusal::invalid(format!("{key} must be a positive whole number, not {value}")))
}
