//! A job with the dependency `singleton` waits until no other job of its user with its name is active; those that wait go one after another.

use std::collections::{HashMap, HashSet, VecDeque};

use flux_policy_sdk::{Dependency, Job, Jobtap, JobtapHost, Refusal, export_jobtap, json};

const NAME: &str = "attributes.system.job.name";
const DESCRIPTION: &str = "singleton";

/// Active jobs of one user and name.
#[derive(Debug, Default)]
struct Group {
    active: HashSet<u64>,
    /// Those of them that wait, first come first.
    waiting: VecDeque<u64>,
}

/// The plugin.
#[derive(Debug, Default)]
pub struct Singleton {
    groups: HashMap<(u32, String), Group>,
}

fn key(job: &dyn Job) -> Option<(u32, String)> {
    Some((job.userid(), json::string(&job.attribute(NAME)?)?))
}

impl Singleton {
    /// Lets the next job go when only waiting ones are left.
    fn release(host: &dyn JobtapHost, group: &mut Group) {
        if group.active.len() == group.waiting.len()
            && let Some(next) = group.waiting.pop_front()
        {
            host.dependency_remove(next, DESCRIPTION);
        }
    }
}

impl Jobtap for Singleton {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(Singleton::default())
    }

    fn topics(&self) -> Vec<String> {
        vec![
            "job.dependency.singleton".to_owned(),
            format!("job.new {NAME}"),
            format!("job.state.inactive {NAME}"),
            "plugin.query".to_owned(),
        ]
    }

    fn dependency(
        &mut self,
        host: &dyn JobtapHost,
        job: &dyn Job,
        dependency: &Dependency<'_>,
    ) -> Result<(), Refusal> {
        let key = key(job).ok_or_else(|| Refusal::invalid("singleton jobs require a job name"))?;
        let group = self.groups.entry(key).or_default();
        // at a replay the job has been told as new before; what it waited for may be over
        let others = group.active.iter().any(|other| *other != job.id());
        if others {
            host.dependency_add(job.id(), DESCRIPTION);
            if !group.waiting.contains(&job.id()) {
                group.waiting.push_back(job.id());
            }
        } else if dependency.replay {
            host.dependency_remove(job.id(), DESCRIPTION);
        }
        Ok(())
    }

    fn new_job(&mut self, host: &dyn JobtapHost, job: &dyn Job, replay: bool) {
        if let Some(key) = key(job) {
            let group = self.groups.entry(key).or_default();
            group.active.insert(job.id());
            // before all are told again nobody can say that only waiting ones are left
            if !replay {
                Singleton::release(host, group);
            }
        }
    }

    fn state(&mut self, host: &dyn JobtapHost, job: &dyn Job, _: &str) {
        let Some(key) = key(job) else { return };
        let Some(group) = self.groups.get_mut(&key) else {
            return;
        };
        group.active.remove(&job.id());
        group.waiting.retain(|id| *id != job.id());
        Singleton::release(host, group);
        if group.active.is_empty() {
            self.groups.remove(&key);
        }
    }

    fn query(&mut self, _: &dyn JobtapHost) -> String {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by(|a, b| a.0.cmp(b.0));
        let entries = groups.iter().map(|((userid, name), group)| {
            let waiting: Vec<String> = group.waiting.iter().map(u64::to_string).collect();
            format!(
                "{}:{{\"count\":{},\"singletons\":[{}]}}",
                json::quote(&format!("{userid}:{name}")),
                group.active.len(),
                waiting.join(",")
            )
        });
        format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
    }
}

export_jobtap!(Singleton);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};

    fn job(id: u64, name: &str) -> FakeJob {
        FakeJob {
            id,
            userid: 7,
            ..FakeJob::new(format!(
                r#"{{"attributes":{{"system":{{"job":{{"name":"{name}"}}}}}}}}"#
            ))
        }
    }

    fn depend(plugin: &mut Singleton, host: &FakeHost, job: &FakeJob, replay: bool) -> Result<(), Refusal> {
        let dependency = Dependency {
            scheme: "singleton",
            entry: "{}",
            target: None,
            replay,
        };
        plugin.dependency(host, job, &dependency)
    }

    #[test]
    fn one_after_another() {
        let host = FakeHost::default();
        let mut plugin = Singleton::configure(&host).unwrap();
        plugin.new_job(&host, &job(1, "a"), false);
        plugin.new_job(&host, &job(9, "b"), false);
        for id in [2, 3] {
            depend(&mut plugin, &host, &job(id, "a"), false).unwrap();
            plugin.new_job(&host, &job(id, "a"), false);
        }
        assert_eq!(
            host.take_wishes(),
            ["dependency-add 2 singleton", "dependency-add 3 singleton"]
        );
        assert_eq!(
            plugin.query(&host),
            r#"{"7:a":{"count":3,"singletons":[2,3]},"7:b":{"count":1,"singletons":[]}}"#
        );
        plugin.state(&host, &job(1, "a"), "inactive");
        assert_eq!(host.take_wishes(), ["dependency-remove 2 singleton"]);
        // a waiting one that was cancelled lets nobody go
        plugin.state(&host, &job(3, "a"), "inactive");
        assert!(host.take_wishes().is_empty());
        plugin.state(&host, &job(2, "a"), "inactive");
        plugin.state(&host, &job(9, "b"), "inactive");
        assert!(plugin.groups.is_empty());
        assert_eq!(
            depend(&mut plugin, &host, &FakeJob::new("{}"), false)
                .unwrap_err()
                .text,
            "singleton jobs require a job name"
        );
    }

    #[test]
    fn told_again_after_a_restart() {
        let host = FakeHost::default();
        let mut plugin = Singleton::configure(&host).unwrap();
        plugin.new_job(&host, &job(1, "a"), true);
        plugin.new_job(&host, &job(2, "a"), true);
        depend(&mut plugin, &host, &job(2, "a"), true).unwrap();
        assert_eq!(host.take_wishes(), ["dependency-add 2 singleton"]);
        // the other one ended while nobody looked
        let mut plugin = Singleton::configure(&host).unwrap();
        plugin.new_job(&host, &job(2, "a"), true);
        depend(&mut plugin, &host, &job(2, "a"), true).unwrap();
        assert_eq!(host.take_wishes(), ["dependency-remove 2 singleton"]);
    }
}
