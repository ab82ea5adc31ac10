//! A job waits in DEPEND for another: until it starts (`after`, `afterstart`), ends (`afterany`), succeeds (`afterok`), fails (`afternotok`), or ends by an
//! exception (`afterexcept`). What can never happen any more is an exception, or a refusal at submission.

use std::collections::BTreeMap;

use flux_policy_sdk::{Dependency, Job, Jobtap, JobtapHost, Refusal, export_jobtap, json};

const INACTIVE: u32 = 64;
const COMPLETED: u32 = 1;

/// What a job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Start,
    Any,
    Ok,
    NotOk,
    Except,
}

impl After {
    fn parse(scheme: &str) -> Option<After> {
        Some(match scheme {
            "after" | "afterstart" => After::Start,
            "afterany" => After::Any,
            "afterok" => After::Ok,
            "afternotok" => After::NotOk,
            "afterexcept" => After::Except,
            _ => return None,
        })
    }

    /// Returns the name in the description of the dependency.
    fn name(self) -> &'static str {
        match self {
            After::Start => "after-start",
            After::Any => "after-finish",
            After::Ok => "after-success",
            After::NotOk => "after-failure",
            After::Except => "after-except",
        }
    }

    /// Returns true when the end of a job that had resources is what was waited for.
    fn is_met_by(self, target: &dyn Job) -> bool {
        let completed = target.result() == COMPLETED;
        match self {
            After::Start => false,
            After::Any => true,
            After::Ok => completed,
            After::NotOk => !completed,
            After::Except => !completed && target.ended_by() == "exception",
        }
    }
}

/// A job that waits.
#[derive(Clone, Debug)]
struct Waiter {
    id: u64,
    after: After,
    description: String,
}

/// The plugin: who waits for which job.
#[derive(Debug, Default)]
pub struct DependencyAfter {
    waiters: BTreeMap<u64, Vec<Waiter>>,
}

impl DependencyAfter {
    /// The target has ended: lets go who waited for this, and tells the others that they wait in vain.
    fn ended(&mut self, host: &dyn JobtapHost, target: &dyn Job) {
        let ran = target.posted("alloc");
        for waiter in self.waiters.remove(&target.id()).unwrap_or_default() {
            let met = if ran {
                waiter.after.is_met_by(target)
            } else {
                // a job that never ran satisfies nobody but those who wait for any end
                waiter.after == After::Any
            };
            if met {
                host.dependency_remove(waiter.id, &waiter.description);
            } else {
                let why = if ran {
                    "can never be satisfied"
                } else {
                    "job never started"
                };
                let note = format!("dependency {} {why}", waiter.description);
                host.raise(waiter.id, "dependency", 0, &note);
            }
        }
    }
}

/// Says why a dependency on a job that is inactive cannot be met; nothing when it is.
fn check_inactive(after: After, target: &dyn Job, value: &str) -> Result<(), Refusal> {
    let refuse = |text: String| Err(Refusal::invalid(format!("dependency: {text}")));
    if after == After::Any {
        return Ok(());
    }
    if !target.posted("alloc") || (after == After::Start && !target.posted("start")) {
        return refuse(format!("after: {value} never started"));
    }
    if after == After::Start || after.is_met_by(target) {
        return Ok(());
    }
    match after {
        After::Ok => refuse(format!("afterok: job {value} failed or was canceled")),
        After::NotOk => refuse(format!("afternotok: job {value} succeeded")),
        _ => refuse(format!("afterexcept: job {value}: no exception")),
    }
}

impl Jobtap for DependencyAfter {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(DependencyAfter::default())
    }

    fn topics(&self) -> Vec<String> {
        let topics = [
            "job.dependency.after",
            "job.dependency.afterstart",
            "job.dependency.afterany",
            "job.dependency.afterok",
            "job.dependency.afternotok",
            "job.dependency.afterexcept",
            "job.event.start",
            "job.event.clean",
            "plugin.query",
        ];
        topics.map(str::to_owned).to_vec()
    }

    fn dependency(
        &mut self,
        host: &dyn JobtapHost,
        job: &dyn Job,
        dependency: &Dependency<'_>,
    ) -> Result<(), Refusal> {
        let scheme = dependency.scheme;
        let value = json::Object::parse(dependency.entry)
            .and_then(|entry| entry.get("value").and_then(json::string))
            .ok_or_else(|| Refusal::invalid("dependency: after: value must be a string"))?;
        let after = After::parse(scheme)
            .ok_or_else(|| Refusal::invalid(format!("invalid dependency scheme: {scheme}")))?;
        if scheme == "after" && !dependency.replay {
            let note = "dependency scheme 'after' is deprecated, use 'afterstart'";
            host.raise(job.id(), "dependency", 3, note);
        }
        let Some(target) = dependency.target else {
            return Err(Refusal::invalid(format!(
                "dependency: {scheme}: id {value}: job not found"
            )));
        };
        if target.userid() != job.userid() {
            return Err(Refusal::invalid(format!(
                "{scheme}: Permission denied for job {value}"
            )));
        }
        let description = format!("{}={value}", after.name());
        host.dependency_add(job.id(), &description);
        if target.state() == INACTIVE {
            check_inactive(after, target, &value)?;
            host.dependency_remove(job.id(), &description);
            return Ok(());
        }
        if after == After::Start && target.posted("start") {
            host.dependency_remove(job.id(), &description);
            return Ok(());
        }
        let waiters = self.waiters.entry(target.id()).or_default();
        waiters.retain(|waiter| waiter.id != job.id() || waiter.description != description);
        waiters.push(Waiter {
            id: job.id(),
            after,
            description,
        });
        host.subscribe(target.id());
        Ok(())
    }

    fn event(&mut self, host: &dyn JobtapHost, job: &dyn Job, name: &str, _: &str) {
        if name == "clean" {
            self.ended(host, job);
            return;
        }
        if let Some(waiters) = self.waiters.get_mut(&job.id()) {
            waiters.retain(|waiter| {
                if waiter.after == After::Start {
                    host.dependency_remove(waiter.id, &waiter.description);
                }
                waiter.after != After::Start
            });
        }
    }

    fn query(&mut self, _: &dyn JobtapHost) -> String {
        let all = self.waiters.iter().flat_map(|(target, waiters)| {
            waiters.iter().map(move |waiter| {
                format!(
                    r#"{{"id":{target},"depid":{},"type":"{}","description":{}}}"#,
                    waiter.id,
                    waiter.after.name(),
                    json::quote(&waiter.description)
                )
            })
        });
        format!(r#"{{"dependencies":[{}]}}"#, all.collect::<Vec<_>>().join(","))
    }
}

export_jobtap!(DependencyAfter);

#[cfg(test)]
mod tests;
