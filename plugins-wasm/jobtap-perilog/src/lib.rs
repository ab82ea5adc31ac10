//! Runs the site's prolog before a job's shells start, and its epilog after they have ended.
//!
//! A prolog that fails ends the job, and its epilog runs at once; an epilog that fails is told by an exception of severity 2. Ranks on which either fails are
//! drained when it runs on each rank. Jobs whose prolog or epilog ran when the broker went down get another one.

mod config;

use std::collections::HashMap;

use config::{Config, Procedure};
use flux_policy_sdk::json::quote;
use flux_policy_sdk::{Exec, Exited, Job, Jobtap, JobtapHost, Refusal, export_jobtap};
use serde_json::Value;

const RUN: u32 = 16;
const CLEANUP: u32 = 32;
const SIGTERM: u32 = 15;

/// What runs for a job.
#[derive(Clone, Debug, PartialEq)]
struct Running {
    token: u64,
    is_prolog: bool,
    cancelled: bool,
    /// Of the job, an idset.
    ranks: Option<String>,
}

/// The plugin.
#[derive(Debug, Default)]
pub struct Perilog {
    config: Config,
    running: HashMap<u64, Running>,
}

fn name(is_prolog: bool) -> &'static str {
    if is_prolog { "prolog" } else { "epilog" }
}

/// Returns the ranks of R, an idset.
fn ranks(r: Option<String>) -> Option<String> {
    let r: Value = serde_json::from_str(&r?).ok()?;
    let entries = r.pointer("/execution/R_lite")?.as_array()?;
    let ranks: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry.get("rank")?.as_str())
        .collect();
    (!ranks.is_empty()).then(|| ranks.join(","))
}

impl Perilog {
    fn procedure(&self, is_prolog: bool) -> Option<&Procedure> {
        if is_prolog {
            self.config.prolog.as_ref()
        } else {
            self.config.epilog.as_ref()
        }
    }

    /// Starts what is configured; returns true when something runs now.
    fn start(&mut self, exec: &dyn Exec, job: &dyn Job, is_prolog: bool) -> bool {
        self.start_on(exec, job.id(), ranks(job.resources()), is_prolog)
    }

    fn start_on(&mut self, exec: &dyn Exec, job: u64, ranks: Option<String>, is_prolog: bool) -> bool {
        let Some(procedure) = self.procedure(is_prolog) else {
            return false;
        };
        let option = |key: &str, value: String| (key.to_owned(), value);
        let mut options = vec![
            option("name", name(is_prolog).to_owned()),
            option("timeout", procedure.timeout.to_string()),
            option("kill-timeout", procedure.kill_timeout.to_string()),
        ];
        if procedure.per_rank
            && let Some(ranks) = &ranks
        {
            options.push(option("ranks", ranks.clone()));
            options.push(option("drain", "true".to_owned()));
        }
        for pattern in &self.config.log_ignore {
            options.push(option("log-ignore", pattern.clone()));
        }
        let token = exec.spawn(job, &procedure.command, &options);
        let running = Running {
            token,
            is_prolog,
            cancelled: false,
            ranks,
        };
        self.running.insert(job, running);
        true
    }

    fn enter(&mut self, host: &dyn JobtapHost, exec: &dyn Exec, job: &dyn Job) {
        if self.config.epilog.is_some()
            || self
                .config
                .prolog
                .as_ref()
                .is_some_and(|prolog| prolog.cancel_on_exception)
        {
            host.subscribe(job.id());
        }
        if self.start(exec, job, true) {
            host.prolog_start(job.id(), "job-manager.prolog");
        }
    }

    fn on_event(&mut self, host: &dyn JobtapHost, exec: &dyn Exec, job: &dyn Job, event: &str, entry: &str) {
        if event == "finish" {
            if !self.running.contains_key(&job.id()) && self.start(exec, job, false) {
                host.epilog_start(job.id(), "job-manager.epilog");
            }
            return;
        }
        let fatal = serde_json::from_str::<Value>(entry)
            .ok()
            .and_then(|entry| entry.pointer("/context/severity")?.as_u64())
            == Some(0);
        let Some(running) = self.running.get_mut(&job.id()) else {
            return;
        };
        let procedure = if running.is_prolog {
            &self.config.prolog
        } else {
            &self.config.epilog
        };
        if fatal
            && !running.cancelled
            && procedure
                .as_ref()
                .is_some_and(|procedure| procedure.cancel_on_exception)
        {
            running.cancelled = true;
            exec.kill(running.token, SIGTERM);
        }
    }

    fn ended(&mut self, host: &dyn JobtapHost, exec: &dyn Exec, exited: &Exited<'_>) {
        let job = exited.job;
        let is_current = |running: &Running| running.token == exited.token;
        if !self.running.get(&job).is_some_and(is_current) {
            return;
        }
        let Some(running) = self.running.remove(&job) else {
            return;
        };
        let failed = exited.status != 0 && !running.cancelled;
        if !running.is_prolog {
            if failed {
                host.raise(job, "epilog", 2, &failure(false, exited));
            }
            host.epilog_finish(job, "job-manager.epilog", exited.status);
            host.unsubscribe(job);
            return;
        }
        if failed {
            host.raise(job, "prolog", 0, &failure(true, exited));
        }
        // The job will never start, so no `finish` event will start the epilog. It has to begin before the prolog ends, or the job could be over.
        let ends_here = failed || running.cancelled;
        if ends_here && self.start_on(exec, job, running.ranks, false) {
            host.epilog_start(job, "job-manager.epilog");
        }
        host.prolog_finish(job, "job-manager.prolog", exited.status);
    }

    /// A job that was there before this instance of the plugin: what ran for it runs no more.
    fn again(&mut self, host: &dyn JobtapHost, exec: &dyn Exec, job: &dyn Job) {
        match job.state() {
            RUN => {
                host.subscribe(job.id());
                if job.posted("perilog") && !self.start(exec, job, true) {
                    host.prolog_finish(job.id(), "job-manager.prolog", 1);
                }
            }
            CLEANUP if job.posted("perilog") && !self.start(exec, job, false) => {
                host.epilog_finish(job.id(), "job-manager.epilog", 1);
            }
            _ => {}
        }
    }
}

/// Says what went wrong.
fn failure(is_prolog: bool, exited: &Exited<'_>) -> String {
    let name = name(is_prolog);
    let (signal, code) = (exited.status & 0x7f, (exited.status >> 8) & 0xff);
    let hosts = exited
        .detail("hosts")
        .filter(|hosts| !hosts.is_empty())
        .unwrap_or("unknown");
    let place = format!("on {hosts} (rank {})", exited.detail("ranks").unwrap_or_default());
    if exited.detail("timeout").is_some() {
        format!("{name} timed out {place}")
    } else if signal != 0 {
        format!("{name} killed by signal {signal} {place}")
    } else if code > 128 {
        format!("{name} killed by signal {} {place}", code - 128)
    } else {
        format!("{name} exited with code={code} {place}")
    }
}

#[cfg(target_arch = "wasm32")]
fn programs() -> impl Exec {
    flux_policy_sdk::bindings::jobtap::Programs
}

/// Tests bring their own.
#[cfg(not(target_arch = "wasm32"))]
fn programs() -> impl Exec {
    flux_policy_sdk::fake::FakeHost::default()
}

impl Jobtap for Perilog {
    fn configure(host: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(Perilog {
            config: Config::read(host)?,
            running: HashMap::new(),
        })
    }

    fn reconfigure(&mut self, host: &dyn JobtapHost) -> Result<(), Refusal> {
        self.config = Config::read(host)?;
        Ok(())
    }

    fn topics(&self) -> Vec<String> {
        let topics = [
            "job.new",
            "job.state.run",
            "job.event.finish",
            "job.event.exception",
            "plugin.query",
        ];
        if self.config.prolog.is_none() && self.config.epilog.is_none() {
            return vec!["plugin.query".to_owned()];
        }
        topics.map(str::to_owned).to_vec()
    }

    fn new_job(&mut self, host: &dyn JobtapHost, job: &dyn Job, replay: bool) {
        if replay {
            self.again(host, &programs(), job);
        }
    }

    fn state(&mut self, host: &dyn JobtapHost, job: &dyn Job, _: &str) {
        self.enter(host, &programs(), job);
    }

    fn event(&mut self, host: &dyn JobtapHost, job: &dyn Job, name: &str, entry: &str) {
        self.on_event(host, &programs(), job, name, entry);
    }

    fn exited(&mut self, host: &dyn JobtapHost, exited: &Exited<'_>) {
        self.ended(host, &programs(), exited);
    }

    fn query(&mut self, _: &dyn JobtapHost) -> String {
        let mut running: Vec<_> = self.running.iter().collect();
        running.sort_by_key(|(job, _)| **job);
        let entries = running.iter().map(|(job, running)| {
            format!(
                r#"{}:{{"name":"{}"}}"#,
                quote(&job.to_string()),
                name(running.is_prolog)
            )
        });
        let describe = |procedure: &Option<Procedure>| {
            procedure.as_ref().map_or_else(
                || "{}".to_owned(),
                |procedure| {
                    let words: Vec<String> = procedure.command.iter().map(|word| quote(word)).collect();
                    format!(
                        r#"{{"command":[{}],"timeout":{},"kill-timeout":{},"per-rank":{}}}"#,
                        words.join(","),
                        procedure.timeout,
                        procedure.kill_timeout,
                        procedure.per_rank
                    )
                },
            )
        };
        format!(
            r#"{{"conf":{{"prolog":{},"epilog":{}}},"procs":{{{}}}}}"#,
            describe(&self.config.prolog),
            describe(&self.config.epilog),
            entries.collect::<Vec<_>>().join(",")
        )
    }
}

export_jobtap!(Perilog);

#[cfg(test)]
mod tests;
