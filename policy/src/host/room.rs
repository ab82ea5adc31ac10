//! Which plugins does a service have, and what happens to a batch?

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::error::PolicyError;
use crate::guest::{Configuration, Guest, Runtime};
use crate::load::Manifest;
use crate::plugin::PluginSpec;
use crate::sched::{SchedAnswer, SchedEngine};
use crate::tap::{Stack, TapAnswer};

use super::ingest;
use super::message::{Answer, Command, LogRecord};

/// What a host loads.
#[derive(Clone, Debug, Default)]
pub struct HostConfig {
    /// Directory with `NAME.json` and `NAME.cwasm`, written by the build.
    pub dir: PathBuf,
    /// Run in this order on each submission.
    pub frobnicators: Vec<PluginSpec>,
    /// Run in this order after them; the first refusal ends the check.
    pub validators: Vec<PluginSpec>,
    /// Orders pending jobs; without one a host refuses scheduler commands.
    pub scheduler: Option<PluginSpec>,
    /// The broker's configuration, the object of `config.get` as JSON text; empty is `{}`.
    pub config: Arc<str>,
}

/// The plugins of one host. Knows nothing of threads.
pub(super) struct Room {
    pub(super) frobnicators: Vec<Guest>,
    pub(super) validators: Vec<Guest>,
    sched: Option<SchedEngine>,
    tap: Stack,
    configuration: Arc<Configuration>,
    runtime: &'static Runtime,
    logs: Vec<LogRecord>,
    sched_answers: Vec<SchedAnswer>,
    tap_answers: Vec<TapAnswer>,
}

impl Room {
    /// Loads and configures all plugins; puts what they log into `answers`.
    pub(super) fn load(config: HostConfig, answers: &mut Vec<Answer>) -> Result<Room, PolicyError> {
        let runtime = Runtime::get()?;
        let configuration = Arc::new(parse(&config.config)?);
        let mut logs = Vec::new();
        let mut load = |spec: PluginSpec| {
            let (mut guest, manifest) = Guest::load(&config.dir, spec, configuration.clone())?;
            guest.rest();
            guest.take_logs(&mut logs);
            logs.push(loaded(&guest, &manifest));
            Ok::<Guest, PolicyError>(guest)
        };
        let frobnicators = config
            .frobnicators
            .into_iter()
            .map(&mut load)
            .collect::<Result<_, _>>()?;
        let validators = config
            .validators
            .into_iter()
            .map(&mut load)
            .collect::<Result<_, _>>()?;
        let sched = config
            .scheduler
            .map(&mut load)
            .transpose()?
            .map(|guest| {
                let mut engine = SchedEngine::with_policy(guest);
                engine.set(&configuration.value).map(|()| engine)
            })
            .transpose()?;
        let mut room = Room {
            frobnicators,
            validators,
            sched,
            tap: Stack::new(config.dir, configuration.clone()),
            configuration,
            runtime,
            logs,
            sched_answers: Vec::new(),
            tap_answers: Vec::new(),
        };
        room.deliver(answers);
        Ok(room)
    }

    /// Carries out a batch; scheduler commands of a batch are applied together.
    pub(super) fn run(&mut self, now: f64, commands: Vec<Command>, answers: &mut Vec<Answer>) {
        let _running = self.runtime.running();
        let mut sched = Vec::new();
        for command in commands {
            match command {
                Command::Ingest { token, job } => {
                    let result = ingest::run(self, now, &job);
                    answers.push(Answer::Ingest { token, result });
                }
                Command::Configure { token, config } => {
                    let result = self.configure(&config, now);
                    answers.push(Answer::Configured { token, result });
                }
                Command::Sched(command) => sched.push(command),
                Command::Tap(command) => self.tap.run(now, command, &mut self.tap_answers),
            }
        }
        if let Some(engine) = self.sched.as_mut().filter(|_| !sched.is_empty()) {
            engine.run(now, sched, &mut self.sched_answers);
        }
        self.deliver(answers);
    }

    /// Goes on with scheduling, a bounded step; returns true while there is more to do.
    pub(super) fn more(&mut self, answers: &mut Vec<Answer>) -> bool {
        let _running = self.runtime.running();
        let more = self
            .sched
            .as_mut()
            .is_some_and(|engine| engine.more(&mut self.sched_answers));
        self.deliver(answers);
        more
    }

    /// Logs a plugin's failure.
    pub(super) fn report(&mut self, plugin: &Arc<str>, error: &PolicyError) {
        self.logs.push(LogRecord {
            plugin: plugin.clone(),
            level: 3,
            message: error.report(),
        });
    }

    /// Takes over what a plugin has logged.
    pub(super) fn collect(&mut self, index: usize, validator: bool) {
        let guests = if validator {
            &mut self.validators
        } else {
            &mut self.frobnicators
        };
        if let Some(guest) = guests.get_mut(index) {
            guest.take_logs(&mut self.logs);
        }
    }

    /// Gives all plugins a configuration, or none.
    fn configure(&mut self, text: &str, now: f64) -> Result<(), PolicyError> {
        let new = Arc::new(parse(text)?);
        let old = self.configuration.clone();
        if let Err(error) = self.configure_all(&new, now) {
            if let Err(again) = self.configure_all(&old, now) {
                self.report(&Arc::from("policy"), &again);
            }
            return Err(error);
        }
        self.configuration = new;
        Ok(())
    }

    fn configure_all(&mut self, configuration: &Arc<Configuration>, now: f64) -> Result<(), PolicyError> {
        let mut result = Ok(());
        for guest in self.frobnicators.iter_mut().chain(&mut self.validators) {
            if result.is_ok() {
                result = guest.configure(configuration.clone(), now);
                guest.rest();
            }
            guest.take_logs(&mut self.logs);
        }
        if let (Ok(()), Some(engine)) = (&result, self.sched.as_mut()) {
            result = engine.configure(configuration.clone(), now);
        }
        if result.is_ok() {
            result = self.tap.configure(configuration, now, &mut self.tap_answers);
        }
        result
    }

    fn deliver(&mut self, answers: &mut Vec<Answer>) {
        answers.extend(self.sched_answers.drain(..).map(Answer::Sched));
        answers.extend(self.tap_answers.drain(..).map(Answer::Tap));
        self.tap.take_logs(&mut self.logs);
        if let Some(engine) = self.sched.as_mut() {
            engine.take_logs(&mut self.logs);
        }
        answers.extend(self.logs.drain(..).map(Answer::Log));
    }
}

fn parse(text: &str) -> Result<Configuration, PolicyError> {
    let text = if text.is_empty() { "{}" } else { text };
    let value: Value = serde_json::from_str(text).map_err(PolicyError::Config)?;
    Ok(Configuration {
        text: Arc::from(text),
        value,
    })
}

fn loaded(guest: &Guest, manifest: &Manifest) -> LogRecord {
    let sha256 = manifest.wasm_sha256.get(..16).unwrap_or("");
    let message = format!("loaded {} {} sha256 {sha256}", manifest.world, manifest.version);
    LogRecord {
        plugin: guest.name().clone(),
        level: 7,
        message,
    }
}
