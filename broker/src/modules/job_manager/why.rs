//! Why does a job not run yet? (`job-manager.why`, ours.)

use super::JobManager;
use super::job::{Alloc, Asked, Exec, Job};
use super::state::State;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct WhyRequest {
    id: JobId,
}

impl JobManager {
    /// Answers what holds an active job: its owner and the instance owner may ask.
    pub(super) fn on_why(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let WhyRequest { id } = req.payload_json()?;
        let job = self.find(id, errno::ENOENT, "unknown job id")?;
        if !cx.authorized(req, job.userid) {
            return Err(RpcError::new(
                errno::EPERM,
                "guests can only ask about their own jobs",
            ));
        }
        let answer = json!({
            "id": id,
            "state": job.state.name(),
            "urgency": job.urgency,
            "priority": job.priority,
            "queue": job.queue.as_deref(),
            "dependencies": job.dependencies.iter().collect::<Vec<_>>(),
            "annotations": job.annotations,
            "ahead": self.ahead(job),
            "reasons": self.reasons(cx, job),
            "jobspec": *job.jobspec,
        });
        cx.respond(req, &answer);
        Ok(())
    }

    /// Returns how many jobs of the same queue wait for resources before this one.
    fn ahead(&self, job: &Job) -> Option<usize> {
        let waits = |job: &Job| job.state == State::Sched && job.priority.unwrap_or(0) > 0;
        if !waits(job) {
            return None;
        }
        let key = |job: &Job| (std::cmp::Reverse(job.priority.unwrap_or(0)), job.id);
        let before = self
            .active
            .values()
            .filter(|other| waits(other) && other.queue == job.queue && key(other) < key(job));
        Some(before.count())
    }

    /// Returns what holds the job, for people.
    fn reasons(&self, cx: &Cx<'_>, job: &Job) -> Vec<Value> {
        let mut reasons = Vec::new();
        let mut say = |kind: &str, text: String| reasons.push(json!({"kind": kind, "text": text}));
        if job.tap.waiting > 0 {
            say(
                "plugins",
                format!("{} answers of jobtap plugins are awaited", job.tap.waiting),
            );
        }
        for dependency in &job.dependencies {
            say("dependency", describe(dependency));
        }
        match job.state {
            State::Priority if job.tap.priority == Asked::Got(flux_policy::Priority::Unavailable) => {
                say(
                    "priority",
                    "a jobtap plugin does not know its priority yet".to_owned(),
                );
            }
            State::Sched => self.sched_reasons(job, &mut say),
            State::Run | State::Cleanup if job.perilogs > 0 => {
                say("perilog", format!("{} prologs or epilogs run", job.perilogs));
            }
            State::Run if job.exec == Exec::Idle && !self.executor.is_ready(cx) => {
                say("exec", "the execution service is not loaded".to_owned());
            }
            _ => {}
        }
        reasons
    }

    fn sched_reasons(&self, job: &Job, say: &mut impl FnMut(&str, String)) {
        if job.priority.unwrap_or(0) == 0 {
            say("held", "it is held: its priority is 0".to_owned());
        }
        if !self.queues.is_started(job.queue.as_deref()) {
            let why = self
                .queues
                .status(job.queue.as_deref(), self.sched_ready)
                .ok()
                .and_then(|status| status.get("stop_reason")?.as_str().map(str::to_owned));
            let name = job
                .queue
                .as_deref()
                .map_or("the queue".to_owned(), |name| format!("queue {name}"));
            let why = why.filter(|why| !why.is_empty()).map(|why| format!(": {why}"));
            say("queue", format!("{name} is stopped{}", why.unwrap_or_default()));
        }
        if !self.sched_ready {
            say("scheduler", "no scheduler is loaded".to_owned());
        } else if matches!(job.alloc, Alloc::Pending(_)) {
            say("resources", "it waits for resources".to_owned());
        }
    }
}

/// Says what a dependency of a standard plugin means.
fn describe(dependency: &str) -> String {
    let meaning = match dependency.split_once('=') {
        Some(("after-start", id)) => format!("job {id} has not started"),
        Some(("after-finish", id)) => format!("job {id} has not ended"),
        Some(("after-success", id)) => format!("job {id} has not succeeded"),
        Some(("after-failure", id)) => format!("job {id} has not failed"),
        Some(("after-except", id)) => format!("job {id} has not ended by an exception"),
        Some(("begin-time", time)) => format!("it begins at {time}"),
        _ if dependency == "singleton" => "another job of its user and name is active".to_owned(),
        _ => return format!("dependency {dependency} is not met"),
    };
    format!("{meaning} (dependency {dependency})")
}

#[cfg(test)]
mod tests {
    use super::super::tests::fakes::Bench;
    use super::*;

    fn reasons(bench: &mut Bench, id: JobId) -> Vec<String> {
        let answer = bench.rpc("job-manager.why", &json!({ "id": id })).unwrap();
        let list = answer["reasons"].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|reason| reason["kind"].as_str().unwrap_or("").to_owned())
            .collect()
    }

    #[test]
    fn who_holds_a_job() {
        let mut bench = Bench::new(1, false);
        let running = bench.submit();
        let (first, second) = (bench.submit(), bench.submit());
        assert!(reasons(&mut bench, running).is_empty());
        assert_eq!(reasons(&mut bench, first), ["resources"]);
        let answer = bench.rpc("job-manager.why", &json!({ "id": second })).unwrap();
        assert_eq!((&answer["ahead"], &answer["state"]), (&json!(1), &json!("SCHED")));
        bench
            .rpc("job-manager.urgency", &json!({"id": first, "urgency": 0}))
            .unwrap();
        assert_eq!(reasons(&mut bench, first), ["held"]);
        bench
            .rpc(
                "job-manager.queue-start",
                &json!({"start": false, "all": false, "reason": "maint"}),
            )
            .unwrap();
        assert_eq!(reasons(&mut bench, second), ["queue"]);
        assert!(bench.rpc("job-manager.why", &json!({"id": 7})).is_err());
        assert_eq!(
            describe("after-success=ƒ8"),
            "job ƒ8 has not succeeded (dependency after-success=ƒ8)"
        );
    }
}
