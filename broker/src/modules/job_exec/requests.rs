//! What may shells, sub-instances and tools ask of the execution service?

use super::JobExec;
use super::job::{Entered, Finish};
use crate::modules::resource::api as resource;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::{Message, flags};
use flux_formats::rpc::job_exec as rpc;

impl JobExec {
    /// Returns an error unless the job runs and the sender is its owner or the instance owner.
    pub(super) fn check(&self, cx: &Cx<'_>, req: &Message, id: JobId) -> Result<(), RpcError> {
        let job = self
            .jobs
            .get(&id)
            .ok_or_else(|| RpcError::new(errno::ENOENT, format!("job {id} is not running")))?;
        if cx.authorized(req, job.userid) {
            Ok(())
        } else {
            Err(RpcError::new(
                errno::EPERM,
                "guests may only act on their own jobs",
            ))
        }
    }

    pub(super) fn on_shell_exit(&mut self, cx: &mut Cx<'_>, req: Message) {
        let Some(body) = cx.decode::<rpc::ShellExitRequest>(&req) else {
            return;
        };
        if let Err(err) = self.check(cx, &req, body.id) {
            cx.fail_with(&req, &err);
            return;
        }
        let waits = self
            .jobs
            .get(&body.id)
            .is_some_and(|job| job.outliving.on && job.outliving.finish != Finish::Kept);
        if waits {
            // the shell stays until its word is not needed any more: this broker may die before
            let header = Message { payload: None, ..req };
            self.unanswered.entry(body.id).or_default().push(header);
        } else {
            cx.respond_empty(&req);
        }
        self.shell_ended(cx, body.id, body.rank, body.status);
    }

    pub(super) fn on_critical_ranks(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Some(body) = cx.decode::<rpc::CriticalRanksRequest>(req) else {
            return;
        };
        match self.check(cx, req, body.id) {
            Ok(()) => {
                if let Some(job) = self.jobs.get_mut(&body.id) {
                    job.critical = body.ranks;
                }
                cx.respond_empty(req);
            }
            Err(err) => cx.fail_with(req, &err),
        }
    }

    pub(super) fn on_expiration_request(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Some(body) = cx.decode::<rpc::ExpirationRequest>(req) else {
            return;
        };
        if self.on_expiration(cx, body.id, body.expiration) {
            cx.respond_empty(req);
        } else {
            cx.fail(req, errno::ENOENT, "Job not found");
        }
    }

    pub(super) fn on_override(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Some(body) = cx.decode::<rpc::OverrideRequest>(req) else {
            return;
        };
        match self.override_mock(cx, body.jobid, &body.event, body.status) {
            Ok(()) => cx.respond_empty(req),
            Err(text) => cx.fail(req, errno::EINVAL, text),
        }
    }

    // ---- barrier --------------------------------------------------------------------------------------

    /// A shell waits for the others. The request carries NORESPONSE and is answered all the same.
    pub(super) fn on_barrier(&mut self, cx: &mut Cx<'_>, mut req: Message) {
        req.flags &= !flags::NORESPONSE;
        let Some(body) = cx.decode::<rpc::BarrierRequest>(&req) else {
            return;
        };
        if let Err(err) = self.check(cx, &req, body.id) {
            cx.fail_with(&req, &err);
            return;
        }
        let Some(job) = self.jobs.get_mut(&body.id) else {
            return;
        };
        req.payload = None;
        let (entered, refused) = job.enter_barrier(body.rank, body.number, req);
        if let Some(req) = refused {
            match entered {
                Entered::Passed => cx.respond_empty(&req),
                Entered::Broken => cx.fail(&req, errno::EIO, ""),
                _ => cx.fail(&req, errno::EINVAL, ""),
            }
        } else if entered == Entered::Complete {
            if let Some(timer) = job.barrier.timer.take() {
                cx.cancel_timer(timer);
            }
            for (_, req) in std::mem::take(&mut job.barrier.waiting) {
                cx.respond_empty(&req);
            }
        } else if job.barrier.timer.is_none()
            && let Some(limit) = self.config.barrier_timeout
        {
            let id = body.id;
            job.barrier.timer = Some(cx.timer(limit, move |me: &mut JobExec, cx| me.barrier_timeout(cx, id)));
        }
    }

    /// Fails all who wait, since a shell ended.
    pub(super) fn break_barrier(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(timer) = job.barrier.timer.take() {
            cx.cancel_timer(timer);
        }
        for (_, req) in std::mem::take(&mut job.barrier.waiting) {
            cx.fail(&req, errno::EIO, "");
        }
    }

    fn barrier_timeout(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.barrier.timer = None;
        let missing = job.missing_at_barrier();
        let there = job.barrier.waiting.len();
        let text = format!(
            "start barrier timeout: {there}/{} shells, waiting for ranks {missing}",
            job.size()
        );
        resource::drain(cx, &missing, &format!("job {id}: start barrier timeout"));
        self.break_barrier(cx, id);
        self.fatal(cx, id, &text);
    }
}
