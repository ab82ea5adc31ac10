//! How are exceptions raised and signals sent, on one job or on many?

use super::JobManager;
use super::api::SERVICE;
use super::commit::After;
use super::event::Exception;
use super::job::{Exec, Job};
use super::state::State;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::job_manager::{
    CountResponse, KillAllRequest, KillRequest, RaiseAllRequest, RaiseRequest,
};
use serde_json::json;

/// Signals are below this (Linux NSIG).
const SIGNALS: i64 = 65;

pub(super) fn check_exception(severity: i64, kind: &str) -> Result<u8, RpcError> {
    let severity = u8::try_from(severity).ok().filter(|severity| *severity <= 7);
    let severity = severity.ok_or_else(|| RpcError::new(errno::EPROTO, "invalid exception severity"))?;
    let bad = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' | '=');
    if kind.is_empty() || kind.contains(bad) {
        return Err(RpcError::new(errno::EPROTO, "invalid exception type"));
    }
    Ok(severity)
}

fn check_signal(signum: i64) -> Result<(), RpcError> {
    if signum > 0 && signum < SIGNALS {
        Ok(())
    } else {
        Err(RpcError::new(errno::EINVAL, "Invalid signal number"))
    }
}

/// Returns the user that a request for many jobs names, `None` for all; guests may name themselves only.
fn target_user(cx: &Cx<'_>, req: &Message, userid: i64, text: &str) -> Result<Option<u32>, RpcError> {
    // -1 and 4294967295 both mean everyone
    let user = u32::try_from(userid).ok().filter(|user| *user != u32::MAX);
    let allowed = cx.authorized(req, user.unwrap_or(u32::MAX));
    if allowed {
        Ok(user)
    } else {
        Err(RpcError::new(errno::EPERM, text))
    }
}

impl JobManager {
    pub(super) fn on_raise_local(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        severity: u8,
        kind: &str,
        note: &str,
    ) {
        let exception = Exception {
            kind: kind.to_owned(),
            severity,
            note: note.to_owned(),
            userid: Some(cx.owner),
            wait_status: None,
            from_exec: false,
        };
        if self.active.contains_key(&id)
            && let Err(err) = self.raise(cx, id, exception)
        {
            tracing::debug!(jobid = %id, err = %err, "exception not raised");
        }
    }

    /// Handles `job-manager.raise`. A shell that complains was started: what is known of that is in the queue already, and heard first.
    pub(super) fn on_raise(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let raise: RaiseRequest = req.payload_json()?;
        let starts = |job: &Job| job.exec == Exec::Requested && !job.marks.started;
        if !self.active.get(&raise.id).is_some_and(starts) {
            return self.raise_for(cx, req, raise);
        }
        let req = req.clone();
        cx.to::<JobManager>(SERVICE, move |jobs, cx| {
            if let Err(err) = jobs.raise_for(cx, &req, raise) {
                cx.fail_with(&req, &err);
            }
        });
        Ok(())
    }

    fn raise_for(&mut self, cx: &mut Cx<'_>, req: &Message, raise: RaiseRequest) -> Result<(), RpcError> {
        let RaiseRequest {
            id,
            severity,
            kind,
            note,
            wait_status,
        } = raise;
        let severity = check_exception(severity, &kind)?;
        let userid = self.find(id, errno::ENOENT, "unknown job id")?.userid;
        if !cx.authorized(req, userid) {
            return Err(RpcError::new(
                errno::EPERM,
                "guests can only raise exceptions on their own jobs",
            ));
        }
        let exception = Exception {
            kind,
            severity,
            note: note.unwrap_or_default(),
            userid: Some(req.userid),
            wait_status: wait_status.filter(|status| *status >= 0),
            from_exec: false,
        };
        self.raise(cx, id, exception)?;
        self.batch(cx).after(After::Respond(req.clone(), None));
        Ok(())
    }

    pub(super) fn on_raiseall(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let RaiseAllRequest {
            dry_run,
            userid,
            states,
            severity,
            kind,
            note,
        } = req.payload_json()?;
        let user = target_user(
            cx,
            req,
            userid,
            "guests can only raise exceptions on their own jobs",
        )?;
        let severity = check_exception(severity, &kind)?;
        let found = self.find_jobs(user, states);
        let count = u64::try_from(found.len()).unwrap_or(0);
        let mut errors = 0;
        for id in found {
            if dry_run.0 {
                break;
            }
            let exception = Exception {
                kind: kind.clone(),
                severity,
                note: note.clone().unwrap_or_default(),
                userid: Some(req.userid),
                wait_status: None,
                from_exec: false,
            };
            if let Err(err) = self.raise(cx, id, exception) {
                tracing::error!(jobid = %id, err = %err, "exception not raised");
                errors += 1;
            }
        }
        self.respond_after(cx, req, &CountResponse { count, errors })
    }

    /// Returns the active jobs of a user (or all) in any of the states.
    fn find_jobs(&self, user: Option<u32>, states: u32) -> Vec<JobId> {
        let matches = self.active.values().filter(|job| {
            job.state != State::Inactive
                && job.state.bit() & states != 0
                && user.is_none_or(|user| user == job.userid)
        });
        matches.map(|job| job.id).collect()
    }

    pub(super) fn on_kill(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let KillRequest { id, signum } = req.payload_json()?;
        check_signal(signum)?;
        let job = self.find(id, errno::EINVAL, "unknown job id")?;
        if !cx.authorized(req, job.userid) {
            return Err(RpcError::new(
                errno::EPERM,
                "guests may only send signals to their own jobs",
            ));
        }
        if !job.state.is_running() {
            return Err(RpcError::new(errno::EINVAL, "job is not running"));
        }
        publish_signal(cx, id, signum);
        cx.respond_empty(req);
        Ok(())
    }

    pub(super) fn on_killall(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let KillAllRequest {
            dry_run,
            userid,
            signum,
        } = req.payload_json()?;
        let user = target_user(cx, req, userid, "guests can only kill their own jobs")?;
        check_signal(signum)?;
        let found = self.find_jobs(user, super::state::RUNNING);
        let count = u64::try_from(found.len()).unwrap_or(0);
        if !dry_run.0 {
            found.into_iter().for_each(|id| publish_signal(cx, id, signum));
        }
        cx.respond(req, &CountResponse { count, errors: 0 });
        Ok(())
    }
}

/// Publishes the event that the job's shells listen to.
fn publish_signal(cx: &mut Cx<'_>, id: JobId, signum: i64) {
    cx.publish(format!("shell-{}.kill", id.0), &json!({"signum": signum}));
}
