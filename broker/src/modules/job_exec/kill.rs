//! How is a job made to end? Signals that grow sharper, and the time limit.
//!
//! ```text
//! exception ─> SIGTERM to the shells ─ kill-timeout ─> SIGKILL to the tasks ─ doubled ─> SIGKILL to the shells
//!                                                      … max-kill-count times ─> the nodes are drained
//! ```

use super::JobExec;
use crate::modules::resource::api as resource;
use crate::modules::rexec::agent;
use crate::service::Cx;
use flux_formats::eventlog;
use flux_formats::jobid::JobId;
use serde_json::json;
use std::time::{Duration, SystemTime};

/// Sent to the shells of a job whose time limit has come.
const SIGALRM: i32 = 14;

impl JobExec {
    /// Handles an exception of a job, whoever raised it.
    pub(super) fn on_exception(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        severity: u8,
        kind: &str,
        status: Option<i32>,
    ) {
        let Some(job) = self
            .jobs
            .get_mut(&id)
            .filter(|job| severity == 0 && !job.exception)
        else {
            return;
        };
        job.exception = true;
        job.cause = status;
        cx.log_as_me(7, &format!("exec aborted: id={id}"));
        let signal = if kind == "timeout" {
            SIGALRM
        } else {
            self.config.term_signal.number()
        };
        self.begin_kill(cx, id, signal);
        self.check_complete(cx, id);
    }

    /// Sends the first signal and starts the escalation.
    pub(super) fn begin_kill(&mut self, cx: &mut Cx<'_>, id: JobId, signum: i32) {
        let Some(job) = self
            .jobs
            .get_mut(&id)
            .filter(|job| !job.ending && job.killing.timer.is_none())
        else {
            return;
        };
        if job.mock.is_some() {
            self.kill_mock(cx, id, signum);
            return;
        }
        if job.active.is_empty() {
            return;
        }
        self.kill_shells(cx, id, signum);
        self.plan_kill(cx, id, self.config.kill_timeout);
    }

    fn kill_shells(&mut self, cx: &mut Cx<'_>, id: JobId, signum: i32) {
        let Some(job) = self.jobs.get(&id) else { return };
        cx.log_as_me(7, &format!("exec_kill: {id}: signal {signum}"));
        for rank in &job.active {
            agent::kill(cx, rank, id, signum);
        }
    }

    fn plan_kill(&mut self, cx: &mut Cx<'_>, id: JobId, delay: Duration) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        // a timeout of "none" means that nothing sharper follows
        if delay < Duration::from_secs(u64::from(u32::MAX)) {
            job.killing.timer = Some(cx.timer(delay, move |me: &mut JobExec, cx| me.kill_step(cx, id)));
        }
    }

    fn kill_step(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let signal = self.config.kill_signal.number();
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.ending) else {
            return;
        };
        job.killing.timer = None;
        if job.killing.tasks == 0 {
            job.killing.tasks = 1;
            cx.log_as_me(7, &format!("{id}: sending signal {signal} to the tasks"));
            cx.publish(format!("shell-{}.kill", id.0), &json!({ "signum": signal }));
        } else if job.killing.shells < self.config.max_kill_count {
            job.killing.shells += 1;
            self.kill_shells(cx, id, signal);
        } else {
            self.give_up(cx, id);
            return;
        }
        let doublings = self
            .jobs
            .get(&id)
            .map_or(0, |job| job.killing.tasks + job.killing.shells)
            .min(16);
        self.plan_kill(cx, id, self.config.kill_timeout.saturating_mul(1 << doublings));
    }

    /// The shells cannot be killed: their nodes are drained and the job ends without them.
    fn give_up(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let ranks = job.active.clone();
        let reason = format!("unkillable user processes for job {id}");
        cx.log_as_me(3, &format!("{id}: draining ranks {ranks}: {reason}"));
        for rank in &ranks {
            job.shell_ended(rank, None);
        }
        job.status = job.status.max(9);
        resource::drain(cx, &ranks, &reason);
        self.check_complete(cx, id);
    }

    // ---- time limit -------------------------------------------------------------------------------------

    /// Starts or restarts the timer of the job's time limit.
    pub(super) fn arm_expiration(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(timer) = job.expiration_timer.take() {
            cx.cancel_timer(timer);
        }
        if job.expiration > 0.0 && !job.ending {
            let left = (job.expiration - eventlog::timestamp(SystemTime::now())).max(0.0);
            let delay = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
            if delay < Duration::from_secs(u64::from(u32::MAX)) {
                job.expiration_timer = Some(cx.timer(delay, move |me: &mut JobExec, cx| me.expired(cx, id)));
            }
        }
    }

    fn expired(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.expiration_timer = None;
        if job.exception {
            return;
        }
        cx.log_as_me(6, &format!("job-exception: id={id}: resource allocation expired"));
        self.fatal_of_type(cx, id, "timeout", "resource allocation expired");
        self.begin_kill(cx, id, SIGALRM);
        self.check_complete(cx, id);
    }

    /// Takes another time limit: seconds since the epoch, 0 for none.
    pub(super) fn on_expiration(&mut self, cx: &mut Cx<'_>, id: JobId, expiration: f64) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        job.expiration = expiration;
        self.arm_expiration(cx, id);
        true
    }
}
