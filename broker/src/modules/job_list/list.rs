//! How is a list answered? Pending jobs by priority, running ones by start, inactive ones by end (RFC 43).

use super::JobList;
use super::attrs::{Attrs, encode};
use super::constraint::{Constraint, legacy};
use super::job::Job;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::jobstate::JobState;
use flux_formats::msg::{Message, role};
use flux_formats::rpc::job_list as rpc;
use serde_json::{Value, json};

/// Jobs sent before the broker looks at its other work again.
const CHUNK: usize = 4096;

/// What a list request asks for.
struct Query {
    attrs: Attrs,
    constraint: Constraint,
    max: usize,
    since: f64,
    /// Only this user's jobs, in private mode.
    only: Option<u32>,
}

impl Query {
    fn matches(&self, job: &Job) -> bool {
        self.only.is_none_or(|userid| job.userid == userid) && self.constraint.matches(job)
    }
}

impl JobList {
    fn query(&self, cx: &Cx<'_>, req: &Message) -> Result<Query, RpcError> {
        let body: rpc::ListRequest = req.payload_json()?;
        let constraint = match &body.constraint {
            Some(constraint) => constraint.clone(),
            None => Value::Object(legacy(&body)),
        };
        Ok(Query {
            attrs: Attrs::parse(&body.attrs)?,
            constraint: Constraint::parse(&constraint)?,
            max: usize::try_from(body.max_entries)
                .ok()
                .filter(|max| *max > 0)
                .unwrap_or(usize::MAX),
            since: body.since,
            only: restricted_to(cx, req),
        })
    }

    /// Returns the ids of the active jobs that match, in order.
    fn active_matches(&self, query: &Query) -> Vec<&Job> {
        let states = query.constraint.possible_states();
        let mut pending: Vec<&Job> = Vec::new();
        let mut running: Vec<&Job> = Vec::new();
        if states & JobState::ACTIVE != 0 {
            for job in self.active.values().filter(|job| query.matches(job)) {
                if job.state.in_mask(JobState::PENDING) {
                    pending.push(job);
                } else if job.state.in_mask(JobState::RUNNING) {
                    running.push(job);
                }
            }
        }
        pending.sort_unstable_by_key(|job| (std::cmp::Reverse(job.priority), job.id));
        running.sort_unstable_by(|a, b| b.t_run.total_cmp(&a.t_run).then(b.id.cmp(&a.id)));
        pending.append(&mut running);
        pending.truncate(query.max);
        pending
    }

    fn inactive_matches<'a>(
        &'a self,
        query: &'a Query,
        max: usize,
        before: Option<(f64, JobId)>,
    ) -> impl Iterator<Item = &'a Job> {
        let wanted = query.constraint.possible_states() & JobState::Inactive.bit() != 0;
        let limit = if wanted { max } else { 0 };
        let jobs = (limit > 0)
            .then(|| self.inactive.newest_first(before))
            .into_iter()
            .flatten();
        jobs.take_while(|job| job.t_inactive > query.since)
            .filter(|job| query.matches(job))
            .take(limit)
    }

    pub(super) fn on_list(&mut self, cx: &mut Cx<'_>, req: Message) {
        let query = match self.query(cx, &req) {
            Ok(query) => query,
            Err(err) => {
                cx.fail_with(&req, &err);
                return;
            }
        };
        let active = self.active_matches(&query);
        let left = query.max.saturating_sub(active.len());
        if req.is_streaming() {
            let mut first = true;
            let header = Message { payload: None, ..req };
            for job in active {
                cx.respond_payload(&header, Some(one_job(job, query.attrs, &mut first)));
            }
            self.stream_inactive(cx, header, query, left, None, first);
            return;
        }
        let mut out = Vec::with_capacity(4096);
        out.extend_from_slice(b"{\"jobs\":[");
        for (at, job) in active
            .into_iter()
            .chain(self.inactive_matches(&query, left, None))
            .enumerate()
        {
            if at > 0 {
                out.push(b',');
            }
            encode(&mut out, job, query.attrs);
        }
        out.extend_from_slice(b"]}\0");
        cx.respond_payload(&req, Some(Bytes::from(out)));
    }

    /// Sends inactive jobs in chunks, so that a long list neither holds up other work nor fills the memory.
    fn stream_inactive(
        &mut self,
        cx: &mut Cx<'_>,
        header: Message,
        query: Query,
        left: usize,
        after: Option<(f64, JobId)>,
        mut first: bool,
    ) {
        let mut sent = 0;
        let mut last = None;
        let mut more = false;
        for job in self.inactive_matches(&query, usize::MAX, after) {
            if sent >= CHUNK.min(left) {
                more = left > sent;
                break;
            }
            cx.respond_payload(&header, Some(one_job(job, query.attrs, &mut first)));
            sent += 1;
            last = Some((job.t_inactive, job.id));
        }
        if more {
            let left = left - sent;
            cx.timer(std::time::Duration::ZERO, move |me: &mut JobList, cx| {
                me.stream_inactive(cx, header, query, left, last, first);
            });
            return;
        }
        if first {
            cx.respond(&header, &json!({ "version": 1, "jobs": [] }));
        }
        cx.fail(&header, errno::ENODATA, "");
    }

    // ---- one job --------------------------------------------------------------------------------------

    pub(super) fn find(&self, id: JobId) -> Option<&Job> {
        self.active
            .get(&id)
            .map(Box::as_ref)
            .or_else(|| self.inactive.get(id))
    }

    pub(super) fn answer_id(&self, cx: &mut Cx<'_>, req: &Message, job: &Job, attrs: Attrs) {
        if restricted_to(cx, req).is_some_and(|userid| job.userid != userid) {
            cx.fail(req, errno::ENOENT, "");
            return;
        }
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"{\"job\":");
        encode(&mut out, job, attrs);
        out.extend_from_slice(b"}\0");
        cx.respond_payload(req, Some(Bytes::from(out)));
    }
}

/// Returns the user whose jobs alone the sender may see: in private mode guests see their own.
fn restricted_to(cx: &Cx<'_>, req: &Message) -> Option<u32> {
    let private = cx
        .config_table("access")
        .get("private-mode")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    (private && req.rolemask & (role::OWNER | role::ADMIN) == 0).then_some(req.userid)
}

fn one_job(job: &Job, attrs: Attrs, first: &mut bool) -> Bytes {
    let mut out = Vec::with_capacity(384);
    out.extend_from_slice(if *first {
        b"{\"version\":1,\"jobs\":[".as_slice()
    } else {
        b"{\"jobs\":["
    });
    *first = false;
    encode(&mut out, job, attrs);
    out.extend_from_slice(b"]}\0");
    Bytes::from(out)
}
