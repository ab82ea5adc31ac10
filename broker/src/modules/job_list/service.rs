//! The job list's actor.

use super::apply::{Shared, compact};
use super::attrs::Attrs;
use super::job::Job;
use super::stats::Stats;
use super::store::{InactiveStore, MemoryStore};
use crate::modules::job_manager::api::{self as manager, JobEvent};
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::eventlog::Event;
use flux_formats::jobid::JobId;
use flux_formats::jobstate::JobState;
use flux_formats::msg::Message;
use flux_formats::rpc::job_list as rpc;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// How often watchers of the statistics are told at most.
const STATS_PERIOD: Duration = Duration::from_secs(1);
/// Id of the response that ends the journal's backlog.
const SENTINEL: i128 = -1;

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
#[derive(Debug)]
pub struct JobList {
    pub(super) active: HashMap<JobId, Box<Job>>,
    pub(super) inactive: Box<dyn InactiveStore>,
    shared: Shared,
    stats: Stats,
    stats_watchers: Vec<Message>,
    stats_planned: bool,
    waits: Vec<IdWait>,
    lookups: u64,
    /// Events held back by `job-state-pause`.
    paused: Option<Vec<JobEvent>>,
    /// Requests that came before the jobs of an earlier life were read; `None` after that.
    early: Option<Vec<Message>>,
}

impl Default for JobList {
    fn default() -> Self {
        JobList {
            active: HashMap::new(),
            inactive: Box::<MemoryStore>::default(),
            shared: Shared::default(),
            stats: Stats::default(),
            stats_watchers: Vec::new(),
            stats_planned: false,
            waits: Vec::new(),
            lookups: 0,
            paused: None,
            early: None,
        }
    }
}

/// A response of the job manager's journal.
#[derive(Deserialize)]
struct JournalResponse {
    id: i128,
    #[serde(default)]
    events: Vec<Box<RawValue>>,
    #[serde(default)]
    jobspec: Option<Value>,
    #[serde(default, rename = "R")]
    r: Option<Value>,
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
            if let Some(job) = self.shared.submitted(event).filter(|_| self.find(id).is_none()) {
                self.active.insert(id, Box::new(job));
            }
            return;
        }
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        if &*event.name == "invalidate" {
            self.stats.subtract(job);
            self.active.remove(&id);
            self.fail_waits(cx, id);
            return;
        }
        self.stats.subtract(job);
        let before = job.state;
        self.shared.apply(job, event);
        self.stats.add(job);
        let changed = job.state != before;
        if job.is_inactive()
            && let Some(mut job) = self.active.remove(&id)
        {
            compact(&mut job);
            self.inactive.insert(*job);
        }
        if changed && !self.waits.is_empty() {
            self.wake(cx, id);
        }
    }

    /// Reads the jobs of an earlier life of the instance, which the live journal does not bring.
    fn read_history(&mut self, cx: &mut Cx<'_>) {
        let req = cx.request_any("job-manager.events-journal", &json!({ "full": true }));
        let rpc = Rc::new(std::cell::Cell::new(None));
        let mine = rpc.clone();
        let id = cx.rpc_stream(req, move |me: &mut JobList, cx, result| {
            let Ok(response) = result.and_then(|msg| Ok(msg.payload_json::<JournalResponse>()?)) else {
                me.history_read(cx);
                return;
            };
            if response.id == SENTINEL || response.id == i128::from(u64::MAX) {
                if let Some(rpc) = mine.take() {
                    let body = json!({ "matchtag": cx.matchtag(rpc) });
                    let cancel = cx.request_any("job-manager.events-journal-cancel", &body);
                    cx.notify(cancel);
                    cx.forget(rpc);
                }
                me.history_read(cx);
                return;
            }
            me.on_history(response);
        });
        rpc.set(Some(id));
        self.early = Some(Vec::new());
    }

    /// Answers what was asked while the jobs of an earlier life were being read.
    fn history_read(&mut self, cx: &mut Cx<'_>) {
        for req in self.early.take().unwrap_or_default() {
            self.on_request(cx, req);
        }
    }

    fn on_history(&mut self, response: JournalResponse) {
        let Ok(id) = u64::try_from(response.id).map(JobId) else {
            return;
        };
        // active jobs come through the live journal
        let events: Vec<Event> = response
            .events
            .iter()
            .filter_map(|text| Event::decode(text.get()).ok())
            .collect();
        let over = events.iter().any(|event| event.name == "clean");
        if !over || self.find(id).is_some() {
            return;
        }
        let (jobspec, r) = (response.jobspec.map(Rc::new), response.r.map(Rc::new));
        let mut job: Option<Job> = None;
        for event in &events {
            let event = JobEvent {
                id,
                userid: 0,
                timestamp: event.timestamp,
                sequence: 0,
                name: Rc::from(event.name.as_str()),
                line: Rc::from(event.encode()),
                jobspec: jobspec.clone().filter(|_| event.name == "submit"),
                r: r.clone().filter(|_| event.name == "alloc"),
            };
            match &mut job {
                None => job = self.shared.submitted(&event),
                Some(job) => self.shared.apply(job, &event),
            }
        }
        if let Some(mut job) = job.filter(Job::is_inactive) {
            compact(&mut job);
            self.stats.add(&job);
            self.inactive.insert(job);
        }
    }

    fn on_purge(&mut self, cx: &mut Cx<'_>, ids: &[JobId]) {
        for id in ids {
            if let Some(job) = self.inactive.remove(*id) {
                self.stats.subtract(&job);
                self.stats.purged(&job);
            }
        }
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
        if state != 0 && JobState::from_bit(state).is_none() {
            cx.fail(&req, errno::EINVAL, &format!("list-id: invalid state {state}"));
            return;
        }
        let id = body.id;
        let wait = IdWait {
            request: Message { payload: None, ..req },
            id,
            attrs,
            state,
        };
        if let Some(job) = self.find(id) {
            if job.state.bit() >= state {
                self.answer_id(cx, &wait.request, job, attrs);
            } else {
                self.waits.push(wait);
            }
            return;
        }
        if !cx.provides(manager::SERVICE) {
            cx.fail(&wait.request, errno::ENOENT, "");
            return;
        }
        // the job manager may know it already: then its submit event is on its way
        self.lookups += 1;
        self.waits.push(wait);
        manager::active_job(cx, id, move |me: &mut JobList, cx, job| {
            me.lookups -= 1;
            if job.is_none() {
                me.wake(cx, id);
                if me.find(id).is_none() {
                    me.fail_waits(cx, id);
                }
            }
        });
    }

    fn wake(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(state) = self.find(id).map(|job| job.state.bit()) else {
            return;
        };
        let ready: Vec<IdWait> = self
            .waits
            .extract_if(.., |wait| wait.id == id && state >= wait.state)
            .collect();
        for wait in ready {
            if let Some(job) = self.find(id) {
                self.answer_id(cx, &wait.request, job, wait.attrs);
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
        let body = self.stats.body();
        cx.respond(&req, &body);
        if req.is_streaming() {
            self.stats_watchers.push(Message { payload: None, ..req });
        }
    }

    fn changed(&mut self, cx: &mut Cx<'_>) {
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

impl Service for JobList {
    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface {
            service: "job-list",
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        cx.subscribe("job-purge-inactive");
        manager::subscribe_journal(cx, |me: &mut JobList, cx, events| me.on_journal(cx, events));
        self.read_history(cx);
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        if let Some(early) = &mut self.early {
            early.push(req);
            return;
        }
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

    fn on_event(&mut self, cx: &mut Cx<'_>, event: &Message) {
        if let Ok(purged) = event.payload_json::<Purged>() {
            self.on_purge(cx, &purged.jobs);
        }
    }

    fn on_disconnect(&mut self, _cx: &mut Cx<'_>, msg: &Message) {
        self.stats_watchers
            .retain(|request| request.sender() != msg.sender());
        self.waits.retain(|wait| wait.request.sender() != msg.sender());
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
        true
    }
}
