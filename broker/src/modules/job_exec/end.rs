//! How does a job end? Exec eventlog closed, finish told, guest namespace moved, resources released.

use super::JobExec;
use super::api::SERVICE;
use super::job::Finish;
use crate::modules::job_manager::api::{self as manager, ExecEvent};
use crate::modules::kvs::{Txn, local as kvs};
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use serde_json::json;

impl JobExec {
    /// Ends the job when no shell is left.
    pub(super) fn check_complete(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.ending || !job.active.is_empty() {
            return;
        }
        job.ending = true;
        for timer in [
            job.expiration_timer.take(),
            job.killing.timer.take(),
            job.barrier.timer.take(),
            job.mock.as_mut().and_then(|mock| mock.timer.take()),
        ]
        .into_iter()
        .flatten()
        {
            cx.cancel_timer(timer);
        }
        let status = job.final_status();
        // a job that never came as far as its shells has no finish
        let ran = job.has_namespace || job.start_told;
        if ran && job.outliving.finish == Finish::Untold {
            job.outliving.finish = Finish::Told;
            manager::exec_event(cx, id, ExecEvent::Finish { status });
            if job.outliving.on {
                manager::when_kept(cx, move |cx| {
                    cx.to::<JobExec>(SERVICE, move |me, cx| me.finish_kept(cx, id));
                });
            }
        }
        if ran && !job.outliving.completed {
            job.event_with("complete", &json!({ "status": status }));
        }
        if !job.outliving.closed {
            job.event("done");
        }
        if job.has_namespace {
            let moved_before = job.outliving.reattached;
            self.flush_log(cx, id);
            let done = move |me: &mut JobExec, cx: &mut Cx<'_>, result: Result<_, RpcError>| {
                let result = match result.map(drop) {
                    // a former run had come that far
                    Err(err) if moved_before && err.errnum == errno::ENOTSUP => Ok(()),
                    other => other,
                };
                me.finished(cx, id, result);
            };
            kvs::snapshot_namespace(cx, &id.guest_namespace(), &id.kvs_key("guest"), done);
        } else if job.mock.is_some() {
            let mut txn = Txn::new();
            txn.put(
                &id.kvs_key("guest.exec.eventlog"),
                std::mem::take(&mut job.log).into_bytes(),
            );
            let done = move |me: &mut JobExec, cx: &mut Cx<'_>, result: Result<_, RpcError>| {
                me.finished(cx, id, result.map(drop));
            };
            kvs::commit(cx, "primary", txn, done);
        } else {
            self.finished(cx, id, Ok(()));
        }
    }

    /// The guest directory is in place: the resources may be used again.
    fn finished(&mut self, cx: &mut Cx<'_>, id: JobId, result: Result<(), RpcError>) {
        if let Err(err) = result {
            cx.log_as_me(3, &format!("{id}: failed to keep the guest namespace: {err}"));
        }
        let Some(mut job) = self.jobs.remove(&id) else {
            return;
        };
        for (_, timer) in job.outliving.lost.drain(..) {
            cx.cancel_timer(timer);
        }
        manager::exec_event(
            cx,
            id,
            ExecEvent::Release {
                ranks: job.ranks,
                last: true,
            },
        );
    }
}
