//! The execution service's actor.

use super::config::Config;
use super::job::Job;
use crate::modules::job_manager::api as manager;
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::rc::Rc;

const METHODS: &[Method] = &[
    Method::user("critical-ranks"),
    Method::user("shell-barrier"),
    Method::user("shell-exit"),
    Method::user("shell-hello"),
    Method::owner("agent-hello"),
    Method::owner("expiration"),
    Method::owner("override"),
];

/// The `job-exec` module.
#[derive(Debug, Default)]
pub struct JobExec {
    pub(super) config: Config,
    pub(super) jobs: HashMap<JobId, Job>,
    /// Shells' last words that wait until the job's end is written down.
    pub(super) unanswered: HashMap<JobId, Vec<Message>>,
    /// Until the job manager has told of all jobs of a former run: what may concern one of them waits.
    pub(super) early: Option<Vec<Message>>,
    /// The instance shuts down: nodes leave, and that is no failure.
    pub(super) leaving: bool,
}

/// The state in which an instance begins to shut down, as `state-machine.monitor` numbers it.
const STATE_SHUTDOWN: u32 = 7;

#[derive(Deserialize)]
struct StateResponse {
    state: u32,
}

impl JobExec {
    fn handle(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "shell-barrier" => self.on_barrier(cx, req),
            "shell-exit" => self.on_shell_exit(cx, req),
            "shell-hello" => self.on_shell_hello(cx, &req),
            "agent-hello" => self.on_agent_hello(cx, &req),
            "critical-ranks" => self.on_critical_ranks(cx, &req),
            "expiration" => self.on_expiration_request(cx, &req),
            "override" => self.on_override(cx, &req),
            _ => cx.fail(&req, errno::ENOSYS, ""),
        }
    }

    /// The job manager has told of all jobs that ran before: the others are over.
    pub(super) fn on_restored(&mut self, cx: &mut Cx<'_>) {
        for req in self.early.take().into_iter().flatten() {
            self.handle(cx, req);
        }
    }
}

impl Service for JobExec {
    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface {
            service: super::api::SERVICE,
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        self.config = Config::read(&cx.config)?;
        self.early = cx.provides(manager::SERVICE).then(Vec::new);
        manager::exec_hello(cx);
        let req = cx.request_any("state-machine.monitor", &json!({ "final": STATE_SHUTDOWN }));
        cx.rpc_stream(req, |me: &mut JobExec, _, result| {
            let state = result.and_then(|msg| Ok(msg.payload_json::<StateResponse>()?));
            me.leaving |= state.is_ok_and(|body| body.state >= STATE_SHUTDOWN);
        });
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        if let Some(early) = &mut self.early {
            early.push(req);
            return;
        }
        self.handle(cx, req);
    }

    fn stats(&mut self, _cx: &mut Cx<'_>) -> Option<Value> {
        let config = &self.config;
        let jobs: Map<String, Value> = {
            let timeout = config.kill_timeout.as_secs_f64();
            self.jobs
                .values()
                .map(|job| (job.id.to_string(), job_stats(job, timeout)))
                .collect()
        };
        let max_kill = config.effective_max_kill_timeout().as_secs_f64();
        let seconds = |limit: Option<std::time::Duration>| limit.map_or(-1.0, |limit| limit.as_secs_f64());
        Some(json!({
            "method": "bulk-exec",
            "kill-timeout": config.kill_timeout.as_secs_f64(),
            "term-signal": config.term_signal.name(),
            "kill-signal": config.kill_signal.name(),
            "max-kill-count": config.max_kill_count,
            "max-kill-timeout": seconds(config.max_kill_timeout),
            "effective-max-kill-timeout": max_kill,
            "jobs": jobs,
            "config": {
                "default_cwd": crate::modules::rexec::agent::DEFAULT_CWD,
                "default_job_shell": config.job_shell,
                "exec_service": "rexec",
                "default_barrier_timeout": seconds(config.barrier_timeout),
                "shell_exit_timeout": seconds(config.shell_exit_timeout),
                "sdexec_stop_timer_sec": config.effective_max_kill_timeout().as_secs(),
                "sdexec_stop_timer_signal": 10,
                "sdexec_constrain_resources": 0,
            },
        }))
    }

    fn config_prepare(&mut self, _cx: &mut Cx<'_>, config: &Rc<Value>) -> Result<(), RpcError> {
        Config::read(config).map(drop)
    }

    fn config_commit(&mut self, cx: &mut Cx<'_>) {
        if let Ok(config) = Config::read(&cx.config) {
            self.config = config;
        }
    }
}

/// Returns what `job-exec.stats-get` shows of a job.
fn job_stats(job: &Job, kill_timeout: f64) -> Value {
    json!({
        "implementation": if job.mock.is_some() { "testexec" } else { "bulk-exec" },
        "ns": job.id.guest_namespace(),
        "critical_ranks": job.critical.to_string(),
        "multiuser": i32::from(job.multiuser),
        "has_namespace": i32::from(job.has_namespace),
        "exception_in_progress": i32::from(job.exception),
        "started": i32::from(job.start_told),
        "running": i32::from(job.start_told && !job.ending),
        "finalizing": i32::from(job.ending),
        "expiration": job.expiration,
        "kill_timeout": kill_timeout,
        "kill_count": job.killing.tasks,
        "kill_shell_count": job.killing.shells,
        "total_shells": job.size(),
        "active_shells": job.active.count(),
        "active_ranks": job.active.to_string(),
    })
}
