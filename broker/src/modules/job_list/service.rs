//! The job list's actor.

use super::apply::Shared;
use super::archive::Archive;
use super::attrs::Attrs;
use super::history::Missing;
use super::job::Job;
use super::list::{object, restricted_to};
use super::row::Row;
use super::stats::Stats;
use super::stream::Stream;
use crate::modules::content_sqlite::StoreError;
use crate::modules::job_manager::api::{self as manager, JobEvent};
use crate::service::{Cx, Interface, Method, RpcError, Service};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::jobstate::JobState;
use flux_formats::msg::Message;
use flux_formats::rpc::job_list as rpc;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// How often watchers of the statistics are told at most.
const STATS_PERIOD: Duration = Duration::from_secs(1);

const METHODS: &[Method] = &[
    Method::user("list"),
    Method::user("list-id"),
    Method::user("list-attrs"),
    Method::user("job-stats"),
    Method::user("job-state-pause"),
    Method::user("job-state-unpause"),
];

/// A request for a job that is not known yet, or not yet in the state asked for.
#[derive(Debug)]
struct IdWait {
    request: Message,
    id: JobId,
    attrs: Attrs,
    state: u32,
}

/// The `job-list` module.
#[derive(Default)]
pub struct JobList {
    /// Lists that are being answered keep the jobs as they were.
    pub(super) active: HashMap<JobId, Rc<Job>>,
    pub(super) archive: Archive,
    pub(super) shared: Shared,
    pub(super) stats: Stats,
    stats_watchers: Vec<Message>,
    stats_planned: bool,
    waits: Vec<IdWait>,
    lookups: u64,
    pub(super) streams: HashMap<u64, Stream>,
    pub(super) next_stream: u64,
    /// Inactive jobs that are being read from the KVS.
    pub(super) missing: Option<Missing>,
    /// Events held back by `job-state-pause`.
    paused: Option<Vec<JobEvent>>,
    /// Requests that came while it was not known which inactive jobs there are.
    pub(super) early: Option<Vec<Message>>,
}

impl std::fmt::Debug for JobList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobList")
            .field("active", &self.active.len())
            .field("archive", &self.archive)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Purged {
    jobs: Vec<JobId>,
}

impl JobList {
    // ---- events ---------------------------------------------------------------------------------------

    pub(super) fn on_journal(&mut self, cx: &mut Cx<'_>, events: &[JobEvent]) {
        if let Some(paused) = &mut self.paused {
            paused.extend(events.iter().cloned());
            return;
        }
        for event in events {
            self.on_job_event(cx, event);
        }
        self.changed(cx);
    }

    fn on_job_event(&mut self, cx: &mut Cx<'_>, event: &JobEvent) {
        let id = event.id;
        if &*event.name == "submit" {
            if let Some(job) = self.shared.submitted(event) {
                self.active.entry(id).or_insert_with(|| Rc::new(job));
            }
            return;
        }
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        self.stats.subtract(job);
        if &*event.name == "invalidate" {
            self.active.remove(&id);
            self.fail_waits(cx, id);
            return;
        }
        let before = job.state;
        self.shared.apply(Rc::make_mut(job), event);
        self.stats.add(job);
        let changed = job.state != before;
        if job.is_inactive()
            && let Some(job) = self.active.remove(&id)
        {
            self.archive_job(cx, Row::of(&job));
        }
        if changed && !self.waits.is_empty() {
            self.wake(cx, id);
        }
    }

    fn on_purge(&mut self, cx: &mut Cx<'_>, ids: &[JobId]) {
        self.forget_jobs(ids);
        self.changed(cx);
    }

    // ---- one job --------------------------------------------------------------------------------------

    fn on_list_id(&mut self, cx: &mut Cx<'_>, req: Message) {
        let Some(body) = cx.decode::<rpc::ListIdRequest>(&req) else {
            return;
        };
        let attrs = match Attrs::parse(&body.attrs) {
            Ok(attrs) => attrs,
            Err(err) => {
                cx.fail_with(&req, &err);
                return;
            }
        };
        let state = body.state.unwrap_or(0);
        if state & !(JobState::ACTIVE | JobState::Inactive.bit()) != 0 {
            cx.fail(&req, errno::EPROTO, "invalid payload: invalid state specified");
            return;
        }
        let id = body.id;
        if !self.active.contains_key(&id)
            && let Some(early) = &mut self.early
        {
            early.push(req);
            return;
        }
        let wait = IdWait {
            request: Message { payload: None, ..req },
            id,
            attrs,
            state,
        };
        if let Some((seen, userid, job)) = self.in_memory(id, attrs) {
            if is_reached(seen, state) {
                answer_id(cx, &wait.request, userid, &job);
            } else {
                self.waits.push(wait);
            }
            return;
        }
        self.find_row(cx, wait, JobList::find_submitted);
    }

    /// Returns the states that a job in memory was in, its user and attributes.
    fn in_memory(&self, id: JobId, attrs: Attrs) -> Option<(u32, u32, Bytes)> {
        if let Some(job) = self.active.get(&id) {
            return Some((job.seen(), job.userid, object(&job.view(), attrs)));
        }
        let row = self.archive.recent.get(&id)?;
        let hidden = self.archive.doomed.contains(&id);
        (!hidden).then(|| (JobState::Inactive.bit(), row.userid, object(&row.view(), attrs)))
    }

    /// Looks a job up in the database and answers; `other` goes on when it is not there.
    fn find_row(
        &mut self,
        cx: &mut Cx<'_>,
        wait: IdWait,
        other: impl FnOnce(&mut JobList, &mut Cx<'_>, IdWait) + Send + 'static,
    ) {
        let IdWait { id, attrs, .. } = wait;
        if !self.archive.has_rows() || self.archive.doomed.contains(&id) {
            other(self, cx, wait);
            return;
        }
        let work = Box::new(move |db: &mut super::db::Db| -> super::lane::Reply {
            let result = db.find(id, attrs);
            Box::new(move |me, cx| match result {
                Ok(Some((userid, job))) => answer_id(cx, &wait.request, userid, &job),
                Ok(None) => other(me, cx, wait),
                Err(err) => me.row_unreadable(cx, &wait, &err),
            })
        });
        self.read_rows(cx, work);
    }

    fn row_unreadable(&mut self, cx: &mut Cx<'_>, wait: &IdWait, err: &StoreError) {
        cx.fail_with(&wait.request, &err.clone().into());
        if err.is_damage() {
            self.damage(cx, err);
        }
    }

    /// The job manager may know the job already: then its `submit` event is on its way.
    fn find_submitted(&mut self, cx: &mut Cx<'_>, wait: IdWait) {
        if !cx.provides(manager::SERVICE) {
            cx.fail(&wait.request, errno::ENOENT, "");
            return;
        }
        let id = wait.id;
        self.lookups += 1;
        self.waits.push(wait);
        manager::active_job(cx, id, move |me: &mut JobList, cx, job| {
            me.lookups -= 1;
            // its events may have come since it was looked for
            me.wake(cx, id);
            if job.is_some() {
                return;
            }
            // it may have ended, and left memory, since it was looked for
            let left: Vec<IdWait> = me.waits.extract_if(.., |wait| wait.id == id).collect();
            for wait in left {
                me.find_row(cx, wait, |_, cx, wait| cx.fail(&wait.request, errno::ENOENT, ""));
            }
        });
    }

    fn wake(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some((seen, ..)) = self.in_memory(id, Attrs::NONE) else {
            return;
        };
        let ready: Vec<IdWait> = self
            .waits
            .extract_if(.., |wait| wait.id == id && is_reached(seen, wait.state))
            .collect();
        for wait in ready {
            if let Some((_, userid, job)) = self.in_memory(id, wait.attrs) {
                answer_id(cx, &wait.request, userid, &job);
            }
        }
    }

    fn fail_waits(&mut self, cx: &mut Cx<'_>, id: JobId) {
        for wait in self.waits.extract_if(.., |wait| wait.id == id) {
            cx.fail(&wait.request, errno::ENOENT, "");
        }
    }

    // ---- statistics -----------------------------------------------------------------------------------

    fn on_stats(&mut self, cx: &mut Cx<'_>, req: Message) {
        if let Some(early) = &mut self.early {
            early.push(req);
            return;
        }
        let body = self.stats.body();
        cx.respond(&req, &body);
        if req.is_streaming() {
            self.stats_watchers.push(Message { payload: None, ..req });
        }
    }

    pub(super) fn changed(&mut self, cx: &mut Cx<'_>) {
        if self.stats_watchers.is_empty() || self.stats_planned {
            return;
        }
        self.stats_planned = true;
        cx.timer(STATS_PERIOD, |me: &mut JobList, cx| {
            me.stats_planned = false;
            let body = me.stats.body();
            for request in &me.stats_watchers {
                cx.respond(request, &body);
            }
        });
    }
}

impl JobList {
    pub(super) fn handle(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "list" => self.on_list(cx, req),
            "list-id" => self.on_list_id(cx, req),
            "list-attrs" => {
                let names: Vec<&str> = rpc::ATTRIBUTES.iter().copied().chain(["id"]).collect();
                cx.respond(&req, &json!({ "attrs": names }));
            }
            "job-stats" => self.on_stats(cx, req),
            "job-state-pause" => {
                self.paused.get_or_insert_default();
                cx.respond_empty(&req);
            }
            "job-state-unpause" => {
                if let Some(events) = self.paused.take() {
                    self.on_journal(cx, &events);
                }
                cx.respond_empty(&req);
            }
            _ => cx.fail(&req, errno::ENOSYS, ""),
        }
    }
}

/// Returns true when a job that was in the states `seen` satisfies a request for one of `wanted` (0: any but NEW). A job
/// that is over always does, so that nobody waits for a state that it skipped.
fn is_reached(seen: u32, wanted: u32) -> bool {
    if wanted == 0 {
        seen & !JobState::New.bit() != 0
    } else {
        seen & (wanted | JobState::Inactive.bit()) != 0
    }
}

/// Answers a request for one job, unless the sender may not see it.
fn answer_id(cx: &mut Cx<'_>, req: &Message, userid: u32, job: &[u8]) {
    if restricted_to(cx, req).is_some_and(|own| userid != own) {
        cx.fail(req, errno::ENOENT, "");
        return;
    }
    let payload = [b"{\"job\":", job, b"}\0"].concat();
    cx.respond_payload(req, Some(Bytes::from(payload)));
}

impl Service for JobList {
    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface {
            service: "job-list",
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        self.open_archive(cx)?;
        cx.subscribe("job-purge-inactive");
        if manager::subscribe_journal(cx, |me: &mut JobList, cx, events| me.on_journal(cx, events)) {
            self.compare(cx);
        } else {
            self.nothing_to_compare();
        }
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        // whoever has seen a job's end in its eventlog finds it here too
        let about_jobs = matches!(req.topic.method(), "list" | "list-id");
        if about_jobs && cx.provides(manager::SERVICE) {
            manager::when_delivered(cx, move |me: &mut JobList, cx| me.handle(cx, req));
        } else {
            self.handle(cx, req);
        }
    }

    fn on_event(&mut self, cx: &mut Cx<'_>, event: &Message) {
        if let Ok(purged) = event.payload_json::<Purged>() {
            self.on_purge(cx, &purged.jobs);
        }
    }

    fn on_disconnect(&mut self, _cx: &mut Cx<'_>, msg: &Message) {
        self.stats_watchers
            .retain(|request| request.sender() != msg.sender());
        self.waits.retain(|wait| wait.request.sender() != msg.sender());
        self.forget_streams(msg.sender());
        if let Some(early) = &mut self.early {
            early.retain(|request| request.sender() != msg.sender());
        }
    }

    fn stats(&mut self, _cx: &mut Cx<'_>) -> Option<Value> {
        let (pending, running, inactive) = self.stats.sums();
        Some(json!({
            "jobs": { "pending": pending, "running": running, "inactive": inactive },
            "idsync": { "lookups": self.lookups, "waits": self.waits.len() },
            "stats_watchers": self.stats_watchers.len(),
        }))
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        for request in std::mem::take(&mut self.stats_watchers) {
            cx.fail(&request, errno::ENODATA, "");
        }
        let unloading = RpcError::new(errno::ENOSYS, "job-list is unloading");
        self.fail_streams(cx, &unloading);
        let waits = std::mem::take(&mut self.waits)
            .into_iter()
            .map(|wait| wait.request);
        for request in waits.chain(self.early.take().unwrap_or_default()) {
            cx.fail_with(&request, &unloading);
        }
        self.stop_archive(cx)
    }
}
