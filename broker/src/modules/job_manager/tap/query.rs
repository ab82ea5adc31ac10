//! What is told about plugins, and what do they tell themselves?

use super::super::JobManager;
use super::super::commit::After;
use super::names::is_same;
use super::state::{Loaded, Waiting};
use super::view;
use crate::service::{Cx, RpcError, Service};
use flux_formats::errno;
use flux_formats::msg::Message;
use flux_policy::{PluginState, PluginStats, TapCall, TapCommand, Topic, Verdict};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
struct QueryRequest {
    name: String,
}

impl JobManager {
    /// Answers which plugins there are.
    pub(super) fn list_plugins(&mut self, cx: &mut Cx<'_>, req: &Message, stats: bool) {
        if stats && self.tap.port.exist() {
            let token = self.tap.expect(Waiting::Stats(req.clone()));
            self.tap_command(cx, TapCommand::Stats { token });
            return;
        }
        let mut answer = json!({"plugins": self.plugin_names()});
        if let Some(why) = &self.tap.failed {
            answer["failed"] = why.as_str().into();
        }
        cx.respond(req, &answer);
    }

    fn plugin_names(&self) -> Vec<&str> {
        if !self.tap.port.exist() {
            return Vec::new();
        }
        let loaded = || self.tap.loaded.iter().map(|plugin| &*plugin.info.name);
        let standard = loaded().filter(|name| name.starts_with('.'));
        let other = loaded().filter(|name| !name.starts_with('.'));
        standard.chain(other).collect()
    }

    /// Answers with the figures of each plugin.
    pub(super) fn answer_stats(&self, cx: &mut Cx<'_>, req: &Message, stats: &[PluginStats]) {
        let details: Vec<Value> = self
            .tap
            .loaded
            .iter()
            .map(|plugin| details(plugin, stats.iter().find(|stats| stats.name == plugin.info.name)))
            .collect();
        cx.respond(
            req,
            &json!({"plugins": self.plugin_names(), "details": details, "failed": self.tap.failed}),
        );
    }

    /// Asks the policy thread for the figures that `flux module stats job-manager` shows; returns false when there is no such thread.
    pub(in super::super) fn tap_stats_later(&mut self, cx: &mut Cx<'_>, req: &Message) -> bool {
        let can = self.tap.port.exist() && self.tap.failed.is_none() && self.tap.starting == 0;
        if can {
            let token = self.tap.expect(Waiting::ModuleStats(req.clone()));
            self.tap_command(cx, TapCommand::Stats { token });
        }
        can
    }

    /// Answers `job-manager.stats-get`.
    pub(super) fn answer_module_stats(&mut self, cx: &mut Cx<'_>, req: &Message, figures: &[PluginStats]) {
        let mut stats = self.stats(cx).unwrap_or_default();
        stats["jobtap"] = self.tap_stats(figures);
        cx.respond(req, &stats);
    }

    /// Returns what `flux module stats job-manager` shows of plugins.
    pub(in super::super) fn tap_stats(&self, figures: &[PluginStats]) -> Value {
        let of = |plugin: &Loaded| {
            let figures = figures.iter().find(|stats| stats.name == plugin.info.name);
            details(plugin, figures)
        };
        let plugins: Vec<Value> = self.tap.loaded.iter().map(of).collect();
        json!({"plugins": plugins, "waiting": self.tap.waiting.len(), "failed": self.tap.failed})
    }

    /// `job-manager.jobtap-query`
    pub(in super::super) fn on_jobtap_query(
        &mut self,
        cx: &mut Cx<'_>,
        req: &Message,
    ) -> Result<(), RpcError> {
        let QueryRequest { name } = req.payload_json()?;
        let found = self
            .tap
            .loaded
            .iter()
            .find(|plugin| is_same(&plugin.info.name, &name));
        let plugin =
            found.ok_or_else(|| RpcError::new(errno::ENOENT, format!("{name}: plugin not found")))?;
        let path = if plugin.info.name.starts_with('.') {
            "builtin"
        } else {
            &plugin.path
        };
        let about = json!({"name": &*plugin.info.name, "path": path});
        let answers = plugin
            .info
            .topics
            .iter()
            .any(|topic| &*topic.name == "plugin.query");
        if !answers {
            cx.respond(req, &about);
            return Ok(());
        }
        let name = plugin.info.name.clone();
        let waiting = Waiting::Query(req.clone(), about);
        self.tap_ask(cx, view::nobody(), TapCall::Query, Some(name), waiting);
        Ok(())
    }

    pub(super) fn answer_query(&self, cx: &mut Cx<'_>, req: &Message, mut about: Value, verdict: Verdict) {
        let said = match verdict {
            Verdict::Response(text) => serde_json::from_str::<Value>(&text).ok(),
            Verdict::Refused(refusal) => return cx.fail(req, refusal.errnum, &refusal.text),
            _ => None,
        };
        match (said, &mut about) {
            (Some(Value::Object(said)), Value::Object(about)) => about.extend(said),
            _ => {
                return cx.fail(
                    req,
                    errno::EPROTO,
                    "plugin.query failed: the answer is no JSON object",
                );
            }
        }
        cx.respond(req, &about);
    }

    /// A request to `job-manager.NAME.METHOD`; returns false when no plugin serves it.
    pub(in super::super) fn tap_request(&mut self, cx: &mut Cx<'_>, req: &Message) -> bool {
        let Some((plugin, method, _)) = self.tap.wants.methods.get(req.topic.as_str()).cloned() else {
            return false;
        };
        let payload = req
            .payload
            .as_ref()
            .map(|bytes| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned());
        let call = TapCall::Request {
            method,
            payload: payload.unwrap_or_default(),
            userid: req.userid,
            rolemask: req.rolemask,
        };
        self.tap_ask(
            cx,
            view::nobody(),
            call,
            Some(plugin),
            Waiting::Response(req.clone()),
        );
        true
    }

    /// Answers a request; one that changed something, once that is stored.
    pub(super) fn respond_verdict(
        &mut self,
        cx: &mut Cx<'_>,
        req: &Message,
        verdict: Verdict,
        changed: bool,
    ) {
        match verdict {
            Verdict::Response(text) if text.is_empty() && changed => {
                self.batch(cx).after(After::Respond(req.clone(), None));
            }
            Verdict::Response(text) if text.is_empty() => cx.respond_empty(req),
            Verdict::Response(text) if changed => {
                let value = serde_json::from_str::<Value>(&text);
                let value = value.map_err(|err| {
                    RpcError::new(errno::EPROTO, format!("the plugin's answer is no JSON: {err}"))
                });
                if let Err(err) = value.and_then(|value| self.respond_after(cx, req, &value)) {
                    cx.fail_with(req, &err);
                }
            }
            Verdict::Response(text) => match serde_json::from_str::<Value>(&text) {
                Ok(value) => cx.respond(req, &value),
                Err(err) => cx.fail(
                    req,
                    errno::EPROTO,
                    &format!("the plugin's answer is no JSON: {err}"),
                ),
            },
            Verdict::Refused(refusal) => cx.fail(req, refusal.errnum, &refusal.text),
            _ => cx.fail(req, errno::ENOSYS, "the plugin does not answer requests"),
        }
    }
}

fn details(plugin: &Loaded, stats: Option<&PluginStats>) -> Value {
    let info = &plugin.info;
    let mut value = json!({
        "name": &*info.name,
        "version": info.version,
        "sha256": info.sha256,
        "path": plugin.path,
        "grants": info.grants.iter().map(|grant| grant.name()).collect::<Vec<_>>(),
        "topics": info.topics.iter().map(Topic::to_string).collect::<Vec<_>>(),
    });
    if let (Some(stats), Value::Object(value)) = (stats, &mut value) {
        let state = match stats.state {
            PluginState::Running => "running",
            PluginState::Resting => "resting",
            PluginState::Rebuilding => "rebuilding",
            PluginState::Quarantined => "quarantined",
        };
        value.insert("state".into(), state.into());
        value.insert("calls".into(), stats.calls.into());
        value.insert("p50".into(), stats.p50.as_secs_f64().into());
        value.insert("p99".into(), stats.p99.as_secs_f64().into());
        value.insert("traps".into(), stats.traps.into());
        value.insert("last-failure".into(), stats.last_failure.clone().into());
        value.insert("memory".into(), stats.memory_bytes.into());
    }
    value
}
