//! How does a job look to plugins?

use super::super::JobManager;
use super::super::inactive::Inactive;
use super::super::job::{End, Job};
use super::super::state::State;
use flux_formats::jobid::JobId;
use flux_policy::{Dependency, EndedBy, Posted, TapJob};
use serde_json::Value;
use std::sync::Arc;

/// What a command without a job carries.
pub(super) fn nobody() -> Arc<TapJob> {
    Arc::default()
}

/// Returns a job with the id alone.
pub(super) fn id_only(id: JobId) -> Arc<TapJob> {
    Arc::new(TapJob {
        id: id.0,
        ..TapJob::default()
    })
}

/// Returns an active job as it is now.
pub(super) fn active(job: &Job) -> TapJob {
    let result = match (job.state, &job.end) {
        (State::Inactive, _) => u32::from(Inactive::of(job).result),
        _ => 0,
    };
    TapJob {
        id: job.id.0,
        userid: job.userid,
        urgency: job.urgency.into(),
        flags: job.flags,
        priority: job.priority,
        state: job.state.bit(),
        t_submit: job.t_submit,
        jobspec: Arc::from(job.jobspec.to_string()),
        r: job.r.as_ref().map(|r| Arc::from(r.to_string())),
        posted: Posted {
            alloc: job.r.is_some(),
            start: job.marks.started,
            finish: job.marks.finished,
            perilog: job.perilogs > 0,
        },
        result,
        ended_by: match &job.end {
            None => EndedBy::Nothing,
            Some(End::Finish { .. }) => EndedBy::Finish,
            Some(End::Exception { .. }) => EndedBy::Exception,
        },
    }
}

/// Returns what is known of an inactive job.
pub(super) fn inactive(id: JobId, job: &Inactive) -> TapJob {
    TapJob {
        id: id.0,
        userid: job.userid,
        state: State::Inactive.bit(),
        jobspec: Arc::from("null"),
        posted: Posted {
            alloc: job.alloc,
            start: job.started,
            finish: job.started,
            perilog: false,
        },
        result: job.result.into(),
        ended_by: if job.exception {
            EndedBy::Exception
        } else {
            EndedBy::Finish
        },
        ..TapJob::default()
    }
}

/// Returns the dependencies of a jobspec, or why they are none; the texts are flux-core's.
pub(super) fn dependencies(jobspec: &Value) -> Result<Vec<(String, &Value)>, String> {
    let list = match jobspec.pointer("/attributes/system/dependencies") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err("dependencies object must be an array".to_owned()),
    };
    let scheme = |(index, entry): (usize, &Value)| match entry.get("scheme").and_then(Value::as_str) {
        None => Err(format!("dependency[{index}] missing string scheme")),
        Some(scheme) => Ok(scheme.to_owned()),
    };
    list.iter()
        .enumerate()
        .map(|(index, entry)| Ok((scheme((index, entry))?, entry)))
        .collect()
}

impl JobManager {
    /// Returns a job, active or inactive, as plugins see it.
    pub(super) fn tap_find(&self, id: JobId) -> Option<TapJob> {
        if let Some(job) = self.active.get(&id) {
            return Some(active(job));
        }
        self.inactive.get(id).map(|job| inactive(id, job))
    }

    /// Returns the dependencies of a job with the jobs that they name.
    pub(super) fn tap_dependencies(&self, jobspec: &Value) -> Vec<Dependency> {
        let list = dependencies(jobspec).unwrap_or_default();
        let full = |(scheme, entry): (String, &Value)| {
            let named = entry.get("value").and_then(Value::as_str);
            let target = named
                .and_then(|text| text.parse::<JobId>().ok())
                .and_then(|id| self.tap_find(id));
            Dependency {
                scheme,
                entry: entry.to_string(),
                target: target.map(Arc::new),
            }
        };
        list.into_iter().map(full).collect()
    }
}
