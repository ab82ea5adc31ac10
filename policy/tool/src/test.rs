//! `flux policy test`: does a built policy answer as its author expects?

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgMatches, Command, value_parser};
use flux_formats::idset::IdSet;
use flux_policy::pool::{Constraint, Request};
use flux_policy::{
    Accepted, Answer, Command as ToHost, HostConfig, IngestJob, Manifest, PluginSpec, PolicyHost, Refusal,
    SchedAnswer, SchedCommand, Submit, World,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::output::print;
use crate::{plugins, tap};

/// Returns the definition of `test`.
pub(crate) fn command() -> Command {
    Command::new("test")
        .about("Run a policy's script of events and check its answers")
        .arg(
            Arg::new("project")
                .value_name("PROJECT")
                .default_value(".")
                .value_parser(value_parser!(PathBuf))
                .help("Project with test.json, built before"),
        )
        .arg(
            Arg::new("script")
                .long("script")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Another script"),
        )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    #[serde(default)]
    cases: Vec<Case>,
    #[serde(default)]
    nodes: u32,
    #[serde(default)]
    cores: u32,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    args: Value,
    #[serde(default)]
    events: Vec<Event>,
}

/// One submission to a validator or frobnicator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    jobspec: Value,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    args: Value,
    #[serde(default = "sixteen")]
    urgency: u32,
    #[serde(default)]
    userid: u32,
    expect: Value,
}

fn sixteen() -> u32 {
    16
}

/// One thing that happens to a scheduler.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    at: f64,
    submit: Option<Job>,
    free: Option<u64>,
    cancel: Option<u64>,
    priority: Option<(u64, u64)>,
    up: Option<String>,
    down: Option<String>,
    /// What it answers, see [`short`].
    expect: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    id: u64,
    #[serde(default = "priority")]
    priority: u64,
    #[serde(default)]
    nodes: u32,
    slots: u32,
    #[serde(default = "one")]
    cores: u32,
    #[serde(default)]
    limit: f64,
    #[serde(default)]
    queue: String,
    constraint: Option<Value>,
}

fn priority() -> u64 {
    16
}

fn one() -> u32 {
    1
}

/// Runs a script.
///
/// # Errors
/// The first answer that is not as expected, all others counted.
pub(crate) fn main(args: &ArgMatches) -> Result<()> {
    let project = args.get_one::<PathBuf>("project").context("a project")?;
    let dir = project.join("policies");
    let path = args
        .get_one::<PathBuf>("script")
        .cloned()
        .unwrap_or_else(|| project.join("test.json"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest = only(&dir)?;
    let results = match manifest.world {
        World::Scheduler => scheduler(&dir, &manifest, read(&path, &text)?)?,
        World::Validator | World::Frobnicator => read::<Script>(&path, &text)?
            .cases
            .iter()
            .map(|case| run_case(&dir, &manifest, case))
            .collect::<Result<_>>()?,
        World::Jobtap => tap::script::run(&dir, &manifest, read(&path, &text)?)?,
    };
    let failed: Vec<&String> = results
        .iter()
        .filter_map(|result| result.as_ref().err())
        .collect();
    for failure in &failed {
        print(&format!("FAILED {failure}"));
    }
    print(&format!(
        "{} passed, {} failed",
        results.len() - failed.len(),
        failed.len()
    ));
    ensure!(
        failed.is_empty(),
        "{}: {} answers are not as expected",
        path.display(),
        failed.len()
    );
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| path.display().to_string())
}

/// Returns the manifest of the one policy in a project.
fn only(dir: &Path) -> Result<Manifest> {
    let entries =
        fs::read_dir(dir).with_context(|| format!("no {}: run 'flux policy build' first", dir.display()))?;
    let names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    match &names[..] {
        [name] => plugins::manifest(dir, name),
        _ => bail!("{} has {} policies instead of one", dir.display(), names.len()),
    }
}

/// What came of a case: nothing to say, or what is wrong.
pub(crate) type Outcome = std::result::Result<(), String>;

pub(crate) fn object(value: &Value) -> String {
    if value.is_null() {
        "{}".to_owned()
    } else {
        value.to_string()
    }
}

fn spec(manifest: &Manifest, args: &Value) -> PluginSpec {
    let mut spec = PluginSpec::new(manifest.name.as_str(), manifest.world);
    if !args.is_null() {
        spec.args = args.clone();
    }
    spec
}

fn run_case(dir: &Path, manifest: &Manifest, case: &Case) -> Result<Outcome> {
    let (answer, logs) = submit(
        dir,
        spec(manifest, &case.args),
        object(&case.config),
        (&case.jobspec, case.urgency, case.userid),
    )?;
    let said = logs.join("; ");
    let told = |text: String| {
        Err(format!(
            "{}: {text}{}",
            case.name,
            if said.is_empty() {
                String::new()
            } else {
                format!(" (log: {said})")
            }
        ))
    };
    Ok(match (&case.expect, answer) {
        (Value::String(word), Ok(_)) if word == "accepted" => Ok(()),
        (Value::String(word), Ok(accepted)) if word == "unchanged" && !accepted.changed => Ok(()),
        (Value::Object(expect), Err(refusal)) if expect.contains_key("refused") => {
            let text = expect.get("refused").and_then(Value::as_str).unwrap_or("");
            let number = expect.get("errnum").and_then(Value::as_u64);
            if !refusal.text.contains(text) {
                told(format!(
                    "refused with '{}', which does not contain '{text}'",
                    refusal.text
                ))
            } else if number.is_some_and(|number| number != u64::from(refusal.errnum)) {
                told(format!("refused with error number {}", refusal.errnum))
            } else {
                Ok(())
            }
        }
        (Value::Object(expect), Ok(accepted)) if expect.contains_key("changed") => {
            let jobspec: Value = serde_json::from_str(&accepted.jobspec)?;
            let wanted = expect.get("changed").and_then(Value::as_object);
            let wrong = wanted
                .into_iter()
                .flatten()
                .find(|(pointer, value)| jobspec.pointer(pointer) != Some(value));
            match wrong {
                None => Ok(()),
                Some((pointer, value)) => told(format!(
                    "{pointer} is {:?} instead of {value}",
                    jobspec.pointer(pointer)
                )),
            }
        }
        (expect, Ok(accepted)) => told(format!(
            "expected {expect}, it was accepted {}",
            if accepted.changed { "changed" } else { "unchanged" }
        )),
        (expect, Err(refusal)) => told(format!("expected {expect}, it was refused: {}", refusal.text)),
    })
}

/// What a policy says to a submission, and its log.
pub(crate) type Submitted = (std::result::Result<Accepted, Refusal>, Vec<String>);

/// Submits one job to one policy.
///
/// # Errors
/// When the policy cannot be loaded or does not answer.
pub(crate) fn submit(
    dir: &Path,
    spec: PluginSpec,
    config: String,
    (jobspec, urgency, userid): (&Value, u32, u32),
) -> Result<Submitted> {
    let mut to = HostConfig {
        dir: dir.to_owned(),
        config: config.into(),
        ..HostConfig::default()
    };
    match spec.world {
        World::Validator => to.validators = vec![spec],
        World::Frobnicator => to.frobnicators = vec![spec],
        _ => bail!("only validators and frobnicators take a job at submission"),
    }
    let mut host = PolicyHost::inline(to)?;
    let job = Box::new(IngestJob {
        userid,
        rolemask: 2,
        urgency,
        flags: 0,
        novalidate: false,
        jobspec: jobspec.to_string().into(),
    });
    host.send(1.0, vec![ToHost::Ingest { token: 1, job }])
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut answers = Vec::new();
    host.receive(&mut answers);
    let mut logs = Vec::new();
    let mut end = None;
    for answer in answers {
        match answer {
            Answer::Ingest { result, .. } => end = Some(result),
            Answer::Log(log) if log.level < 7 => logs.push(log.message),
            _ => {}
        }
    }
    Ok((end.context("the policy did not answer")?, logs))
}

fn scheduler(dir: &Path, manifest: &Manifest, script: Script) -> Result<Vec<Outcome>> {
    ensure!(
        script.nodes > 0 && script.cores > 0,
        "a scheduler's script needs nodes and cores"
    );
    let mut host = PolicyHost::inline(HostConfig {
        dir: dir.to_owned(),
        scheduler: Some(spec(manifest, &script.args)),
        config: object(&script.config).into(),
        ..HostConfig::default()
    })?;
    let r = json!({"version": 1, "execution": {"starttime": 0.0, "expiration": 0.0, "R_lite": [
        {"rank": IdSet::first_n(script.nodes).to_string(), "children": {"core": IdSet::first_n(script.cores).to_string()}}]}});
    let mut first = Some(SchedCommand::Define {
        r: r.to_string().into(),
    });
    let mut results = Vec::new();
    for (number, event) in script.events.into_iter().enumerate() {
        let (at, expect) = (event.at, event.expect.clone());
        let mut commands: Vec<_> = first.take().into_iter().collect();
        commands.extend(event_commands(event).with_context(|| format!("event {}", number + 1))?);
        host.send(at, commands.into_iter().map(ToHost::Sched).collect())
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut answers = Vec::new();
        host.receive(&mut answers);
        let (mut said, mut logs) = (Vec::new(), Vec::new());
        for answer in &answers {
            match answer {
                Answer::Sched(answer) => said.extend(short(answer)),
                Answer::Log(log) if log.level <= 4 => logs.push(log.message.clone()),
                _ => {}
            }
        }
        let said = said.join(" ");
        results.push(if said == expect {
            Ok(())
        } else {
            Err(format!(
                "event {} at {at}: answered '{said}' instead of '{expect}' {}",
                number + 1,
                logs.join("; ")
            ))
        });
    }
    Ok(results)
}

fn event_commands(event: Event) -> Result<Vec<SchedCommand>> {
    let mut commands = Vec::new();
    if let Some(job) = event.submit {
        let constraint = job.constraint.as_ref().map(Constraint::from_json).transpose()?;
        let request = Request {
            nnodes: job.nodes,
            nslots: job.slots,
            cores_per_slot: job.cores,
            duration_secs: job.limit,
            constraint,
            ..Request::default()
        };
        commands.push(SchedCommand::Submit(Box::new(Submit {
            id: job.id,
            priority: job.priority,
            userid: 1,
            t_submit: event.at,
            queue: job.queue.into(),
            request,
        })));
    }
    commands.extend(event.free.map(|id| SchedCommand::Free { id, ranks: None }));
    commands.extend(event.cancel.map(|id| SchedCommand::Cancel { id }));
    commands.extend(event.priority.map(|job| SchedCommand::Prioritize(vec![job])));
    if let Some(ranks) = event.up {
        commands.push(SchedCommand::Up(ranks.parse().context("up")?));
    }
    if let Some(ranks) = event.down {
        commands.push(SchedCommand::Down(ranks.parse().context("down")?));
    }
    Ok(commands)
}

/// Returns an answer in short: `+3` started, `!3` denied, `-3` cancelled, `3@120` will start at 120 s.
fn short(answer: &SchedAnswer) -> Option<String> {
    match answer {
        SchedAnswer::Alloc { id, .. } => Some(format!("+{id}")),
        SchedAnswer::Deny { id, .. } => Some(format!("!{id}")),
        SchedAnswer::Cancelled { id } => Some(format!("-{id}")),
        SchedAnswer::Annotate { id, annotations } => {
            let annotations: Value = serde_json::from_str(annotations).ok()?;
            let estimate = annotations["sched"]["t_estimate"].as_f64()?;
            Some(format!("{id}@{estimate}"))
        }
        _ => None,
    }
}
