//! `flux exec`: run a command on brokers.

mod runner;

use clap::{ArgMatches, Command};
use flux_client::{Handle, NODEID_ANY, attr};
use flux_formats::idset::IdSet;
use serde_json::{Map, Value, json};

use runner::{How, Runner};

use crate::common::args::{flag, list, text, trailing, value, values};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::jobid;

/// Flags of an exec request: stdout, stderr, write credit, and waitable.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const WRITE_CREDIT: u32 = 8;
const WAITABLE: u32 = 16;

pub(super) fn args(command: Command) -> Command {
    command
        .arg(value(
            "rank",
            Some('r'),
            "IDSET",
            "Target ranks in IDSET (default: all)",
        ))
        .arg(value("exclude", Some('x'), "IDSET", "Exclude ranks"))
        .arg(value(
            "jobid",
            Some('j'),
            "JOBID",
            "Set target ranks to those of the job",
        ))
        .arg(flag("bg", None, "Run command in background"))
        .arg(flag(
            "waitable",
            None,
            "Allow background process to be waited for",
        ))
        .arg(flag("attach", None, "Attach to running process"))
        .arg(value("label", None, "LABEL", "Set a label for the process"))
        .arg(value("dir", Some('d'), "PATH", "Set the working directory"))
        .arg(flag(
            "label-io",
            Some('l'),
            "Label lines of output with the source RANK",
        ))
        .arg(flag("noinput", Some('n'), "Redirect stdin from /dev/null"))
        .arg(flag("verbose", Some('v'), "Run with more verbosity"))
        .arg(flag("quiet", Some('q'), "Suppress extraneous output"))
        .arg(flag("with-imp", None, "Run args under 'flux-imp run'"))
        .arg(value("service", None, "NAME", "Set service name (default: rexec)").hide(true))
        .arg(values("setopt", None, "NAME=VALUE", "Set subcommand option").hide(true))
        .arg(trailing("command", true, "Command and arguments"))
}

fn targets(handle: &mut Handle, matches: &ArgMatches) -> Result<(IdSet, u32), CmdError> {
    let size = attr::get_u32(handle, "size")?;
    let ids = |option: &str, word: &str| -> Result<IdSet, CmdError> {
        word.parse()
            .or_else(|_| usage(format!("--{option}: invalid idset '{word}'")))
    };
    let mut ranks = match (text(matches, "jobid"), text(matches, "rank")) {
        (Some(_), Some(_)) => return usage("--rank and --jobid cannot be used together"),
        (Some(id), None) => {
            let id = jobid::parse(id)?;
            let request = json!({ "id": id.0, "attrs": ["ranks"] });
            let response: Value = handle.call("job-list.list-id", NODEID_ANY, &request)?;
            let ranks = response
                .pointer("/job/ranks")
                .and_then(Value::as_str)
                .unwrap_or("");
            ids("jobid", ranks)?
        }
        (None, Some("all") | None) => IdSet::first_n(size),
        (None, Some(word)) => ids("rank", word)?,
    };
    if let Some(word) = text(matches, "exclude") {
        ranks = ranks.difference(&ids("exclude", word)?);
    }
    if ranks.is_empty() {
        return fail("No nodes specified.");
    }
    Ok((ranks, size))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    if matches.get_flag("attach") {
        return fail("--attach is not available yet in this version");
    }
    let mut handle = ctx.open()?;
    let (ranks, _) = targets(&mut handle, matches)?;
    let background = matches.get_flag("bg");
    let mut words: Vec<String> = list(matches, "command").into_iter().map(str::to_owned).collect();
    if matches.get_flag("with-imp") {
        words.splice(0..0, [imp_path(&mut handle)?, "run".to_owned()]);
    }
    let command = command_object(ctx, matches, &words)?;
    let mut flags = if background {
        0
    } else {
        STDOUT | STDERR | WRITE_CREDIT
    };
    if matches.get_flag("waitable") {
        flags |= WAITABLE;
    }
    let service = text(matches, "service").unwrap_or("rexec");
    let how = How {
        label: matches.get_flag("label-io"),
        quiet: matches.get_flag("quiet"),
        verbose: matches.get_flag("verbose"),
        input: !background && !matches.get_flag("noinput"),
    };
    let mut runner = Runner::new(ctx, handle, service, &words, how);
    runner.start(&ranks, &json!({ "cmd": command, "flags": flags }), background)?;
    if background {
        runner.wait_background()
    } else {
        runner.wait(matches.get_flag("noinput"))
    }
}

/// Runs a command on brokers, without input and in `/`; returns the ranks on which it failed or could not be started.
pub(super) fn everywhere(
    ctx: &Ctx,
    handle: Handle,
    ranks: &IdSet,
    words: &[String],
) -> Result<IdSet, CmdError> {
    let how = How {
        label: false,
        quiet: false,
        verbose: false,
        input: false,
    };
    let command =
        json!({ "cwd": "/", "cmdline": words, "env": environment(ctx), "opts": {}, "channels": [] });
    let mut runner = Runner::new(ctx, handle, "rexec", words, how);
    let flags = STDOUT | STDERR | WRITE_CREDIT;
    runner.start(ranks, &json!({ "cmd": command, "flags": flags }), false)?;
    runner.wait(true)?;
    Ok(runner.failed())
}

/// Returns the configured flux-imp.
fn imp_path(handle: &mut Handle) -> Result<String, CmdError> {
    let config: Value = handle.call("config.get", NODEID_ANY, &json!({}))?;
    match config.pointer("/exec/imp").and_then(Value::as_str) {
        Some(path) => Ok(path.to_owned()),
        None => fail("--with-imp: exec.imp path not found in config"),
    }
}

fn environment(ctx: &Ctx) -> Map<String, Value> {
    ctx.env
        .iter()
        .filter_map(|(key, value)| Some((key.to_str()?.to_owned(), Value::from(value.to_str()?))))
        // Each broker tells its own processes where it is.
        .filter(|(key, _)| key != "FLUX_URI")
        .collect()
}

fn command_object(ctx: &Ctx, matches: &ArgMatches, words: &[String]) -> Result<Value, CmdError> {
    let cwd = match text(matches, "dir") {
        Some(dir) => dir.to_owned(),
        None => std::env::current_dir()
            .map_err(CmdError::file("working directory"))?
            .to_string_lossy()
            .into_owned(),
    };
    let mut opts = Map::new();
    for option in list(matches, "setopt") {
        let (key, value) = option.split_once('=').unwrap_or((option, "1"));
        opts.insert(key.to_owned(), Value::from(value));
    }
    let mut command = json!({
        "cwd": cwd,
        "cmdline": words,
        "env": environment(ctx),
        "opts": opts,
        "channels": [],
    });
    if let (Some(label), Some(object)) = (text(matches, "label"), command.as_object_mut()) {
        object.insert("label".to_owned(), json!(label));
    }
    Ok(command)
}
