//! The job manager's actor: its state, its methods, who handles what.

use super::commit::Batch;
use super::config::Config;
use super::housekeeping::Housekeeping;
use super::inactive::InactiveJobs;
use super::index::Index;
use super::job::Job;
use super::journal::Journal;
use super::names::Names;
use super::ports::{Executor, LocalExecutor, LocalScheduler, LocalStore, SchedRequest, Scheduler, Store};
use super::queue::Queues;
use super::restart::Restart;
use super::specs::Specs;
use super::tap::{self, LocalPlugins, NoPlugins, Plugins, Tap};
use super::wait::Waits;
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The job manager (module `job-manager`, rank 0).
pub struct JobManager {
    pub(super) store: Box<dyn Store>,
    pub(super) scheduler: Box<dyn Scheduler>,
    pub(super) executor: Box<dyn Executor>,
    pub(super) active: BTreeMap<JobId, Job>,
    pub(super) inactive: InactiveJobs,
    pub(super) index: Index,
    pub(super) specs: Specs,
    /// Jobs to be sent to the scheduler, the next one first.
    pub(super) queued: BTreeSet<(Reverse<u64>, JobId)>,
    /// Jobs with the scheduler.
    pub(super) alloc_pending: usize,
    /// Jobs in RUN and CLEANUP.
    pub(super) running: usize,
    pub(super) sched_ready: bool,
    pub(super) sched_requests: Vec<SchedRequest>,
    pub(super) open: Batch,
    pub(super) in_flight: Option<Batch>,
    pub(super) armed: bool,
    /// Why eventlogs cannot be written now.
    pub(super) store_error: Option<String>,
    /// Who waits for the events of the commit in flight.
    pub(super) delivered_waiters: Vec<super::commit::Call>,
    pub(super) journal: Journal,
    /// Number of the last event.
    pub(super) sequence: u64,
    pub(super) queues: Queues,
    pub(super) waits: Waits,
    pub(super) drains: Vec<Message>,
    pub(super) idles: Vec<Message>,
    pub(super) names: Names,
    /// Reused for event lines.
    pub(super) line: String,
    pub(super) last_time: f64,
    pub(super) max_jobid: JobId,
    /// Bytes of signed jobspecs and environments kept for pending jobs.
    pub(super) secret_bytes: usize,
    pub(super) restart: Option<Restart>,
    pub(super) config: Config,
    pub(super) housekeeping: Housekeeping,
    pub(super) purging: bool,
    pub(super) tap: Tap,
}

impl std::fmt::Debug for JobManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobManager")
            .field("active", &self.active.len())
            .field("inactive", &self.inactive.len())
            .field("max_jobid", &self.max_jobid)
            .finish_non_exhaustive()
    }
}

impl Default for JobManager {
    fn default() -> Self {
        Self::with_ports(
            Box::new(LocalStore),
            Box::new(LocalScheduler),
            Box::new(LocalExecutor),
        )
        .with_plugins(Box::new(LocalPlugins::default()))
    }
}

pub(super) const METHODS: &[Method] = &[
    Method::owner("submit"),
    Method::user("getinfo"),
    Method::user("getattr"),
    Method::owner("list"),
    Method::user("urgency"),
    Method::user("raise"),
    Method::user("raiseall"),
    Method::user("kill"),
    Method::user("killall"),
    Method::user("update"),
    Method::owner("wait"),
    Method::user("memo"),
    Method::owner("drain"),
    Method::owner("idle"),
    Method::user("queue-list"),
    Method::user("queue-status"),
    Method::owner("queue-enable"),
    Method::owner("queue-start"),
    Method::user("alloc-query"),
    Method::owner("resource-status"),
    Method::owner("purge"),
    Method::owner("purge-id"),
    Method::owner("events-journal"),
    Method::owner("events-journal-cancel"),
    Method::owner("jobtap"),
    Method::owner("jobtap-query"),
    Method::owner("housekeeping-kill"),
    Method::owner("set-batch-timeout"),
    Method::owner("sched-hello"),
    Method::owner("sched-ready"),
    Method::owner("exec-hello"),
    Method::user("why"),
    // of standard plugins: known from the start, so that requests wait until these are loaded
    Method::user("history.get"),
    Method::owner("post-event.post"),
];

impl JobManager {
    /// Returns a job manager over these services.
    pub(crate) fn with_ports(
        store: Box<dyn Store>,
        scheduler: Box<dyn Scheduler>,
        executor: Box<dyn Executor>,
    ) -> Self {
        JobManager {
            store,
            scheduler,
            executor,
            active: BTreeMap::new(),
            inactive: InactiveJobs::default(),
            index: Index::default(),
            specs: Specs::default(),
            queued: BTreeSet::new(),
            alloc_pending: 0,
            running: 0,
            sched_ready: false,
            sched_requests: Vec::new(),
            open: Batch::default(),
            in_flight: None,
            armed: false,
            store_error: None,
            delivered_waiters: Vec::new(),
            journal: Journal::default(),
            sequence: 0,
            queues: Queues::default(),
            waits: Waits::default(),
            drains: Vec::new(),
            idles: Vec::new(),
            names: Names::default(),
            line: String::new(),
            last_time: 0.0,
            max_jobid: JobId(0),
            secret_bytes: 0,
            restart: Some(Restart::default()),
            config: Config::default(),
            housekeeping: Housekeeping::default(),
            purging: false,
            tap: Tap::new(Box::new(NoPlugins)),
        }
    }

    /// Returns the job manager with jobtap plugins.
    pub(crate) fn with_plugins(mut self, plugins: Box<dyn Plugins>) -> Self {
        self.tap = Tap::new(plugins);
        self
    }

    /// Handles a request; errors are answered here.
    pub(super) fn handle(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let method = req
            .topic
            .as_str()
            .strip_prefix("job-manager.")
            .unwrap_or_default();
        let result = match method {
            "submit" => self.on_submit(cx, req),
            "getinfo" => self.on_getinfo(cx, req),
            "getattr" => self.on_getattr(cx, req),
            "list" => self.on_list(cx, req),
            "urgency" => self.on_urgency(cx, req),
            "raise" => self.on_raise(cx, req),
            "raiseall" => self.on_raiseall(cx, req),
            "kill" => self.on_kill(cx, req),
            "killall" => self.on_killall(cx, req),
            "update" => self.on_update(cx, req),
            "wait" => self.on_wait(cx, req),
            "memo" => self.on_memo(cx, req),
            "drain" => self.on_drain(cx, req),
            "idle" => self.on_idle(cx, req),
            "queue-list" => self.on_queue_list(cx, req),
            "queue-status" => self.on_queue_status(cx, req),
            "queue-enable" => self.on_queue_enable(cx, req),
            "queue-start" => self.on_queue_start(cx, req),
            "alloc-query" => self.on_alloc_query(cx, req),
            "resource-status" => self.on_resource_status(cx, req),
            "purge" => self.on_purge(cx, req),
            "purge-id" => self.on_purge_id(cx, req),
            "events-journal" => self.on_events_journal(cx, req),
            "events-journal-cancel" => self.on_events_journal_cancel(cx, req),
            "why" => self.on_why(cx, req),
            "set-batch-timeout" => Self::on_set_batch_timeout(cx, req),
            "jobtap" => self.on_jobtap(cx, req),
            "jobtap-query" => self.on_jobtap_query(cx, req),
            "housekeeping-kill" => self.on_housekeeping_kill(cx, req),
            "sched-hello" | "sched-ready" | "exec-hello" => Err(unsupported(method)),
            _ if self.tap_request(cx, req) => Ok(()),
            _ => Err(RpcError::bare(errno::ENOSYS)),
        };
        if let Err(err) = result {
            cx.fail_with(req, &err);
        }
    }

    fn on_set_batch_timeout(cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        // batches end with the turn: there is no timeout to set, but the request is well formed
        let _: flux_formats::rpc::job_manager::BatchTimeoutRequest = req.payload_json()?;
        cx.respond_empty(req);
        Ok(())
    }
}

fn unsupported(method: &str) -> RpcError {
    let what = match method {
        "exec-hello" => "another execution service is not supported by this version",
        _ => "another scheduler is not supported by this version",
    };
    RpcError::new(errno::ENOSYS, what)
}

impl Service for JobManager {
    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface {
            service: super::api::SERVICE,
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        let config = cx.config.clone();
        self.config = Config::read(&config)?;
        tap::check_config(&config)?;
        Queues::check(config.get("queues").unwrap_or(&Value::Null))
            .map_err(|err| RpcError::new(errno::EINVAL, err.to_string()))?;
        self.queues
            .configure(config.get("queues").unwrap_or(&Value::Null));
        if self.config.purges() {
            cx.subscribe("heartbeat.pulse");
        }
        self.begin_restart(cx);
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        if let Some(restart) = &mut self.restart {
            restart.defer(req);
            return;
        }
        self.handle(cx, &req);
    }

    fn on_event(&mut self, cx: &mut Cx<'_>, event: &Message) {
        if event.topic.as_str() == "heartbeat.pulse" {
            self.purge_by_limits(cx);
        }
    }

    fn on_disconnect(&mut self, _cx: &mut Cx<'_>, msg: &Message) {
        let sender = msg.sender();
        self.journal.disconnect(sender);
        self.waits.disconnect(sender);
        self.drains.retain(|req| req.sender() != sender);
        self.idles.retain(|req| req.sender() != sender);
    }

    fn stats_later(&mut self, cx: &mut Cx<'_>, req: &Message) -> bool {
        self.tap_stats_later(cx, req)
    }

    fn stats(&mut self, _cx: &mut Cx<'_>) -> Option<Value> {
        Some(json!({
            "journal": {"listeners": self.journal.listeners(), "events": self.journal.event_count()},
            "active_jobs": self.active.len(),
            "inactive_jobs": self.inactive.len(),
            "max_jobid": self.max_jobid,
            "housekeeping": self.housekeeping_stats(),
            "jobtap": self.tap_stats(&[]),
        }))
    }

    fn config_prepare(&mut self, _cx: &mut Cx<'_>, config: &Rc<Value>) -> Result<(), RpcError> {
        Config::read(config)?;
        tap::check_config(config)?;
        Queues::check(config.get("queues").unwrap_or(&Value::Null))
            .map_err(|err| RpcError::new(errno::EINVAL, err.to_string()))
    }

    fn config_commit(&mut self, cx: &mut Cx<'_>) {
        let config = cx.config.clone();
        if let Ok(new) = Config::read(&config) {
            let (before, after) = (self.config.purges(), new.purges());
            self.config = new;
            if after && !before {
                cx.subscribe("heartbeat.pulse");
            } else if before && !after {
                cx.unsubscribe("heartbeat.pulse");
            }
        }
        self.queues
            .configure(config.get("queues").unwrap_or(&Value::Null));
        self.tap_configure(cx);
        self.drive_all(cx);
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        self.refuse_waiters(cx);
        let change = self.checkpoint_change();
        self.batch(cx).change(change);
        self.batch(cx)
            .after(super::commit::After::Call(Box::new(|_, cx| cx.stopped())));
        false
    }
}
