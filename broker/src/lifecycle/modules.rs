//! rc1 and rc3: which modules are loaded in which order, and how are they stopped?

use super::dump;
use super::service::Lifecycle;
use crate::modules::registry;
use crate::service::Cx;

/// Modules in load order; the flag tells whether they run on rank 0 only.
const STANDARD: &[(&str, bool)] = &[
    ("content", false),
    ("content-sqlite", true),
    ("kvs", true),
    ("kvs-watch", true),
    ("heartbeat", false),
    ("cron", true),
    ("resource", false),
    ("job-manager", true),
    ("job-info", true),
    ("job-list", true),
    ("job-ingest", true),
    ("job-exec", true),
    ("sched-simple", true),
];

/// Returns true in recovery mode (`flux start --recovery`): what fails in rc1 is reported, and the rest goes on.
pub(super) fn recovers(cx: &Cx<'_>) -> bool {
    cx.attrs.get("broker.recovery-mode").is_some()
}

impl Lifecycle {
    /// rc1: loads the standard modules one after the other, then runs the site's script if there is one.
    pub(super) fn load_modules(&mut self, cx: &mut Cx<'_>) {
        if self.options.bare {
            self.post(cx, "rc1-none");
            return;
        }
        self.load_from(cx, 0);
    }

    fn load_from(&mut self, cx: &mut Cx<'_>, index: usize) {
        let Some((name, leader_only)) = STANDARD.get(index).copied() else {
            self.log_start(cx, |me, cx| {
                me.load_crontabs(cx, |me, cx| me.run_site_script(cx, "broker.rc1_path", "rc1"));
            });
            return;
        };
        if leader_only && cx.rank() != 0 {
            self.load_from(cx, index + 1);
            return;
        }
        if name == "kvs" && self.restore.is_some() {
            self.restore_content(cx, move |me, cx, ok| {
                if ok || recovers(cx) {
                    me.rc1_failed |= !ok;
                    me.load_from(cx, index);
                } else {
                    me.post(cx, "rc1-fail");
                }
            });
            return;
        }
        let mut args = Vec::new();
        if name == "content-sqlite" {
            self.restore = dump::source(&cx.attrs);
            if self.restore.is_some() {
                // what is loaded takes the place of what is there
                args.push("truncate".to_owned());
            }
        }
        let Some(service) = registry::create(name, &args) else {
            cx.log(
                3,
                "broker",
                &format!("rc1: module {name} is not part of this build"),
            );
            self.load_from(cx, index + 1);
            return;
        };
        cx.load_module(
            name,
            service,
            move |me: &mut Lifecycle, cx, result| match result {
                Ok(()) => {
                    me.loaded.push(name.to_owned());
                    me.load_from(cx, index + 1);
                }
                Err(err) => {
                    cx.log(3, "broker", &format!("rc1: module {name}: {err}"));
                    if recovers(cx) {
                        me.rc1_failed = true;
                        me.load_from(cx, index + 1);
                    } else {
                        me.post(cx, "rc1-fail");
                    }
                }
            },
        );
    }

    /// rc3: runs the site's script, then stops the modules, the last loaded first.
    pub(super) fn unload_modules(&mut self, cx: &mut Cx<'_>) {
        if self.options.bare {
            self.post(cx, "rc3-none");
            return;
        }
        self.run_site_script(cx, "broker.rc3_path", "rc3");
    }

    pub(super) fn unload_next(&mut self, cx: &mut Cx<'_>) {
        let Some(name) = self.loaded.pop() else {
            self.post(cx, "rc3-success");
            return;
        };
        if name == "content-sqlite" && !self.dumped {
            self.dumped = true;
            self.loaded.push(name);
            self.dump_content(cx, Lifecycle::unload_next);
            return;
        }
        let removing = cx.remove_module(&name, |me: &mut Lifecycle, cx| me.unload_next(cx));
        if let Err(err) = removing {
            // removed by hand with flux module remove
            tracing::debug!(module = %name, err = %err, "rc3");
            self.unload_next(cx);
        }
    }

    /// Stops what every broker has: the connector, so that no client comes any more.
    pub(super) fn unload_builtins(&mut self, cx: &mut Cx<'_>) {
        let removing = cx.remove_module("connector-local", |me: &mut Lifecycle, cx| {
            me.post(cx, "builtins-done")
        });
        if removing.is_err() {
            self.post(cx, "builtins-done");
        }
    }
}
