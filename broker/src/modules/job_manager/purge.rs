//! When are inactive jobs forgotten? (`job-manager.purge`, `purge-id`, and the limits of the configuration.)

use super::JobManager;
use super::commit::After;
use super::inactive::Inactive;
use super::ports::Change;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::job_manager::{PurgeIdRequest, PurgeRequest};
use serde_json::json;

/// Jobs purged in one commit.
const BATCH_MAX: usize = 100;

fn inval(text: impl Into<String>) -> RpcError {
    RpcError::new(errno::EINVAL, text)
}

impl JobManager {
    pub(super) fn on_purge(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let PurgeRequest {
            age_limit,
            num_limit,
            batch,
            force,
        } = req.payload_json()?;
        let is_off = age_limit.total_cmp(&-1.0).is_eq();
        if !is_off && age_limit < 0.0 {
            return Err(inval("if set, age limit must be >= 0"));
        }
        let num_limit = match num_limit {
            -1 => None,
            limit => Some(usize::try_from(limit).map_err(|_| inval("if set, num limit must be >= 0"))?),
        };
        let batch = usize::try_from(batch)
            .ok()
            .filter(|batch| (1..=BATCH_MAX).contains(batch));
        let batch = batch.ok_or_else(|| inval(format!("batch must be >= 1 and <= {BATCH_MAX}")))?;
        let now = self.now();
        let eligible = self
            .inactive
            .eligible(now, (!is_off).then_some(age_limit), num_limit);
        if !force.0 || eligible == 0 {
            cx.respond(req, &json!({"count": eligible}));
            return Ok(());
        }
        let purged = self.inactive.take_oldest(eligible.min(batch));
        self.purge_jobs(cx, &purged);
        self.respond_after(cx, req, &json!({"count": purged.len()}))
    }

    pub(super) fn on_purge_id(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let PurgeIdRequest { id, force } = req.payload_json()?;
        if id == JobId::ANY {
            return Err(RpcError::bare(errno::EINVAL));
        }
        if self.active.contains_key(&id) {
            return Err(inval("cannot purge active job"));
        }
        if !self.inactive.contains(id) {
            return Err(RpcError::new(errno::ENOENT, "id not found"));
        }
        if !force.0 {
            cx.respond(req, &json!({"count": 1}));
            return Ok(());
        }
        let purged: Vec<_> = self.inactive.take(id).map(|job| (id, job)).into_iter().collect();
        self.purge_jobs(cx, &purged);
        self.respond_after(cx, req, &json!({"count": 1}))
    }

    /// Purges what the configured limits say, one commit after the other.
    pub(super) fn purge_by_limits(&mut self, cx: &mut Cx<'_>) {
        if self.purging {
            return;
        }
        let now = self.now();
        let (age, count) = (self.config.inactive_age_limit, self.config.inactive_num_limit);
        let eligible = self.inactive.eligible(now, age, count).min(BATCH_MAX);
        if eligible == 0 {
            return;
        }
        self.purging = true;
        let purged = self.inactive.take_oldest(eligible);
        self.purge_jobs(cx, &purged);
        self.batch(cx).after(After::Call(Box::new(|me, cx| {
            me.purging = false;
            me.purge_by_limits(cx);
        })));
    }

    fn purge_jobs(&mut self, cx: &mut Cx<'_>, purged: &[(JobId, Inactive)]) {
        for (id, _) in purged {
            self.tap_purged(cx, *id);
        }
        self.purge_from_index(cx, purged.iter().map(|(id, _)| *id));
        // the largest id must not be forgotten with its job
        let checkpoint = self.checkpoint_change();
        let batch = self.batch(cx);
        batch.change(checkpoint);
        for (id, _) in purged {
            batch.change(Change::Unlink(id.kvs_path()));
        }
        let ids: Vec<JobId> = purged.iter().map(|(id, _)| *id).collect();
        batch.after(After::Call(Box::new(move |_, cx| {
            cx.publish("job-purge-inactive", &json!({"jobs": ids}))
        })));
    }
}
