//! Who waits for which job's end? (`job-manager.wait`; flux-core: job-manager/wait.c, behaviour.)
//!
//! Only jobs submitted with the waitable flag can be waited for, each once. A wait for any job takes the first that
//! ended, or the next to end; waiters in excess of waitable jobs get ECHILD.

use super::JobManager;
use super::job::{End, Job};
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::job_ingest::flags::WAITABLE;
use flux_formats::rpc::job_manager::{IdRequest, WaitResponse};
use indexmap::IndexMap;
use std::collections::{HashMap, VecDeque};

/// Waiters, and waitable jobs that ended without one.
#[derive(Default)]
pub(super) struct Waits {
    zombies: IndexMap<JobId, WaitResponse>,
    any: VecDeque<Message>,
    specific: HashMap<JobId, Message>,
    /// Active waitable jobs.
    waitables: usize,
}

impl Waits {
    pub(super) fn add_waitable(&mut self) {
        self.waitables += 1;
    }

    pub(super) fn disconnect(&mut self, sender: Option<&Bytes>) {
        self.any.retain(|req| req.sender() != sender);
        self.specific.retain(|_, req| req.sender() != sender);
    }

    pub(super) fn zombies(&self) -> impl Iterator<Item = JobId> + '_ {
        self.zombies.keys().copied()
    }
}

impl JobManager {
    pub(super) fn on_wait(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let Ok(IdRequest { id }) = req.payload_json() else {
            return Err(RpcError::new(errno::EPROTO, "malformed wait request"));
        };
        let child = |text: &str| RpcError::new(errno::ECHILD, text);
        if id == JobId::ANY {
            match self.waits.zombies.shift_remove_index(0) {
                Some((_, result)) => cx.respond(req, &result),
                None => self.waits.any.push_back(req.clone()),
            }
        } else if let Some(result) = self.waits.zombies.shift_remove(&id) {
            cx.respond(req, &result);
        } else if let Some(job) = self.active.get(&id) {
            if self.waits.specific.contains_key(&id) {
                return Err(child("job id already has a waiter"));
            }
            if !job.has_flag(WAITABLE) {
                return Err(child("job was not submitted with FLUX_JOB_WAITABLE"));
            }
            self.waits.specific.insert(id, req.clone());
        } else {
            return Err(child("invalid job id, or job may be inactive and not waitable"));
        }
        self.limit_waiters(cx);
        Ok(())
    }

    /// Refuses the latest waiter for any job while there are more waiters than waitable jobs.
    fn limit_waiters(&mut self, cx: &mut Cx<'_>) {
        while self.waits.any.len() + self.waits.specific.len() > self.waits.waitables {
            let Some(req) = self.waits.any.pop_back() else {
                return;
            };
            cx.fail(&req, errno::ECHILD, "there are no more waitable jobs");
        }
    }

    /// A job became inactive, and its events are in the KVS.
    pub(super) fn wait_inactive(&mut self, cx: &mut Cx<'_>, job: &Job) {
        if !job.has_flag(WAITABLE) {
            return;
        }
        self.waits.waitables = self.waits.waitables.saturating_sub(1);
        let result = result_of(job);
        if let Some(req) = self
            .waits
            .specific
            .remove(&job.id)
            .or_else(|| self.waits.any.pop_front())
        {
            cx.respond(&req, &result);
        } else {
            self.waits.zombies.insert(job.id, result);
        }
    }

    /// A job that was never acknowledged is gone.
    pub(super) fn wait_forget(&mut self, cx: &mut Cx<'_>, job: &Job) {
        if job.has_flag(WAITABLE) {
            self.waits.waitables = self.waits.waitables.saturating_sub(1);
            self.limit_waiters(cx);
        }
    }

    pub(super) fn on_drain(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        self.drains.push(req.clone());
        self.check_drain(cx);
        Ok(())
    }

    pub(super) fn on_idle(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        self.idles.push(req.clone());
        self.check_drain(cx);
        Ok(())
    }

    /// Answers drain requests when no job is active, idle requests when none has resources or is with the scheduler.
    pub(super) fn check_drain(&mut self, cx: &mut Cx<'_>) {
        if !self.drains.is_empty() && self.active.is_empty() {
            for req in std::mem::take(&mut self.drains) {
                cx.respond_empty(&req);
            }
        }
        if !self.idles.is_empty() && self.alloc_pending == 0 && self.running == 0 {
            for req in std::mem::take(&mut self.idles) {
                cx.respond(&req, &serde_json::json!({"pending": self.active.len()}));
            }
        }
    }

    /// The module is unloaded: nobody shall wait for nothing.
    pub(super) fn refuse_waiters(&mut self, cx: &mut Cx<'_>) {
        let waits = std::mem::take(&mut self.waits);
        let requests = waits.any.into_iter().chain(waits.specific.into_values());
        let drains = std::mem::take(&mut self.drains)
            .into_iter()
            .chain(std::mem::take(&mut self.idles));
        for req in requests.chain(drains) {
            cx.fail(&req, errno::ENOSYS, "job-manager is unloading");
        }
    }
}

/// Returns what a waiter is told; the texts are flux-core's.
fn result_of(job: &Job) -> WaitResponse {
    let (success, errstr) = match &job.end {
        Some(End::Exception { kind, note }) => (false, format!("Fatal exception type={kind} {note}")),
        Some(End::Finish { status }) => describe_status(*status),
        None => (false, "Flux job wait internal error".to_owned()),
    };
    WaitResponse {
        id: job.id,
        success,
        errstr,
    }
}

fn describe_status(status: i32) -> (bool, String) {
    let signal = status & 0x7f;
    let code = status >> 8 & 0xff;
    if signal != 0 {
        (
            false,
            format!("job shell {}", flux_formats::signal::text_or_number(signal)),
        )
    } else if code > 128 {
        (
            false,
            format!("task(s) {}", flux_formats::signal::text_or_number(code - 128)),
        )
    } else if code > 0 {
        (false, format!("task(s) exited with exit code {code}"))
    } else {
        (true, String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        for (status, text) in [
            (0, ""),
            (768, "task(s) exited with exit code 3"),
            (36608, "task(s) Terminated"),
            (9, "job shell Killed"),
            (35584, "task(s) Segmentation fault"),
        ] {
            assert_eq!(describe_status(status), (status == 0, text.to_owned()));
        }
    }
}
