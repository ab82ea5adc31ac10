//! `flux policy replay` for jobtap plugins: what would the plugin have said to a job of the past?
//!
//! The job's eventlog is walked: its submission, each state that its events lead to, each event that the plugin has subscribed to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use flux_formats::jobid::JobId;
use flux_policy::{EndedBy, Grant, PluginSpec, TapCall, TapJob};
use serde_json::{Value, json};

use super::{DEPEND, INACTIVE, SCHED, Tap};
use crate::output::print;
use crate::replay::flux;

const NEW: u32 = 1;
const PRIORITY: u32 = 4;
const RUN: u32 = 16;
const CLEANUP: u32 = 32;

/// What is known of a job.
pub(crate) struct Recorded {
    id: u64,
    jobspec: String,
    r: Option<String>,
    /// Lines of the eventlog (RFC 18).
    events: Vec<Value>,
}

impl Recorded {
    /// Reads a job of the running instance, or a directory with the files `eventlog`, `jobspec` and perhaps `R`.
    ///
    /// # Errors
    /// What cannot be read.
    pub(crate) fn read(job: &str) -> Result<Recorded> {
        let dir = Path::new(job);
        let info = |key: &str| flux(&["job", "info", job, key]);
        let (log, jobspec, r) = if dir.is_dir() {
            let text = |name: &str| {
                let path = dir.join(name);
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
            };
            (text("eventlog")?, text("jobspec")?, text("R").ok())
        } else {
            (info("eventlog")?, info("jobspec")?, info("R").ok())
        };
        let mut events = Vec::new();
        for (number, line) in log
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let event: Value = serde_json::from_str(line)
                .with_context(|| format!("the eventlog of {job}, line {}", number + 1))?;
            ensure!(
                event["name"].is_string() && event["timestamp"].is_number(),
                "the eventlog of {job}, line {}: an event has a name and a timestamp",
                number + 1
            );
            events.push(event);
        }
        ensure!(
            events.first().is_some_and(|event| event["name"] == "submit"),
            "the eventlog of {job} does not begin with submit"
        );
        Ok(Recorded {
            id: job.parse::<JobId>().map_or(1, |id| id.0),
            jobspec,
            r: r.map(|r| r.trim().to_owned()).filter(|r| !r.is_empty()),
            events,
        })
    }
}

/// Walks a job's events and prints what the plugin says to each.
///
/// # Errors
/// When the plugin cannot be loaded or asked.
pub(crate) fn run(dir: &Path, mut spec: PluginSpec, config: &Value, job: &Recorded) -> Result<()> {
    // nothing that it asks for is performed
    spec.grants = vec![Grant::Exec, Grant::Bypass, Grant::Service];
    let mut tap = Tap::load(dir, spec, config, BTreeMap::new())?;
    let first = job.events.first().map_or(0.0, time);
    let mut walk = Walk {
        tap: &mut tap,
        job,
        state: NEW,
    };
    for event in &job.events {
        walk.tap.at(time(event));
        let said = walk.event(event)?;
        let context = event.get("context").map_or_else(String::new, Value::to_string);
        print(format!("{:10.3} {} {context}", time(event) - first, text(event, "name")).trim_end());
        for log in walk.tap.take_logs() {
            print(&format!("           log: {log}"));
        }
        for line in said {
            print(&format!("           > {line}"));
        }
    }
    Ok(())
}

fn time(event: &Value) -> f64 {
    event["timestamp"].as_f64().unwrap_or(0.0)
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or("")
}

struct Walk<'a> {
    tap: &'a mut Tap,
    job: &'a Recorded,
    state: u32,
}

impl Walk<'_> {
    /// Lets an event happen to the job.
    fn event(&mut self, event: &Value) -> Result<Vec<String>> {
        let id = self.job.id;
        let name = text(event, "name");
        let context = &event["context"];
        if name == "submit" {
            return self.submit(event);
        }
        let mut said = Vec::new();
        self.note(name, context);
        let next = self.next_state(name, context);
        if next != self.state {
            self.state = next;
            // what the submission has said already is not said again
            if !matches!(next, DEPEND | PRIORITY) {
                said.extend(self.tap.enter(id, next)?);
            } else if let Some(job) = self.tap.jobs.get_mut(&id) {
                job.state = next;
            }
        }
        if self.tap.hears(id, name) {
            let call = TapCall::Event {
                name: Arc::from(name),
                entry: Arc::from(event.to_string()),
            };
            said.extend(self.tap.call(id, call)?);
        }
        Ok(said)
    }

    fn submit(&mut self, event: &Value) -> Result<Vec<String>> {
        let number = |key: &str, default: u64| {
            let value = event["context"][key].as_u64().unwrap_or(default);
            u32::try_from(value).unwrap_or(u32::MAX)
        };
        let id = self.job.id;
        let job = TapJob {
            id,
            userid: number("userid", 0),
            urgency: number("urgency", 16),
            flags: number("flags", 0),
            state: NEW,
            t_submit: time(event),
            jobspec: Arc::from(self.job.jobspec.as_str()),
            ..TapJob::default()
        };
        self.tap.jobs.insert(id, job);
        self.tap.submit(id)
    }

    /// Notes what an event says of the job.
    fn note(&mut self, name: &str, context: &Value) {
        let Some(job) = self.tap.jobs.get_mut(&self.job.id) else {
            return;
        };
        match name {
            "priority" => job.priority = context["priority"].as_u64(),
            "urgency" => {
                job.urgency = context["urgency"]
                    .as_u64()
                    .and_then(|n| u32::try_from(n).ok())
                    .unwrap_or(16)
            }
            "alloc" => {
                job.posted.alloc = true;
                job.r = self.job.r.as_deref().map(Arc::from);
            }
            "start" => job.posted.start = true,
            "finish" => {
                job.posted.finish = true;
                if job.ended_by == EndedBy::Nothing {
                    job.ended_by = EndedBy::Finish;
                    job.result = if context["status"] == json!(0) { 1 } else { 2 };
                }
            }
            "prolog-start" | "epilog-start" => job.posted.perilog = true,
            "prolog-finish" | "epilog-finish" => job.posted.perilog = false,
            "exception" if context["severity"] == json!(0) && job.ended_by == EndedBy::Nothing => {
                job.ended_by = EndedBy::Exception;
                job.result = match text(context, "type") {
                    "cancel" => 4,
                    "timeout" => 8,
                    _ => 2,
                };
            }
            _ => {}
        }
    }

    /// Returns the state after an event (RFC 21).
    fn next_state(&self, name: &str, context: &Value) -> u32 {
        match (name, self.state) {
            ("validate", NEW) => DEPEND,
            ("depend", DEPEND) => PRIORITY,
            ("priority", PRIORITY) => SCHED,
            ("flux-restart", SCHED) => PRIORITY,
            ("alloc", SCHED) => RUN,
            ("finish", RUN) => CLEANUP,
            ("exception", DEPEND | PRIORITY | SCHED | RUN) if context["severity"] == json!(0) => CLEANUP,
            ("clean", CLEANUP) => INACTIVE,
            _ => self.state,
        }
    }
}
