//! Which plugins are there, in which order are they called, and what waits while one of them is rebuilt?

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use flux_formats::errno::EIO;
use flux_formats::jobid::JobId;
use wasmtime::Store;
use wasmtime::component::Resource;

use crate::error::PolicyError;
use crate::guest::{Configuration, GuestState, OTHER_JOB, Refusal as Refused, THE_JOB, TapFunctions};
use crate::host::{LogRecord, Refusal, one_line};

use super::job::TapJob;
use super::message::{Effect, Priority, TapAnswer, TapCall, TapCommand, Verdict};
use super::plugin::{Called, Plugin};
use super::topic::state_name;

/// The jobtap plugins of a host.
pub(crate) struct Stack {
    dir: PathBuf,
    pub(super) plugins: Vec<Plugin>,
    configuration: Arc<Configuration>,
    /// Plugins that are told all jobs again; calls wait.
    rebuilding: Vec<Arc<str>>,
    held: VecDeque<TapCommand>,
    pub(super) logs: Vec<LogRecord>,
}

impl Stack {
    /// Returns an empty stack; plugins come from `dir`.
    pub(crate) fn new(dir: PathBuf, configuration: Arc<Configuration>) -> Stack {
        Stack {
            dir,
            plugins: Vec::new(),
            configuration,
            rebuilding: Vec::new(),
            held: VecDeque::new(),
            logs: Vec::new(),
        }
    }

    /// Carries out a command.
    pub(crate) fn run(&mut self, now: f64, command: TapCommand, answers: &mut Vec<TapAnswer>) {
        let waits = !self.rebuilding.is_empty() && matches!(command, TapCommand::Call { .. });
        let replays = matches!(
            command,
            TapCommand::Call {
                call: TapCall::Replay { .. } | TapCall::Known { .. },
                ..
            }
        );
        if waits && !replays {
            self.held.push_back(command);
            return;
        }
        self.perform(now, command, answers);
        self.after(answers);
        while self.rebuilding.is_empty()
            && let Some(command) = self.held.pop_front()
        {
            self.perform(now, command, answers);
            self.after(answers);
        }
    }

    fn perform(&mut self, now: f64, command: TapCommand, answers: &mut Vec<TapAnswer>) {
        match command {
            TapCommand::Load {
                token,
                spec,
                name,
                values,
            } => {
                let loaded = Plugin::load(
                    &self.dir,
                    *spec,
                    name.clone(),
                    self.configuration.clone(),
                    values,
                    now,
                );
                let result = loaded.map(|mut plugin| {
                    plugin.take_logs(&mut self.logs);
                    let info = plugin.info();
                    // a successor takes the place of the plugin that it replaces
                    match self.plugins.iter_mut().find(|known| known.name == name) {
                        Some(known) => *known = plugin,
                        None => self.plugins.push(plugin),
                    }
                    self.rebuilding.retain(|known| *known != name);
                    info
                });
                answers.push(TapAnswer::Loaded { token, result });
            }
            TapCommand::Remove { name } => {
                self.plugins.retain(|plugin| plugin.name != name);
                self.rebuilding.retain(|known| *known != name);
            }
            TapCommand::Call {
                token,
                job,
                call,
                only,
            } => {
                let mut effects = Vec::new();
                let verdict = self.call(now, &job, call, only.as_deref(), &mut effects);
                answers.push(TapAnswer::Done {
                    token,
                    effects,
                    verdict,
                });
            }
            TapCommand::Replayed { name } => self.rebuilding.retain(|known| *known != name),
            TapCommand::Stats { token } => {
                let plugins = self.plugins.iter().map(Plugin::stats).collect();
                answers.push(TapAnswer::Stats { token, plugins });
            }
        }
    }

    /// Has instances that were lost rebuilt.
    fn after(&mut self, answers: &mut Vec<TapAnswer>) {
        for plugin in &mut self.plugins {
            if !std::mem::take(&mut plugin.lost) {
                continue;
            }
            if plugin.is_quarantined() {
                self.rebuilding.retain(|known| *known != plugin.name);
                self.logs.push(LogRecord {
                    plugin: plugin.name.clone(),
                    level: 2,
                    message: one_line(&PolicyError::Quarantined(plugin.name.to_string())),
                });
            } else if plugin.counts_jobs() && !self.rebuilding.contains(&plugin.name) {
                self.rebuilding.push(plugin.name.clone());
                answers.push(TapAnswer::Rebuilt {
                    name: plugin.name.clone(),
                });
            }
        }
    }

    fn call(
        &mut self,
        now: f64,
        job: &Arc<TapJob>,
        call: TapCall,
        only: Option<&str>,
        effects: &mut Vec<Effect>,
    ) -> Verdict {
        match call {
            TapCall::Admit { dependencies } => match self.admit(now, job, &dependencies, effects) {
                Ok(admitted) => Verdict::Admitted(admitted),
                Err(refusal) => {
                    effects.clear();
                    Verdict::Refused(refusal)
                }
            },
            TapCall::Replay { dependencies } => {
                self.replay(now, job, &dependencies, only, effects);
                Verdict::None
            }
            TapCall::State => {
                self.state(now, job, job.state, only, effects);
                Verdict::None
            }
            TapCall::Event { name, entry } => {
                let topic = format!("job.event.{name}");
                self.notify("event", &topic, now, job, only, effects, |store, tap| {
                    let event = tap.event.as_ref()?;
                    Some(event.call(store, (the_job(), name.to_string(), entry.to_string())))
                });
                Verdict::None
            }
            TapCall::Priority => Verdict::Priority(self.priority(now, job, effects)),
            TapCall::Update {
                updates,
                updated,
                userid,
                rolemask,
            } => match self.update(now, job, &updates, updated, (userid, rolemask), effects) {
                Ok((updates, validated)) => Verdict::Updated { updates, validated },
                Err(refusal) => {
                    effects.clear();
                    Verdict::Refused(refusal)
                }
            },
            other => self.plain(now, job, other, only, effects),
        }
    }

    /// Calls all plugins that want a callback which needs no answer.
    #[expect(clippy::too_many_arguments, reason = "what, when, for which job and plugin")]
    pub(super) fn notify(
        &mut self,
        function: &'static str,
        topic: &str,
        now: f64,
        job: &Arc<TapJob>,
        only: Option<&str>,
        effects: &mut Vec<Effect>,
        run: impl Fn(&mut Store<GuestState>, &TapFunctions) -> Option<wasmtime::Result<()>>,
    ) {
        for index in 0..self.plugins.len() {
            let Some(plugin) = self.plugins.get_mut(index) else {
                continue;
            };
            if only.is_some_and(|only| only != &*plugin.name) || !plugin.wants(topic, &job.jobspec) {
                continue;
            }
            let called = plugin.call(function, now, job, None, effects, &run);
            plugin.take_logs(&mut self.logs);
            if let Called::Failed(error) = called {
                self.report(index, job, &error);
            }
        }
    }

    /// Calls all plugins that want a callback which may refuse; ends with the first refusal.
    #[expect(clippy::too_many_arguments, reason = "what, when, for which job and plugin")]
    pub(super) fn ask(
        &mut self,
        function: &'static str,
        topic: &str,
        now: f64,
        job: &Arc<TapJob>,
        target: Option<&Arc<TapJob>>,
        only: Option<&str>,
        effects: &mut Vec<Effect>,
        run: impl Fn(&mut Store<GuestState>, &TapFunctions) -> Option<wasmtime::Result<(Result<(), Refused>,)>>,
    ) -> Result<bool, Refusal> {
        let mut called_any = false;
        for index in 0..self.plugins.len() {
            let Some(plugin) = self.plugins.get_mut(index) else {
                continue;
            };
            if only.is_some_and(|only| only != &*plugin.name) || !plugin.wants(topic, &job.jobspec) {
                continue;
            }
            called_any = true;
            let called = plugin.call(function, now, job, target, effects, &run);
            plugin.take_logs(&mut self.logs);
            match called {
                Called::Answer((Ok(()),)) | Called::Absent => {}
                Called::Answer((Err(refused),)) => return Err(refusal(plugin, refused)),
                Called::Failed(error) => {
                    let (open, refusal) = (plugin.fails_open(), failure(plugin, &error));
                    self.report(index, job, &error);
                    if !open {
                        return Err(refusal);
                    }
                }
            }
        }
        Ok(called_any)
    }

    /// `job.state.STATE`.
    pub(super) fn state(
        &mut self,
        now: f64,
        job: &Arc<TapJob>,
        state: u32,
        only: Option<&str>,
        effects: &mut Vec<Effect>,
    ) {
        let name = state_name(state);
        let topic = format!("job.state.{name}");
        self.notify("state", &topic, now, job, only, effects, |store, tap| {
            Some(tap.state.as_ref()?.call(store, (the_job(), name)))
        });
    }

    /// `job.priority.get`: the last plugin that does not pass has its way.
    pub(super) fn priority(&mut self, now: f64, job: &Arc<TapJob>, effects: &mut Vec<Effect>) -> Priority {
        let mut found = Priority::Pass;
        for index in 0..self.plugins.len() {
            let Some(plugin) = self.plugins.get_mut(index) else {
                continue;
            };
            if !plugin.wants("job.priority.get", &job.jobspec) {
                continue;
            }
            let called = plugin.call("priority", now, job, None, effects, |store, tap| {
                Some(tap.priority.as_ref()?.call(store, (the_job(),)))
            });
            plugin.take_logs(&mut self.logs);
            match called {
                Called::Answer((answer,)) => match answer {
                    crate::guest::Priority::Pass => {}
                    crate::guest::Priority::Unavailable => found = Priority::Unavailable,
                    crate::guest::Priority::Value(value) => found = Priority::Value(value),
                },
                Called::Absent => {}
                Called::Failed(error) => self.report(index, job, &error),
            }
        }
        found
    }

    /// Logs a plugin's failure, with the job; a quarantined one has been told already.
    pub(super) fn report(&mut self, index: usize, job: &TapJob, error: &PolicyError) {
        let Some(plugin) = self.plugins.get(index) else {
            return;
        };
        if matches!(error, PolicyError::Quarantined(_)) {
            return;
        }
        let mut message = error.report();
        if job.id != 0 {
            message = format!("{}: {message}", JobId(job.id));
        }
        self.logs.push(LogRecord {
            plugin: plugin.name.clone(),
            level: 3,
            message,
        });
    }

    /// Gives all plugins a configuration, or none.
    pub(crate) fn configure(
        &mut self,
        configuration: &Arc<Configuration>,
        now: f64,
        answers: &mut Vec<TapAnswer>,
    ) -> Result<(), PolicyError> {
        let mut result = Ok(());
        for plugin in &mut self.plugins {
            match plugin.configure(configuration.clone(), now) {
                Ok(true) => answers.push(TapAnswer::Topics {
                    name: plugin.name.clone(),
                    topics: plugin.topics.clone(),
                }),
                Ok(false) => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            plugin.take_logs(&mut self.logs);
        }
        if result.is_ok() {
            self.configuration = configuration.clone();
        }
        result
    }

    /// Moves what plugins have said to `out`.
    pub(crate) fn take_logs(&mut self, out: &mut Vec<LogRecord>) {
        out.append(&mut self.logs);
    }
}

/// Returns the handle of the job that a call is about.
pub(super) fn the_job<T: 'static>() -> Resource<T> {
    Resource::new_borrow(THE_JOB)
}

/// Returns the handle of the other job of a call.
pub(super) fn other_job<T: 'static>() -> Resource<T> {
    Resource::new_borrow(OTHER_JOB)
}

/// Returns a plugin's own refusal.
pub(super) fn refusal(plugin: &Plugin, refused: Refused) -> Refusal {
    let refused = refused.tidy();
    Refusal {
        plugin: plugin.name.clone(),
        errnum: refused.errnum,
        text: refused.text,
    }
}

/// Returns the refusal that a failure is.
pub(super) fn failure(plugin: &Plugin, error: &PolicyError) -> Refusal {
    Refusal {
        plugin: plugin.name.clone(),
        errnum: EIO,
        text: one_line(error),
    }
}
