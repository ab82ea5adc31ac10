//! Which jobspec makes a nested instance? For `flux batch` and `flux alloc`: slots, and `flux broker` on each node.

use std::ffi::OsString;

use clap::{ArgMatches, Command};
use flux_formats::jobspec::PerTask;
use serde_json::{Map, Value, json};

use super::build::{Process, Request, Spec, Start, finish};
use super::{conf, directives};
use crate::common::args::{flag, list, parsed, text, value, values};
use crate::common::error::{CmdError, chain, fail, usage};

/// Name of a dump when `--dump` gives none.
const DUMP_DEFAULT: &str = "flux-{{jobid}}-dump.tgz";
/// Mode of the configuration's file.
const CONF_MODE: u32 = 0o100_600;
/// Mode of a script.
const SCRIPT_MODE: u32 = 0o100_700;

/// Adds the options of `batch` and `alloc` for the instance and its size.
pub(crate) fn add_slots(command: Command) -> Command {
    command
        .arg(values(
            "conf",
            None,
            "CONF",
            "Set configuration for a child Flux instance: multi-line JSON or TOML, KEY=VALUE, a JSON or TOML file, or \
             a name in the standard search path",
        ))
        .arg(values("broker-opts", None, "OPTS", "Pass options to flux brokers").alias("broker-opt"))
        .arg(
            value("dump", None, "FILE", "Archive KVS on exit")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value(DUMP_DEFAULT),
        )
        .arg(value(
            "nslots",
            Some('n'),
            "N",
            "Number of total resource slots requested; the size of a slot is set by -c and -g (default one core)",
        ))
        .arg(value(
            "cores-per-slot",
            Some('c'),
            "N",
            "Number of cores to allocate per slot",
        ))
        .arg(value(
            "gpus-per-slot",
            Some('g'),
            "N",
            "Number of GPUs to allocate per slot",
        ))
        .arg(value(
            "nodes",
            Some('N'),
            "N",
            "Distribute allocated resource slots across N individual nodes",
        ))
        .arg(flag(
            "exclusive",
            Some('x'),
            "With -N, --nodes, allocate nodes exclusively",
        ))
        .arg(value("add-brokers", None, "N", "Start N more brokers on the first node").hide(true))
}

/// What the command decides about a nested instance.
#[derive(Debug, Default)]
pub(crate) struct Nested<'a> {
    /// Initial program and its arguments; empty for an interactive shell.
    pub(crate) program: Vec<String>,
    /// Script that the job brings along as `{{tmpdir}}/script`.
    pub(crate) script: Option<&'a str>,
    /// Options of the broker beside those of the command line.
    pub(crate) broker_options: Vec<String>,
    /// File for standard output when `--output` names none.
    pub(crate) output: Option<&'static str>,
    /// Name when `--job-name` gives none.
    pub(crate) name: Option<String>,
    /// Shell options that those of the command line override.
    pub(crate) shell_options: Vec<(&'static str, Value)>,
}

/// Makes the job of a nested instance.
///
/// # Errors
/// Whatever makes no sense in the options; the text names the option.
pub(crate) fn build_nested(
    matches: &ArgMatches,
    nested: Nested<'_>,
    process: &Process,
) -> Result<Request, CmdError> {
    let nnodes: Option<u32> = parsed(matches, "nodes")?;
    let nslots: Option<u32> = parsed(matches, "nslots")?;
    if nslots.unwrap_or(0) == 0 && nnodes.is_none() {
        return usage("Number of slots to allocate must be specified (-n N, or -N N for whole nodes)");
    }
    let extra: u32 = parsed(matches, "add-brokers")?.unwrap_or(0);
    let mut config = conf::combine(&list(matches, "conf"))?;
    if extra > 0 {
        exclude_brokers(&mut config, extra)?;
    }
    let mut words: Vec<String> = vec!["flux".to_owned(), "broker".to_owned()];
    for options in list(matches, "broker-opts") {
        words.extend(
            options
                .split(',')
                .filter(|option| !option.is_empty())
                .map(str::to_owned),
        );
    }
    words.extend(nested.broker_options);
    if let Some(file) = text(matches, "dump") {
        words.push(format!("-Scontent.dump={file}"));
    }
    let mut files = Map::new();
    if let Some(config) = config {
        words.push("-c{{tmpdir}}/conf.json".to_owned());
        files.insert(
            "conf.json".to_owned(),
            json!({ "mode": CONF_MODE, "data": config }),
        );
    }
    if let Some(script) = nested.script {
        files.insert(
            "script".to_owned(),
            json!({ "mode": SCRIPT_MODE, "data": script, "encoding": "utf-8" }),
        );
    }
    if nested.program.first().is_some_and(|word| word.starts_with('-')) {
        words.push("--".to_owned());
    }
    words.extend(nested.program);
    let request = PerTask {
        ntasks: nslots.filter(|count| *count > 0),
        cores_per_task: parsed(matches, "cores-per-slot")?,
        gpus_per_task: parsed(matches, "gpus-per-slot")?,
        nnodes,
        exclusive: matches.get_flag("exclusive"),
    };
    let jobspec = request.build(&words).or_else(|err| fail(chain(&err)))?;
    let mut spec = Spec {
        json: jobspec.into_value(),
    };
    if extra == 0 {
        spec.shell("per-resource.type", json!("node"));
    } else {
        more_brokers(&mut spec, nnodes, extra)?;
    }
    spec.shell("mpi", json!("none"));
    spec.shell("exit-timeout", json!("none"));
    for (name, value) in nested.shell_options {
        spec.shell(name, value);
    }
    let start = Start {
        jobspec: spec.json,
        files,
        output: nested.output,
        name: nested.name,
    };
    finish(matches, start, process)
}

/// Makes `extra` more tasks on the first node.
fn more_brokers(spec: &mut Spec, nnodes: Option<u32>, extra: u32) -> Result<(), CmdError> {
    let Some(nnodes) = nnodes else {
        return usage("--add-brokers may only be specified with -N, --nodes");
    };
    let first = format!("[0,1,{},1]", extra + 1);
    let map = match nnodes {
        1 => format!("[{first}]"),
        more => format!("[{first},[1,{},1,1]]", more - 1),
    };
    spec.shell("taskmap", json!({ "scheme": "manual", "value": map }));
    if let Some(count) = spec.json.pointer_mut("/tasks/0/count") {
        *count = json!({ "total": nnodes + extra });
    }
    Ok(())
}

/// Keeps jobs of the nested instance away from the additional brokers.
fn exclude_brokers(config: &mut Option<Value>, extra: u32) -> Result<(), CmdError> {
    use flux_formats::idset::IdSet;
    let config = config.get_or_insert_with(|| json!({}));
    let given = config
        .pointer("/resource/exclude")
        .and_then(Value::as_str)
        .unwrap_or("");
    let Ok(mut ranks) = given.parse::<IdSet>() else {
        return usage("--add-brokers needs ranks, not hosts, in resource.exclude");
    };
    for rank in 1..=extra {
        ranks.insert(rank);
    }
    crate::common::userconf::merge(config, json!({ "resource": { "exclude": ranks.to_string() } }));
    Ok(())
}

/// Returns the words of a script's directives followed by those of the command line, which so prevail.
///
/// # Errors
/// A malformed directive, or one that `check` refuses; the text names script and line.
pub(crate) fn with_directives(
    name: &str,
    script: &str,
    words: &[OsString],
    check: impl Fn(&[OsString]) -> Result<(), String>,
) -> Result<Vec<OsString>, CmdError> {
    let found = directives::parse(script).or_else(|err| fail(format!("{name}: {err}")))?;
    let mut all = Vec::new();
    for directive in found {
        let words: Vec<OsString> = directive.words.into_iter().map(OsString::from).collect();
        if let Err(text) = check(&words) {
            return usage(format!(
                "argument parsing failed at {name} line {}: {text}",
                directive.line
            ));
        }
        all.extend(words);
    }
    all.extend(words.iter().cloned());
    Ok(all)
}
