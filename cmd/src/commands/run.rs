//! `flux run`: submit a job and stay with it until it has ended.

use std::io::Write;

use clap::{ArgMatches, Command};

use crate::attach::{Options, Session, attach, default_stdin};
use crate::common::args::{list, text, trailing, value};
use crate::common::ctx::{Ctx, eprint, stdout};
use crate::common::error::CmdResult;
use crate::common::jobid::f58;
use crate::common::json::python;
use crate::submission::{self, Job, Process};

pub(super) fn args(command: Command) -> Command {
    let command = submission::add_stdio(submission::add_common(command));
    let command = submission::add_shape(submission::add_dry_run(command));
    command
        .arg(value(
            "wait-event",
            None,
            "NAME",
            "Wait for event NAME before detaching from eventlog (default=clean)",
        ))
        .arg(trailing("command", true, "Job command and arguments"))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let process = Process::current(&ctx.env)?;
    let request = submission::build(matches, &list(matches, "command"), &process)?;
    if matches.get_flag("dry-run") {
        writeln!(stdout(), "{}", python(&request.jobspec)?)?;
        return Ok(0);
    }
    let verbose = matches.get_count("verbose");
    let job = Job {
        jobspec: request.jobspec.to_string(),
        urgency: request.urgency,
        flags: request.flags,
        log: None,
        log_stderr: None,
    };
    let mut handle = ctx.open()?;
    let id = submission::submit_one(&mut handle, &job)?;
    if verbose > 0 {
        eprint(format!("jobid: {}", f58(id)));
    }
    let session = Session {
        options: Options {
            show_events: verbose > 1,
            show_exec: verbose > 2,
            label: matches.get_flag("label-io"),
            verbose: verbose > 1,
            wait_event: text(matches, "wait-event").map(str::to_owned),
            ..Options::default()
        },
        stdin_ranks: request.stdin_ranks.or_else(default_stdin),
        tail: None,
    };
    attach(ctx, &mut handle, id, session)
}
