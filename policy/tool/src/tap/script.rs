//! `flux policy test` for jobtap plugins: a script of events, and what the plugin says to each.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use flux_policy::{Grant, Manifest, PluginSpec, TapCall, TapJob};
use serde::Deserialize;
use serde_json::Value;

use super::{INACTIVE, STATES, Tap};
use crate::test::Outcome;

/// A script.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    #[serde(default)]
    config: Value,
    #[serde(default)]
    args: Value,
    #[serde(default)]
    grants: Vec<String>,
    /// The plugin's `state` at the beginning.
    #[serde(default)]
    state: BTreeMap<String, String>,
    events: Vec<Event>,
}

/// One thing that happens, and what the plugin says to it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    at: f64,
    submit: Option<Job>,
    /// Id and name of the state.
    state: Option<(u64, String)>,
    /// Id, name and context of an event; `finish` takes the result from it.
    event: Option<(u64, String, Value)>,
    /// Id of a job whose priority is asked for.
    priority: Option<u64>,
    update: Option<Update>,
    request: Option<Request>,
    query: Option<bool>,
    /// Key of a timer.
    expired: Option<String>,
    /// Token, job and wait status of a program.
    exited: Option<(u64, u64, i32)>,
    /// Id of an inactive job.
    purge: Option<u64>,
    /// The broker starts again, and the plugin with it.
    restart: Option<bool>,
    #[serde(default)]
    expect: Expect,
}

/// Lines, or the part of a refusal.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expect {
    Lines(Vec<String>),
    Refused { refused: String },
}

impl Default for Expect {
    fn default() -> Self {
        Expect::Lines(Vec::new())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    id: u64,
    #[serde(default)]
    userid: u32,
    #[serde(default = "sixteen")]
    urgency: u32,
    #[serde(default)]
    flags: u32,
    #[serde(default)]
    jobspec: Value,
}

fn sixteen() -> u32 {
    16
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    id: u64,
    key: String,
    value: Value,
    #[serde(default)]
    userid: u32,
    #[serde(default)]
    owner: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    userid: u32,
    #[serde(default)]
    owner: bool,
}

fn rolemask(owner: bool) -> u32 {
    if owner { 3 } else { 2 }
}

/// Runs a script.
///
/// # Errors
/// When the plugin cannot be loaded, or an event of the script means nothing.
pub(crate) fn run(dir: &Path, manifest: &Manifest, script: Script) -> Result<Vec<Outcome>> {
    let mut spec = PluginSpec::new(manifest.name.as_str(), manifest.world);
    if !script.args.is_null() {
        spec.args = script.args.clone();
    }
    for name in &script.grants {
        let grant = Grant::parse(name);
        spec.grants
            .push(grant.with_context(|| format!("'{name}' is no grant: exec, bypass or service"))?);
    }
    let mut tap = Tap::load(dir, spec, &script.config, script.state)?;
    let mut results = Vec::new();
    for (number, event) in script.events.into_iter().enumerate() {
        let number = number + 1;
        tap.at(event.at);
        let said =
            happen(&mut tap, dir, &script.config, &event).with_context(|| format!("event {number}"))?;
        results.push(compare(number, &event, &said, &tap.take_logs()));
    }
    Ok(results)
}

fn compare(number: usize, event: &Event, said: &[String], logs: &[String]) -> Outcome {
    let expected = match &event.expect {
        Expect::Lines(lines) if lines == said => return Ok(()),
        Expect::Lines(lines) => format!("'{}'", lines.join("; ")),
        Expect::Refused { refused } => {
            let refusal = said.last().filter(|line| line.starts_with("refused "));
            if refusal.is_some_and(|line| line.contains(refused)) {
                return Ok(());
            }
            format!("a refusal with '{refused}'")
        }
    };
    let logs = if logs.is_empty() {
        String::new()
    } else {
        format!(" (log: {})", logs.join("; "))
    };
    Err(format!(
        "event {number} at {}: answered '{}' instead of {expected}{logs}",
        event.at,
        said.join("; ")
    ))
}

/// Lets an event happen; returns what the plugin says.
fn happen(tap: &mut Tap, dir: &Path, config: &Value, event: &Event) -> Result<Vec<String>> {
    if let Some(job) = &event.submit {
        let jobspec = if job.jobspec.is_null() {
            "{}".to_owned()
        } else {
            job.jobspec.to_string()
        };
        let new = TapJob {
            id: job.id,
            userid: job.userid,
            urgency: job.urgency,
            flags: job.flags,
            state: 1,
            t_submit: event.at,
            jobspec: jobspec.into(),
            ..TapJob::default()
        };
        tap.jobs.insert(job.id, new);
        let said = tap.submit(job.id)?;
        if said.last().is_some_and(|line| line.starts_with("refused ")) {
            tap.jobs.remove(&job.id);
        }
        return Ok(said);
    }
    if let Some((id, name)) = &event.state {
        let Some((_, bit)) = STATES.iter().find(|(known, _)| known == name) else {
            bail!("'{name}' is no state: depend, priority, sched, run, cleanup or inactive");
        };
        known(tap, *id)?;
        return tap.enter(*id, *bit);
    }
    if let Some((id, name, context)) = &event.event {
        return posted(tap, *id, name, context, event.at);
    }
    if let Some(id) = event.priority {
        known(tap, id)?;
        return tap.call(id, TapCall::Priority);
    }
    if let Some(update) = &event.update {
        return changed(tap, update);
    }
    let call = if let Some(request) = &event.request {
        let payload = if request.payload.is_null() {
            String::new()
        } else {
            request.payload.to_string()
        };
        TapCall::Request {
            method: request.method.clone(),
            payload,
            userid: request.userid,
            rolemask: rolemask(request.owner),
        }
    } else if let Some(key) = &event.expired {
        TapCall::Expired { key: key.clone() }
    } else if event.query == Some(true) {
        TapCall::Query
    } else if event.restart == Some(true) {
        return tap.restart(dir, config);
    } else if let Some((token, id, status)) = event.exited {
        let details = Vec::new();
        return tap.call(
            id,
            TapCall::Exited {
                token,
                status,
                details,
            },
        );
    } else if let Some(id) = event.purge {
        tap.jobs.remove(&id);
        return tap.call(id, TapCall::Removed);
    } else {
        bail!(
            "nothing happens: it needs submit, state, event, priority, update, request, query, expired, exited, purge or restart"
        );
    };
    tap.call(0, call)
}

fn known(tap: &Tap, id: u64) -> Result<()> {
    tap.jobs
        .contains_key(&id)
        .then_some(())
        .with_context(|| format!("there is no job {id}"))
}

/// An event is posted: who has subscribed hears of it.
fn posted(tap: &mut Tap, id: u64, name: &str, context: &Value, at: f64) -> Result<Vec<String>> {
    known(tap, id)?;
    if let Some(job) = tap.jobs.get_mut(&id) {
        match name {
            "alloc" => job.posted.alloc = true,
            "start" => job.posted.start = true,
            "finish" => job.posted.finish = true,
            _ => {}
        }
        if let Some(r) = context.get("R") {
            job.r = Some(Arc::from(r.to_string()));
        }
        if let Some(result) = context
            .get("result")
            .and_then(Value::as_u64)
            .filter(|_| job.state == INACTIVE)
        {
            job.result = u32::try_from(result)?;
        }
    }
    if !tap.hears(id, name) {
        return Ok(Vec::new());
    }
    let mut entry = serde_json::json!({"timestamp": at, "name": name});
    if context.is_object()
        && let Some(entry) = entry.as_object_mut()
    {
        entry.insert("context".to_owned(), context.clone());
    }
    let call = TapCall::Event {
        name: Arc::from(name),
        entry: Arc::from(entry.to_string()),
    };
    tap.call(id, call)
}

fn changed(tap: &mut Tap, update: &Update) -> Result<Vec<String>> {
    known(tap, update.id)?;
    let jobspec = tap.jobs.get(&update.id).map_or("{}", |job| &job.jobspec);
    let mut updated: Value = serde_json::from_str(jobspec).unwrap_or_default();
    let mut place = &mut updated;
    for key in update.key.split('.') {
        if !place.is_object() {
            *place = serde_json::json!({});
        }
        place = place
            .as_object_mut()
            .context("an object")?
            .entry(key)
            .or_insert(Value::Null);
    }
    *place = update.value.clone();
    let updated: Arc<str> = Arc::from(updated.to_string());
    let call = TapCall::Update {
        updates: vec![(update.key.clone(), update.value.to_string())],
        updated: updated.clone(),
        userid: update.userid,
        rolemask: rolemask(update.owner),
    };
    let said = tap.call(update.id, call)?;
    let refused = said.last().is_some_and(|line| line.starts_with("refused "));
    if let Some(job) = tap.jobs.get_mut(&update.id).filter(|_| !refused) {
        job.jobspec = updated;
    }
    Ok(said)
}
