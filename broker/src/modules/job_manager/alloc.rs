//! What do the job manager and the scheduler say to each other? (RFC 27)

use super::JobManager;
use super::annotate;
use super::api::SchedEvent;
use super::event::{Event, Exception};
use super::job::Alloc;
use super::ports::SchedRequest;
use super::state::State;
use crate::service::Cx;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use serde_json::{Map, Value};
use std::rc::Rc;

impl JobManager {
    /// Queues a request to the scheduler for the end of the turn.
    pub(super) fn sched_request(&mut self, cx: &mut Cx<'_>, request: SchedRequest) {
        if self.sched_ready {
            self.sched_requests.push(request);
            self.arm(cx);
        }
    }

    /// Gives resources back to the scheduler.
    pub(super) fn sched_free(&mut self, cx: &mut Cx<'_>, id: JobId, ranks: Option<IdSet>) {
        // what a plugin gave was never the scheduler's
        if !self.active.get(&id).is_some_and(|job| job.marks.bypass) {
            self.sched_request(cx, SchedRequest::Free { id, ranks });
        }
    }

    /// Sends what was queued in this turn, and all jobs that wait to be sent.
    pub(super) fn send_sched_requests(&mut self, cx: &mut Cx<'_>) {
        if !self.sched_ready {
            return;
        }
        let mut requests = std::mem::take(&mut self.sched_requests);
        let mut debugged = Vec::new();
        for (_, id) in std::mem::take(&mut self.queued) {
            let Some(job) = self.active.get(&id) else { continue };
            let priority = job.priority.unwrap_or(0);
            requests.push(SchedRequest::Alloc {
                id,
                priority,
                userid: job.userid,
                t_submit: job.t_submit,
                jobspec: job.jobspec.clone(),
            });
            debugged.push(id);
            self.set_alloc(id, Alloc::Pending(priority));
        }
        if !requests.is_empty() && !self.scheduler.send(cx, requests) {
            self.on_sched_ready(cx, false);
            return;
        }
        for id in debugged {
            self.debug_event(cx, id, "alloc-request");
        }
    }

    pub(super) fn on_sched_ready(&mut self, cx: &mut Cx<'_>, ready: bool) {
        self.sched_ready = ready;
        if ready {
            for (id, job) in &self.active {
                if let (true, Some(r)) = (job.marks.has_resources && !job.marks.bypass, &job.r) {
                    self.sched_requests.push(SchedRequest::Adopt {
                        id: *id,
                        r: r.clone(),
                    });
                }
            }
            self.housekeeping_hello();
            self.arm(cx);
            return;
        }
        self.sched_requests.clear();
        let with_sched = |alloc: Alloc| matches!(alloc, Alloc::Pending(_) | Alloc::Cancelling);
        let pending: Vec<JobId> = self
            .active
            .iter()
            .filter(|(_, job)| with_sched(job.alloc))
            .map(|(id, _)| *id)
            .collect();
        for id in pending {
            self.set_alloc(id, Alloc::None);
            self.clear_annotations(cx, id, Some("sched"));
            self.drive(cx, id);
        }
        self.check_drain(cx);
    }

    pub(super) fn on_sched_events(&mut self, cx: &mut Cx<'_>, events: Vec<(JobId, SchedEvent)>) {
        for (id, event) in events {
            match event {
                SchedEvent::Alloc { r, annotations } => self.on_alloc(cx, id, r, &annotations),
                SchedEvent::Annotate { annotations } => self.on_annotate(cx, id, &annotations),
                SchedEvent::Deny { note } => self.on_deny(cx, id, note),
                SchedEvent::Cancelled => self.on_cancelled(cx, id),
            }
        }
        self.check_drain(cx);
    }

    fn waits_for_sched(&self, id: JobId) -> bool {
        self.active.get(&id).is_some_and(|job| {
            job.state == State::Sched && matches!(job.alloc, Alloc::Pending(_) | Alloc::Cancelling)
        })
    }

    /// Returns true when the job's request was changed while the scheduler's answer to the old one was on its way.
    fn asks_anew(&self, id: JobId) -> bool {
        self.active.get(&id).is_some_and(|job| job.marks.request_stale)
    }

    fn on_alloc(&mut self, cx: &mut Cx<'_>, id: JobId, r: String, annotations: &str) {
        let decoded = serde_json::from_str::<Value>(&r);
        let Ok(Value::Object(mut object)) = decoded else {
            self.on_deny(cx, id, "scheduler gave an R that is no JSON object".to_owned());
            return;
        };
        if !self.waits_for_sched(id) {
            // the job was cancelled while the answer was on its way
            self.sched_free(cx, id, None);
            return;
        }
        if self.asks_anew(id) {
            self.sched_free(cx, id, None);
            self.set_alloc(id, Alloc::None);
            self.drive(cx, id);
            return;
        }
        object.shift_remove("scheduling");
        self.set_alloc(id, Alloc::None);
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        job.r = Some(Rc::new(Value::Object(object)));
        if let Ok(changes) = serde_json::from_str::<Map<String, Value>>(annotations) {
            annotate::merge(&mut job.annotations, &changes);
        }
        if let Some(queue) = &job.queue {
            let queue = [("queue".to_owned(), Value::from(&**queue))];
            annotate::merge_at(&mut job.annotations, "sched", &queue.into_iter().collect());
        }
        let snapshot = (!job.annotations.is_empty()).then(|| job.annotations.clone());
        self.batch(cx).put(id, "R", r);
        self.post_sure(
            cx,
            id,
            &Event::Alloc {
                annotations: snapshot,
                bypass: false,
            },
        );
    }

    fn on_annotate(&mut self, cx: &mut Cx<'_>, id: JobId, annotations: &str) {
        if !self.waits_for_sched(id) {
            return;
        }
        let Ok(changes) = serde_json::from_str::<Map<String, Value>>(annotations) else {
            tracing::warn!(jobid = %id, "annotations of the scheduler are no JSON object");
            return;
        };
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        annotate::merge(&mut job.annotations, &changes);
        let annotations = (!job.annotations.is_empty()).then(|| job.annotations.clone());
        self.post_sure(cx, id, &Event::Annotations { annotations });
    }

    fn on_deny(&mut self, cx: &mut Cx<'_>, id: JobId, note: String) {
        if !self.waits_for_sched(id) {
            return;
        }
        if self.asks_anew(id) {
            self.set_alloc(id, Alloc::None);
            self.drive(cx, id);
            return;
        }
        self.set_alloc(id, Alloc::None);
        self.clear_annotations(cx, id, None);
        let exception = Exception {
            kind: "alloc".to_owned(),
            severity: 0,
            note,
            userid: Some(cx.owner),
            wait_status: None,
            from_exec: false,
        };
        if let Err(err) = self.raise(cx, id, exception) {
            tracing::error!(jobid = %id, err = %err, "alloc exception not raised");
        }
    }

    fn on_cancelled(&mut self, cx: &mut Cx<'_>, id: JobId) {
        if self.waits_for_sched(id) {
            self.set_alloc(id, Alloc::None);
            self.clear_annotations(cx, id, Some("sched"));
            self.drive(cx, id);
        }
    }
}
