//! How does the job manager ask for a job to be run? Typed calls, without encoding (RFC 32 is the wire form).
//!
//! Every call is queued and runs after the caller's turn; calls of one service arrive in order. Answers come
//! as [`crate::modules::job_manager::api::ExecEvent`].

use super::JobExec;
use crate::service::Cx;
use flux_formats::jobid::JobId;
use serde_json::Value;
use serde_json::value::RawValue;
use std::rc::Rc;

/// Service name of job-exec.
pub const SERVICE: &str = "job-exec";

/// A job to run (RFC 32 `job-exec.start`).
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// The job.
    pub id: JobId,
    /// The job's user.
    pub userid: u32,
    /// The jobspec without environment.
    pub jobspec: Rc<Value>,
    /// `attributes.system.environment`, as text: the shell gets it with the jobspec.
    pub environment: Option<Box<RawValue>>,
    /// R of the job (RFC 20).
    pub r: Rc<Value>,
    /// The job was started before the broker restarted: find its shells, do not start new ones.
    pub reattach: bool,
    /// With `reattach`: its end is known already, only its resources were not released.
    pub finished: bool,
    /// The signed jobspec, for an IMP; `None` when nobody needs it.
    pub j: Option<Rc<str>>,
}

/// Asks for a job to be run. Answers are exec events; the last is `Release` with `last`.
///
/// Returns false when job-exec is not loaded.
pub fn start(cx: &mut Cx<'_>, request: StartRequest) -> bool {
    cx.to::<JobExec>(SERVICE, move |exec, cx| exec.on_start(cx, request))
}

/// Tells that all jobs which had been started before have been asked for: the service answers shells of a former run.
pub fn restored(cx: &mut Cx<'_>) {
    cx.to::<JobExec>(SERVICE, |exec, cx| exec.on_restored(cx));
}

/// Tells of an exception of a job, whoever raised it; severity 0 ends the job's shells. With the wait status of the
/// task that caused it, the job's status is made of that one.
pub fn exception(cx: &mut Cx<'_>, id: JobId, severity: u8, kind: &str, wait_status: Option<i64>) {
    let status = wait_status.and_then(|status| i32::try_from(status).ok());
    let kind = kind.to_owned();
    cx.to::<JobExec>(SERVICE, move |exec, cx| {
        exec.on_exception(cx, id, severity, &kind, status)
    });
}

/// Tells of another time limit of a running job: seconds since the epoch, 0 for none.
pub fn expiration(cx: &mut Cx<'_>, id: JobId, expiration: f64) {
    cx.to::<JobExec>(SERVICE, move |exec, cx| {
        exec.on_expiration(cx, id, expiration);
    });
}
