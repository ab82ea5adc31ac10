//! What do the job manager and the execution service say to each other? (RFC 32)

use super::JobManager;
use super::api::ExecEvent;
use super::commit::After;
use super::event::{Event, Exception};
use super::job::{End, Exec};
use super::state::State;
use super::submit::Secrets;
use crate::modules::job_exec::api::StartRequest;
use crate::service::Cx;
use flux_formats::jobid::JobId;
use flux_formats::jobspec::Apart;
use std::rc::Rc;

impl JobManager {
    /// Starts a job whose `alloc` event is in the KVS, unless it ended meanwhile.
    pub(super) fn start_intended(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        let startable = job.state == State::Run || (job.state == State::Cleanup && job.marks.reattach);
        if !startable || job.exec != Exec::Intended {
            return;
        }
        let secrets = job.secrets.take();
        if let Some(secrets) = &secrets {
            self.secret_bytes = self.secret_bytes.saturating_sub(secrets.bytes());
        } else if !job.marks.reattach {
            self.read_secrets(cx, id);
            return;
        }
        self.start_with(cx, id, secrets.map(|secrets| *secrets));
    }

    /// Reads J again: it did not fit in memory, or the job comes from a former run of the broker.
    fn read_secrets(&mut self, cx: &mut Cx<'_>, id: JobId) {
        self.store.lookup(
            cx,
            &id.kvs_key("J"),
            Box::new(move |me, cx, result| {
                let j = result
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
                let secrets = j.and_then(|j| {
                    let payload = flux_sign::unwrap_noverify(&j).ok()?.payload;
                    let environment = Apart::read(std::str::from_utf8(&payload).ok()?).ok()?.environment;
                    Some(Secrets {
                        j: j.into(),
                        environment,
                    })
                });
                let waits = me.active.get(&id).is_some_and(|job| job.exec == Exec::Intended);
                if waits {
                    me.start_with(cx, id, secrets);
                }
            }),
        );
    }

    fn start_with(&mut self, cx: &mut Cx<'_>, id: JobId, secrets: Option<Secrets>) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        let Some(r) = job.r.clone() else {
            tracing::error!(jobid = %id, "job has no R");
            return;
        };
        let (j, environment) = match secrets {
            Some(Secrets { j, environment }) => {
                let j = std::str::from_utf8(&j).ok().map(Rc::from);
                (j, environment)
            }
            None => (None, None),
        };
        let request = StartRequest {
            id,
            userid: job.userid,
            jobspec: job.jobspec.clone(),
            environment,
            r,
            reattach: job.marks.reattach,
            finished: job.marks.finished,
            j,
        };
        if self.executor.start(cx, request) {
            job.exec = Exec::Requested;
            // found again after a restart, to be ended
            let ended = match &job.end {
                Some(End::Exception { kind, .. }) => Some(kind.clone()),
                _ => None,
            };
            if let Some(kind) = ended {
                self.executor.exception(cx, id, 0, &kind, None);
            }
            self.debug_event(cx, id, "start-request");
        } else {
            job.exec = Exec::Idle; // until it says hello
        }
    }

    pub(super) fn on_exec_hello(&mut self, cx: &mut Cx<'_>) {
        let mut lost = Vec::new();
        for (id, job) in &mut self.active {
            if job.exec == Exec::Requested {
                // the service was replaced: its successor finds the shells
                job.marks.reattach = true;
                job.exec = Exec::Idle;
                lost.push(*id);
            }
        }
        for id in lost {
            self.debug_event(cx, id, "start-lost");
        }
        self.drive_all(cx);
        // the starts wait for the same commit, and come before this
        self.batch(cx)
            .after(After::Call(Box::new(|me, cx| me.executor.restored(cx))));
    }

    /// Drives all active jobs, after something changed for all of them.
    pub(super) fn drive_all(&mut self, cx: &mut Cx<'_>) {
        let ids: Vec<JobId> = self.active.keys().copied().collect();
        for id in ids {
            self.drive(cx, id);
        }
    }

    pub(super) fn on_exec_event(&mut self, cx: &mut Cx<'_>, id: JobId, event: ExecEvent) {
        let Some(job) = self.active.get_mut(&id) else {
            tracing::error!(jobid = %id, event = ?event, "execution event for a job that is not active");
            return;
        };
        let event = match event {
            ExecEvent::Start if job.marks.started => return,
            ExecEvent::Start => Event::Start,
            ExecEvent::Reattached => {
                self.debug_event(cx, id, "exec-reattach-finish");
                return;
            }
            ExecEvent::Finish { status } => Event::Finish { status },
            ExecEvent::Exception {
                severity,
                kind,
                note,
                userid,
            } => Event::Exception(Exception {
                kind,
                severity,
                note,
                userid: Some(userid.unwrap_or(cx.owner)),
                wait_status: None,
                from_exec: true,
            }),
            ExecEvent::Release { ranks, last } => {
                let described = job.released_ranks(&ranks, last);
                if !last && self.config.housekeeping.is_none() {
                    job.given_back = job.given_back.union(&ranks);
                    self.batch(cx).after(After::Free {
                        id,
                        ranks: Some(ranks),
                    });
                }
                Event::Release {
                    ranks: described,
                    last,
                }
            }
        };
        self.post_sure(cx, id, &event);
    }
}
