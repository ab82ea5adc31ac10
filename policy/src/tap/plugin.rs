//! How is one plugin called, and what does a failure cost it?

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::Store;

use crate::error::PolicyError;
use crate::guest::{Configuration, Function, Guest, GuestState, Job, TapFunctions};
use crate::host::LogRecord;
use crate::load::Manifest;
use crate::plugin::{Grant, OnFailure, PluginSpec};

use super::job::TapJob;
use super::message::{Action, Effect, PluginInfo, PluginState};
use super::stats::{PluginStats, Times};
use super::topic::{Topic, TopicError};

/// So many failures ...
const FAILURES_MAX: usize = 5;
/// ... within so many seconds put a plugin into quarantine.
const FAILURES_WINDOW_SECS: f64 = 60.0;

/// A plugin of the stack.
pub(super) struct Plugin {
    pub(super) name: Arc<str>,
    pub(super) topics: Vec<Topic>,
    guest: Guest,
    manifest: Manifest,
    values: BTreeMap<String, String>,
    last_token: u64,
    times: Times,
    traps: u64,
    last_failure: String,
    failures: VecDeque<f64>,
    quarantined: bool,
    /// The instance was lost since the stack looked last.
    pub(super) lost: bool,
}

/// What a call came to: the answer, or nothing when the plugin is not to be called or failed.
pub(super) enum Called<R> {
    /// It answered.
    Answer(R),
    /// It does not export the function.
    Absent,
    /// It failed, or is in quarantine.
    Failed(PolicyError),
}

impl Plugin {
    /// Loads a plugin and asks it what it wants.
    pub(super) fn load(
        dir: &Path,
        spec: PluginSpec,
        name: Arc<str>,
        configuration: Arc<Configuration>,
        values: BTreeMap<String, String>,
        now: f64,
    ) -> Result<Plugin, PolicyError> {
        let (guest, manifest) = Guest::load(dir, spec, configuration)?;
        let mut plugin = Plugin {
            name,
            topics: Vec::new(),
            guest,
            manifest,
            values,
            last_token: 0,
            times: Times::default(),
            traps: 0,
            last_failure: String::new(),
            failures: VecDeque::new(),
            quarantined: false,
            lost: false,
        };
        plugin.topics = plugin.ask_topics(now)?;
        plugin.guest.rest();
        Ok(plugin)
    }

    fn ask_topics(&mut self, now: f64) -> Result<Vec<Topic>, PolicyError> {
        let wanted = self
            .guest
            .ask("init", now, |store, functions| match &functions.world {
                Function::Jobtap(tap) => Ok(tap.init.call(store, ())?.0),
                _ => Ok(Vec::new()),
            })?;
        let granted = self.guest.spec().grants.contains(&Grant::Service);
        let read = |text: String| {
            let topic = Topic::parse(&text).and_then(|topic| {
                if topic.name.starts_with("service.") && !granted {
                    return Err(TopicError::NotGranted);
                }
                Ok(topic)
            });
            topic.map_err(|error| PolicyError::Topic {
                name: self.guest.spec().name.clone(),
                topic: text,
                problem: match error {
                    TopicError::Unknown => "which is no callback of the world jobtap",
                    TopicError::NotGranted => "which the site did not grant: grants = [\"service\"]",
                },
            })
        };
        wanted.into_iter().map(read).collect()
    }

    /// Gives the plugin a configuration; returns true when it wants other callbacks now.
    pub(super) fn configure(
        &mut self,
        configuration: Arc<Configuration>,
        now: f64,
    ) -> Result<bool, PolicyError> {
        if self.quarantined {
            return Ok(false);
        }
        self.guest.configure(configuration, now)?;
        let topics = self.ask_topics(now)?;
        let changed = topics != self.topics;
        self.topics = topics;
        self.guest.rest();
        Ok(changed)
    }

    /// Returns true when the plugin wants this callback for a job with this jobspec.
    pub(super) fn wants(&self, name: &str, jobspec: &str) -> bool {
        self.topics
            .iter()
            .any(|topic| *topic.name == *name && topic.wants(jobspec))
    }

    /// Returns true when a new instance must be told all active jobs.
    pub(super) fn counts_jobs(&self) -> bool {
        self.topics.iter().any(|topic| {
            matches!(
                &*topic.name,
                "job.new" | "job.create" | "job.state.depend" | "job.known"
            ) || topic.name.starts_with("job.dependency.")
        })
    }

    /// Returns true when a failure is to be passed over.
    pub(super) fn fails_open(&self) -> bool {
        self.guest.spec().on_failure == OnFailure::Open
    }

    /// Calls the plugin once, with a job to look at. Its wishes go to `effects` when it answers.
    pub(super) fn call<R>(
        &mut self,
        function: &'static str,
        now: f64,
        job: &Arc<TapJob>,
        target: Option<&Arc<TapJob>>,
        effects: &mut Vec<Effect>,
        run: impl FnOnce(&mut Store<GuestState>, &TapFunctions) -> Option<wasmtime::Result<R>>,
    ) -> Called<R> {
        if self.quarantined {
            return Called::Failed(PolicyError::Quarantined(self.name.to_string()));
        }
        let mut values = std::mem::take(&mut self.values);
        let last_token = self.last_token;
        let view = |job: &Arc<TapJob>| Job {
            rolemask: 0,
            job: job.clone(),
        };
        let started = Instant::now();
        let kept = &mut values;
        let result = self.guest.call(function, now, |store, functions| {
            let Function::Jobtap(tap) = &functions.world else {
                return Ok(None);
            };
            let data = store.data_mut();
            data.job = Some(view(job));
            data.target = target.map(view);
            data.tap.actions.clear();
            data.tap.dirty = false;
            data.tap.last_token = last_token;
            data.tap.values.clone_from(kept);
            let answer = run(store, tap).transpose();
            let data = store.data_mut();
            data.job = None;
            data.target = None;
            let actions = std::mem::take(&mut data.tap.actions);
            let token = data.tap.last_token;
            let changed = data.tap.dirty && data.tap.values != *kept;
            if changed {
                std::mem::swap(kept, &mut data.tap.values);
            }
            answer.map(|answer| answer.map(|answer| (answer, actions, token, changed)))
        });
        match result {
            Ok(Some((answer, actions, token, changed))) => {
                self.times.add(started.elapsed());
                self.values = values;
                self.last_token = token;
                effects.extend(actions.into_iter().map(|action| Effect {
                    plugin: self.name.clone(),
                    action,
                }));
                if changed {
                    effects.push(Effect {
                        plugin: self.name.clone(),
                        action: Action::SaveState {
                            values: self.values.clone(),
                        },
                    });
                }
                Called::Answer(answer)
            }
            Ok(None) => {
                self.values = values;
                Called::Absent
            }
            Err(error) => {
                self.values = values;
                self.times.add(started.elapsed());
                self.failed(now, &error);
                Called::Failed(error)
            }
        }
    }

    fn failed(&mut self, now: f64, error: &PolicyError) {
        self.traps += 1;
        self.lost = true;
        self.last_failure = error.report();
        self.failures.push_back(now);
        while self
            .failures
            .front()
            .is_some_and(|first| now - first > FAILURES_WINDOW_SECS)
        {
            self.failures.pop_front();
        }
        if self.failures.len() >= FAILURES_MAX {
            self.quarantined = true;
            self.guest.drop_instance();
        }
    }

    /// Returns true once it failed too often.
    pub(super) fn is_quarantined(&self) -> bool {
        self.quarantined
    }

    /// Moves what the plugin has said to `out`.
    pub(super) fn take_logs(&mut self, out: &mut Vec<LogRecord>) {
        let before = out.len();
        self.guest.take_logs(out);
        for record in out.iter_mut().skip(before) {
            record.plugin = self.name.clone();
        }
    }

    /// Returns what is known of it.
    pub(super) fn info(&self) -> PluginInfo {
        PluginInfo {
            name: self.name.clone(),
            topics: self.topics.clone(),
            version: self.manifest.version.clone(),
            sha256: self.manifest.wasm_sha256.clone(),
            grants: self.guest.spec().grants.clone(),
        }
    }

    /// Returns its figures.
    pub(super) fn stats(&self) -> PluginStats {
        PluginStats {
            name: self.name.clone(),
            state: if self.quarantined {
                PluginState::Quarantined
            } else if self.guest.is_live() {
                PluginState::Running
            } else if self.guest.is_resting() {
                PluginState::Resting
            } else {
                PluginState::Rebuilding
            },
            calls: self.times.calls,
            p50: self.times.quantile(0.5),
            p99: self.times.quantile(0.99),
            traps: self.traps,
            last_failure: self.last_failure.clone(),
            memory_bytes: self.guest.memory_bytes(),
        }
    }
}
