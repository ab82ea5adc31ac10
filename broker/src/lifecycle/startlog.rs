//! When did the instance start and stop? Two events a run in `admin.eventlog`, read by `flux startlog`.
//!
//! A run without its `finish` event crashed (flux-core: cmd/builtin/startlog.c, behaviour).

use super::service::Lifecycle;
use crate::modules::kvs::{Txn, commit_durable};
use crate::service::Cx;
use flux_formats::eventlog;
use std::time::SystemTime;

const KEY: &str = "admin.eventlog";

impl Lifecycle {
    /// Appends an event on rank 0, then goes on with `then`. What cannot be written is logged, not fatal.
    pub(super) fn log_run(
        &mut self,
        cx: &mut Cx<'_>,
        name: &'static str,
        then: impl FnOnce(&mut Lifecycle, &mut Cx<'_>) + 'static,
    ) {
        if cx.rank() != 0 || !cx.provides("kvs") {
            then(self, cx);
            return;
        }
        let context = match name {
            // stock `flux startlog` skips a start without the version of the log
            "start" => serde_json::json!({ "version": 1, "core_version": crate::start::VERSION }),
            _ => serde_json::json!({}),
        };
        let mut line = String::new();
        let now = eventlog::timestamp(SystemTime::now());
        if let Err(err) = eventlog::append(&mut line, now, name, &context) {
            cx.log(3, "broker", &format!("startlog: {err}"));
        }
        let mut txn = Txn::new();
        txn.append(KEY, line.as_bytes());
        commit_durable::<Lifecycle>(cx, "primary", txn, move |me, cx, result| {
            if let Err(err) = result {
                cx.log(3, "broker", &format!("startlog: {KEY}: {err}"));
            }
            then(me, cx);
        });
    }
}
