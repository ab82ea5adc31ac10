//! How is a job started, and what do the agents report of its shells?

use super::JobExec;
use super::api::StartRequest;
use super::job::{Finish, Job, ranks_of};
use super::mock::Mock;
use super::reattach::KILLED;
use crate::modules::job_manager::api::{self as manager, ExecEvent};
use crate::modules::kvs::{Txn, local as kvs};
use crate::modules::rexec::agent::{self, ShellReport, StartHeader};
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::idset::IdSet;
use flux_formats::jobid::{Encoding, JobId};
use flux_formats::jobspec::Joined;
use flux_formats::msg::Message;
use flux_process::WaitStatus;
use serde::Serialize;
use serde_json::{Value, json};
use std::rc::Rc;

/// Exit codes of a shell that could not be run, as wait statuses: not executable, not found, node unreachable.
const NOT_EXECUTABLE: i32 = WaitStatus::exited(126).0;
const NOT_FOUND: i32 = WaitStatus::exited(127).0;
const UNREACHABLE: i32 = WaitStatus::exited(68).0;
/// Severity of losing a shell that the job can do without.
const CRITICAL_CONDITION: u8 = 2;

/// The part of the shell's input document that is the same on all ranks.
#[derive(Serialize)]
struct Document<'a> {
    /// Left out for another user's shell, which takes it from what its user signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    jobspec: Option<Joined<'a>>,
    #[serde(rename = "R")]
    r: &'a Value,
}

impl JobExec {
    /// Runs a job.
    pub(super) fn on_start(&mut self, cx: &mut Cx<'_>, request: StartRequest) {
        let id = request.id;
        if self.jobs.contains_key(&id) {
            cx.log_as_me(3, &format!("{id}: start request for a job that runs already"));
            return;
        }
        let Some(ranks) = ranks_of(&request.r) else {
            self.jobs
                .insert(id, Job::new(id, request.userid, request.r, IdSet::default()));
            self.fatal(cx, id, "R names no ranks");
            return;
        };
        let mut job = Job::new(id, request.userid, request.r.clone(), ranks);
        job.multiuser = request.userid != cx.owner;
        // with a state directory nothing of a job depends on this broker; what an IMP starts is not followed yet
        job.outliving.on = cx.attrs.get("statedir").is_some() && !job.multiuser;
        let mock = Mock::of(&request.jobspec);
        let refusal = match &mock {
            Err(text) => Some(text.clone()),
            Ok(Some(_)) if job.multiuser && !self.config.mock_guests => {
                Some("guests may not use test execution".to_owned())
            }
            Ok(None) if job.multiuser && self.config.imp.is_none() => {
                Some("unable to run a multiuser job: no IMP is configured (exec.imp)".to_owned())
            }
            Ok(None) if job.multiuser && !request.reattach && request.j.is_none() => {
                Some("unable to run a multiuser job: its signed request is not in the KVS".to_owned())
            }
            Ok(_) => None,
        };
        let mock = mock.ok().flatten();
        if let Some(text) = refusal {
            job.active.clear();
            self.jobs.insert(id, job);
            self.fatal(cx, id, &text);
        } else if request.reattach && mock.is_some() {
            self.mock_lost_in_restart(cx, job, request.finished);
        } else if request.reattach {
            self.reattach(cx, job, &request);
        } else if let Some(mock) = mock {
            self.start_mock(cx, job, mock);
        } else {
            self.start_shells(cx, job, &request);
        }
    }

    /// A mock job has no shell that could live on, and is never run twice.
    fn mock_lost_in_restart(&mut self, cx: &mut Cx<'_>, mut job: Job, finished: bool) {
        let id = job.id;
        job.active.clear();
        if finished {
            job.outliving.finish = Finish::Kept;
            self.jobs.insert(id, job);
            self.check_complete(cx, id);
            return;
        }
        job.start_told = true;
        job.status = KILLED;
        self.jobs.insert(id, job);
        self.fatal(cx, id, "mock job was lost when the instance restarted");
    }

    fn start_shells(&mut self, cx: &mut Cx<'_>, mut job: Job, request: &StartRequest) {
        let id = job.id;
        let namespace = id.guest_namespace();
        let create = move |me: &mut JobExec, cx: &mut Cx<'_>, result: Result<(), RpcError>| {
            if let Err(err) = result {
                me.fatal(cx, id, &format!("failed to create guest namespace: {err}"));
            }
        };
        // calls of one service arrive in order: what follows sees the namespace
        kvs::namespace_create(cx, &namespace, job.userid, create);
        let mut link = Txn::new();
        link.symlink(&id.kvs_key("guest"), Some(&namespace), ".");
        job.has_namespace = true;
        job.event("init");
        job.event("starting");
        let body = self.start_body(&job, request);
        self.jobs.insert(id, job);
        self.flush_log(cx, id);
        let body = match body {
            Ok(body) => body,
            Err(err) => {
                self.abandon(cx, id, &format!("failed to encode the shell's input: {err}"));
                return;
            }
        };
        // the intent is durable: the job manager's `alloc` event comes before this call
        kvs::commit(cx, "primary", link, move |me: &mut JobExec, cx, result| {
            if let Err(err) = result {
                me.fatal(cx, id, &format!("failed to link guest namespace: {err}"));
            }
        });
        self.spawn_shells(cx, id, &body);
    }

    /// Ends a job whose shells have not been started.
    fn abandon(&mut self, cx: &mut Cx<'_>, id: JobId, note: &str) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.active.clear();
            job.status = NOT_FOUND;
        }
        self.fatal(cx, id, note);
    }

    fn spawn_shells(&mut self, cx: &mut Cx<'_>, id: JobId, body: &bytes::Bytes) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.exception {
            // cancelled while the start was being recorded
            job.active.clear();
            job.status = WaitStatus::signaled(15, false).0;
            self.check_complete(cx, id);
            return;
        }
        let ranks = job.ranks.clone();
        self.arm_expiration(cx, id);
        for rank in &ranks {
            let report = move |me: &mut JobExec, cx: &mut Cx<'_>, report| me.on_report(cx, id, rank, report);
            agent::start(cx, rank, body.clone(), report);
        }
    }

    fn start_body(&self, job: &Job, request: &StartRequest) -> Result<bytes::Bytes, serde_json::Error> {
        let shell = self.config.job_shell.clone();
        let id = request.id.0.to_string();
        let outlives = job.outliving.on;
        let argv = match &self.config.imp {
            Some(imp) if job.multiuser => vec![imp.clone(), "exec".to_owned(), shell, id],
            _ if outlives => vec![shell, "--reconnect".to_owned(), id],
            _ => vec![shell, id],
        };
        let document = Document {
            jobspec: (!job.multiuser).then(|| Joined {
                jobspec: &request.jobspec,
                environment: request.environment.as_deref(),
            }),
            r: &request.r,
        };
        let header = StartHeader {
            id: request.id,
            argv,
            outlives,
            j: request.j.as_deref().filter(|_| job.multiuser).map(str::to_owned),
        };
        agent::start_body(&header, &document)
    }

    /// Writes what is pending of the exec eventlog.
    pub(super) fn flush_log(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self
            .jobs
            .get_mut(&id)
            .filter(|job| job.has_namespace && !job.log.is_empty())
        else {
            return;
        };
        let mut txn = Txn::new();
        txn.append("exec.eventlog", job.log.as_bytes());
        job.log.clear();
        kvs::commit(
            cx,
            &id.guest_namespace(),
            txn,
            move |_: &mut JobExec, cx, result| {
                if let Err(err) = result {
                    cx.log_as_me(3, &format!("{id}: exec.eventlog: {err}"));
                }
            },
        );
    }

    // ---- reports --------------------------------------------------------------------------------------

    pub(super) fn on_report(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32, report: ShellReport) {
        let Some(job) = self.jobs.get_mut(&id) else {
            if let ShellReport::Ended(end) = &report
                && !end.output.is_empty()
            {
                log_output(cx, id, rank, &end.output);
            }
            return;
        };
        match report {
            ShellReport::Started => {
                let first = job.shell_started(rank);
                // found while it is being ended: it did not hear the signal
                let late = job.outliving.reattached && job.exception && job.active.contains(rank);
                if first {
                    manager::exec_event(cx, id, ExecEvent::Start);
                }
                if late {
                    agent::kill(cx, rank, id, self.config.term_signal.number());
                }
                self.rank_answered(cx, id, rank);
            }
            ShellReport::Ended(end) => {
                if !end.output.is_empty() {
                    job.event_with(
                        "log",
                        &json!({
                            "component": "flux-shell", "stream": "stderr", "rank": rank.to_string(),
                            "data": end.output,
                        }),
                    );
                    log_output(cx, id, rank, &end.output);
                }
                self.rank_answered(cx, id, rank);
                match end.status {
                    Some(status) => self.shell_ended(cx, id, rank, status),
                    None => self.shell_was_silent(cx, id, rank),
                }
            }
            ShellReport::Failed(err) => {
                let asked = job.outliving.asked.contains(rank);
                let of_guest = job.multiuser && job.outliving.reattached;
                match err.errnum {
                    // whatever has become of its node: what ran there ended with the broker
                    errno::EHOSTUNREACH if of_guest => {
                        self.rank_answered(cx, id, rank);
                        self.shell_not_found(cx, id, rank);
                    }
                    errno::EHOSTUNREACH if self.await_return(cx, id, rank) => {}
                    errno::EHOSTUNREACH => self.node_failed(cx, id, rank),
                    errno::ENOENT if asked => {
                        self.rank_answered(cx, id, rank);
                        self.shell_not_found(cx, id, rank);
                    }
                    _ => self.shell_failed(cx, id, rank, &err),
                }
            }
        }
    }

    /// A shell ended, by its own report or the agent's.
    pub(super) fn shell_ended(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32, status: i32) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.shell_ended(rank, Some(status)) {
            return;
        }
        let alone = job.size() == 1;
        // of a job that ran before nobody knows for sure
        let before_barrier = job.barrier.passed == 0 && !job.exception && !job.outliving.reattached;
        let signal = WaitStatus(status).signal();
        if !alone {
            self.break_barrier(cx, id);
            if let Some(signal) = signal {
                self.shell_killed(cx, id, rank, signal);
            } else if before_barrier {
                let host = self.jobs.get(&id).map(|job| job.host(rank)).unwrap_or_default();
                self.fatal(
                    cx,
                    id,
                    &format!("{host} (ranks {rank}) terminated before first barrier"),
                );
            }
        }
        self.check_complete(cx, id);
    }

    fn shell_killed(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32, signal: i32) {
        let Some(job) = self.jobs.get(&id) else { return };
        let shell_rank = job.shell_rank(rank);
        let text = format!(
            "shell rank {shell_rank} (on {}): {}",
            job.host(rank),
            flux_formats::signal::text_or_number(signal)
        );
        self.lost_shell(cx, id, rank, &text, &text);
    }

    /// A shell is gone while others run: fatal when it was critical, else the job goes on with an exception.
    /// Either way the leader shell is told, so that it does not wait for the lost one.
    pub(super) fn lost_shell(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32, fatal: &str, not_fatal: &str) {
        let Some(job) = self.jobs.get(&id) else { return };
        let critical = job.is_critical(rank) || job.ranks.first() == Some(rank);
        if !critical {
            let event = ExecEvent::Exception {
                severity: CRITICAL_CONDITION,
                kind: "node-failure".to_owned(),
                note: not_fatal.to_owned(),
                userid: None,
            };
            manager::exec_event(cx, id, event);
        }
        self.tell_leader(cx, id, rank);
        if critical {
            self.fatal(cx, id, fatal);
        }
    }

    pub(super) fn tell_leader(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(leader) = job.ranks.first().filter(|leader| job.active.contains(*leader)) else {
            return;
        };
        let topic = format!("{}-shell-{}.exception", job.userid, id.encode(Encoding::F58Plain));
        let body = json!({
            "type": "lost-shell", "severity": CRITICAL_CONDITION, "shell_rank": job.shell_rank(rank), "message": "",
        });
        let req = Message::request(topic, leader, flux_formats::msg::json_payload(&body).ok());
        // no answer is waited for: the leader shell may be about to end
        cx.notify(req);
    }

    /// A node is lost, and its shell with it.
    pub(super) fn node_failed(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.shell_ended(rank, None) {
            return;
        }
        job.status = job.status.max(UNREACHABLE);
        let (host, shell_rank) = (job.host(rank), job.shell_rank(rank));
        self.break_barrier(cx, id);
        let fatal = format!("node failure on {host} (rank {rank})");
        let not_fatal = format!("node failure on {host} (shell rank {shell_rank})");
        self.rank_answered(cx, id, rank);
        self.lost_shell(cx, id, rank, &fatal, &not_fatal);
        self.check_complete(cx, id);
    }

    /// A shell could not be started.
    fn shell_failed(&mut self, cx: &mut Cx<'_>, id: JobId, rank: u32, err: &RpcError) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.shell_ended(rank, None) {
            return;
        }
        let host = job.host(rank);
        job.status = job.status.max(match err.errnum {
            errno::EPERM | errno::EACCES => NOT_EXECUTABLE,
            _ => NOT_FOUND,
        });
        self.break_barrier(cx, id);
        let text = if err.errnum == errno::ENOSYS {
            format!("rexec service is not loaded on {host} (rank {rank})")
        } else {
            format!("job shell exec error on broker {host} (rank {rank}): {err}")
        };
        self.fatal(cx, id, &text);
        self.check_complete(cx, id);
    }

    // ---- fatal errors ---------------------------------------------------------------------------------

    /// Raises a fatal exception of type `exec`, once per job, and ends the shells.
    pub(super) fn fatal(&mut self, cx: &mut Cx<'_>, id: JobId, note: &str) {
        self.fatal_of_type(cx, id, "exec", note);
        let signal = self.config.term_signal;
        self.begin_kill(cx, id, signal.number());
        self.check_complete(cx, id);
    }

    /// Raises a fatal exception, once per job.
    pub(super) fn fatal_of_type(&mut self, cx: &mut Cx<'_>, id: JobId, kind: &str, note: &str) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| !job.exception) else {
            return;
        };
        job.exception = true;
        let event = ExecEvent::Exception {
            severity: 0,
            kind: kind.to_owned(),
            note: note.to_owned(),
            userid: None,
        };
        manager::exec_event(cx, id, event);
    }
}

fn log_output(cx: &mut Cx<'_>, id: JobId, rank: u32, output: &str) {
    let output: Rc<str> = output.trim_end().into();
    for line in output.lines() {
        cx.log_as_me(3, &format!("{id}: flux-shell[{rank}]: stderr: {line}"));
    }
}
