//! Which callbacks does any plugin want? Asked for every event of every job.

use flux_policy::Topic;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// For which jobs: all (`None`), or those whose jobspec has a value at this JSON pointer.
type Only = Option<Box<str>>;

/// What all plugins together want.
#[derive(Debug, Default)]
pub(in super::super) struct Wants {
    admission: Vec<Only>,
    /// By the number of the state's bit.
    states: [Vec<Only>; 7],
    priority: Vec<Only>,
    /// What a plugin that is new must be told of active jobs.
    replay: Vec<Only>,
    added: Vec<Only>,
    pub(super) removed: bool,
    pub(super) destroy: bool,
    schemes: HashSet<Arc<str>>,
    /// Keys of updates.
    updates: HashSet<Arc<str>>,
    /// (plugin, event)
    events: HashSet<(Arc<str>, Arc<str>)>,
    /// Methods by topic: plugin, method, for guests too.
    pub(super) methods: HashMap<String, (Arc<str>, String, bool)>,
}

impl Wants {
    /// Returns what these plugins want.
    pub(super) fn of<'a>(plugins: impl Iterator<Item = (&'a Arc<str>, &'a [Topic])>) -> Wants {
        let mut wants = Wants::default();
        for (plugin, topics) in plugins {
            let before = wants.replay.len();
            for topic in topics {
                wants.add(plugin, topic);
            }
            if topics.iter().any(|topic| &*topic.name == "job.known") {
                // who is told all jobs at once need not be told each
                wants.replay.truncate(before);
            }
        }
        wants
    }

    fn add(&mut self, plugin: &Arc<str>, topic: &Topic) {
        let only: Only = topic
            .only
            .as_ref()
            .map(|path| format!("/{}", path.replace('.', "/")).into());
        if let Some(bit) = topic.state() {
            let number = usize::try_from(bit.trailing_zeros()).unwrap_or(0);
            if let Some(list) = self.states.get_mut(number) {
                list.push(only.clone());
            }
            match bit {
                2 => {
                    self.admission.push(only.clone());
                    self.replay.push(only);
                }
                4 => self.admission.push(only),
                _ => {}
            }
            return;
        }
        match &*topic.name {
            "job.create" | "job.new" => {
                self.admission.push(only.clone());
                self.replay.push(only);
            }
            "job.validate" => self.admission.push(only),
            "job.priority.get" => self.priority.push(only),
            "job.inactive-add" => self.added.push(only),
            "job.inactive-remove" => self.removed = true,
            "job.destroy" => self.destroy = true,
            _ => self.add_parameter(plugin, topic),
        }
    }

    fn add_parameter(&mut self, plugin: &Arc<str>, topic: &Topic) {
        let name = &*topic.name;
        if let Some(scheme) = name.strip_prefix("job.dependency.") {
            self.schemes.insert(Arc::from(scheme));
        } else if let Some(key) = name.strip_prefix("job.update.") {
            self.updates.insert(Arc::from(key));
        } else if let Some(event) = name.strip_prefix("job.event.") {
            self.events.insert((plugin.clone(), Arc::from(event)));
        } else if let Some(method) = name.strip_prefix("service.") {
            let service = super::names::service(plugin);
            let topic_of = format!("{}.{service}.{method}", super::super::api::SERVICE);
            let user = topic.only.as_deref() == Some("user");
            self.methods
                .insert(topic_of, (plugin.clone(), method.to_owned(), user));
        }
    }

    /// Returns true when a submission must cross.
    pub(super) fn admits(&self, jobspec: &Value, urgency: u8) -> bool {
        any(&self.admission, jobspec) || self.asks_priority(jobspec, urgency)
    }

    /// Returns true when plugins say something about the priority of a job of this urgency.
    pub(in super::super) fn asks_priority(&self, jobspec: &Value, urgency: u8) -> bool {
        !self.priority.is_empty() && !matches!(urgency, 0 | 31) && any(&self.priority, jobspec)
    }

    /// Returns true when a plugin wants to know that a job is in this state.
    pub(super) fn state(&self, bit: u32, jobspec: &Value) -> bool {
        let number = usize::try_from(bit.trailing_zeros()).unwrap_or(0);
        self.states.get(number).is_some_and(|list| any(list, jobspec))
    }

    /// Returns true when an active job must be told again.
    pub(super) fn replays(&self, jobspec: &Value, has_dependencies: bool) -> bool {
        any(&self.replay, jobspec) || (has_dependencies && !self.schemes.is_empty())
    }

    /// Returns true when a plugin wants to know of jobs that are out of the way.
    pub(super) fn added(&self, jobspec: &Value) -> bool {
        any(&self.added, jobspec)
    }

    /// Returns true when a plugin knows the scheme.
    pub(super) fn scheme(&self, scheme: &str) -> bool {
        self.schemes.contains(scheme)
    }

    /// Returns true when a plugin decides on updates of this key.
    pub(super) fn update(&self, key: &str) -> bool {
        self.updates.contains(key)
    }

    /// Returns true when the plugin wants events of this name.
    pub(super) fn event(&self, plugin: &Arc<str>, name: &str) -> bool {
        self.events.contains(&(plugin.clone(), Arc::from(name)))
    }
}

fn any(list: &[Only], jobspec: &Value) -> bool {
    list.iter().any(|only| {
        only.as_ref()
            .is_none_or(|pointer| jobspec.pointer(pointer).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_nobody_wants_does_not_cross() {
        let plugin: Arc<str> = Arc::from(".x");
        let topics: Vec<Topic> = [
            "job.new attributes.system.job.name",
            "job.state.run",
            "job.priority.get",
            "job.dependency.afterok",
            "job.update.attributes.system.duration",
            "job.event.start",
            "service.get user",
        ]
        .iter()
        .map(|text| Topic::parse(text).unwrap())
        .collect();
        let wants = Wants::of([(&plugin, topics.as_slice())].into_iter());
        let (named, plain) = (
            json!({"attributes": {"system": {"job": {"name": "a"}}}}),
            json!({"attributes": {"system": {}}}),
        );
        assert!(wants.admits(&plain, 16) && !wants.admits(&plain, 0) && wants.admits(&named, 0));
        assert!(wants.state(16, &plain) && !wants.state(32, &plain) && !wants.state(2, &plain));
        assert!(wants.replays(&named, false) && !wants.replays(&plain, false) && wants.replays(&plain, true));
        assert!(wants.scheme("afterok") && !wants.scheme("x"));
        assert!(wants.update("attributes.system.duration"));
        assert!(wants.event(&plugin, "start") && !wants.event(&plugin, "clean"));
        let (of, method, user) = wants.methods.get("job-manager.x.get").unwrap();
        assert_eq!((of, method.as_str(), *user), (&plugin, "get", true));
        assert!(!Wants::default().admits(&named, 16));
    }
}
