//! How do users change a job that was submitted? Urgency, jobspec updates, memos, events.

use super::JobManager;
use super::api::ActiveJob;
use super::commit::After;
use super::event::Event;
use super::job::{self, Job};
use super::ports::SchedRequest;
use super::requeue;
use super::state::State;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::{self, Message, role};
use flux_formats::rpc::job_manager::{MemoRequest, UpdateRequest, UrgencyRequest};
use serde::Serialize;
use serde_json::{Map, Value, json};

const DURATION: &str = "attributes.system.duration";

fn inval(text: impl Into<String>) -> RpcError {
    RpcError::new(errno::EINVAL, text)
}

fn perm(text: &str) -> RpcError {
    RpcError::new(errno::EPERM, text)
}

impl JobManager {
    /// Answers a request once the events so far are in the KVS.
    pub(super) fn respond_after<T: Serialize>(
        &mut self,
        cx: &mut Cx<'_>,
        req: &Message,
        body: &T,
    ) -> Result<(), RpcError> {
        let payload = msg::json_payload(body).map_err(|err| RpcError::new(errno::EPROTO, err.to_string()))?;
        self.batch(cx).after(After::Respond(req.clone(), Some(payload)));
        Ok(())
    }

    pub(super) fn on_urgency(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let UrgencyRequest { id, urgency } = req.payload_json()?;
        let urgency = u8::try_from(urgency)
            .ok()
            .filter(|urgency| *urgency <= job::URGENCY_EXPEDITE);
        let urgency = urgency.ok_or_else(|| inval("urgency value is out of range"))?;
        let job = self.find(id, errno::EINVAL, "unknown job")?;
        if !cx.authorized(req, job.userid) {
            return Err(perm("guests can only reprioritize their own jobs"));
        }
        if req.rolemask & role::OWNER == 0 && urgency > job.urgency.max(job::URGENCY_DEFAULT) {
            return Err(perm("guests can only adjust urgency <= default"));
        }
        if job.marks.has_resources {
            return Err(inval("urgency cannot be changed once resources are allocated"));
        }
        let old = job.urgency;
        self.post(
            cx,
            id,
            &Event::Urgency {
                userid: req.userid,
                urgency,
            },
        )?;
        self.respond_after(cx, req, &json!({"old_urgency": old}))
    }

    pub(super) fn on_update(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let UpdateRequest { id, updates } = req.payload_json()?;
        let Value::Object(updates) = updates else {
            return Err(inval("one or more jobspec updates are invalid"));
        };
        if !updates.keys().all(|key| key.starts_with("attributes.")) {
            return Err(inval("one or more jobspec updates are invalid"));
        }
        let job = match self.find(id, errno::EINVAL, "unknown job id") {
            Err(err) if err.text == "unknown job id" => return Err(RpcError::new(errno::ENOENT, err.text)),
            found => found?,
        };
        if !cx.authorized(req, job.userid) {
            return Err(perm("guests may only update their own jobs"));
        }
        let is_owner = req.rolemask & role::OWNER != 0;
        if job.marks.immutable && !is_owner {
            return Err(perm("job is immutable due to previous instance owner update"));
        }
        for (key, value) in &updates {
            if !self.tap_updates(key) {
                return Err(inval(format!("update of {key} not supported")));
            }
            if key == requeue::QUEUE {
                requeue::check(&self.queues, job, value)?;
            }
        }
        if updates.is_empty() {
            return self.perform_update(cx, req, id, updates, is_owner);
        }
        self.tap_update(cx, req.clone(), id, updates);
        Ok(())
    }

    /// Changes a jobspec; `unchecked` means that limits were passed over in the owner's name.
    pub(super) fn perform_update(
        &mut self,
        cx: &mut Cx<'_>,
        req: &Message,
        id: JobId,
        updates: Map<String, Value>,
        unchecked: bool,
    ) -> Result<(), RpcError> {
        let is_owner = req.rolemask & role::OWNER != 0;
        let job = self.find(id, errno::EINVAL, "unknown job id")?;
        let (running, other_owner) = (
            job.state.is_running(),
            unchecked && is_owner && req.userid != job.userid,
        );
        let now = self.now();
        let expiration = match (running, updates.get(DURATION).and_then(Value::as_f64)) {
            (true, Some(duration)) => {
                let job = self.find(id, errno::EINVAL, "unknown job id")?;
                Some(new_expiration(job, duration, now)?)
            }
            _ => None,
        };
        if other_owner {
            self.post(
                cx,
                id,
                &Event::SetFlags {
                    flags: vec!["immutable".to_owned()],
                },
            )?;
        }
        self.post(cx, id, &Event::JobspecUpdate { updates })?;
        if let Some(expiration) = expiration {
            self.post(cx, id, &Event::ResourceUpdate { expiration })?;
            self.executor.expiration(cx, id, expiration);
            self.sched_request(cx, SchedRequest::Expiration { id, expiration });
        }
        self.batch(cx).after(After::Respond(req.clone(), None));
        Ok(())
    }

    pub(super) fn on_memo(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let MemoRequest { id, memo, volatile } = req.payload_json()?;
        let job = self.find(id, errno::ENOENT, "unknown job id")?;
        if !cx.authorized(req, job.userid) {
            return Err(perm("guests can only add a memo to their own jobs"));
        }
        if volatile {
            self.volatile_memo(cx, id, &memo);
        } else {
            self.post(cx, id, &Event::Memo { values: memo })?;
        }
        self.batch(cx).after(After::Respond(req.clone(), None));
        Ok(())
    }

    /// Changes the user annotations in memory and in the journal only.
    fn volatile_memo(&mut self, cx: &mut Cx<'_>, id: JobId, memo: &Map<String, Value>) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        super::annotate::merge_at(&mut job.annotations, "user", memo);
        let annotations = (!job.annotations.is_empty()).then(|| job.annotations.clone());
        self.post_sure(cx, id, &Event::Annotations { annotations });
    }

    pub(super) fn local_active_job(&self, id: JobId) -> Option<ActiveJob> {
        let job = self.active.get(&id).filter(|job| job.state != State::Inactive)?;
        Some(ActiveJob {
            id,
            userid: job.userid,
            state: job.state.bit(),
            jobspec: Some(job.jobspec.clone()),
            r: job.r.clone(),
        })
    }
}

fn new_expiration(job: &Job, duration: f64, now: f64) -> Result<f64, RpcError> {
    if duration == 0.0 {
        return Ok(0.0);
    }
    let start = job
        .r
        .as_deref()
        .and_then(|r| r.pointer("/execution/starttime"))
        .and_then(Value::as_f64);
    let start = start
        .filter(|start| *start > 0.0)
        .ok_or_else(|| inval("unable to get job starttime"))?;
    if start + duration <= now {
        return Err(inval("requested duration places job expiration in the past"));
    }
    Ok(start + duration)
}
