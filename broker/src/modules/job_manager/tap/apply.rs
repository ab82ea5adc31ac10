//! How are plugins' wishes fulfilled? In order, each checked; what cannot be is logged under the plugin's name.

use super::super::JobManager;
use super::super::event::Event;
use super::super::job::Asked;
use super::super::ports::Change;
use super::super::state::State;
use super::state::Waiting;
use super::view;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::{Message, role};
use flux_policy::{Action, Effect, TapCall};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Refused wishes of one answer that are logged one by one.
const COMPLAINTS_MAX: usize = 20;

/// KVS directory of the plugins' `state`.
pub(super) const STATE_DIR: &str = "checkpoint.jobtap";

pub(super) fn inval(text: impl Into<String>) -> RpcError {
    RpcError::new(errno::EINVAL, text)
}

impl JobManager {
    /// Fulfils the wishes of a call that answers a request; returns whether there were any.
    ///
    /// # Errors
    /// Of the first wish that cannot be fulfilled; the others are dropped.
    pub(super) fn apply_asked(
        &mut self,
        cx: &mut Cx<'_>,
        req: &Message,
        effects: Vec<Effect>,
    ) -> Result<bool, RpcError> {
        let changed = !effects.is_empty();
        let as_owner = req.rolemask & role::OWNER != 0;
        for Effect { plugin, action } in effects {
            match action {
                Action::Post { job, name, context } => {
                    self.wish_post(cx, JobId(job), &name, &context, as_owner)?;
                }
                action => self.apply(cx, &plugin, action)?,
            }
        }
        Ok(changed)
    }

    /// Fulfils wishes.
    pub(super) fn apply_effects(&mut self, cx: &mut Cx<'_>, effects: Vec<Effect>) {
        let mut refused = 0;
        let mut last = None;
        for Effect { plugin, action } in effects {
            let what = name_of(&action);
            if let Err(err) = self.apply(cx, &plugin, action) {
                refused += 1;
                if refused <= COMPLAINTS_MAX {
                    cx.log(4, &plugin, &format!("{what}: {}", err.text));
                }
                last = Some(plugin);
            }
        }
        if let Some(plugin) = last.filter(|_| refused > COMPLAINTS_MAX) {
            let more = refused - COMPLAINTS_MAX;
            cx.log(
                4,
                &plugin,
                &format!("{more} more wishes of this call were refused"),
            );
        }
    }

    fn apply(&mut self, cx: &mut Cx<'_>, plugin: &Arc<str>, action: Action) -> Result<(), RpcError> {
        match action {
            Action::DependencyAdd { job, description } => {
                self.wish_dependency(cx, JobId(job), description, true)
            }
            Action::DependencyRemove { job, description } => {
                self.wish_dependency(cx, JobId(job), description, false)
            }
            Action::Prioritize { job, priority } => {
                self.wish_active(JobId(job))?;
                self.set_priority(cx, JobId(job), priority);
                Ok(())
            }
            Action::Reprioritize { job } => {
                self.wish_active(JobId(job))?;
                self.reprioritize(cx, JobId(job));
                Ok(())
            }
            Action::ReprioritizeAll => {
                self.reprioritize_all(cx);
                Ok(())
            }
            Action::Annotate { job, annotations } => self.wish_annotate(cx, JobId(job), &annotations),
            Action::Raise {
                job,
                kind,
                severity,
                note,
            } => self.wish_raise(cx, JobId(job), kind, severity, note),
            Action::SetFlag { job, flag } => self.wish_flag(cx, JobId(job), flag),
            Action::Post { job, name, context } => self.wish_post(cx, JobId(job), &name, &context, false),
            Action::UpdateJobspec { job, updates } => self.wish_update(cx, JobId(job), &updates),
            Action::Subscribe { job } => {
                self.subscribe(cx, plugin, JobId(job));
                Ok(())
            }
            Action::Unsubscribe { job } => {
                if let Some(plugins) = self.tap.subscribers.get_mut(&JobId(job)) {
                    plugins.retain(|known| known != plugin);
                }
                Ok(())
            }
            Action::PrologStart { job, description } => self.wish_prolog(cx, JobId(job), description),
            Action::PrologFinish {
                job,
                description,
                status,
            } => self.wish_finish(
                cx,
                JobId(job),
                &Event::PrologFinish {
                    description,
                    status: status.into(),
                },
            ),
            Action::EpilogStart { job, description } => self.wish_epilog(cx, JobId(job), description),
            Action::EpilogFinish {
                job,
                description,
                status,
            } => self.wish_finish(
                cx,
                JobId(job),
                &Event::EpilogFinish {
                    description,
                    status: status.into(),
                },
            ),
            Action::LookUp { token, job } => {
                self.look_up(cx, plugin, token, JobId(job));
                Ok(())
            }
            Action::SetTimer { key, at } => self.set_timer(cx, plugin, key, at),
            Action::CancelTimer { key } => {
                self.tap.timers.cancel(plugin, &key);
                Ok(())
            }
            Action::Spawn {
                token,
                job,
                command,
                options,
            } => self.spawn_program(cx, plugin, token, JobId(job), command, options),
            Action::Kill { token, signum } => self.kill_program(cx, plugin, token, signum),
            Action::SetResources { job, r } => self.wish_resources(cx, JobId(job), r),
            Action::SaveState { values } => {
                self.save_state(cx, plugin, values);
                Ok(())
            }
        }
    }

    /// Has a plugin hear of a job's events; what was posted meanwhile is told first.
    fn subscribe(&mut self, cx: &mut Cx<'_>, plugin: &Arc<str>, id: JobId) {
        let Some(job) = self.active.get(&id) else {
            if let Some(job) = self.inactive.get(id) {
                let (job, name): (_, Arc<str>) = (Arc::new(view::inactive(id, job)), Arc::from("clean"));
                let call = TapCall::Event {
                    name,
                    entry: Arc::from("{}"),
                };
                self.tap_ask(cx, job, call, Some(plugin.clone()), Waiting::Nothing);
            }
            return;
        };
        let plugins = self.tap.subscribers.entry(id).or_default();
        if !plugins.contains(plugin) {
            plugins.push(plugin.clone());
        }
        // the plugin saw the job as it was when the command was sent: a start or end since then is told again, which subscribers must bear
        let missed: Vec<(Arc<str>, Arc<str>)> = job
            .events
            .iter()
            .filter(|event| matches!(&*event.name, "start" | "finish" | "clean"))
            .map(|event| (Arc::from(&*event.name), Arc::from(event.line.trim_end())))
            .collect();
        for (name, entry) in missed {
            if self.tap.wants.event(plugin, &name) {
                let call = TapCall::Event { name, entry };
                self.tap_call(cx, id, call, Waiting::Gate(id), Some(plugin.clone()));
            }
        }
    }

    fn look_up(&mut self, cx: &mut Cx<'_>, plugin: &Arc<str>, token: u64, id: JobId) {
        let found = self.tap_find(id);
        let call = TapCall::LookedUp {
            token,
            found: found.is_some(),
        };
        let job = found.map_or_else(|| view::id_only(id), Arc::new);
        self.tap_ask(cx, job, call, Some(plugin.clone()), Waiting::Nothing);
    }

    /// Has a plugin's state stored with the events of the same call.
    fn save_state(&mut self, cx: &mut Cx<'_>, plugin: &Arc<str>, values: BTreeMap<String, String>) {
        let key = format!("{STATE_DIR}.{}", state_key(plugin));
        let text = json!({"version": 1, "values": values}).to_string();
        self.tap.saved.insert(plugin.clone(), values);
        self.batch(cx).change(Change::Put(key, Bytes::from(text)));
    }

    fn set_timer(
        &mut self,
        cx: &mut Cx<'_>,
        plugin: &Arc<str>,
        key: String,
        at: f64,
    ) -> Result<(), RpcError> {
        let now = self.now();
        if !self.tap.timers.set(plugin, key, at, now) {
            return Err(inval("too many timers"));
        }
        self.arm_tap_timer(cx);
        Ok(())
    }

    fn arm_tap_timer(&mut self, cx: &mut Cx<'_>) {
        let now = self.now();
        if let Some(sleep) = self.tap.timers.sleep(now) {
            let at = now + sleep.as_secs_f64();
            if at >= self.tap.timer_at {
                return;
            }
            self.tap.timer_at = at;
            cx.timer(sleep, |me: &mut JobManager, cx| me.on_tap_timer(cx));
        }
    }

    fn on_tap_timer(&mut self, cx: &mut Cx<'_>) {
        let now = self.now();
        self.tap.timer_at = f64::INFINITY;
        for (plugin, key) in self.tap.timers.take_due(now) {
            let call = TapCall::Expired { key };
            self.tap_ask(cx, view::nobody(), call, Some(plugin), Waiting::Nothing);
        }
        self.arm_tap_timer(cx);
    }

    /// Asks plugins for the priority of a job again.
    pub(super) fn reprioritize(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.active.get_mut(&id) else {
            return;
        };
        if !self.tap.asks_priority(job) {
            return;
        }
        match job.state {
            State::Priority if matches!(job.tap.priority, Asked::Got(_)) => {
                job.tap.priority = Asked::No;
                self.drive(cx, id);
            }
            State::Sched => self.tap_call(cx, id, TapCall::Priority, Waiting::Again(id), None),
            _ => {}
        }
    }

    /// Does so for all jobs that wait.
    pub(super) fn reprioritize_all(&mut self, cx: &mut Cx<'_>) {
        let waits = |state: State| matches!(state, State::Priority | State::Sched);
        let ids: Vec<JobId> = self
            .active
            .values()
            .filter(|job| waits(job.state))
            .map(|job| job.id)
            .collect();
        for id in ids {
            self.reprioritize(cx, id);
        }
    }

    /// Reads the plugins' states that a former run left.
    pub(super) fn take_saved(&mut self, name: &str, bytes: &[u8]) {
        let read: Option<Value> = serde_json::from_slice(bytes).ok();
        let values = read
            .as_ref()
            .and_then(|value| value.get("values"))
            .and_then(Value::as_object);
        let (Some(plugin), Some(values)) = (plugin_of_key(name), values) else {
            tracing::warn!(key = name, "state of a jobtap plugin is not readable");
            return;
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let values = values
            .iter()
            .map(|(key, value)| (key.clone(), text(value)))
            .collect();
        self.tap.saved.insert(Arc::from(plugin), values);
    }
}

/// Returns the KVS name of a plugin: dots separate directories there.
fn state_key(plugin: &str) -> String {
    plugin.replace('%', "%25").replace('.', "%2e")
}

fn plugin_of_key(key: &str) -> Option<String> {
    (!key.is_empty()).then(|| key.replace("%2e", ".").replace("%25", "%"))
}

/// Returns the name of an action in `wit/`.
fn name_of(action: &Action) -> &'static str {
    match action {
        Action::DependencyAdd { .. } => "dependency-add",
        Action::DependencyRemove { .. } => "dependency-remove",
        Action::Prioritize { .. } => "prioritize",
        Action::Reprioritize { .. } => "reprioritize",
        Action::ReprioritizeAll => "reprioritize-all",
        Action::Annotate { .. } => "annotate",
        Action::Raise { .. } => "raise",
        Action::SetFlag { .. } => "set-flag",
        Action::Post { .. } => "post",
        Action::UpdateJobspec { .. } => "update-jobspec",
        Action::Subscribe { .. } => "subscribe",
        Action::Unsubscribe { .. } => "unsubscribe",
        Action::PrologStart { .. } => "prolog-start",
        Action::PrologFinish { .. } => "prolog-finish",
        Action::EpilogStart { .. } => "epilog-start",
        Action::EpilogFinish { .. } => "epilog-finish",
        Action::LookUp { .. } => "look-up",
        Action::SetTimer { .. } => "timer.set",
        Action::CancelTimer { .. } => "timer.cancel",
        Action::Spawn { .. } => "exec.spawn",
        Action::Kill { .. } => "exec.kill",
        Action::SetResources { .. } => "bypass.set-resources",
        Action::SaveState { .. } => "state",
    }
}
