//! Which jobspec do the options make? The keys come in the order in which the original writes them.

use clap::ArgMatches;
use clap::parser::ValueSource;
use flux_formats::constraint::query;
use flux_formats::idset::IdSet;
use flux_formats::jobspec::{Jobspec, PerResource, PerTask, ResourceType};
use serde_json::{Map, Value, json};

use super::env::{self, Environment};
use super::{files, rlimit};
use crate::common::args::{list, parsed, text};
use crate::common::error::{CmdError, fail, usage};
use crate::common::time::{parse_datetime, parse_fsd};

/// What a submission inherits from the process that makes it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Its environment with Flux's own variables.
    pub(crate) environment: Environment,
    /// Its working directory.
    pub(crate) cwd: String,
    /// Its resource limits that jobs inherit; -1 is no limit.
    pub(crate) rlimits: Map<String, Value>,
    /// The time, for `--begin-time`.
    pub(crate) now: f64,
}

impl Process {
    /// Returns what the calling process passes on.
    ///
    /// # Errors
    /// When the working directory does not exist any more.
    pub(crate) fn current(env: &[(std::ffi::OsString, std::ffi::OsString)]) -> Result<Self, CmdError> {
        let environment = env
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value.to_str()?.to_owned())))
            .collect();
        let cwd = std::env::current_dir().map_err(CmdError::file("working directory"))?;
        Ok(Process {
            environment,
            cwd: cwd.to_string_lossy().into_owned(),
            rlimits: rlimit::defaults(),
            now: crate::common::time::now(),
        })
    }
}

/// A job to submit.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The jobspec.
    pub(crate) jobspec: Value,
    /// 0 to 31.
    pub(crate) urgency: i32,
    /// Bits of the submit flags.
    pub(crate) flags: u32,
    /// Tasks that get standard input when attached: `--input=IDSET`.
    pub(crate) stdin_ranks: Option<String>,
}

/// Makes the job of a command line.
///
/// # Errors
/// Whatever makes no sense in the options; the text names the option.
pub(crate) fn build(matches: &ArgMatches, command: &[&str], process: &Process) -> Result<Request, CmdError> {
    if command.is_empty() {
        return usage("job command and arguments are missing");
    }
    let start = Start {
        jobspec: shape(matches, command)?.into_value(),
        ..Start::default()
    };
    finish(matches, start, process)
}

/// A jobspec to which the options common to all commands are still to be added.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// Resources, tasks, and attributes that options may override.
    pub(super) jobspec: Value,
    /// Files of the job by name (RFC 37).
    pub(super) files: Map<String, Value>,
    /// File for standard output when `--output` names none.
    pub(super) output: Option<&'static str>,
    /// Name when `--job-name` gives none.
    pub(super) name: Option<String>,
}

/// Adds what the options say.
pub(super) fn finish(matches: &ArgMatches, start: Start, process: &Process) -> Result<Request, CmdError> {
    let mut spec = Spec { json: start.jobspec };
    if let Some(limit) = text(matches, "time-limit") {
        spec.system("duration", json!(time_limit(limit)?));
    }
    let mut applied = env::apply(&env_rules(matches), &process.environment)?;
    if let Some(cc) = text_if_defined(matches, "cc-value") {
        applied
            .environment
            .insert("FLUX_JOB_CC".to_owned(), cc.to_owned());
    }
    spec.system("environment", json!(applied.environment));
    spec.system("cwd", json!(text(matches, "cwd").unwrap_or(&process.cwd)));
    if let Some(name) = text(matches, "job-name").or(start.name.as_deref()) {
        spec.system("job.name", json!(name));
    }
    if !applied.expand.is_empty() {
        spec.shell("env-expand", json!(applied.expand));
    }
    let stdin_ranks = stdio(matches, &mut spec, start.output);
    let limits = rlimit::apply(&list(matches, "rlimit"), process.rlimits.clone())?;
    if !limits.is_empty() {
        spec.shell("rlimit", Value::Object(limits));
    }
    for (option, key) in [("queue", "queue"), ("bank", "bank")] {
        if let Some(name) = text(matches, option) {
            spec.system(key, json!(name));
        }
    }
    if let Some(signal) = text(matches, "signal") {
        spec.shell("signal", signal_option(signal)?);
    }
    if let Some(uri) = text_if_defined(matches, "taskmap") {
        let (scheme, value) = uri.split_once(':').unwrap_or((uri, ""));
        spec.shell("taskmap", json!({"scheme": scheme, "value": value}));
    }
    for option in list(matches, "setopt") {
        let (key, value) = key_value("--setopt", option)?;
        spec.shell(&key, value);
    }
    spec.dependencies(matches, process.now)?;
    if let Some(constraint) = constraint(&list(matches, "requires"))? {
        spec.system("constraints", constraint);
    }
    for attribute in list(matches, "setattr") {
        let (key, value) = key_value("--setattr", attribute)?;
        spec.attribute(&key, value);
    }
    let mut file_map = start.files;
    for file in list(matches, "add-file") {
        let (name, object) = files::add_file(file)?;
        file_map.insert(name, object);
    }
    if !file_map.is_empty() {
        spec.system("files", Value::Object(file_map));
    }
    let (jobspec, urgency, flags) = (spec.json, urgency(matches)?, submit_flags(matches)?);
    Ok(Request {
        jobspec,
        urgency,
        flags,
        stdin_ranks,
    })
}

/// Returns an option that not every command has.
fn text_if_defined<'m>(matches: &'m ArgMatches, id: &str) -> Option<&'m str> {
    matches
        .try_get_one::<String>(id)
        .ok()
        .flatten()
        .map(String::as_str)
}

fn shape(matches: &ArgMatches, command: &[&str]) -> Result<Jobspec, CmdError> {
    const BY_TASK: [&str; 3] = ["ntasks", "cores-per-task", "gpus-per-task"];
    const BY_RESOURCE: [&str; 4] = ["cores", "tasks-per-node", "tasks-per-core", "gpus-per-node"];
    let given = |names: &[&'static str]| -> Option<&'static str> {
        names
            .iter()
            .copied()
            .find(|name| matches.value_source(name) == Some(ValueSource::CommandLine))
    };
    let exclusive = matches.get_flag("exclusive");
    let nnodes = parsed(matches, "nodes")?;
    let result = match (given(&BY_TASK), given(&BY_RESOURCE)) {
        (Some(task), Some(resource)) => {
            return usage(format!(
                "Per-task options can't be mixed with per-resource options: --{task} and --{resource}"
            ));
        }
        (_, Some(_)) => {
            let per_resource = match (
                parsed(matches, "tasks-per-node")?,
                parsed(matches, "tasks-per-core")?,
            ) {
                (Some(_), Some(_)) => {
                    return usage("Only one of --tasks-per-node and --tasks-per-core is allowed");
                }
                (Some(count), None) => Some((ResourceType::Node, count)),
                (None, Some(count)) => Some((ResourceType::Core, count)),
                (None, None) => None,
            };
            let request = PerResource {
                ncores: parsed(matches, "cores")?,
                nnodes,
                gpus_per_node: parsed(matches, "gpus-per-node")?,
                per_resource: per_resource
                    .or(Some((ResourceType::Core, 1)))
                    .filter(|_| per_resource.is_some() || given(&["cores"]).is_some()),
                exclusive,
            };
            request.build(command)
        }
        (_, None) => {
            let request = PerTask {
                ntasks: parsed(matches, "ntasks")?,
                cores_per_task: parsed(matches, "cores-per-task")?,
                gpus_per_task: parsed(matches, "gpus-per-task")?,
                nnodes,
                exclusive,
            };
            request.build(command)
        }
    };
    result.or_else(|err| fail(crate::common::error::chain(&err)))
}

/// Reads a time limit: minutes without a unit, else a Flux Standard Duration.
fn time_limit(text: &str) -> Result<f64, CmdError> {
    if let Ok(minutes) = text.parse::<f64>()
        && minutes.is_finite()
        && minutes >= 0.0
    {
        return Ok(minutes * 60.0);
    }
    match parse_fsd(text) {
        Ok(secs) if secs.is_finite() => Ok(secs),
        Ok(_) => Ok(0.0),
        Err(_) => usage(format!(
            "invalid time limit specified: '{text}' (use minutes or a duration such as 30s, 2h)"
        )),
    }
}

/// Collects the rules of `--env`, `--env-remove` and `--env-file` in the order of the command line.
fn env_rules(matches: &ArgMatches) -> Vec<String> {
    let mut rules: Vec<(usize, String)> = Vec::new();
    for (option, prefix) in [("env", ""), ("env-remove", "-"), ("env-file", "^")] {
        let places = matches.indices_of(option).into_iter().flatten();
        rules.extend(
            places
                .zip(list(matches, option))
                .map(|(at, rule)| (at, format!("{prefix}{rule}"))),
        );
    }
    rules.sort_by_key(|(at, _)| *at);
    rules.into_iter().map(|(_, rule)| rule).collect()
}

/// Sets the options for input and output; returns the ranks of `--input=IDSET`.
fn stdio(matches: &ArgMatches, spec: &mut Spec, output: Option<&str>) -> Option<String> {
    let mut ranks = None;
    if let Some(input) = text_if_defined(matches, "input") {
        if input == "all" || input.parse::<IdSet>().is_ok() {
            ranks = Some(input.to_owned());
        } else if !matches!(input, "none" | "kvs") {
            spec.shell("input.stdin", json!({"type": "file", "path": input}));
        }
    }
    let label = matches.try_get_one::<bool>("label-io").ok().flatten() == Some(&true);
    for (option, stream, default) in [("output", "stdout", output), ("error", "stderr", None)] {
        let path = text_if_defined(matches, option).or(default);
        let Some(path) = path.filter(|path| !matches!(*path, "none" | "kvs")) else {
            continue;
        };
        spec.shell(&format!("output.{stream}"), json!({"type": "file", "path": path}));
        if label {
            spec.shell(&format!("output.{stream}.label"), json!(true));
        }
    }
    if matches.get_flag("unbuffered") {
        spec.shell("output.stdout.buffer.type", json!("none"));
        spec.shell("output.stderr.buffer.type", json!("none"));
        // A small delay is kept so that the lines of many tasks still travel together.
        spec.shell("output.batch-timeout", json!(0.05));
        spec.shell("input.batch-timeout", json!(0.0));
    }
    ranks
}

fn signal_option(text: &str) -> Result<Value, CmdError> {
    let (name, time) = text.split_once('@').unwrap_or((text, ""));
    let signum = if name.is_empty() {
        Some(10)
    } else {
        flux_formats::signal::number(name)
    };
    let Some(signum) = signum else {
        return usage(format!("--signal={text}: invalid signal '{name}'"));
    };
    let timeleft = if time.is_empty() { 60.0 } else { parse_fsd(time)? };
    Ok(json!({"signum": signum, "timeleft": timeleft}))
}

/// Reads `KEY`, `KEY=VALUE` (JSON or text) or `^KEY=FILE` (JSON).
fn key_value(option: &str, text: &str) -> Result<(String, Value), CmdError> {
    if let Some(rest) = text.strip_prefix('^') {
        let Some((key, path)) = rest.split_once('=') else {
            return usage(format!("{option}: ^{rest} needs a file: ^KEY=FILE"));
        };
        let content = std::fs::read_to_string(path).map_err(CmdError::file(format!("{option}: {path}")))?;
        let value = serde_json::from_str(&content)
            .map_err(CmdError::json(format!("{option}: {path}: invalid JSON")))?;
        return Ok((key.to_owned(), value));
    }
    Ok(match text.split_once('=') {
        None => (text.to_owned(), json!(1)),
        Some((key, value)) => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            (key.to_owned(), value)
        }
    })
}

fn constraint(terms: &[&str]) -> Result<Option<Value>, CmdError> {
    if terms.is_empty() {
        return Ok(None);
    }
    let text = match terms {
        [one] => (*one).to_owned(),
        many => many
            .iter()
            .map(|term| format!("({term})"))
            .collect::<Vec<_>>()
            .join(" and "),
    };
    match query::parse(&text, &query::REQUIRES) {
        Ok(value) => Ok(Some(value)),
        Err(err) => usage(format!("--requires={text}: {err}")),
    }
}

fn urgency(matches: &ArgMatches) -> Result<i32, CmdError> {
    match text(matches, "urgency") {
        None => Ok(flux_client::job::URGENCY_DEFAULT),
        Some(text) => parse_urgency(text),
    }
}

/// Reads an urgency: 0 to 31, `hold`, `default`, `expedite` in any case.
///
/// # Errors
/// A usage error.
pub(crate) fn parse_urgency(text: &str) -> Result<i32, CmdError> {
    match text.to_ascii_lowercase().as_str() {
        "hold" => Ok(0),
        "default" => Ok(16),
        "expedite" => Ok(31),
        number => match number.parse() {
            Ok(urgency @ 0..=31) => Ok(urgency),
            _ => usage(format!(
                "invalid urgency '{text}' (use 0-31, hold, default or expedite)"
            )),
        },
    }
}

fn submit_flags(matches: &ArgMatches) -> Result<u32, CmdError> {
    use flux_client::job::submit_flags::{DEBUG, NOVALIDATE, WAITABLE};
    let mut flags = 0;
    for name in list(matches, "flags").iter().flat_map(|flags| flags.split(',')) {
        flags |= match name {
            "debug" => DEBUG,
            "waitable" => WAITABLE,
            "novalidate" => NOVALIDATE,
            other => {
                return usage(format!(
                    "--flags: unknown flag '{other}' (use debug, waitable, novalidate)"
                ));
            }
        };
    }
    Ok(flags)
}

/// A jobspec under construction.
pub(super) struct Spec {
    pub(super) json: Value,
}

impl Spec {
    /// Sets a dotted path below `attributes.system`.
    pub(super) fn system(&mut self, path: &str, value: Value) {
        self.set(&["attributes", "system"], path, value);
    }

    /// Sets a dotted path below the shell's options.
    pub(super) fn shell(&mut self, path: &str, value: Value) {
        self.set(&["attributes", "system", "shell", "options"], path, value);
    }

    /// Sets an attribute as `--setattr` names it: `.KEY` and `user.KEY`, `system.KEY` from `attributes`, others from
    /// `attributes.system`.
    fn attribute(&mut self, key: &str, value: Value) {
        let absolute = ["user.", "system."].iter().any(|prefix| key.starts_with(prefix));
        if let Some(rest) = key.strip_prefix("attributes.").or_else(|| key.strip_prefix('.')) {
            self.set(&["attributes"], rest, value);
        } else if absolute {
            self.set(&["attributes"], key, value);
        } else {
            self.system(key, value);
        }
    }

    fn set(&mut self, base: &[&str], path: &str, value: Value) {
        let mut at = &mut self.json;
        for key in base.iter().copied().chain(path.split('.')) {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            let Value::Object(map) = at else { return };
            at = map.entry(key).or_insert(Value::Null);
        }
        *at = value;
    }

    fn dependencies(&mut self, matches: &ArgMatches, now: f64) -> Result<(), CmdError> {
        let mut dependencies = Vec::new();
        for uri in list(matches, "dependency") {
            dependencies.push(dependency(uri)?);
        }
        if let Some(text) = text(matches, "begin-time") {
            let begin = parse_datetime(text, now)?;
            dependencies.push(json!({"scheme": "begin-time", "value": begin.to_string()}));
        }
        if !dependencies.is_empty() {
            self.system("dependencies", Value::Array(dependencies));
        }
        Ok(())
    }
}

/// Reads `SCHEME:VALUE?KEY=VAL&...` (RFC 26).
fn dependency(uri: &str) -> Result<Value, CmdError> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let (scheme, value) = match path.split_once(':') {
        Some(parts) => parts,
        None if path == "singleton" => (path, ""),
        None => {
            return usage(format!(
                "--dependency={uri}: invalid dependency (use SCHEME:VALUE)"
            ));
        }
    };
    let mut object = Map::new();
    object.insert("scheme".to_owned(), json!(scheme));
    object.insert("value".to_owned(), json!(value));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, text) = pair.split_once('=').unwrap_or((pair, ""));
        let value = text
            .parse::<i64>()
            .map_or_else(|_| json!(text), |number| json!(number));
        object.insert(key.to_owned(), value);
    }
    Ok(Value::Object(object))
}
