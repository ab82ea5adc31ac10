//! `flux job status`, `wait`, `submit`, `taskmap`, `hostpids`: how did jobs end, and where do their tasks run?

use std::io::{Read, Write};

use clap::{ArgMatches, Command};
use flux_client::Incoming;
use flux_client::job::{self, JOBID_ANY, URGENCY_DEFAULT, WaitResult};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::jobstate::exit_code;
use serde::Deserialize;
use serde_json::{Value, json};

use super::eventlog::wait_for_event;
use crate::attach::{Many, Options, Sink, Summary};
use crate::common::args::{
    flag, list, operand, operand_optional, operands, parsed, required, text, value, values, verbose,
    verbosity,
};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::eventlog::parse as parse_event;
use crate::common::jobid::{f58, parse};
use crate::submission::{self, Job, SignOptions, parse_urgency};

pub(super) fn status_args(command: Command) -> Command {
    verbose(command)
        .arg(value(
            "exception-exit-code",
            Some('e'),
            "N",
            "Set the exit code for jobs that ended by an exception without running (default 1)",
        ))
        .arg(flag(
            "json",
            Some('j'),
            "Dump job result information gleaned from eventlog to stdout",
        ))
        .arg(operands("id", 1, "Jobs"))
}

pub(super) fn status(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let exception_code: u8 = parsed(matches, "exception-exit-code")?.unwrap_or(1);
    let loud = verbosity(matches)? > 0;
    let mut handle = ctx.open()?;
    let (mut many, mut sink) = (Many::default(), Sink::default());
    let ids: Vec<JobId> = list(matches, "id")
        .into_iter()
        .map(parse)
        .collect::<Result<_, _>>()?;
    for id in &ids {
        let options = Options {
            quiet: true,
            no_output: true,
            ..Options::default()
        };
        many.add(&mut handle, *id, options)?;
    }
    let mut ended = Vec::new();
    while many.len() > 0 {
        if let Some(Incoming::Response(message)) = handle.next_incoming(None)?
            && let Some(summary) = many.on_response(&mut handle, &message, &mut sink)?
        {
            ended.push(summary);
        }
    }
    let mut code = 0;
    let mut out = stdout();
    for id in &ids {
        let Some(summary) = ended.iter().find(|summary| summary.id == *id) else {
            continue;
        };
        let own = if summary.status.is_none() && summary.fatal.is_some() {
            exception_code
        } else {
            summary.code
        };
        code = code.max(own);
        if matches.get_flag("json") {
            writeln!(out, "{}", result_json(summary))?;
        }
        if loud {
            ctx.warn(match (&summary.fatal, summary.status) {
                (Some(exception), _) => format!("{}: exception type={}", f58(*id), exception.kind),
                (None, status) => {
                    format!(
                        "{}: exited with exit code {}",
                        f58(*id),
                        exit_code(status.unwrap_or(0))
                    )
                }
            });
        }
    }
    out.flush()?;
    Ok(code)
}

fn result_json(summary: &Summary) -> Value {
    let status = summary.status.unwrap_or(0);
    let mut result = json!({
        "id": summary.id.0,
        "success": summary.code == 0,
        "exception_occurred": summary.fatal.is_some(),
        "waitstatus": status,
        "exit_code": summary.code,
    });
    if let (Some(exception), Some(object)) = (&summary.fatal, result.as_object_mut()) {
        object.insert("exception_type".to_owned(), json!(exception.kind));
        object.insert("exception_note".to_owned(), json!(exception.note));
    }
    result
}

pub(super) fn wait_args(command: Command) -> Command {
    command
        .arg(flag("all", Some('a'), "Wait for all (waitable) jobs"))
        .arg(flag(
            "verbose",
            Some('v'),
            "Emit a line of output for all jobs, not just failing ones",
        ))
        .arg(operand_optional(
            "id",
            "Job (default: the next waitable one that ends)",
        ))
}

pub(super) fn wait(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    if matches.get_flag("all") {
        if text(matches, "id").is_some() {
            return usage("jobid not supported with --all");
        }
        return wait_all(ctx, &mut handle, matches.get_flag("verbose"));
    }
    let id = match text(matches, "id") {
        Some(text) => parse(text)?.0,
        None => JOBID_ANY,
    };
    let rpc = job::wait_start(&mut handle, id)?;
    match handle.get::<WaitResult>(&rpc) {
        Ok(result) => {
            if text(matches, "id").is_none() {
                writeln!(stdout(), "{}", f58(JobId(result.id.cast_unsigned())))?;
            }
            if result.success {
                Ok(0)
            } else {
                fail(result.errstr)
            }
        }
        Err(flux_client::Error::Rpc(err)) if err.errnum == errno::ECHILD => Err(CmdError::Exit {
            text: if id == JOBID_ANY {
                "there are no more waitable jobs".to_owned()
            } else {
                "invalid job id, or job may be inactive and not waitable".to_owned()
            },
            code: 2,
        }),
        Err(err) => Err(err.into()),
    }
}

fn wait_all(ctx: &Ctx, handle: &mut flux_client::Handle, loud: bool) -> CmdResult {
    let mut code = 0;
    loop {
        let rpc = job::wait_start(handle, JOBID_ANY)?;
        let result: WaitResult = match handle.get(&rpc) {
            Ok(result) => result,
            Err(err) if err.is_rpc(errno::ECHILD) => return Ok(code),
            Err(err) => return Err(err.into()),
        };
        let id = f58(JobId(result.id.cast_unsigned()));
        if !result.success {
            ctx.warn(format!("{id}: {}", result.errstr));
            code = 1;
        } else if loud {
            ctx.warn(format!("{id}: job completed successfully"));
        }
    }
}

pub(super) fn submit_args(command: Command) -> Command {
    command
        .arg(value(
            "urgency",
            Some('u'),
            "N",
            "Set job urgency (0-31), hold=0, default=16, expedite=31",
        ))
        .arg(values(
            "flags",
            Some('f'),
            "FLAGS",
            "Set submit comma-separated flags: debug, waitable, novalidate, signed",
        ))
        .arg(value(
            "security-config",
            Some('c'),
            "PATTERN",
            "Use non-default security config glob",
        ))
        .arg(value(
            "sign-type",
            Some('s'),
            "TYPE",
            "Use non-default mechanism type to sign J",
        ))
        .arg(operand_optional("file", "Jobspec; standard input if absent or -"))
}

pub(super) fn submit(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut input = String::new();
    match text(matches, "file") {
        None | Some("-") => {
            std::io::stdin()
                .read_to_string(&mut input)
                .map_err(CmdError::file("standard input"))?;
        }
        Some(path) => input = std::fs::read_to_string(path).map_err(CmdError::file(path))?,
    }
    if input.trim().is_empty() {
        return fail("required jobspec is empty");
    }
    let (mut flags, mut signed) = (0, false);
    for name in list(matches, "flags").iter().flat_map(|flags| flags.split(',')) {
        match name {
            "debug" => flags |= job::submit_flags::DEBUG,
            "waitable" => flags |= job::submit_flags::WAITABLE,
            "novalidate" => flags |= job::submit_flags::NOVALIDATE,
            "signed" => signed = true,
            other => return usage(format!("unknown flag: {other}")),
        }
    }
    let sign = SignOptions {
        mechanism: text(matches, "sign-type").map(str::to_owned),
        config: text(matches, "security-config").map(str::to_owned),
    };
    let urgency = text(matches, "urgency").map_or(Ok(URGENCY_DEFAULT), parse_urgency)?;
    let mut handle = ctx.open()?;
    let id = if signed {
        JobId(job::submit(&mut handle, input.trim_end(), urgency, flags)?)
    } else {
        let job = Job {
            jobspec: input.trim_end().to_owned(),
            urgency,
            flags,
            log: None,
            log_stderr: None,
        };
        match submission::submit_signed(&mut handle, &job, &sign) {
            Err(CmdError::Text(text)) => {
                // The original's C program leaves the number out.
                let words = text.split_once("] ").map_or(text.as_str(), |(_, words)| words);
                return fail(words);
            }
            other => other?,
        }
    };
    writeln!(stdout(), "{}", f58(id))?;
    Ok(0)
}

pub(super) fn taskmap_args(command: Command) -> Command {
    command
        .arg(value(
            "taskids",
            None,
            "NODEID",
            "Print idset of tasks on node NODEID",
        ))
        .arg(value(
            "ntasks",
            None,
            "NODEID",
            "Print number of tasks on node NODEID",
        ))
        .arg(value(
            "nodeid",
            None,
            "TASKID",
            "Print the shell rank/nodeid on which a taskid executed",
        ))
        .arg(value(
            "hostname",
            None,
            "TASKID",
            "Print the hostname on which a taskid executed",
        ))
        .arg(value(
            "to",
            None,
            "FORMAT",
            "Convert an RFC 34 taskmap to another format (raw, pmi, multiline)",
        ))
        .arg(operand("id", "Job, or a taskmap"))
}

pub(super) fn taskmap(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    #[derive(Deserialize)]
    struct Context {
        taskmap: Value,
    }
    let word = required(matches, "id");
    let id = parse(word);
    let map = match &id {
        Ok(id) => {
            let line = wait_for_event(&mut ctx.open()?, *id, "guest.exec.eventlog", "shell.start")?;
            let context: Context = parse_event(&line)?
                .context_as()
                .map_err(CmdError::json("shell.start event"))?;
            context.taskmap.get("map").cloned().unwrap_or(context.taskmap)
        }
        Err(_) => serde_json::from_str(word).unwrap_or_else(|_| Value::String(word.to_owned())),
    };
    let host = |nodeid: u32| -> Result<String, CmdError> {
        let id = match &id {
            Ok(id) => *id,
            Err(_) => return fail("--hostname needs a job id"),
        };
        let text = job::lookup(&mut ctx.open()?, id.0, "R", 0)?;
        let r: Value = serde_json::from_str(&text).map_err(CmdError::json("R"))?;
        let lists = r.pointer("/execution/nodelist").and_then(Value::as_array);
        let names: Vec<&str> = lists.into_iter().flatten().filter_map(Value::as_str).collect();
        let Ok(hosts) = names.join(",").parse::<flux_formats::hostlist::Hostlist>() else {
            return fail("R has an invalid nodelist");
        };
        hosts
            .nth(u64::from(nodeid))
            .map_or_else(|| fail(format!("no host for node {nodeid}")), Ok)
    };
    writeln!(stdout(), "{}", taskmap_text(matches, &map, host)?)?;
    Ok(0)
}

fn taskmap_text(
    matches: &ArgMatches,
    map: &Value,
    host: impl Fn(u32) -> Result<String, CmdError>,
) -> Result<String, CmdError> {
    use flux_formats::taskmap::Taskmap;
    let encoded = match map {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let tasks: Taskmap = match encoded.parse() {
        Ok(tasks) => tasks,
        Err(err) => return fail(format!("error decoding taskmap: {err}")),
    };
    if let Some(node) = parsed::<u32>(matches, "taskids")? {
        return Ok(tasks.task_ids(node).to_string());
    }
    if let Some(node) = parsed::<u32>(matches, "ntasks")? {
        return Ok(tasks.task_count(node).to_string());
    }
    if let Some(task) = parsed::<u32>(matches, "nodeid")? {
        return tasks.nodeid(task).map_or_else(
            || fail(format!("No nodeid for task {task}")),
            |node| Ok(node.to_string()),
        );
    }
    if let Some(task) = parsed::<u32>(matches, "hostname")? {
        return tasks
            .nodeid(task)
            .map_or_else(|| fail(format!("No nodeid for task {task}")), host);
    }
    text_of_format(text(matches, "to"), &tasks)
}

fn text_of_format(format: Option<&str>, tasks: &flux_formats::taskmap::Taskmap) -> Result<String, CmdError> {
    use flux_formats::taskmap::Form;
    let form = match format {
        None => Form::Taskmap,
        Some("raw") => Form::Raw,
        Some("pmi") => Form::Pmi,
        Some("multiline") => Form::Multiline,
        Some(other) => {
            return usage(format!(
                "invalid value '{other}' for --to (use raw, pmi or multiline)"
            ));
        }
    };
    tasks.encode(form).or_else(|err| fail(err.to_string()))
}

pub(super) fn hostpids_args(command: Command) -> Command {
    command
        .arg(value(
            "delimiter",
            Some('d'),
            "STRING",
            "Set delimiter (default: ,)",
        ))
        .arg(value(
            "ranks",
            Some('r'),
            "IDSET",
            "Limit output to task ranks in IDSET",
        ))
        .arg(value("timeout", Some('t'), "DURATION", "timeout after DURATION"))
        .arg(operand("id", "Job"))
}

pub(super) fn hostpids(_ctx: &Ctx, _matches: &ArgMatches) -> CmdResult {
    fail("hostpids is not available yet in this version: the job shell has no process table service")
}
