//! Which queues are there, who may submit to them, and which are scheduled? Pure (RFC 33; flux-core: job-manager/queues.c,
//! behaviour).
//!
//! Without a `[queues]` table there is one anonymous queue, which begins enabled and started. Named queues begin
//! enabled and stopped. A virtual queue (`parent`) is scheduled while both it and its parent are started.

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

/// Why a request names no queue that could be used. The texts are flux-core's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueueError {
    #[error("'{0}' is not a valid queue")]
    Unknown(String),
    #[error("a named queue is required")]
    NameRequired,
    #[error("queue {0}: configuration must be a table")]
    NotTable(String),
    #[error("queue '{0}': 'parent' must be a string")]
    ParentType(String),
    #[error("queue '{0}': parent queue is itself")]
    ParentSelf(String),
    #[error("queue '{0}': parent queue '{1}' is not configured")]
    ParentUnknown(String, String),
    #[error("queue '{0}': parent queue '{1}' is itself a virtual queue")]
    ParentVirtual(String, String),
    #[error("job submission is disabled: {0}")]
    Disabled(String),
    #[error("job submission to {0} is disabled: {1}")]
    DisabledNamed(String, String),
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    enabled: bool,
    disable_reason: Option<String>,
    started: bool,
    /// What a restart restores: `started` without changes made with `nocheckpoint`.
    started_sticky: bool,
    stop_reason: Option<String>,
    parent: Option<String>,
}

impl Queue {
    fn new(started: bool) -> Self {
        Queue {
            enabled: true,
            disable_reason: None,
            started,
            started_sticky: started,
            stop_reason: None,
            parent: None,
        }
    }
}

/// All queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queues {
    anonymous: Queue,
    named: IndexMap<String, Queue>,
}

impl Default for Queues {
    fn default() -> Self {
        Queues {
            anonymous: Queue::new(true),
            named: IndexMap::new(),
        }
    }
}

impl Queues {
    /// Checks a `[queues]` table (null: none).
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(config: &Value) -> Result<(), QueueError> {
        let Value::Object(table) = config else {
            return Ok(());
        };
        for (name, entry) in table {
            if !entry.is_object() {
                return Err(QueueError::NotTable(name.clone()));
            }
            let Some(parent) = entry.get("parent") else {
                continue;
            };
            let Some(parent) = parent.as_str() else {
                return Err(QueueError::ParentType(name.clone()));
            };
            if parent == name {
                return Err(QueueError::ParentSelf(name.clone()));
            }
            match table.get(parent) {
                None => return Err(QueueError::ParentUnknown(name.clone(), parent.to_owned())),
                Some(other) if other.get("parent").is_some() => {
                    return Err(QueueError::ParentVirtual(name.clone(), parent.to_owned()));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Takes a checked `[queues]` table; queues that remain keep their state.
    pub(super) fn configure(&mut self, config: &Value) {
        let empty = Map::new();
        let table = config.as_object().unwrap_or(&empty);
        if table.is_empty() && !self.named.is_empty() {
            self.anonymous = Queue::new(true);
        }
        self.named.retain(|name, _| table.contains_key(name));
        for (name, entry) in table {
            let queue = self
                .named
                .entry(name.clone())
                .or_insert_with(|| Queue::new(false));
            queue.parent = entry.get("parent").and_then(Value::as_str).map(str::to_owned);
        }
    }

    /// Returns the names; empty with the anonymous queue.
    pub(super) fn names(&self) -> Vec<&str> {
        self.named.keys().map(String::as_str).collect()
    }

    fn get(&self, name: Option<&str>) -> Result<&Queue, QueueError> {
        match name {
            Some(name) => self
                .named
                .get(name)
                .ok_or_else(|| QueueError::Unknown(name.to_owned())),
            None if self.named.is_empty() => Ok(&self.anonymous),
            None => Err(QueueError::NameRequired),
        }
    }

    /// Changes one queue, or all when `name` is `None`.
    fn change(&mut self, name: Option<&str>, change: impl Fn(&mut Queue)) -> Result<(), QueueError> {
        match name {
            Some(name) => {
                change(
                    self.named
                        .get_mut(name)
                        .ok_or_else(|| QueueError::Unknown(name.to_owned()))?,
                );
            }
            None if self.named.is_empty() => change(&mut self.anonymous),
            None => self.named.values_mut().for_each(change),
        }
        Ok(())
    }

    /// Enables (no reason) or disables submission.
    ///
    /// # Errors
    /// There is no such queue.
    pub(super) fn enable(&mut self, name: Option<&str>, disabled: Option<&str>) -> Result<(), QueueError> {
        self.change(name, |queue| {
            queue.enabled = disabled.is_none();
            queue.disable_reason = disabled.map(str::to_owned);
        })
    }

    /// Starts or stops scheduling; `sticky` changes survive a restart.
    ///
    /// # Errors
    /// There is no such queue.
    pub(super) fn start(
        &mut self,
        name: Option<&str>,
        start: bool,
        reason: Option<&str>,
        sticky: bool,
    ) -> Result<(), QueueError> {
        self.change(name, |queue| {
            queue.started = start;
            queue.stop_reason = reason.filter(|_| !start).map(str::to_owned);
            if sticky {
                queue.started_sticky = start;
            }
        })
    }

    /// Stops every started queue because of a restart.
    pub(super) fn stop_for_restart(&mut self) {
        let stop = |queue: &mut Queue| {
            if queue.started {
                queue.started = false;
                queue.started_sticky = false;
                queue.stop_reason = Some("Automatically stopped due to restart".to_owned());
            }
        };
        stop(&mut self.anonymous);
        self.named.values_mut().for_each(stop);
    }

    /// Returns true when jobs of the queue may go to the scheduler.
    pub(super) fn is_started(&self, name: Option<&str>) -> bool {
        let Ok(queue) = self.get(name) else { return false };
        let parent = queue.parent.as_deref().and_then(|parent| self.named.get(parent));
        queue.started && parent.is_none_or(|parent| parent.started)
    }

    /// Checks that a job may be submitted to the queue that its jobspec names.
    ///
    /// # Errors
    /// The text for the user.
    pub(super) fn check_submit(&self, name: Option<&str>) -> Result<(), QueueError> {
        let queue = self.get(name)?;
        if queue.enabled {
            return Ok(());
        }
        let reason = queue.disable_reason.clone().unwrap_or_default();
        Err(match name {
            Some(name) => QueueError::DisabledNamed(name.to_owned(), reason),
            None => QueueError::Disabled(reason),
        })
    }

    /// Returns the status object of RFC 33.
    ///
    /// # Errors
    /// There is no such queue.
    pub(super) fn status(&self, name: Option<&str>, sched_ready: bool) -> Result<Value, QueueError> {
        let queue = self.get(name)?;
        let start = sched_ready && self.is_started(name);
        let mut status = json!({"enable": queue.enabled, "start": start});
        let mut stop_reason = queue.stop_reason.clone();
        if let Some(parent) = &queue.parent {
            status["parent"] = parent.as_str().into();
        }
        if !sched_ready {
            if queue.started {
                status["blocked"] = "scheduler".into();
            }
            stop_reason = Some("Scheduler is offline".to_owned());
        } else if queue.started && !start {
            status["blocked"] = "parent".into();
            stop_reason = Some(format!(
                "parent queue '{}' is stopped",
                queue.parent.as_deref().unwrap_or_default()
            ));
        }
        if let (false, Some(reason)) = (queue.enabled, &queue.disable_reason) {
            status["disable_reason"] = reason.as_str().into();
        }
        if let (false, Some(reason)) = (start, stop_reason) {
            status["stop_reason"] = reason.into();
        }
        Ok(status)
    }

    /// Returns what a restart restores.
    pub(super) fn save(&self) -> Value {
        let one = |name: Option<&str>, queue: &Queue| {
            let mut entry = Map::new();
            if let Some(name) = name {
                entry.insert("name".into(), name.into());
            }
            entry.insert("enable".into(), queue.enabled.into());
            if let Some(reason) = &queue.disable_reason {
                entry.insert("disable_reason".into(), reason.as_str().into());
            }
            entry.insert("start".into(), queue.started_sticky.into());
            if let (false, Some(reason)) = (queue.started_sticky, &queue.stop_reason) {
                entry.insert("stop_reason".into(), reason.as_str().into());
            }
            Value::Object(entry)
        };
        if self.named.is_empty() {
            return Value::Array(vec![one(None, &self.anonymous)]);
        }
        self.named
            .iter()
            .map(|(name, queue)| one(Some(name), queue))
            .collect()
    }

    /// Restores what [`Queues::save`] returned; queues that are not configured any more are skipped.
    pub(super) fn restore(&mut self, saved: &Value) {
        for entry in saved.as_array().into_iter().flatten() {
            let queue = match entry.get("name").and_then(Value::as_str) {
                Some(name) => self.named.get_mut(name),
                None if self.named.is_empty() => Some(&mut self.anonymous),
                None => None,
            };
            let Some(queue) = queue else { continue };
            let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
            queue.enabled = entry.get("enable").and_then(Value::as_bool).unwrap_or(true);
            queue.disable_reason = text("disable_reason");
            queue.started = entry
                .get("start")
                .and_then(Value::as_bool)
                .unwrap_or(queue.started);
            queue.started_sticky = queue.started;
            queue.stop_reason = text("stop_reason");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Queues {
        let config = json!({"batch": {}, "debug": {"parent": "batch"}});
        Queues::check(&config).unwrap();
        let mut queues = Queues::default();
        queues.configure(&config);
        queues
    }

    #[test]
    fn anonymous() {
        let mut queues = Queues::default();
        assert!(queues.is_started(None) && !queues.is_started(Some("x")));
        assert_eq!(
            queues.status(None, true).unwrap(),
            json!({"enable": true, "start": true})
        );
        queues.enable(None, Some("maint")).unwrap();
        let refused = queues.check_submit(None).unwrap_err().to_string();
        assert_eq!(refused, "job submission is disabled: maint");
        queues.start(None, false, None, false).unwrap();
        let saved = queues.save();
        assert_eq!(
            saved,
            json!([{"enable": false, "disable_reason": "maint", "start": true}])
        );
        assert_eq!(
            queues.status(None, false).unwrap(),
            json!({"enable": false, "start": false, "disable_reason": "maint", "stop_reason": "Scheduler is offline"})
        );
        let mut again = Queues::default();
        again.restore(&saved);
        assert!(again.is_started(None) && again.check_submit(None).is_err());
        again.stop_for_restart();
        assert_eq!(
            again.status(None, true).unwrap()["stop_reason"],
            json!("Automatically stopped due to restart")
        );
    }

    #[test]
    fn named_and_virtual() {
        let mut queues = named();
        assert_eq!(queues.names(), ["batch", "debug"]);
        assert_eq!(
            queues.check_submit(None).unwrap_err().to_string(),
            "a named queue is required"
        );
        assert_eq!(
            queues.check_submit(Some("x")).unwrap_err().to_string(),
            "'x' is not a valid queue"
        );
        assert!(!queues.is_started(Some("batch")), "named queues begin stopped");
        queues.start(Some("debug"), true, None, true).unwrap();
        assert_eq!(
            queues.status(Some("debug"), true).unwrap(),
            json!({"enable": true, "start": false, "parent": "batch", "blocked": "parent",
                   "stop_reason": "parent queue 'batch' is stopped"})
        );
        queues.start(None, true, None, true).unwrap();
        assert!(queues.is_started(Some("debug")));
        queues.enable(Some("debug"), Some("full")).unwrap();
        let refused = queues.check_submit(Some("debug")).unwrap_err().to_string();
        assert_eq!(refused, "job submission to debug is disabled: full");
        let saved = queues.save();
        let mut again = named();
        again.restore(&saved);
        assert_eq!(again, queues);
        queues.configure(&Value::Null);
        assert!(queues.is_started(None));
    }

    #[test]
    fn bad_tables() {
        for (config, text) in [
            (json!({"a": 1}), "queue a: configuration must be a table"),
            (
                json!({"a": {"parent": 1}}),
                "queue 'a': 'parent' must be a string",
            ),
            (json!({"a": {"parent": "a"}}), "queue 'a': parent queue is itself"),
            (
                json!({"a": {"parent": "b"}}),
                "queue 'a': parent queue 'b' is not configured",
            ),
            (
                json!({"a": {}, "b": {"parent": "a"}, "c": {"parent": "b"}}),
                "queue 'c': parent queue 'b' is itself a virtual queue",
            ),
        ] {
            assert_eq!(Queues::check(&config).unwrap_err().to_string(), text);
        }
    }
}
