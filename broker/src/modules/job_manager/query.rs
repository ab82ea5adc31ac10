//! What does the job manager answer about jobs and queues?

use super::JobManager;
use super::commit::After;
use super::job::{Alloc, Job};
use super::queue::{QueueError, Queues};
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::resource_set::ResourceSet;
use flux_formats::rpc::job_manager::{
    GetattrRequest, ListRequest, QueueEnableRequest, QueueStartRequest, QueueStatusRequest,
};
use serde_json::{Map, Value, json};

impl From<QueueError> for RpcError {
    fn from(err: QueueError) -> Self {
        RpcError::new(errno::EINVAL, err.to_string())
    }
}

const USE_ALL: &str = "Use --all to apply this command to all queues";

impl JobManager {
    pub(super) fn on_getinfo(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        cx.respond(req, &json!({"max_jobid": self.max_jobid}));
        Ok(())
    }

    pub(super) fn on_getattr(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let GetattrRequest { id, attrs } = req.payload_json()?;
        let userid = match (self.active.get(&id), self.inactive.get(id)) {
            (Some(job), _) => job.userid,
            (None, Some(job)) => job.userid,
            (None, None) => return Err(RpcError::new(errno::EINVAL, "unknown job")),
        };
        if !cx.authorized(req, userid) {
            return Err(RpcError::new(
                errno::EPERM,
                "guests can only access their own jobs",
            ));
        }
        let Some(job) = self.active.get(&id) else {
            self.stored_attrs(cx, req.clone(), id, attrs);
            return Ok(());
        };
        let events: Vec<&str> = job.events.iter().map(|event| &*event.line).collect();
        let answer = attrs_of(&attrs, Some(&job.jobspec), job.r.as_deref(), events.into_iter())?;
        cx.respond(req, &answer);
        Ok(())
    }

    /// Answers from the KVS about an inactive job.
    fn stored_attrs(&mut self, cx: &mut Cx<'_>, req: Message, id: JobId, attrs: Vec<Value>) {
        self.read_parts(cx, id, move |_, cx, parts| {
            let Some([eventlog, jobspec, r]) = parts else {
                cx.fail(&req, errno::EINVAL, "unknown job");
                return;
            };
            let decode = |text: &str| serde_json::from_str::<Value>(text).ok();
            let (jobspec, mut r) = (decode(&jobspec), decode(&r));
            if let Some(Value::Object(r)) = &mut r {
                r.shift_remove("scheduling");
            }
            let answer = attrs_of(
                &attrs,
                jobspec.as_ref(),
                r.as_ref(),
                eventlog.split_inclusive('\n'),
            );
            cx.answer(&req, answer);
        });
    }

    pub(super) fn on_list(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let ListRequest { max_entries } = req.payload_json()?;
        let Ok(max) = usize::try_from(max_entries) else {
            return Err(RpcError::bare(errno::EPROTO));
        };
        let max = if max == 0 { usize::MAX } else { max };
        let pending = |job: &&Job| {
            matches!(
                job.alloc,
                Alloc::Pending(_) | Alloc::Queued(_) | Alloc::Cancelling
            )
        };
        let mut waiting: Vec<&Job> = self.active.values().filter(pending).collect();
        waiting.sort_by_key(|job| (std::cmp::Reverse(job.priority), job.id));
        let rest = self.active.values().filter(|job| !pending(job));
        let mut jobs: Vec<Value> = waiting
            .into_iter()
            .chain(rest)
            .take(max)
            .map(list_entry)
            .collect();
        for id in self.waits.zombies() {
            if let Some(job) = self.inactive.get(id) {
                jobs.push(json!({"id": id, "userid": job.userid, "urgency": 0, "priority": 0, "t_submit": 0.0, "state": 64}));
            }
        }
        cx.respond(req, &json!({"jobs": jobs}));
        Ok(())
    }

    pub(super) fn on_alloc_query(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        cx.respond(
            req,
            &json!({"queue_length": self.queued.len(), "alloc_pending": self.alloc_pending, "running": self.running}),
        );
        Ok(())
    }

    /// Answers the R of everything that jobs hold.
    pub(super) fn on_resource_status(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let mut all = ResourceSet::default();
        for job in self.active.values().filter(|job| job.marks.has_resources) {
            let Some(r) = &job.r else { continue };
            let bad =
                |err: &dyn std::fmt::Display| RpcError::new(errno::EINVAL, format!("{}: {err}", job.id));
            let set: ResourceSet = serde_json::from_value((**r).clone()).map_err(|err| bad(&err))?;
            all = all.union(&set);
        }
        for held in self.housekeeping_held() {
            all = all.union(held);
        }
        cx.respond(req, &json!({"allocated": all}));
        Ok(())
    }

    pub(super) fn on_queue_list(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        cx.respond(req, &json!({"queues": self.queues.names()}));
        Ok(())
    }

    pub(super) fn on_queue_status(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let QueueStatusRequest { name } = req.payload_json_or_empty()?;
        let status = self.queues.status(name.as_deref(), self.sched_ready)?;
        cx.respond(req, &status);
        Ok(())
    }

    pub(super) fn on_queue_enable(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let QueueEnableRequest {
            name,
            enable,
            reason,
            all,
        } = req.payload_json()?;
        if !enable.0 && reason.is_none() {
            return Err(RpcError::new(errno::EINVAL, "reason is required for disable"));
        }
        self.check_all(name.as_deref(), all.0)?;
        self.queues
            .enable(name.as_deref(), reason.as_deref().filter(|_| !enable.0))?;
        self.queues_changed(cx, req);
        Ok(())
    }

    pub(super) fn on_queue_start(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let QueueStartRequest {
            name,
            start,
            reason,
            all,
            nocheckpoint,
        } = req.payload_json()?;
        self.check_all(name.as_deref(), all.0)?;
        let sticky = !nocheckpoint.is_some_and(|flag| flag.0);
        self.queues
            .start(name.as_deref(), start.0, reason.as_deref(), sticky)?;
        self.drive_all(cx);
        self.queues_changed(cx, req);
        Ok(())
    }

    fn check_all(&self, name: Option<&str>, all: bool) -> Result<(), RpcError> {
        if name.is_none() && !all && !self.queues.names().is_empty() {
            return Err(RpcError::new(errno::EINVAL, USE_ALL));
        }
        Ok(())
    }

    /// Stores the queues' state, then answers.
    fn queues_changed(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let change = self.checkpoint_change();
        let batch = self.batch(cx);
        batch.change(change);
        batch.after(After::Respond(req.clone(), None));
    }

    /// Returns the queues, for the checkpoint.
    pub(super) fn queues(&self) -> &Queues {
        &self.queues
    }
}

fn attrs_of<'a>(
    attrs: &[Value],
    jobspec: Option<&Value>,
    r: Option<&Value>,
    lines: impl Iterator<Item = &'a str>,
) -> Result<Value, RpcError> {
    let lines: Vec<&str> = lines.collect();
    let missing = |text: &str| RpcError::new(errno::ENOENT, text);
    let mut answer = Map::new();
    for attr in attrs {
        let Some(name) = attr.as_str() else {
            return Err(RpcError::new(errno::EPROTO, "attribute list contains non-string"));
        };
        let value = match name {
            "jobspec" => jobspec.cloned().ok_or_else(|| missing("jobspec is NULL"))?,
            "R" => r.cloned().ok_or_else(|| missing("R is NULL"))?,
            "eventlog" => {
                let events = lines.iter().map(|line| serde_json::from_str(line.trim_end()));
                Value::Array(
                    events
                        .collect::<Result<_, _>>()
                        .map_err(|err| missing(&err.to_string()))?,
                )
            }
            other => return Err(missing(&format!("unknown attr {other}"))),
        };
        answer.insert(name.to_owned(), value);
    }
    Ok(Value::Object(answer))
}

fn list_entry(job: &Job) -> Value {
    let priority = job
        .priority
        .and_then(|priority| i64::try_from(priority).ok())
        .unwrap_or(-1);
    let mut entry = json!({
        "id": job.id, "userid": job.userid, "urgency": job.urgency, "priority": priority,
        "t_submit": job.t_submit, "state": job.state.bit(),
    });
    if !job.annotations.is_empty() {
        entry["annotations"] = Value::Object(job.annotations.clone());
    }
    if !job.dependencies.is_empty() {
        entry["dependencies"] = job.dependencies.iter().map(String::as_str).collect();
    }
    entry
}
