//! What does an event change of what lists show? Pure, but for the values that jobs share.

use super::intern::Interner;
use super::job::{Alloc, Fault, Job, Spec};
use crate::modules::job_manager::api::JobEvent;
use flux_formats::eventlog::EventRef;
use flux_formats::jobstate::JobState;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::rc::Rc;

/// Values that jobs have in common.
#[derive(Debug, Default)]
pub(super) struct Shared {
    specs: Interner<Spec>,
    /// The jobspec that was read last, which the next job often shares.
    last_spec: Option<(Rc<Value>, Rc<Spec>)>,
    allocs: Interner<Alloc>,
    texts: Interner<str>,
}

#[derive(Deserialize)]
struct Submit {
    userid: u32,
    urgency: u8,
}

#[derive(Deserialize)]
struct Priority {
    priority: i64,
}

#[derive(Deserialize)]
struct Urgency {
    urgency: u8,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "type")]
    kind: String,
    severity: u8,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
struct Finish {
    status: i32,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(default)]
    annotations: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Expiration {
    expiration: f64,
}

#[derive(Deserialize)]
struct Description {
    description: String,
}

fn context<T: DeserializeOwned>(event: &JobEvent) -> Option<T> {
    let event = EventRef::decode(event.line.trim_end()).ok()?;
    serde_json::from_str(event.context.map_or("{}", serde_json::value::RawValue::get)).ok()
}

impl Shared {
    /// Returns the job that a `submit` event makes.
    pub(super) fn submitted(&mut self, event: &JobEvent) -> Option<Job> {
        let submit: Submit = context(event)?;
        let spec = self.spec(event);
        Some(Job::new(
            event.id,
            submit.userid,
            submit.urgency,
            event.timestamp,
            spec,
        ))
    }

    fn spec(&mut self, event: &JobEvent) -> Rc<Spec> {
        let Some(jobspec) = &event.jobspec else {
            return self.specs.intern(Spec::default());
        };
        if let Some((last, spec)) = &self.last_spec
            && Rc::ptr_eq(last, jobspec)
        {
            return spec.clone();
        }
        let spec = self.specs.intern(Spec::of(jobspec));
        self.last_spec = Some((jobspec.clone(), spec.clone()));
        spec
    }

    /// Applies an event to its job.
    pub(super) fn apply(&mut self, job: &mut Job, event: &JobEvent) {
        let now = event.timestamp;
        match &*event.name {
            "validate" => (job.state, job.t_depend) = (JobState::Depend, now),
            "depend" => (job.state, job.t_priority) = (JobState::Priority, now),
            "priority" => self.on_priority(job, event),
            "alloc" => self.on_alloc(job, event),
            "finish" => {
                if let Some(Finish { status }) = context(event) {
                    job.waitstatus = Some(status);
                }
                enter_cleanup(job, now);
            }
            "exception" => on_exception(job, event),
            "clean" => (job.state, job.t_inactive) = (JobState::Inactive, now),
            "urgency" => {
                if let Some(Urgency { urgency }) = context(event) {
                    job.urgency = urgency;
                }
            }
            "flux-restart" if job.state == JobState::Sched => job.state = JobState::Priority,
            "jobspec-update" if event.jobspec.is_some() => job.spec = self.spec(event),
            "resource-update" => {
                if let Some(Expiration { expiration }) = context(event) {
                    job.expiration = expiration;
                }
            }
            "memo" => self.on_memo(job, event),
            "annotations" => {
                let annotations = context::<Annotations>(event).and_then(|context| context.annotations);
                self.set_annotations(job, annotations.as_ref());
            }
            "dependency-add" => {
                if let Some(Description { description }) = context(event) {
                    job.dependencies.get_or_insert_default().push(description);
                }
            }
            "dependency-remove" => on_dependency_remove(job, event),
            _ => {}
        }
    }

    fn on_priority(&mut self, job: &mut Job, event: &JobEvent) {
        if let Some(Priority { priority }) = context(event) {
            job.priority = priority;
        }
        if job.state == JobState::Priority {
            (job.state, job.t_sched) = (JobState::Sched, event.timestamp);
        }
    }

    fn on_alloc(&mut self, job: &mut Job, event: &JobEvent) {
        if let Some(r) = event.r.as_deref() {
            let expiration = r
                .get("execution")
                .and_then(|e| e.get("expiration"))
                .and_then(Value::as_f64);
            job.expiration = expiration.unwrap_or(0.0);
            job.alloc = Alloc::of(r).map(|alloc| self.allocs.intern(alloc));
        }
        if let Some(Annotations {
            annotations: Some(annotations),
        }) = context(event)
        {
            self.set_annotations(job, Some(&annotations));
        }
        if job.state == JobState::Sched {
            (job.state, job.t_run) = (JobState::Run, event.timestamp);
        }
    }

    fn on_memo(&mut self, job: &mut Job, event: &JobEvent) {
        let Some(memo) = context::<Map<String, Value>>(event) else {
            return;
        };
        let old = job
            .annotations
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok());
        let mut annotations: Map<String, Value> = old.unwrap_or_default();
        let user = annotations
            .entry("user")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(user) = user.as_object_mut() {
            for (key, value) in memo {
                if value.is_null() {
                    user.shift_remove(&key);
                } else {
                    user.insert(key, value);
                }
            }
        }
        if annotations
            .get("user")
            .and_then(Value::as_object)
            .is_some_and(Map::is_empty)
        {
            annotations.shift_remove("user");
        }
        self.set_annotations(job, Some(&annotations));
    }

    fn set_annotations(&mut self, job: &mut Job, annotations: Option<&Map<String, Value>>) {
        let text = annotations
            .filter(|map| !map.is_empty())
            .and_then(|map| serde_json::to_string(map).ok());
        job.annotations = text.map(|text| self.texts.intern(text.as_str()));
    }
}

fn enter_cleanup(job: &mut Job, now: f64) {
    if job.state.bit() < JobState::Cleanup.bit() {
        (job.state, job.t_cleanup) = (JobState::Cleanup, now);
    }
}

fn on_exception(job: &mut Job, event: &JobEvent) {
    let Some(Exception { kind, severity, note }) = context(event) else {
        return;
    };
    if job.fault.as_ref().is_none_or(|known| severity < known.severity) {
        job.fault = Some(Box::new(Fault {
            severity,
            kind: kind.into(),
            note: note.into(),
        }));
    }
    if severity == 0 {
        enter_cleanup(job, event.timestamp);
    }
}

fn on_dependency_remove(job: &mut Job, event: &JobEvent) {
    let Some(Description { description }) = context(event) else {
        return;
    };
    if let Some(dependencies) = &mut job.dependencies {
        dependencies.retain(|known| *known != description);
        if dependencies.is_empty() {
            job.dependencies = None;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use flux_formats::jobid::JobId;
    use flux_formats::jobstate::JobResult;
    use proptest::prelude::*;
    use serde_json::json;
    use std::rc::Rc;

    /// Returns an event as the journal brings it.
    pub(in super::super) fn event(id: u64, name: &str, timestamp: f64, context: &Value) -> JobEvent {
        let mut line = String::new();
        flux_formats::eventlog::append(&mut line, timestamp, name, context).unwrap();
        let jobspec = (name == "submit").then(|| {
            Rc::new(json!({"resources": [{"type": "slot", "count": 2, "label": "t", "with": [{"type": "core", "count": 1}]}],
                "tasks": [{"command": ["/bin/sleep"], "slot": "t", "count": {"per_slot": 1}}],
                "attributes": {"system": {"duration": 5.0, "cwd": "/tmp"}}, "version": 1}))
        });
        let r = (name == "alloc").then(|| {
            Rc::new(
                json!({"version": 1, "execution": {"R_lite": [{"rank": "1", "children": {"core": "0-3"}}],
                "starttime": 1.0, "expiration": 9.0, "nodelist": ["n1"]}}),
            )
        });
        JobEvent {
            id: JobId(id),
            userid: 7,
            timestamp,
            sequence: 0,
            name: Rc::from(name),
            line: Rc::from(line),
            jobspec,
            r,
        }
    }

    /// Returns a job after these events.
    pub(in super::super) fn job(id: u64, steps: &[(&str, Value)]) -> Job {
        let mut shared = Shared::default();
        let submit = json!({"userid": 7, "urgency": 16, "flags": 0, "version": 1});
        let mut job = shared.submitted(&event(id, "submit", 1.0, &submit)).unwrap();
        for (at, (name, context)) in steps.iter().enumerate() {
            shared.apply(
                &mut job,
                &event(id, name, 2.0 + f64::from(u32::try_from(at).unwrap()), context),
            );
        }
        job
    }

    /// The events of a job that ran.
    pub(in super::super) fn life() -> Vec<(&'static str, Value)> {
        vec![
            ("validate", json!({})),
            ("depend", json!({})),
            ("priority", json!({"priority": 16})),
            (
                "alloc",
                json!({"annotations": {"sched": {"resource_summary": "rank1/core[0-3]"}}}),
            ),
            ("start", json!({})),
            ("finish", json!({"status": 0})),
            ("release", json!({"ranks": "all", "final": true})),
            ("free", json!({})),
            ("clean", json!({})),
        ]
    }

    #[test]
    fn a_job_that_ran() {
        let job = job(1, &life());
        assert_eq!(
            (job.state, job.result(), job.waitstatus),
            (JobState::Inactive, JobResult::Completed, Some(0))
        );
        let times = [
            job.t_submit,
            job.t_depend,
            job.t_priority,
            job.t_sched,
            job.t_run,
            job.t_cleanup,
            job.t_inactive,
        ];
        assert_eq!(times, [1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0]);
        assert_eq!(
            (&*job.spec.name, job.ntasks(), job.ncores(), job.nnodes()),
            ("sleep", 2, 4, 1)
        );
        assert_eq!((job.priority, job.expiration), (16, 9.0));
    }

    #[test]
    fn a_cancelled_job() {
        let cancel = json!({"type": "cancel", "severity": 0, "note": "x", "userid": 7});
        let job = job(
            1,
            &[
                ("validate", json!({})),
                ("exception", cancel),
                ("clean", json!({})),
            ],
        );
        assert_eq!(
            (job.state, job.result()),
            (JobState::Inactive, JobResult::Canceled)
        );
        assert_eq!(job.fault.as_ref().map(|f| &*f.kind), Some("cancel"));
    }

    #[test]
    fn memos_and_annotations() {
        let mut steps = vec![
            ("memo", json!({"uri": "local://x", "a": 1})),
            ("memo", json!({"a": null})),
        ];
        assert_eq!(
            job(1, &steps).annotations.as_deref(),
            Some(r#"{"user":{"uri":"local://x"}}"#)
        );
        steps.push(("annotations", json!({"annotations": null})));
        assert_eq!(job(1, &steps).annotations, None);
    }

    proptest! {
        /// Events in any order never panic, and an inactive job stays inactive but for a `validate`.
        #[test]
        fn any_order(order in prop::collection::vec(0usize..9, 0..20)) {
            let life = life();
            let steps: Vec<_> = order.into_iter().map(|at| life[at].clone()).collect();
            let job = job(1, &steps);
            prop_assert!(job.priority == -1 || job.priority == 16);
        }
    }
}
