//! How do plugins come and go? At start, by `[job-manager] plugins`, and by `job-manager.jobtap`.

use super::super::JobManager;
use super::super::service::METHODS;
use super::super::state::State;
use super::apply::STATE_DIR;
use super::names;
use super::port;
use super::state::{Loaded, Waiting};
use super::view;
use crate::modules::policy_link;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_policy::{Command, PluginInfo, PolicyError, STANDARD_TAP, TapCall, TapCommand};
use serde::Deserialize;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

/// The callback that tells which jobs there are ...
const KNOWN: &str = "job.known";
/// ... so many at a time.
const KNOWN_MAX: usize = 65536;

/// A plugin that the policy thread loads.
#[derive(Debug)]
pub(super) struct Loading {
    name: Arc<str>,
    path: String,
    /// Who asked; nobody at start.
    request: Option<Message>,
    /// Plugins that go once it is there.
    remove: Option<String>,
}

/// Payload of `job-manager.jobtap`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct JobtapRequest {
    #[serde(default)]
    pub(super) load: Option<String>,
    #[serde(default)]
    pub(super) conf: Option<Value>,
    #[serde(default)]
    pub(super) remove: Option<String>,
    #[serde(default)]
    pub(super) query_only: Option<Value>,
    /// Ours: figures of each plugin as well.
    #[serde(default)]
    pub(super) stats: Option<bool>,
}

fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

impl JobManager {
    /// Begins with the plugins, once the jobs of a former run are known: reads their states, then loads them.
    pub(in super::super) fn start_plugins(&mut self, cx: &mut Cx<'_>) {
        if !self.tap.port.exist() {
            return self.finish_restart(cx);
        }
        self.store.lookup_dir(
            cx,
            STATE_DIR,
            Box::new(|me, cx, names| me.read_plugin_states(cx, names.unwrap_or_default())),
        );
    }

    fn read_plugin_states(&mut self, cx: &mut Cx<'_>, mut names: Vec<String>) {
        let Some(name) = names.pop() else {
            return self.load_first_plugins(cx);
        };
        let key = format!("{STATE_DIR}.{name}");
        self.store.lookup(
            cx,
            &key,
            Box::new(move |me, cx, found| {
                if let Ok(bytes) = found {
                    me.take_saved(&name, &bytes);
                }
                me.read_plugin_states(cx, names);
            }),
        );
    }

    /// Loads the standard set and what the configuration names.
    fn load_first_plugins(&mut self, cx: &mut Cx<'_>) {
        let dir = port::directory(cx);
        let text = self.tap_config(cx);
        if let Err(err) = self.tap.port.open(cx, dir.clone(), text) {
            self.fail_at_start(cx, &err.text);
            return self.finish_restart(cx);
        }
        let mut wanted: Vec<(String, Option<Value>)> = STANDARD_TAP
            .iter()
            .map(|name| (format!(".{name}"), None))
            .collect();
        let config = cx.config.clone();
        let entries = config.pointer("/job-manager/plugins").and_then(Value::as_array);
        for entry in entries.map(Vec::as_slice).unwrap_or_default() {
            if let Some(remove) = entry.get("remove").and_then(Value::as_str) {
                wanted.retain(|(name, _)| !removes(remove, name));
            }
            if let Some(load) = entry.get("load").and_then(Value::as_str) {
                wanted.push((load.to_owned(), entry.get("conf").cloned()));
            }
        }
        let mut found = VecDeque::new();
        for (load, conf) in &wanted {
            match names::find(&dir, &config, load, conf.as_ref()) {
                Ok(named) => found.push_back(named),
                Err(err) => self.fail_at_start(cx, &err.text),
            }
        }
        self.tap.starting = found.len();
        self.tap.queued = found;
        self.load_queued(cx);
        if self.tap.starting == 0 {
            self.finish_restart(cx);
        }
    }

    /// Loads what waits, up to a plugin that must be compiled: the stack is in the order of the configuration.
    pub(super) fn load_queued(&mut self, cx: &mut Cx<'_>) {
        while let Some(named) = self.tap.queued.pop_front() {
            let compiles = named.raw.is_some();
            self.load_named(cx, named, None, None);
            if compiles {
                return;
            }
        }
    }

    /// A plugin that the site wants is not there: nothing may pass unchecked.
    fn fail_at_start(&mut self, cx: &mut Cx<'_>, why: &str) {
        cx.log_as_me(2, &format!("jobtap: {why}: submissions are refused"));
        self.tap.failed.get_or_insert_with(|| why.to_owned());
    }

    /// Answers for a plugin that is not there, or refuses submissions when it should have been there from the start.
    pub(super) fn load_failed(&mut self, cx: &mut Cx<'_>, request: Option<&Message>, why: &str) {
        match request {
            Some(request) => cx.fail(request, errno::EINVAL, why),
            None => {
                self.fail_at_start(cx, why);
                self.loaded_at_start(cx);
            }
        }
    }

    /// One plugin less to wait for at start.
    fn loaded_at_start(&mut self, cx: &mut Cx<'_>) {
        self.tap.starting = self.tap.starting.saturating_sub(1);
        if self.tap.starting == 0 {
            self.finish_restart(cx);
        }
    }

    pub(super) fn load_named(
        &mut self,
        cx: &mut Cx<'_>,
        mut named: names::Named,
        request: Option<Message>,
        remove: Option<String>,
    ) {
        if let Some(wasm) = named.raw.take() {
            return self.load_raw(cx, wasm, named, request, remove);
        }
        let dir = port::directory(cx);
        let name: Arc<str> = Arc::from(named.name.as_str());
        let path = names::display(named.spec.dir.as_ref(), &dir, &named.spec.name);
        let values = self.tap.saved.get(&name).cloned().unwrap_or_default();
        let token = self.tap.expect(Waiting::Load(Box::new(Loading {
            name: name.clone(),
            path,
            request,
            remove,
        })));
        self.tap_command(
            cx,
            TapCommand::Load {
                token,
                spec: Box::new(named.spec),
                name,
                values,
            },
        );
    }

    pub(super) fn on_tap_loaded(
        &mut self,
        cx: &mut Cx<'_>,
        token: u64,
        result: Result<PluginInfo, PolicyError>,
    ) {
        let Some(Waiting::Load(loading)) = self.tap.waiting.remove(&token) else {
            return;
        };
        let Loading {
            name,
            path,
            request,
            remove,
        } = *loading;
        match result {
            Err(err) => return self.load_failed(cx, request.as_ref(), &policy_link::chain(&err)),
            Ok(info) => {
                if let Some(remove) = &remove {
                    self.remove_plugins(cx, remove, Some(&name));
                }
                // a successor sets its own timers
                self.tap.timers.forget(&name);
                let loaded = Loaded { info, path };
                match self.tap.loaded.iter_mut().find(|known| known.info.name == name) {
                    Some(known) => *known = loaded,
                    None => self.tap.loaded.push(loaded),
                }
                self.tap_wants_changed(cx);
                if let Some(request) = &request {
                    self.tell_known(cx, Some(&name));
                    self.replay_to(cx, Some(&name));
                    self.reprioritize_all(cx);
                    cx.respond_empty(request);
                }
            }
        }
        if request.is_none() {
            self.loaded_at_start(cx);
        }
    }

    /// Tells active jobs again, to one plugin or all; jobs wait for the answers.
    pub(in super::super) fn replay_to(&mut self, cx: &mut Cx<'_>, only: Option<&Arc<str>>) {
        let replays = |job: &&super::super::job::Job| {
            let has_dependencies = job.state == State::Depend
                && job
                    .jobspec
                    .pointer("/attributes/system/dependencies")
                    .and_then(Value::as_array)
                    .is_some_and(|list| !list.is_empty());
            job.state != State::Inactive && self.tap.wants.replays(&job.jobspec, has_dependencies)
        };
        let mut jobs: Vec<(State, JobId, Option<Value>)> = self
            .active
            .values()
            .filter(replays)
            .map(|job| {
                let depends = job.state == State::Depend;
                (job.state, job.id, depends.then(|| (*job.jobspec).clone()))
            })
            .collect();
        jobs.sort_by_key(|(state, id, _)| told_order(*state, *id));
        for (_, id, jobspec) in jobs {
            let dependencies = jobspec.map_or_else(Vec::new, |jobspec| self.tap_dependencies(&jobspec));
            self.tap_call(
                cx,
                id,
                TapCall::Replay { dependencies },
                Waiting::Gate(id),
                only.cloned(),
            );
        }
    }

    /// Tells one plugin, or all that want it, which jobs there are and whose.
    pub(in super::super) fn tell_known(&mut self, cx: &mut Cx<'_>, only: Option<&Arc<str>>) {
        let wants = |plugin: &&Loaded| plugin.info.topics.iter().any(|topic| &*topic.name == KNOWN);
        let names: Vec<Arc<str>> = self
            .tap
            .loaded
            .iter()
            .filter(wants)
            .map(|plugin| plugin.info.name.clone())
            .filter(|name| only.is_none_or(|only| only == name))
            .collect();
        if names.is_empty() {
            return;
        }
        for chunk in self.known_jobs().chunks(KNOWN_MAX) {
            let jobs: Arc<[(u64, u32)]> = Arc::from(chunk);
            for name in &names {
                let call = TapCall::Known { jobs: jobs.clone() };
                self.tap_ask(cx, view::nobody(), call, Some(name.clone()), Waiting::Nothing);
            }
        }
    }

    /// Returns ids and users of all jobs; ids grow with time, and plugins do well to append.
    pub(in super::super) fn known_jobs(&self) -> Vec<(u64, u32)> {
        let inactive = self.inactive.iter().map(|(id, job)| (id.0, job.userid));
        let mut jobs: Vec<(u64, u32)> = inactive.collect();
        jobs.extend(self.active.values().map(|job| (job.id.0, job.userid)));
        jobs.sort_unstable();
        jobs
    }

    /// Adapts to other wants: methods of plugins are registered and withdrawn.
    pub(super) fn tap_wants_changed(&mut self, cx: &mut Cx<'_>) {
        self.tap.take_wants();
        for topic in std::mem::take(&mut self.tap.methods) {
            cx.remove_method(&topic);
        }
        let methods: Vec<(String, bool)> = self
            .tap
            .wants
            .methods
            .iter()
            .map(|(topic, (_, _, user))| (topic.clone(), *user))
            .collect();
        for (topic, user) in methods {
            let method = topic
                .strip_prefix(super::super::api::SERVICE)
                .and_then(|rest| rest.strip_prefix('.'));
            if METHODS.iter().any(|known| method == Some(known.name)) {
                continue;
            }
            if cx.add_method(&topic, user) {
                self.tap.methods.push(topic);
            } else {
                cx.log_as_me(4, &format!("jobtap: method {topic} exists already"));
            }
        }
    }

    /// `job-manager.jobtap`
    pub(in super::super) fn on_jobtap(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let JobtapRequest {
            load,
            conf,
            remove,
            query_only,
            stats,
        } = req.payload_json()?;
        if query_only.is_some_and(|query| query != Value::Bool(false) && query != json!(0)) {
            self.list_plugins(cx, req, stats == Some(true));
            return Ok(());
        }
        if !self.tap.port.exist() {
            return Err(RpcError::new(errno::ENOSYS, "jobtap plugins are not enabled"));
        }
        let Some(load) = load else {
            if let Some(remove) = &remove
                && self.remove_plugins(cx, remove, None) == 0
                && remove != "all"
            {
                return Err(RpcError::new(errno::ENOENT, "Failed to find plugin to remove"));
            }
            cx.respond_empty(req);
            return Ok(());
        };
        let dir = port::directory(cx);
        let config = cx.config.clone();
        let named = names::find(&dir, &config, &load, conf.as_ref())?;
        let replaces = remove
            .as_deref()
            .is_some_and(|remove| removes(remove, &named.name));
        let known = self
            .tap
            .loaded
            .iter()
            .any(|plugin| *plugin.info.name == *named.name);
        if known && !replaces {
            return Err(RpcError::new(
                errno::EEXIST,
                format!(
                    "{}: already loaded; replace it with --remove={}",
                    load, named.name
                ),
            ));
        }
        self.load_named(cx, named, Some(req.clone()), remove);
        Ok(())
    }

    /// Removes all plugins that a name or pattern means, but the one to be kept; returns how many were meant.
    fn remove_plugins(&mut self, cx: &mut Cx<'_>, pattern: &str, keep: Option<&Arc<str>>) -> usize {
        let names: Vec<Arc<str>> = self
            .tap
            .loaded
            .iter()
            .map(|plugin| plugin.info.name.clone())
            .filter(|name| removes(pattern, name))
            .collect();
        for name in names.iter().filter(|name| Some(*name) != keep) {
            self.tap.loaded.retain(|plugin| plugin.info.name != *name);
            self.tap.timers.forget(name);
            for plugins in self.tap.subscribers.values_mut() {
                plugins.retain(|plugin| plugin != name);
            }
            self.tap_command(cx, TapCommand::Remove { name: name.clone() });
        }
        self.tap_wants_changed(cx);
        names.len()
    }

    /// The configuration as plugins see it: the broker's, with what they should know of the instance.
    fn tap_config(&self, cx: &Cx<'_>) -> Arc<str> {
        let mut config = (*cx.config).clone();
        if let Value::Object(config) = &mut config {
            let instance = json!({"owner": cx.owner, "size": cx.size(), "expiration": self.tap.expiration});
            config.insert("instance".to_owned(), instance);
        }
        Arc::from(config.to_string())
    }

    /// Gives plugins the configuration again.
    pub(in super::super) fn tap_configure(&mut self, cx: &mut Cx<'_>) {
        if self.tap.port.exist() && self.restart.is_none() {
            let config = self.tap_config(cx);
            self.tap_flush(cx);
            self.tap_send(cx, vec![Command::Configure { token: 0, config }]);
        }
    }

    /// Tells plugins when the instance ends, if that became known while they were loaded.
    pub(in super::super) fn tap_learn_expiration(&mut self, cx: &mut Cx<'_>) {
        if self.tap.expiration > 0.0 {
            self.tap_configure(cx);
        }
    }

    /// Learns when the instance ends.
    pub(in super::super) fn on_expiration(&mut self, cx: &mut Cx<'_>, at: f64) {
        if self.tap.expiration.to_bits() != at.to_bits() {
            self.tap.expiration = at;
            self.tap_configure(cx);
        }
    }
}

/// Returns what active jobs are sorted by when a plugin is told of them: those that have resources come before those that wait, so that a
/// plugin which counts knows what is in use when it decides; jobs of a state in the order of their ids. (`set_load_sort_order("-state")`
/// of the original.)
fn told_order(state: State, id: JobId) -> (Reverse<u32>, JobId) {
    (Reverse(state.bit()), id)
}

/// Returns true when `flux jobtap remove PATTERN` means a plugin.
fn removes(pattern: &str, name: &str) -> bool {
    if pattern == "all" {
        return !name.starts_with('.');
    }
    if is_glob(pattern) {
        // as in a shell, a leading dot must be named
        return (!name.starts_with('.') || pattern.starts_with('.'))
            && crate::service::glob_matches(pattern, name);
    }
    names::is_same(name, pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_is_told_first() {
        let mut jobs = [
            (State::Depend, JobId(1)),
            (State::Run, JobId(5)),
            (State::Sched, JobId(2)),
            (State::Cleanup, JobId(4)),
            (State::Run, JobId(3)),
        ];
        jobs.sort_by_key(|(state, id)| told_order(*state, *id));
        assert_eq!(jobs.map(|(_, id)| id.0), [4, 3, 5, 2, 1]);
    }

    #[test]
    fn patterns() {
        assert!(removes("all", "x") && !removes("all", ".x"));
        assert!(removes("*", "x.so") && !removes("*", ".x") && removes(".*", ".x"));
        assert!(removes(".begin-time", ".begin-time") && removes("x", "x.so") && !removes("x", "y"));
    }
}
