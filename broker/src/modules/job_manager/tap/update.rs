//! Which changes of a jobspec do plugins allow? (`job-manager.update`)

use super::super::JobManager;
use super::super::job;
use super::state::Waiting;
use super::view;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_policy::{Effect, TapCall, Verdict};
use serde_json::{Map, Value};
use std::sync::Arc;

/// An update that plugins look at.
pub(super) struct Pending {
    pub(super) request: Message,
    pub(super) id: JobId,
    pub(super) updates: Map<String, Value>,
}

impl JobManager {
    /// Returns true when plugins decide on updates of this key.
    pub(in super::super) fn tap_updates(&self, key: &str) -> bool {
        self.tap.wants.update(key)
    }

    /// Asks plugins whether a jobspec may be changed.
    pub(in super::super) fn tap_update(
        &mut self,
        cx: &mut Cx<'_>,
        request: Message,
        id: JobId,
        updates: Map<String, Value>,
    ) {
        let Some(job) = self.active.get(&id) else {
            return cx.fail(&request, errno::ENOENT, "unknown job id");
        };
        let mut changed = (*job.jobspec).clone();
        for (key, value) in &updates {
            job::set_path(&mut changed, key, value);
        }
        let call = TapCall::Update {
            updates: updates
                .iter()
                .map(|(key, value)| (key.clone(), value.to_string()))
                .collect(),
            updated: Arc::from(changed.to_string()),
            userid: request.userid,
            rolemask: request.rolemask,
        };
        let job = Arc::new(view::active(job));
        let waiting = Waiting::Update(Box::new(Pending { request, id, updates }));
        self.tap_ask(cx, job, call, None, waiting);
    }

    pub(super) fn on_update_checked(
        &mut self,
        cx: &mut Cx<'_>,
        pending: Pending,
        effects: Vec<Effect>,
        verdict: Verdict,
    ) {
        let Pending {
            request,
            id,
            mut updates,
        } = pending;
        let result = match verdict {
            Verdict::Updated {
                updates: further,
                validated,
            } => {
                for text in further {
                    if let Ok(Value::Object(more)) = serde_json::from_str(&text) {
                        updates.extend(more);
                    }
                }
                self.apply_effects(cx, effects);
                self.perform_update(cx, &request, id, updates, validated)
            }
            Verdict::Refused(refusal) => Err(RpcError::new(refusal.errnum, refusal.text)),
            _ => Err(RpcError::new(errno::EIO, "jobtap plugins gave no answer")),
        };
        if let Err(err) = result {
            cx.fail_with(&request, &err);
        }
    }
}
