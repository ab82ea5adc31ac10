//! What does a list request ask for, and which active jobs are in its answer? Pending jobs by priority, running ones by
//! start, inactive ones by end (RFC 43).

use super::JobList;
use super::attrs::{Attrs, encode};
use super::constraint::{Constraint, legacy};
use super::db::Query;
use super::job::Job;
use super::row::Row;
use super::view::View;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobstate::JobState;
use flux_formats::msg::{Message, role};
use flux_formats::rpc::job_list as rpc;
use serde_json::Value;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

impl Query {
    fn matches(&self, job: &View<'_>) -> bool {
        self.only.is_none_or(|userid| job.userid == userid) && self.constraint.matches(job)
    }

    /// Returns true when inactive jobs can match.
    pub(super) fn wants_inactive(&self) -> bool {
        self.constraint.possible_states() & JobState::Inactive.bit() != 0
    }
}

/// Reads a request; returns what it asks for, and of how many jobs.
pub(super) fn query(cx: &Cx<'_>, req: &Message) -> Result<(Query, usize), RpcError> {
    let body: rpc::ListRequest = req.payload_json()?;
    let constraint = match &body.constraint {
        Some(constraint) => constraint.clone(),
        None => Value::Object(legacy(&body)),
    };
    if body.since < 0.0 {
        let text = "invalid payload: since < 0.0 not allowed";
        return Err(RpcError::new(errno::EPROTO, text));
    }
    let query = Query {
        attrs: Attrs::parse(&body.attrs)?,
        constraint: Constraint::parse(&constraint).map_err(|err| {
            let text = format!("invalid payload: constraint object invalid: {}", err.text);
            RpcError::new(errno::EPROTO, text)
        })?,
        since: body.since,
        only: restricted_to(cx, req),
    };
    let max = usize::try_from(body.max_entries).ok().filter(|max| *max > 0);
    Ok((query, max.unwrap_or(usize::MAX)))
}

impl JobList {
    /// Returns the active jobs that match, in order, `max` at most.
    pub(super) fn active_matches(&self, query: &Query, max: usize) -> VecDeque<Rc<Job>> {
        let states = query.constraint.possible_states();
        let mut pending: Vec<Rc<Job>> = Vec::new();
        let mut running: Vec<Rc<Job>> = Vec::new();
        if states & JobState::ACTIVE != 0 {
            for job in self.active.values().filter(|job| query.matches(&job.view())) {
                if job.state.in_mask(JobState::PENDING) {
                    pending.push(job.clone());
                } else if job.state.in_mask(JobState::RUNNING) {
                    running.push(job.clone());
                }
            }
        }
        pending.sort_unstable_by_key(|job| (std::cmp::Reverse(job.priority), job.id));
        running.sort_unstable_by(|a, b| b.t_run.total_cmp(&a.t_run).then(b.id.cmp(&a.id)));
        pending.append(&mut running);
        pending.truncate(max);
        pending.into()
    }

    /// Returns the inactive jobs in memory that match, the last one that ended first.
    pub(super) fn recent_matches(&self, query: &Query) -> VecDeque<Arc<Row>> {
        if !query.wants_inactive() {
            return VecDeque::new();
        }
        let matching = self.archive.recent.values().filter(|row| {
            row.rank().t_inactive > query.since
                && query.matches(&row.view())
                && !self.archive.doomed.contains(&row.id)
        });
        let mut rows: Vec<Arc<Row>> = matching.cloned().collect();
        rows.sort_by(|a, b| {
            b.rank()
                .partial_cmp(&a.rank())
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        rows.into()
    }
}

/// Returns the user whose jobs alone the sender may see: in private mode guests see their own.
pub(super) fn restricted_to(cx: &Cx<'_>, req: &Message) -> Option<u32> {
    let private = cx
        .config_table("access")
        .get("private-mode")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    (private && req.rolemask & (role::OWNER | role::ADMIN) == 0).then_some(req.userid)
}

/// Returns the job as the JSON object that was asked for.
pub(super) fn object(job: &View<'_>, attrs: Attrs) -> Bytes {
    let mut out = Vec::with_capacity(384);
    encode(&mut out, job, attrs);
    Bytes::from(out)
}
