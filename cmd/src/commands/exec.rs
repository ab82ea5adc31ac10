//! `flux exec`: run a command on brokers.

mod runner;

use clap::{ArgMatches, Command};
use flux_client::job::{self, WatchEvent, watch_flags};
use flux_client::{Handle, NODEID_ANY, attr};
use flux_formats::errno::ENOENT;
use flux_formats::idset::IdSet;
use flux_formats::rpc::rexec::AttachRequest;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use runner::{How, Runner};

use super::sproc::target;

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
        .arg(flag(
            "attach",
            None,
            "Attach to a background process, named by its PID or label",
        ))
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

/// The background process of `--attach`.
#[derive(Debug)]
struct Target {
    word: String,
    request: AttachRequest,
}

impl Target {
    fn new(matches: &ArgMatches, words: &[String]) -> Result<Self, CmdError> {
        if matches.get_flag("bg") || matches.get_flag("waitable") {
            return usage("--attach cannot be used with --bg or --waitable");
        }
        let [word] = words else {
            return usage("--attach takes a single pid or label argument");
        };
        let (pid, label) = target(word);
        let flags = STDOUT | STDERR;
        Ok(Target {
            word: word.clone(),
            request: AttachRequest { pid, label, flags },
        })
    }

    /// Returns what errors call it.
    fn name(&self) -> String {
        let kind = if self.request.label.is_some() {
            "label"
        } else {
            "pid"
        };
        format!("{kind} {}", self.word)
    }
}

/// The job of `--jobid`: its ranks, and the service of its shells.
#[derive(Debug)]
struct Shells {
    ranks: IdSet,
    service: String,
}

/// Asks for the ranks of a running job, and waits until its shells serve.
fn shells(handle: &mut Handle, word: &str) -> Result<Shells, CmdError> {
    #[derive(Deserialize)]
    struct Listed {
        job: Job,
    }
    #[derive(Deserialize)]
    struct Job {
        state: u32,
        #[serde(default)]
        ranks: String,
    }
    const RUN: u32 = 16;
    let id = jobid::parse(word)?;
    let request = json!({ "id": id.0, "attrs": ["ranks", "state"] });
    let listed: Listed = match handle.call("job-list.list-id", NODEID_ANY, &request) {
        Err(err) if err.errnum() == ENOENT => return fail(format!("job {word} not found")),
        listed => listed?,
    };
    if listed.job.state != RUN {
        return fail(format!("job {word} is not currently running"));
    }
    let ranks: IdSet = listed.job.ranks.parse().unwrap_or_default();
    if ranks.is_empty() {
        return fail(format!("failed to get assigned ranks for {word}"));
    }
    let watch = job::eventlog_watch(handle, id.0, "guest.exec.eventlog", watch_flags::WAITCREATE)?;
    while let Some(event) = job::watch_next(handle, &watch)? {
        let WatchEvent::Event(line) = event else { continue };
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event.get("name").and_then(Value::as_str) != Some("shell.init") {
            continue;
        }
        job::watch_cancel(handle, &watch)?;
        handle.forget(watch);
        return match event.pointer("/context/service").and_then(Value::as_str) {
            Some(service) => Ok(Shells {
                ranks,
                service: format!("{service}.rexec"),
            }),
            None => fail("failed to get service from shell.init event"),
        };
    }
    fail(format!("failed to get shell.init event for {word}"))
}

/// Returns the ranks to run on.
fn targets(handle: &mut Handle, matches: &ArgMatches, of_job: Option<&IdSet>) -> Result<IdSet, CmdError> {
    let size = attr::get_u32(handle, "size")?;
    let ids = |option: &str, word: &str| -> Result<IdSet, CmdError> {
        word.parse()
            .or_else(|_| usage(format!("--{option}: invalid idset '{word}'")))
    };
    let all = of_job.cloned().unwrap_or_else(|| IdSet::first_n(size));
    // of a job, the first of its ranks is 0
    let chosen = |ids: IdSet| match of_job {
        Some(job) => ids.iter().filter_map(|index| job.nth(u64::from(index))).collect(),
        None => ids,
    };
    let mut ranks = match text(matches, "rank") {
        Some("all") | None => all,
        Some(word) => chosen(ids("rank", word)?),
    };
    if let Some(word) = text(matches, "exclude") {
        ranks = ranks.difference(&chosen(ids("exclude", word)?));
    }
    if ranks.is_empty() {
        return fail("No nodes specified.");
    }
    Ok(ranks)
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut words: Vec<String> = list(matches, "command").into_iter().map(str::to_owned).collect();
    let attach = matches
        .get_flag("attach")
        .then(|| Target::new(matches, &words))
        .transpose()?;
    let mut handle = ctx.open()?;
    let shells = text(matches, "jobid")
        .map(|word| shells(&mut handle, word))
        .transpose()?;
    let ranks = targets(&mut handle, matches, shells.as_ref().map(|shells| &shells.ranks))?;
    let of_job = shells.as_ref().map_or("rexec", |shells| &shells.service);
    let service = text(matches, "service").unwrap_or(of_job);
    let background = matches.get_flag("bg");
    let how = How {
        label: matches.get_flag("label-io"),
        quiet: matches.get_flag("quiet"),
        verbose: matches.get_flag("verbose"),
        input: !background && attach.is_none() && !matches.get_flag("noinput"),
    };
    if let Some(target) = attach {
        if target.request.label.is_none() && ranks.count() > 1 {
            return fail("--attach by pid requires a single target rank (use --rank)");
        }
        let mut runner = Runner::new(ctx, handle, service, &target.name(), how);
        runner.attach(&ranks, &json!(target.request), &target.word)?;
        return runner.wait(false);
    }
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
    let mut runner = Runner::new(ctx, handle, service, program(&words), how);
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
    let mut runner = Runner::new(ctx, handle, "rexec", program(words), how);
    let flags = STDOUT | STDERR | WRITE_CREDIT;
    runner.start(ranks, &json!({ "cmd": command, "flags": flags }), false)?;
    runner.wait(true)?;
    Ok(runner.failed())
}

/// Returns what errors call a command.
fn program(words: &[String]) -> &str {
    words.first().map(String::as_str).unwrap_or_default()
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
