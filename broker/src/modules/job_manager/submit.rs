//! How does a job come in? (From job-ingest by a typed call, or by `job-manager.submit`.)

use super::JobManager;
use super::api::{Answer, Submission};
use super::commit::After;
use super::event::Event;
use super::job::Job;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::{self, Message};
use flux_formats::rpc::job_ingest::flags;
use flux_formats::rpc::job_manager::{SubmitJob, SubmitRequest, SubmitResponse};
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
struct Incoming {
    id: JobId,
    userid: u32,
    urgency: u8,
    flags: u32,
    t_submit: f64,
    jobspec: Rc<Value>,
}

impl JobManager {
    pub(super) fn on_submissions(&mut self, cx: &mut Cx<'_>, jobs: Vec<Submission>, answer: Answer) {
        if let Some(why) = &self.store_error {
            let refused = RpcError::new(errno::ENOSPC, format!("jobs cannot be stored: {why}"));
            let results = jobs.iter().map(|_| Err(refused.clone())).collect();
            answer(cx, results);
            return;
        }
        let mut results = Vec::with_capacity(jobs.len());
        let mut accepted = Vec::with_capacity(jobs.len());
        for job in jobs {
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
            let result = self.accept(cx, incoming);
            if result.is_ok() {
                accepted.push(id);
                let j = Bytes::copy_from_slice(j.as_bytes());
                self.keep_secrets(
                    id,
                    Secrets {
                        j: j.clone(),
                        environment,
                    },
                );
                let batch = self.batch(cx);
                batch.put(id, "J", j);
                batch.put(id, "jobspec", jobspec_text);
            }
            results.push(result.map(|()| id));
        }
        self.batch(cx).after(After::Submitted(answer, results));
        for id in accepted {
            self.drive(cx, id);
        }
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
        let mut response = SubmitResponse::default();
        for SubmitJob {
            id,
            userid,
            urgency,
            flags,
            t_submit,
            jobspec,
        } in jobs
        {
            let incoming = Incoming {
                id,
                userid,
                urgency,
                flags,
                t_submit,
                jobspec: Rc::new(jobspec),
            };
            match self.accept(cx, incoming) {
                Ok(()) => self.drive(cx, id),
                Err(err) => response.errors.push((id, err.text)),
            }
        }
        let payload =
            msg::json_payload(&response).map_err(|err| RpcError::new(errno::EPROTO, err.to_string()))?;
        self.batch(cx).after(After::Respond(req.clone(), Some(payload)));
        Ok(())
    }

    /// Checks a job and posts its first events.
    fn accept(&mut self, cx: &mut Cx<'_>, incoming: Incoming) -> Result<(), RpcError> {
        let Incoming {
            id,
            userid,
            urgency,
            flags,
            t_submit,
            jobspec,
        } = incoming;
        if self.active.contains_key(&id) || self.inactive.contains(id) {
            return Err(RpcError::new(errno::EEXIST, format!("job id {id} is in use")));
        }
        let queue = jobspec
            .pointer("/attributes/system/queue")
            .and_then(Value::as_str);
        let inval = |text: String| RpcError::new(errno::EINVAL, text);
        self.queues
            .check_submit(queue)
            .map_err(|err| inval(err.to_string()))?;
        check_dependencies(&jobspec).map_err(inval)?;
        self.active.insert(id, Job::new(id, jobspec));
        self.last_time = self.last_time.max(t_submit);
        self.record(
            cx,
            id,
            &Event::Submit {
                userid,
                urgency,
                flags,
            },
            t_submit,
        )?;
        let now = self.now();
        self.record(cx, id, &Event::Validate, now)?;
        self.max_jobid = self.max_jobid.max(id);
        self.history.add(userid, id);
        if flags & flags::WAITABLE != 0 {
            self.waits.add_waitable();
        }
        Ok(())
    }

    fn keep_secrets(&mut self, id: JobId, secrets: Secrets) {
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

/// Refuses dependencies whose scheme nobody handles; the texts are flux-core's.
fn check_dependencies(jobspec: &Value) -> Result<(), String> {
    let dependencies = match jobspec.pointer("/attributes/system/dependencies") {
        None => return Ok(()),
        Some(Value::Array(dependencies)) => dependencies,
        Some(_) => return Err("dependencies object must be an array".to_owned()),
    };
    // no scheme is handled, so that the first dependency decides
    let Some(first) = dependencies.first() else {
        return Ok(());
    };
    Err(match first.get("scheme").and_then(Value::as_str) {
        None => "dependency[0] missing string scheme".to_owned(),
        Some(scheme) => format!("dependency scheme \"{scheme}\" not supported"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dependencies() {
        let check =
            |list: Value| check_dependencies(&json!({"attributes": {"system": {"dependencies": list}}}));
        assert_eq!(check_dependencies(&json!({})), Ok(()));
        assert_eq!(check(json!([])), Ok(()));
        assert_eq!(
            check(json!([{"scheme": "x"}])).unwrap_err(),
            "dependency scheme \"x\" not supported"
        );
        assert_eq!(
            check(json!([{}])).unwrap_err(),
            "dependency[0] missing string scheme"
        );
        assert!(check(json!({})).is_err());
    }
}
