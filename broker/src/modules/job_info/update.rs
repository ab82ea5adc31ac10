//! How are R and jobspec followed while they change?

use super::JobInfo;
use super::lookup::apply_updates;
use crate::modules::job_manager::api::{self as manager, JobEvent};
use crate::modules::kvs::local as kvs;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::job_info as rpc;
use serde_json::{Map, Value};

/// A followed R or jobspec.
#[derive(Debug)]
pub(super) struct UpdateWatch {
    pub(super) request: Message,
    key: String,
    value: Value,
}

fn body(key: &str, value: &Value) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert(key.to_owned(), value.clone());
    map
}

impl JobInfo {
    fn checked(cx: &mut Cx<'_>, req: &Message) -> Option<rpc::UpdateRequest> {
        let body = cx.decode::<rpc::UpdateRequest>(req)?;
        if body.flags != 0 {
            cx.fail(
                req,
                errno::EPROTO,
                &format!("update request rejected with invalid flag {}", body.flags),
            );
            return None;
        }
        if body.key != "R" && body.key != "jobspec" {
            cx.fail(req, errno::EINVAL, &format!("unsupported key {}", body.key));
            return None;
        }
        Some(body)
    }

    pub(super) fn on_update_lookup(&mut self, cx: &mut Cx<'_>, req: Message) {
        let Some(request) = Self::checked(cx, &req) else {
            return;
        };
        self.update_lookups += 1;
        self.authorize(cx, req, request.id, move |_, cx, req| {
            read_current(cx, request.id, request.key.clone(), move |_, cx, result| {
                cx.answer(&req, result.map(|value| body(&request.key, &value)));
            });
        });
    }

    pub(super) fn on_update_watch(&mut self, cx: &mut Cx<'_>, req: Message) {
        if !cx.require_streaming(&req) {
            return;
        }
        let Some(request) = Self::checked(cx, &req) else {
            return;
        };
        self.authorize(cx, req, request.id, move |_, cx, mut req| {
            req.payload = None;
            read_current(
                cx,
                request.id,
                request.key.clone(),
                move |me, cx, result| match result {
                    Ok(value) => me.add_update_watch(cx, req, request, value),
                    Err(err) => cx.fail_with(&req, &err),
                },
            );
        });
    }

    fn add_update_watch(
        &mut self,
        cx: &mut Cx<'_>,
        request: Message,
        asked: rpc::UpdateRequest,
        value: Value,
    ) {
        cx.respond(&request, &body(&asked.key, &value));
        self.updates.entry(asked.id).or_default().push(UpdateWatch {
            request,
            key: asked.key,
            value,
        });
        // nothing changes any more when the job is inactive
        let id = asked.id;
        manager::active_job(cx, id, move |me: &mut JobInfo, cx, job| {
            if job.is_none() {
                me.end_updates(cx, id);
            }
        });
    }

    /// Sends a changed R or jobspec to those who follow it.
    pub(super) fn on_update_event(&mut self, cx: &mut Cx<'_>, event: &JobEvent) {
        let key = if &*event.name == "resource-update" {
            "R"
        } else {
            "jobspec"
        };
        let watches = self.updates.get_mut(&event.id).into_iter().flatten();
        for watch in watches.filter(|watch| watch.key == key) {
            apply_updates(&mut watch.value, key, event.line.as_bytes());
            cx.respond(&watch.request, &body(key, &watch.value));
        }
    }

    /// Ends the streams of a job that is inactive.
    pub(super) fn end_updates(&mut self, cx: &mut Cx<'_>, id: JobId) {
        for watch in self.updates.remove(&id).unwrap_or_default() {
            cx.fail_with(&watch.request, &RpcError::bare(errno::ENODATA));
        }
    }

    pub(super) fn on_update_cancel(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let Ok(cancel) = req.payload_json::<rpc::CancelRequest>() else {
            return;
        };
        let ended = |watch: &UpdateWatch| {
            watch.request.sender() == req.sender() && watch.request.matchtag() == cancel.matchtag
        };
        for watches in self.updates.values_mut() {
            for watch in watches.extract_if(.., |watch| ended(watch)) {
                cx.fail_with(&watch.request, &RpcError::bare(errno::ENODATA));
            }
        }
        self.updates.retain(|_, watches| !watches.is_empty());
    }
}

/// Reads R or the jobspec of a job with the updates of its eventlog.
fn read_current(
    cx: &mut Cx<'_>,
    id: JobId,
    key: String,
    done: impl FnOnce(&mut JobInfo, &mut Cx<'_>, Result<Value, RpcError>) + 'static,
) {
    kvs::lookup(
        cx,
        "primary",
        &id.kvs_key("eventlog"),
        move |_: &mut JobInfo, cx, log| {
            let path = id.kvs_key(&key);
            kvs::lookup(cx, "primary", &path, move |me: &mut JobInfo, cx, value| {
                let result = combine(&key, value, log);
                done(me, cx, result);
            });
        },
    );
}

fn combine(
    key: &str,
    value: Result<Bytes, RpcError>,
    log: Result<Bytes, RpcError>,
) -> Result<Value, RpcError> {
    let mut value: Value = serde_json::from_slice(&value?)
        .map_err(|err| RpcError::new(errno::EPROTO, format!("{key}: {err}")))?;
    if let Ok(log) = log {
        apply_updates(&mut value, key, &log);
    }
    Ok(value)
}
