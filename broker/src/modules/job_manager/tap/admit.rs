//! How does a submission pass the plugins?

use super::super::JobManager;
use super::super::api::Answer;
use super::super::commit::After;
use super::super::job::Asked;
use super::super::submit::{Incoming, Secrets};
use super::state::{Group, GroupAnswer, Waiting};
use super::view;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::{self, Message};
use flux_formats::rpc::job_manager::SubmitResponse;
use flux_policy::{Effect, TapCall, TapJob, Verdict};
use std::sync::Arc;

/// A submission that plugins look at.
pub(super) struct Admission {
    incoming: Incoming,
    stored: Option<Stored>,
    group: u64,
    index: usize,
}

/// What a job brings to the KVS.
pub(in super::super) struct Stored {
    pub(in super::super) jobspec_text: Bytes,
    pub(in super::super) secrets: Secrets,
}

impl JobManager {
    /// Begins a group of submissions.
    pub(in super::super) fn begin_local_group(&mut self, count: usize, answer: Answer) -> u64 {
        self.begin_group(count, GroupAnswer::Local(answer))
    }

    /// Begins the group of a `job-manager.submit`.
    pub(in super::super) fn begin_rpc_group(&mut self, count: usize, request: Message) -> u64 {
        self.begin_group(count, GroupAnswer::Rpc(request))
    }

    fn begin_group(&mut self, count: usize, answer: GroupAnswer) -> u64 {
        self.tap.next_token += 1;
        let number = self.tap.next_token;
        let group = Group {
            results: (0..count).map(|_| Err(RpcError::bare(errno::EIO))).collect(),
            outstanding: count,
            answer,
        };
        self.tap.groups.insert(number, group);
        number
    }

    /// Accepts a job now, or once plugins have looked at it.
    pub(in super::super) fn take_in(
        &mut self,
        cx: &mut Cx<'_>,
        incoming: Incoming,
        stored: Option<Stored>,
        group: u64,
        index: usize,
    ) {
        let checked = self.check_incoming(&incoming);
        let crosses = match checked {
            Err(err) => return self.settle(cx, group, index, incoming.id, Err(err)),
            Ok(crosses) => crosses,
        };
        if !crosses {
            let id = incoming.id;
            let result = self.accept(cx, incoming);
            if result.is_ok() {
                self.store_new(cx, id, stored);
            }
            self.settle(cx, group, index, id, result);
            self.drive(cx, id);
            return;
        }
        let jobspec = match &stored {
            Some(stored) => match std::str::from_utf8(&stored.jobspec_text) {
                Ok(text) => Arc::from(text),
                Err(_) => Arc::from(incoming.jobspec.to_string()),
            },
            None => Arc::from(incoming.jobspec.to_string()),
        };
        let job = TapJob {
            id: incoming.id.0,
            userid: incoming.userid,
            urgency: incoming.urgency.into(),
            flags: incoming.flags,
            state: 1,
            t_submit: incoming.t_submit,
            jobspec,
            ..TapJob::default()
        };
        let dependencies = self.tap_dependencies(&incoming.jobspec);
        let waiting = Waiting::Admission(Box::new(Admission {
            incoming,
            stored,
            group,
            index,
        }));
        self.tap_ask(cx, Arc::new(job), TapCall::Admit { dependencies }, None, waiting);
    }

    /// Answers a group without jobs.
    pub(in super::super) fn settle_empty(&mut self, cx: &mut Cx<'_>, group: u64) {
        if self
            .tap
            .groups
            .get(&group)
            .is_some_and(|group| group.outstanding == 0)
        {
            self.settle(cx, group, 0, JobId(0), Ok(()));
        }
    }

    /// Makes the checks that come before those of plugins; returns true when plugins have something to say.
    fn check_incoming(&self, incoming: &Incoming) -> Result<bool, RpcError> {
        let inval = |text: String| RpcError::new(errno::EINVAL, text);
        if let Some(why) = &self.tap.failed {
            return Err(RpcError::new(
                errno::EIO,
                format!("jobtap plugins are not loaded: {why}"),
            ));
        }
        self.check_new(incoming)?;
        let dependencies = view::dependencies(&incoming.jobspec).map_err(inval)?;
        let unknown = dependencies
            .iter()
            .find(|(scheme, _)| !self.tap.wants.scheme(scheme));
        if let Some((scheme, _)) = unknown {
            return Err(inval(format!("dependency scheme \"{scheme}\" not supported")));
        }
        Ok(!dependencies.is_empty() || self.tap.wants.admits(&incoming.jobspec, incoming.urgency))
    }

    /// There are no plugins any more to look at a submission.
    pub(super) fn not_admitted(&mut self, cx: &mut Cx<'_>, admission: &Admission, why: &str) {
        let err = RpcError::new(errno::EIO, format!("jobtap plugins are not loaded: {why}"));
        self.settle(
            cx,
            admission.group,
            admission.index,
            admission.incoming.id,
            Err(err),
        );
    }

    /// Takes the plugins' word about a submission.
    pub(super) fn admitted(
        &mut self,
        cx: &mut Cx<'_>,
        admission: Admission,
        mut effects: Vec<Effect>,
        verdict: Verdict,
    ) {
        let Admission {
            incoming,
            stored,
            group,
            index,
        } = admission;
        let id = incoming.id;
        let admitted = match verdict {
            Verdict::Admitted(admitted) => admitted,
            Verdict::Refused(refusal) => {
                let err = RpcError::new(refusal.errnum, refusal.text);
                return self.settle(cx, group, index, id, Err(err));
            }
            _ => {
                let err = RpcError::new(errno::EIO, "jobtap plugins gave no answer");
                return self.settle(cx, group, index, id, Err(err));
            }
        };
        if let Some(why) = &self.store_error {
            let err = RpcError::new(errno::ENOSPC, format!("jobs cannot be stored: {why}"));
            return self.settle(cx, group, index, id, Err(err));
        }
        if let Err(err) = self
            .check_new(&incoming)
            .and_then(|()| self.accept_new(cx, incoming))
        {
            return self.settle(cx, group, index, id, Err(err));
        }
        self.store_new(cx, id, stored);
        if let Some(job) = self.active.get_mut(&id) {
            job.tap.skip = admitted.states;
            if let Some(priority) = admitted.priority {
                job.tap.priority = Asked::Got(priority);
            }
            // nothing happens to the job before all effects are applied
            job.tap.waiting += 1;
        }
        let late = effects.split_off(admitted.early.min(effects.len()));
        self.apply_effects(cx, effects);
        if let Err(err) = self.accept_valid(cx, id) {
            tracing::error!(jobid = %id, err = %err, "job not validated");
        }
        self.apply_effects(cx, late);
        self.settle(cx, group, index, id, Ok(()));
        if let Some(job) = self.active.get_mut(&id) {
            job.tap.waiting = job.tap.waiting.saturating_sub(1);
        }
        self.drive(cx, id);
    }

    fn store_new(&mut self, cx: &mut Cx<'_>, id: JobId, stored: Option<Stored>) {
        let Some(Stored {
            jobspec_text,
            secrets,
        }) = stored
        else {
            return;
        };
        let j = secrets.j.clone();
        self.keep_secrets(id, secrets);
        let batch = self.batch(cx);
        batch.put(id, "J", j);
        batch.put(id, "jobspec", jobspec_text);
    }

    /// Notes a result; the last one of a group has them answered.
    fn settle(&mut self, cx: &mut Cx<'_>, group: u64, index: usize, id: JobId, result: Result<(), RpcError>) {
        let Some(entry) = self.tap.groups.get_mut(&group) else {
            return;
        };
        if let Some(slot) = entry.results.get_mut(index) {
            *slot = match result {
                Ok(()) => Ok(id),
                // the answer to `job-manager.submit` names the job
                Err(err) => Err(err),
            };
        }
        entry.outstanding = entry.outstanding.saturating_sub(1);
        if entry.outstanding > 0 {
            return;
        }
        let Some(Group { results, answer, .. }) = self.tap.groups.remove(&group) else {
            return;
        };
        match answer {
            GroupAnswer::Local(answer) => self.batch(cx).after(After::Submitted(answer, results)),
            GroupAnswer::Rpc(request) => self.answer_submit(cx, &request, results),
        }
    }

    fn answer_submit(&mut self, cx: &mut Cx<'_>, request: &Message, results: Vec<Result<JobId, RpcError>>) {
        let ids = super::super::submit::ids_of(request);
        let mut response = SubmitResponse::default();
        for (id, result) in ids.into_iter().zip(results) {
            if let Err(err) = result {
                response.errors.push((id, err.text));
            }
        }
        match msg::json_payload(&response) {
            Ok(payload) => self
                .batch(cx)
                .after(After::Respond(request.clone(), Some(payload))),
            Err(err) => cx.fail(request, errno::EPROTO, &err.to_string()),
        }
    }
}
