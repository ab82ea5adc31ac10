//! The job information service's actor.

use super::update::UpdateWatch;
use super::watch::Watches;
use crate::modules::job_manager::api::{self as manager, JobEvent};
use crate::modules::kvs::local as kvs;
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::errno;
use flux_formats::eventlog;
use flux_formats::jobid::JobId;
use flux_formats::msg::{Message, role};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;

const METHODS: &[Method] = &[
    Method::user("lookup"),
    Method::user("eventlog-watch"),
    Method::user("eventlog-watch-cancel"),
    Method::user("update-lookup"),
    Method::user("update-watch"),
    Method::user("update-watch-cancel"),
];

/// The `job-info` module.
#[derive(Debug, Default)]
pub struct JobInfo {
    pub(super) watches: Watches,
    pub(super) updates: HashMap<JobId, Vec<UpdateWatch>>,
    pub(super) lookups: u64,
    pub(super) update_lookups: u64,
}

/// Returns the user who submitted a job, from its eventlog.
fn submitter(log: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Submit {
        userid: u32,
    }
    let text = std::str::from_utf8(log).ok()?;
    let event = eventlog::decode_iter(text).next()?.ok()?;
    event.context_as::<Submit>().ok().map(|submit| submit.userid)
}

impl JobInfo {
    /// Runs `then` when the sender may see the job; else the request is answered with an error.
    ///
    /// The instance owner is never held up; for a guest the job's eventlog says whose it is.
    pub(super) fn authorize(
        &mut self,
        cx: &mut Cx<'_>,
        req: Message,
        id: JobId,
        then: impl FnOnce(&mut JobInfo, &mut Cx<'_>, Message) + 'static,
    ) {
        if req.rolemask & role::OWNER != 0 {
            then(self, cx, req);
            return;
        }
        kvs::lookup(
            cx,
            "primary",
            &id.kvs_key("eventlog"),
            move |me: &mut JobInfo, cx, result| match result.map(|log| submitter(&log)) {
                Ok(Some(userid)) if cx.authorized(&req, userid) => then(me, cx, req),
                Ok(_) => cx.fail(&req, errno::EPERM, "access is restricted to job/instance owner"),
                Err(err) if err.errnum == errno::ENOENT => cx.fail(&req, errno::ENOENT, "invalid job id"),
                Err(err) => cx.fail_with(&req, &err),
            },
        );
    }

    pub(super) fn on_journal(&mut self, cx: &mut Cx<'_>, events: &[JobEvent]) {
        for event in events {
            match &*event.name {
                "clean" => {
                    self.job_inactive(cx, event.id);
                    self.end_updates(cx, event.id);
                }
                "jobspec-update" | "resource-update" => self.on_update_event(cx, event),
                _ => {}
            }
        }
    }
}

impl Service for JobInfo {
    fn interfaces(&self) -> Vec<Interface> {
        vec![Interface {
            service: "job-info",
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        manager::subscribe_journal(cx, |me: &mut JobInfo, cx, events| me.on_journal(cx, events));
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "lookup" => self.on_lookup(cx, req),
            "eventlog-watch" => self.on_watch(cx, req),
            "eventlog-watch-cancel" => self.on_watch_cancel(cx, &req),
            "update-lookup" => self.on_update_lookup(cx, req),
            "update-watch" => self.on_update_watch(cx, req),
            "update-watch-cancel" => self.on_update_cancel(cx, &req),
            _ => cx.fail(&req, errno::ENOSYS, ""),
        }
    }

    fn on_disconnect(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        self.drop_watches(cx, msg.sender());
        self.updates.retain(|_, watches| {
            watches.retain(|watch| watch.request.sender() != msg.sender());
            !watches.is_empty()
        });
    }

    fn stats(&mut self, _cx: &mut Cx<'_>) -> Option<Value> {
        let (watchers, guest_watchers) = self.watches.counts();
        let updates: usize = self.updates.values().map(Vec::len).sum();
        Some(json!({
            "lookups": self.lookups, "watchers": watchers, "guest_watchers": guest_watchers,
            "update_lookups": self.update_lookups, "update_watchers": updates,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_names_the_owner() {
        let log = br#"{"timestamp":1.5,"name":"submit","context":{"userid":1001,"urgency":16,"flags":0,"version":1}}
{"timestamp":1.6,"name":"validate"}
"#;
        assert_eq!(submitter(log), Some(1001));
        assert_eq!(submitter(b"{}\n"), None);
        assert_eq!(submitter(b""), None);
    }
}
