//! What happens between the end of the initial program and the shutdown? Jobs are ended, cleanup commands run.

use super::program;
use super::service::Lifecycle;
use crate::service::Cx;
use flux_formats::errno;
use serde_json::json;
use std::time::Instant;

/// RFC 21 state mask of jobs that have resources: RUN.
const STATE_RUN: u32 = 16;

impl Lifecycle {
    /// Runs commands pushed with `runat.push` (last first), then the standard steps at rank 0.
    pub(super) fn begin_cleanup(&mut self, cx: &mut Cx<'_>) {
        if cx.rank() != 0 || self.options.bare {
            self.post(cx, "cleanup-none");
            return;
        }
        self.next_command(cx);
    }

    fn next_command(&mut self, cx: &mut Cx<'_>) {
        let Some(argv) = self.cleanup.pop() else {
            self.stop_queues(cx);
            return;
        };
        let name = argv.get(2).cloned().unwrap_or_else(|| argv.join(" "));
        let (begin, index) = (Instant::now(), self.cleanup_count);
        self.cleanup_count += 1;
        let run = program::run(cx, argv);
        cx.spawn(run, move |me: &mut Lifecycle, cx, result| {
            program::log_end(cx, "cleanup", index, &name, &result, begin);
            me.next_command(cx);
        });
    }

    fn stop_queues(&mut self, cx: &mut Cx<'_>) {
        if std::env::var_os("FLUX_DISABLE_JOB_CLEANUP").is_some() {
            self.post(cx, "cleanup-success");
            return;
        }
        let body =
            json!({"start": false, "all": true, "nocheckpoint": true, "reason": "instance is shutting down"});
        let req = cx.request_any("job-manager.queue-start", &body);
        cx.rpc(req, |me: &mut Lifecycle, cx, result| {
            if let Err(err) = result {
                if err.errnum == errno::ENOSYS {
                    me.post(cx, "cleanup-success");
                    return;
                }
                cx.log(4, "broker", &format!("cleanup: stopping the queues: {err}"));
            }
            me.cancel_jobs(cx);
        });
    }

    fn cancel_jobs(&mut self, cx: &mut Cx<'_>) {
        let body = json!({
            "dry_run": false, "userid": -1, "states": STATE_RUN, "severity": 0, "type": "cancel",
            "note": "instance is shutting down",
        });
        let req = cx.request_any("job-manager.raiseall", &body);
        cx.rpc(req, |_: &mut Lifecycle, cx, result| {
            if let Err(err) = result {
                cx.log(4, "broker", &format!("cleanup: canceling jobs: {err}"));
            }
            let req = cx.request_any("job-manager.idle", &json!({}));
            cx.rpc(req, |me: &mut Lifecycle, cx, result| {
                if let Err(err) = &result {
                    cx.log(4, "broker", &format!("cleanup: waiting for jobs to end: {err}"));
                }
                me.post(
                    cx,
                    if result.is_ok() {
                        "cleanup-success"
                    } else {
                        "cleanup-fail"
                    },
                );
            });
        });
    }
}
