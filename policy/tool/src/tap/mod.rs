//! One jobtap plugin and a few jobs, without a broker: what `flux policy test`, `bench` and `replay` call it with, and what it says in short.
//!
//! The plugin runs in the broker's own policy host. Its wishes are printed, not performed; only those that decide about later calls are observed:
//! subscriptions, its state, and resources that it gives.

pub(crate) mod bench;
mod lines;
pub(crate) mod replay;
pub(crate) mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use flux_policy::{
    Action, Answer, Command, Dependency, Effect, HostConfig, PluginInfo, PluginSpec, PluginStats, PolicyHost,
    TapAnswer, TapCall, TapCommand, TapJob, Verdict,
};
use serde_json::Value;

use lines::{of_action, of_verdict};

/// State bits (RFC 21) by name.
pub(super) const STATES: [(&str, u32); 7] = [
    ("new", 1),
    ("depend", 2),
    ("priority", 4),
    ("sched", 8),
    ("run", 16),
    ("cleanup", 32),
    ("inactive", 64),
];
pub(super) const DEPEND: u32 = 2;
pub(super) const SCHED: u32 = 8;
pub(super) const INACTIVE: u32 = 64;

/// A plugin and the jobs that it is told of.
pub(crate) struct Tap {
    host: PolicyHost,
    name: Arc<str>,
    spec: PluginSpec,
    pub(super) info: PluginInfo,
    pub(super) jobs: BTreeMap<u64, TapJob>,
    subscribed: BTreeSet<u64>,
    values: BTreeMap<String, String>,
    now: f64,
    /// It failed and has a new instance.
    rebuilt: bool,
    logs: Vec<String>,
}

impl Tap {
    /// Loads a plugin.
    ///
    /// # Errors
    /// Why it cannot be loaded.
    pub(crate) fn load(
        dir: &Path,
        spec: PluginSpec,
        config: &Value,
        values: BTreeMap<String, String>,
    ) -> Result<Tap> {
        let config = if config.is_null() {
            "{}".to_owned()
        } else {
            config.to_string()
        };
        let mut host = PolicyHost::inline(HostConfig {
            dir: dir.to_owned(),
            config: config.into(),
            ..HostConfig::default()
        })?;
        let name: Arc<str> = Arc::from(spec.name.strip_prefix("jobtap-").unwrap_or(&spec.name));
        let load = TapCommand::Load {
            token: 0,
            spec: Box::new(spec.clone()),
            name: name.clone(),
            values: values.clone(),
        };
        send(&mut host, 1.0, vec![load])?;
        let mut answers = Vec::new();
        host.receive(&mut answers);
        let loaded = answers.into_iter().find_map(|answer| match answer {
            Answer::Tap(TapAnswer::Loaded { result, .. }) => Some(result),
            _ => None,
        });
        let info = loaded.context("the policy host did not answer")??;
        Ok(Tap {
            host,
            name,
            spec,
            info,
            jobs: BTreeMap::new(),
            subscribed: BTreeSet::new(),
            values,
            now: 1.0,
            rebuilt: false,
            logs: Vec::new(),
        })
    }

    /// Loads it again, without jobs and state.
    ///
    /// # Errors
    /// Why it cannot be loaded.
    pub(super) fn restarted(&self, dir: &Path) -> Result<Tap> {
        Tap::load(dir, self.spec.clone(), &Value::Null, BTreeMap::new())
    }

    /// Loads it again, as after a restart of the broker: with its state, and all active jobs told again; returns what it said.
    ///
    /// # Errors
    /// Why it cannot be loaded or called.
    pub(super) fn restart(&mut self, dir: &Path, config: &Value) -> Result<Vec<String>> {
        let mut new = Tap::load(dir, self.spec.clone(), config, std::mem::take(&mut self.values))?;
        new.jobs = std::mem::take(&mut self.jobs);
        new.now = self.now;
        *self = new;
        self.tell_jobs()
    }

    fn tell_jobs(&mut self) -> Result<Vec<String>> {
        let mut said = Vec::new();
        if self.wants("job.known") {
            let jobs: Vec<(u64, u32)> = self.jobs.values().map(|job| (job.id, job.userid)).collect();
            said.extend(self.call(0, TapCall::Known { jobs: jobs.into() })?);
        }
        let active = self.jobs.values().filter(|job| job.state != INACTIVE);
        for id in active.map(|job| job.id).collect::<Vec<_>>() {
            let waits = self.jobs.get(&id).is_some_and(|job| job.state == DEPEND);
            let dependencies = if waits { self.dependencies(id) } else { Vec::new() };
            said.extend(self.call(id, TapCall::Replay { dependencies })?);
        }
        Ok(said)
    }

    /// Sets the time of what follows, in seconds since the epoch.
    pub(super) fn at(&mut self, now: f64) {
        self.now = now;
    }

    /// Returns true when the plugin wants a callback, for some jobs at least.
    pub(super) fn wants(&self, topic: &str) -> bool {
        self.info.topics.iter().any(|wanted| *wanted.name == *topic)
    }

    /// Returns true when the plugin is to be told of an event of a job.
    pub(super) fn hears(&self, id: u64, event: &str) -> bool {
        self.subscribed.contains(&id) && self.wants(&format!("job.event.{event}"))
    }

    /// Returns what the plugin has logged since the last call of this.
    pub(super) fn take_logs(&mut self) -> Vec<String> {
        std::mem::take(&mut self.logs)
    }

    /// Returns the dependencies of a job with the jobs that they name.
    pub(super) fn dependencies(&self, id: u64) -> Vec<Dependency> {
        let jobspec = self.jobs.get(&id).map_or("", |job| &job.jobspec);
        let jobspec: Value = serde_json::from_str(jobspec).unwrap_or_default();
        let list = jobspec
            .pointer("/attributes/system/dependencies")
            .and_then(Value::as_array);
        let read = |entry: &Value| {
            let target = entry.get("value").and_then(Value::as_str);
            let target = target.and_then(|text| text.parse::<flux_formats::jobid::JobId>().ok());
            Some(Dependency {
                scheme: entry.get("scheme")?.as_str()?.to_owned(),
                entry: entry.to_string(),
                target: target.and_then(|id| self.jobs.get(&id.0)).cloned().map(Arc::new),
            })
        };
        list.into_iter().flatten().filter_map(read).collect()
    }

    /// Submits a job that is among [`Tap::jobs`]; returns what is said, and whether it is refused.
    pub(super) fn submit(&mut self, id: u64) -> Result<Vec<String>> {
        let dependencies = self.dependencies(id);
        self.call(id, TapCall::Admit { dependencies })
    }

    /// Gives a job a state and calls what follows from that.
    pub(super) fn enter(&mut self, id: u64, state: u32) -> Result<Vec<String>> {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.state = state;
        }
        let mut said = self.call(id, TapCall::State)?;
        if state == INACTIVE {
            said.extend(self.call(id, TapCall::Added)?);
            said.extend(self.call(id, TapCall::Destroy)?);
        }
        Ok(said)
    }

    /// Calls the plugin for a job (0: none); returns its wishes and its answer.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub(super) fn call(&mut self, id: u64, call: TapCall) -> Result<Vec<String>> {
        let (effects, verdict) = self.ask(id, call)?;
        let mut said = Vec::new();
        for Effect { action, .. } in effects {
            self.observe(&action);
            said.extend(of_action(&action));
        }
        said.extend(of_verdict(id, &verdict));
        if std::mem::take(&mut self.rebuilt) {
            said.push("failed: it has a new instance".to_owned());
            self.subscribed.clear();
            said.extend(self.tell_jobs()?);
            let name = self.name.clone();
            send(&mut self.host, self.now, vec![TapCommand::Replayed { name }])?;
        }
        Ok(said)
    }

    fn ask(&mut self, id: u64, call: TapCall) -> Result<(Vec<Effect>, Verdict)> {
        let known = self.jobs.get(&id).cloned();
        let job = Arc::new(known.unwrap_or(TapJob {
            id,
            ..TapJob::default()
        }));
        let command = TapCommand::Call {
            token: 1,
            job,
            call,
            only: Some(self.name.clone()),
        };
        send(&mut self.host, self.now, vec![command])?;
        let mut done = None;
        for answer in self.answers() {
            match answer {
                TapAnswer::Done { effects, verdict, .. } => done = Some((effects, verdict)),
                TapAnswer::Rebuilt { .. } => self.rebuilt = true,
                _ => {}
            }
        }
        // a call that waits for a rebuilt instance is answered after it
        Ok(done.unwrap_or((Vec::new(), Verdict::None)))
    }

    /// Returns what the stack says; keeps what the plugin has logged.
    fn answers(&mut self) -> Vec<TapAnswer> {
        let mut answers = Vec::new();
        self.host.receive(&mut answers);
        let mut taps = Vec::new();
        for answer in answers {
            match answer {
                Answer::Tap(answer) => taps.push(answer),
                Answer::Log(log) if log.level < 7 => self.logs.push(log.message),
                _ => {}
            }
        }
        taps
    }

    fn observe(&mut self, action: &Action) {
        match action {
            Action::Subscribe { job } => drop(self.subscribed.insert(*job)),
            Action::Unsubscribe { job } => drop(self.subscribed.remove(job)),
            Action::SaveState { values } => self.values.clone_from(values),
            Action::SetResources { job, r } => {
                if let Some(job) = self.jobs.get_mut(job) {
                    job.r = Some(Arc::from(r.as_str()));
                }
            }
            _ => {}
        }
    }

    /// Returns the plugin's figures.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub(super) fn stats(&mut self) -> Result<PluginStats> {
        send(&mut self.host, self.now, vec![TapCommand::Stats { token: 0 }])?;
        let stats = self.answers().into_iter().find_map(|answer| match answer {
            TapAnswer::Stats { plugins, .. } => plugins.into_iter().next(),
            _ => None,
        });
        stats.context("the policy host has no figures")
    }
}

fn send(host: &mut PolicyHost, now: f64, commands: Vec<TapCommand>) -> Result<()> {
    let commands = commands.into_iter().map(Command::Tap).collect();
    host.send(now, commands)
        .map_err(|error| anyhow::anyhow!("{error}"))
}
