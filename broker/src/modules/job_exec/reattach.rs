//! How are the shells of a job found again, after this broker or the one of their node has come back?
//!
//! ```text
//!                      restart of rank 0                        the node's broker is gone
//!   (former run) ──────────────────────────▶ Sought ◀─────────────────┐
//!                                      attach │  └─ unreachable ─▶ Lost ── time is up ─▶ node failure
//!                                             ▼                    │ the node says hello
//!                                          Running ◀───────────────┘
//! ```
//! Shells talk too: one that has found its broker again says hello and how many barriers it has passed. The word of a
//! shell that ends is answered when the job's end is written down; until then it would say it again (DESIGN §7).

use super::JobExec;
use super::api::StartRequest;
use super::job::{Finish, Job};
use crate::modules::kvs::{Txn, local as kvs};
use crate::modules::rexec::agent;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::eventlog;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::job_exec as rpc;
use flux_process::WaitStatus;

/// How brokers came together when one that is gone may come back: `broker.boot-method` of configured instances.
const BOOT_CONFIG: &str = "config";
/// What a shell whose end nobody saw is taken for.
pub(super) const KILLED: i32 = WaitStatus::signaled(9, false).0;

/// What the exec eventlog tells of a job that ran before.
#[derive(Debug, Default, PartialEq, Eq)]
struct Past {
    /// It has any event.
    begun: bool,
    /// Barriers that the leader shell has passed for sure.
    barriers: u32,
    /// Wait status of the `complete` event.
    complete: Option<i32>,
    done: bool,
}

impl Past {
    fn read(log: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Complete {
            status: i32,
        }
        let mut past = Past::default();
        for line in String::from_utf8_lossy(log).lines() {
            let Ok(event) = eventlog::EventRef::decode(line) else {
                continue;
            };
            past.begun = true;
            match event.name.as_ref() {
                "shell.init" => past.barriers = past.barriers.max(1),
                "shell.start" => past.barriers = 2,
                "complete" => past.complete = event.context_as::<Complete>().ok().map(|c| c.status),
                "done" => past.done = true,
                _ => {}
            }
        }
        past
    }
}

impl JobExec {
    /// Takes over a job that was started before this broker, or this service, came.
    pub(super) fn reattach(&mut self, cx: &mut Cx<'_>, mut job: Job, request: &StartRequest) {
        let (id, finished) = (job.id, request.finished);
        job.has_namespace = true;
        job.outliving.reattached = true;
        job.outliving.sought = job.ranks.clone();
        if finished {
            job.outliving.finish = Finish::Kept;
        }
        self.jobs.insert(id, job);
        // in the guest namespace, or where it was moved to
        let key = id.kvs_key("guest.exec.eventlog");
        kvs::lookup(cx, "primary", &key, move |me: &mut JobExec, cx, log| {
            me.reattach_with(cx, id, &log)
        });
    }

    fn reattach_with(&mut self, cx: &mut Cx<'_>, id: JobId, log: &Result<Bytes, RpcError>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let past = log.as_ref().map(|log| Past::read(log)).unwrap_or_default();
        job.barrier.passed = past.barriers;
        job.outliving.completed = past.complete.is_some();
        job.outliving.closed = past.done;
        if past.complete.is_some() || job.outliving.finish != Finish::Untold {
            // all shells had ended; what comes after that was not finished
            job.status = past.complete.unwrap_or(job.status);
            job.active = IdSet::default();
            job.outliving.sought = IdSet::default();
            self.check_complete(cx, id);
            return;
        }
        if !past.begun {
            job.event("init");
            job.event("starting");
        }
        job.event("reattach");
        let (namespace, userid) = (id.guest_namespace(), job.userid);
        let ranks = job.ranks.clone();
        kvs::namespace_create(
            cx,
            &namespace,
            userid,
            move |me: &mut JobExec, cx, result| match result {
                // it survived, or its making did not and is made up for
                Ok(()) => {}
                Err(err) if err.errnum == errno::EEXIST => {}
                Err(err) => me.fatal(cx, id, &format!("failed to create guest namespace: {err}")),
            },
        );
        let mut link = Txn::new();
        link.symlink(&id.kvs_key("guest"), Some(&namespace), ".");
        kvs::commit(cx, "primary", link, move |me: &mut JobExec, cx, result| {
            if let Err(err) = result {
                me.fatal(cx, id, &format!("failed to link guest namespace: {err}"));
            }
        });
        self.flush_log(cx, id);
        self.arm_expiration(cx, id);
        for rank in &ranks {
            self.attach(cx, id, rank);
        }
    }

    /// Looks for the shell of a rank.
    fn attach(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.outliving.asked.insert(rank);
        }
        agent::attach(cx, rank, id, move |me: &mut JobExec, cx, report| {
            me.on_report(cx, id, rank, report);
        });
    }

    /// A rank has said what became of its shell.
    pub(super) fn rank_answered(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(timer) = job.found(rank) {
            cx.cancel_timer(timer);
        }
        if job.answered(rank) {
            use crate::modules::job_manager::api::{self as manager, ExecEvent};
            manager::exec_event(cx, id, ExecEvent::Reattached);
        }
    }

    /// No shell was found where one had been started, or should have been: the job does not run there again.
    pub(super) fn shell_not_found(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32) {
        let guests = self.jobs.get(&id).is_some_and(|job| job.multiuser);
        let how = if guests {
            "ended with its broker: jobs of guests are not followed across restarts"
        } else {
            "was lost while the instance was down"
        };
        self.shell_vanished(cx, id, rank, how);
    }

    /// A shell ended that this broker did not start, and did not say how.
    pub(super) fn shell_was_silent(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32) {
        self.shell_vanished(cx, id, rank, "ended without a report");
    }

    fn shell_vanished(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32, how: &str) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.shell_ended(rank, Some(KILLED)) {
            return;
        }
        job.outliving.gone.insert(rank);
        let text = format!(
            "shell rank {} (on {}) {how}",
            job.shell_rank(rank),
            job.host(rank)
        );
        self.break_barrier(cx, id);
        self.lost_shell(cx, id, rank, &text, &text);
        self.check_complete(cx, id);
    }

    /// The broker of a rank is unreachable. Returns true when it may come back, and its shells with it: the job waits.
    pub(super) fn await_return(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32) -> bool {
        let limit = self.config.reattach_timeout;
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        let outliving = &job.outliving;
        if self.leaving && outliving.on {
            // the whole instance goes, not this node: whoever comes next looks for the shells
            return true;
        }
        let returns =
            cx.attrs.get("broker.boot-method") == Some(BOOT_CONFIG) || outliving.sought.contains(rank);
        let waits = outliving.on && returns && job.active.contains(rank) && !limit.is_zero();
        if !waits {
            return false;
        }
        if outliving.lost.iter().any(|(known, _)| *known == rank) {
            return true;
        }
        let secs = limit.as_secs();
        cx.log_as_me(
            4,
            &format!("{id}: rank {rank} is not there: waiting {secs}s for it to come back with its shell"),
        );
        let timer = cx.timer(limit, move |me: &mut JobExec, cx| me.lost_for_good(cx, id, rank));
        if let Some(job) = self.jobs.get_mut(&id) {
            job.outliving.lost.push((rank, timer));
        }
        true
    }

    fn lost_for_good(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.found(rank).is_some() {
            job.outliving.gone.insert(rank);
            self.node_failed(cx, id, rank);
        }
    }

    /// A broker has come, and says which shells it found on its node.
    pub(super) fn on_agent_hello(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Some(body) = cx.decode::<rpc::AgentHelloRequest>(req) else {
            return;
        };
        let rank = body.rank;
        let over = |id: &JobId| self.jobs.get(id).is_none_or(|job| !job.active.contains(rank));
        let stop: Vec<JobId> = body.jobs.into_iter().filter(over).collect();
        cx.respond(req, &rpc::AgentHelloResponse { stop });
        let waiting = |job: &&Job| job.outliving.lost.iter().any(|(known, _)| *known == rank);
        let waiting: Vec<JobId> = self.jobs.values().filter(waiting).map(|job| job.id).collect();
        for id in waiting {
            self.attach(cx, id, rank);
        }
    }

    /// A shell has found its broker again.
    pub(super) fn on_shell_hello(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Some(body) = cx.decode::<rpc::ShellHelloRequest>(req) else {
            return;
        };
        if let Err(err) = self.check(cx, req, body.id) {
            cx.fail_with(req, &err);
            return;
        }
        let Some(job) = self
            .jobs
            .get_mut(&body.id)
            .filter(|job| job.ranks.contains(body.rank) && !job.outliving.gone.contains(body.rank))
        else {
            cx.fail(req, errno::ENOENT, "the job goes on without this shell");
            return;
        };
        let passed = job.barriers_passed(body.barriers);
        let gone = job.outliving.gone.clone();
        let is_leader = job.ranks.first() == Some(body.rank);
        cx.respond_empty(req);
        for (_, waiting) in passed {
            cx.respond_empty(&waiting);
        }
        if is_leader {
            // it may have been told while it could not hear
            for rank in &gone {
                self.tell_leader(cx, body.id, rank);
            }
        }
    }

    /// The job's end is written down: its shells may go.
    pub(super) fn finish_kept(&mut self, cx: &mut Cx<'_>, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.outliving.finish = Finish::Kept;
        }
        for req in self.unanswered.remove(&id).into_iter().flatten() {
            cx.respond_empty(&req);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_read_from_the_eventlog() {
        let mut log = String::new();
        assert_eq!(Past::read(log.as_bytes()), Past::default());
        eventlog::append_bare(&mut log, 1.0, "init");
        let begun = Past {
            begun: true,
            ..Past::default()
        };
        assert_eq!(Past::read(log.as_bytes()), begun);
        eventlog::append_bare(&mut log, 1.5, "shell.init");
        assert_eq!(Past::read(log.as_bytes()).barriers, 1);
        eventlog::append_bare(&mut log, 1.6, "shell.start");
        eventlog::append(&mut log, 2.0, "complete", &serde_json::json!({"status": 768})).unwrap();
        eventlog::append_bare(&mut log, 3.0, "done");
        let over = Past {
            begun: true,
            barriers: 2,
            complete: Some(768),
            done: true,
        };
        assert_eq!(Past::read(log.as_bytes()), over);
    }
}
