//! When did the instance start and stop? Two events a run in `admin.eventlog`, read by `flux startlog`.
//!
//! A run without its `finish` event crashed (flux-core: cmd/builtin/startlog.c, behaviour).

use super::service::Lifecycle;
use crate::modules::kvs::{Txn, commit_durable, lookup};
use crate::service::Cx;
use flux_formats::eventlog;
use std::time::SystemTime;

const KEY: &str = "admin.eventlog";

/// Returns true when the last run of this log has no end.
fn has_crashed(log: &[u8]) -> bool {
    let text = String::from_utf8_lossy(log);
    let mut names = text
        .lines()
        .rev()
        .filter_map(|line| Some(eventlog::EventRef::decode(line).ok()?.name.into_owned()));
    names.find(|name| name == "start" || name == "finish").as_deref() == Some("start")
}

impl Lifecycle {
    /// Says when the last run did not end well, then notes the start of this one.
    pub(super) fn log_start(
        &mut self,
        cx: &mut Cx<'_>,
        then: impl FnOnce(&mut Lifecycle, &mut Cx<'_>) + 'static,
    ) {
        if cx.rank() != 0 || !cx.provides("kvs") {
            then(self, cx);
            return;
        }
        lookup(cx, "primary", KEY, move |me: &mut Lifecycle, cx, log| {
            if log.is_ok_and(|log| has_crashed(&log)) {
                let text = "Flux was not shut down properly. What was acknowledged is there; running jobs are looked for.";
                cx.log(4, "broker", text);
            }
            me.log_run(cx, "start", then);
        });
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_an_end_crashed() {
        let log = |names: &[&str]| {
            let mut log = String::new();
            for name in names {
                eventlog::append_bare(&mut log, 1.0, name);
            }
            has_crashed(log.as_bytes())
        };
        assert!(!log(&[]));
        assert!(log(&["start"]));
        assert!(!log(&["start", "finish"]));
        assert!(log(&["start", "finish", "start", "note"]));
        assert!(!has_crashed(b"nonsense\n"));
    }
}
