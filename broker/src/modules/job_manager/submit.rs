//! How does a job come in? (From job-ingest by a typed call, or by `job-manager.submit`.)

use super::JobManager;
use super::api::{Answer, Submission};
use super::event::Event;
use super::job::Job;
use super::tap::Stored;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::job_ingest::flags;
use flux_formats::rpc::job_manager::{SubmitJob, SubmitRequest};
use serde_json::Value;
use serde_json::value::RawValue;
use std::rc::Rc;

/// Bytes of signed jobspecs and environments that are kept for pending jobs; beyond it they are read again from the
/// KVS when the job starts.
pub(super) const SECRET_BYTES_MAX: usize = 64 << 20;

/// What a job's shells get besides the jobspec that everyone may see.
#[derive(Debug)]
pub(super) struct Secrets {
    /// The signed jobspec, UTF-8; the KVS has the same bytes.
    pub(super) j: Bytes,
    /// `attributes.system.environment`.
    pub(super) environment: Option<Box<RawValue>>,
}

/// A job on its way in.
pub(super) struct Incoming {
    pub(super) id: JobId,
    pub(super) userid: u32,
    pub(super) urgency: u8,
    pub(super) flags: u32,
    pub(super) t_submit: f64,
    pub(super) jobspec: Rc<Value>,
}

/// Returns the ids of a `job-manager.submit`, in order.
pub(super) fn ids_of(request: &Message) -> Vec<JobId> {
    let jobs = request.payload_json().map(|SubmitRequest { jobs }| jobs);
    jobs.unwrap_or_default().iter().map(|job| job.id).collect()
}

impl JobManager {
    pub(super) fn on_submissions(&mut self, cx: &mut Cx<'_>, jobs: Vec<Submission>, answer: Answer) {
        if let Some(why) = &self.store_error {
            let refused = RpcError::new(errno::ENOSPC, format!("jobs cannot be stored: {why}"));
            let results = jobs.iter().map(|_| Err(refused.clone())).collect();
            answer(cx, results);
            return;
        }
        let group = self.begin_local_group(jobs.len(), answer);
        for (index, job) in jobs.into_iter().enumerate() {
            let Submission {
                id,
                userid,
                urgency,
                flags,
                t_submit,
                jobspec,
                environment,
                jobspec_text,
                j,
            } = job;
            let jobspec_text = Bytes::from(jobspec_text);
            let incoming = Incoming {
                id,
                userid,
                urgency,
                flags,
                t_submit,
                jobspec: self.specs.share(&jobspec_text, jobspec),
            };
            let secrets = Secrets {
                j: Bytes::copy_from_slice(j.as_bytes()),
                environment,
            };
            let stored = Stored {
                jobspec_text,
                secrets,
            };
            self.take_in(cx, incoming, Some(stored), group, index);
        }
        self.settle_empty(cx, group);
    }

    /// `job-manager.submit`: J and jobspec are in the KVS already.
    pub(super) fn on_submit(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let SubmitRequest { jobs } = req.payload_json()?;
        if let Some(why) = &self.store_error {
            return Err(RpcError::new(
                errno::ENOSPC,
                format!("jobs cannot be stored: {why}"),
            ));
        }
        let group = self.begin_rpc_group(jobs.len(), req.clone());
        for (index, job) in jobs.into_iter().enumerate() {
            let SubmitJob {
                id,
                userid,
                urgency,
                flags,
                t_submit,
                jobspec,
            } = job;
            let incoming = Incoming {
                id,
                userid,
                urgency,
                flags,
                t_submit,
                jobspec: Rc::new(jobspec),
            };
            self.take_in(cx, incoming, None, group, index);
        }
        self.settle_empty(cx, group);
        Ok(())
    }

    /// Checks what no plugin decides.
    pub(super) fn check_new(&self, incoming: &Incoming) -> Result<(), RpcError> {
        let id = incoming.id;
        if self.active.contains_key(&id) || self.inactive.contains(id) {
            return Err(RpcError::new(errno::EEXIST, format!("job id {id} is in use")));
        }
        let queue = incoming
            .jobspec
            .pointer("/attributes/system/queue")
            .and_then(Value::as_str);
        self.queues
            .check_submit(queue)
            .map_err(|err| RpcError::new(errno::EINVAL, err.to_string()))
    }

    /// Takes a job in that was checked; posts its first events.
    pub(super) fn accept(&mut self, cx: &mut Cx<'_>, incoming: Incoming) -> Result<(), RpcError> {
        let id = incoming.id;
        self.accept_new(cx, incoming)?;
        self.accept_valid(cx, id)
    }

    /// Takes a job in; posts `submit`.
    pub(super) fn accept_new(&mut self, cx: &mut Cx<'_>, incoming: Incoming) -> Result<(), RpcError> {
        let Incoming {
            id,
            userid,
            urgency,
            flags,
            t_submit,
            jobspec,
        } = incoming;
        self.active.insert(id, Job::new(id, jobspec));
        self.last_time = self.last_time.max(t_submit);
        let submit = Event::Submit {
            userid,
            urgency,
            flags,
        };
        self.record(cx, id, &submit, t_submit)
    }

    /// Posts `validate`.
    pub(super) fn accept_valid(&mut self, cx: &mut Cx<'_>, id: JobId) -> Result<(), RpcError> {
        let now = self.now();
        self.record(cx, id, &Event::Validate, now)?;
        self.max_jobid = self.max_jobid.max(id);
        let Some(job) = self.active.get(&id) else {
            return Ok(());
        };
        if job.has_flag(flags::WAITABLE) {
            self.waits.add_waitable();
        }
        Ok(())
    }

    pub(super) fn keep_secrets(&mut self, id: JobId, secrets: Secrets) {
        let bytes = secrets.bytes();
        if self.secret_bytes + bytes > SECRET_BYTES_MAX {
            return;
        }
        if let Some(job) = self.active.get_mut(&id) {
            job.secrets = Some(Box::new(secrets));
            self.secret_bytes += bytes;
        }
    }

    /// Takes a job's secrets off the account when it goes.
    pub(super) fn release_secrets(&mut self, job: &Job) {
        if let Some(secrets) = &job.secrets {
            self.secret_bytes = self.secret_bytes.saturating_sub(secrets.bytes());
        }
    }
}

impl Secrets {
    /// The environment is part of the payload of J, so that J's size bounds both.
    pub(super) fn bytes(&self) -> usize {
        2 * self.j.len()
    }
}
