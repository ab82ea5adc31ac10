//! `flux job attach`: follow a job, with input, output and ctrl-C.

use clap::{ArgMatches, Command};

use crate::attach::{Options, Session, attach, default_stdin};
use crate::common::args::{flag, operand, optional, required, text, value};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdResult, fail, usage};
use crate::common::jobid::parse;

/// Lines shown by `--tail` without a number.
const TAIL_DEFAULT: &str = "10";

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag("show-events", Some('E'), "Show job events on stderr"))
        .arg(flag("show-exec", Some('X'), "Show exec events on stderr"))
        .arg(flag("show-status", None, "Show job status line while pending"))
        .arg(value(
            "wait-event",
            Some('w'),
            "NAME",
            "Wait for event NAME before detaching from eventlog (default=clean)",
        ))
        .arg(flag("label-io", Some('l'), "Label output by rank"))
        .arg(flag("verbose", Some('v'), "Increase verbosity"))
        .arg(flag(
            "quiet",
            Some('q'),
            "Suppress warnings written to stderr from flux-job",
        ))
        .arg(flag(
            "read-only",
            Some('r'),
            "Disable reading stdin and capturing signals",
        ))
        .arg(flag("unbuffered", Some('u'), "Disable buffering of stdin"))
        .arg(value(
            "stdin-ranks",
            Some('i'),
            "RANKS",
            "Send standard input to only RANKS (default: all)",
        ))
        .arg(optional(
            "tail",
            None,
            "NUM",
            TAIL_DEFAULT,
            "Show only the last NUM lines of output so far",
        ))
        .arg(flag(
            "debug",
            None,
            "Enable parallel debugger to attach to a running job",
        ))
        .arg(operand("id", "Job"))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    if matches.get_flag("debug") {
        return fail("--debug is not available yet in this version");
    }
    let id = parse(required(matches, "id"))?;
    let tail = match text(matches, "tail").map(str::parse) {
        None => None,
        Some(Ok(lines)) => Some(lines),
        Some(Err(_)) => return usage("--tail needs a number of lines"),
    };
    let ranks = text(matches, "stdin-ranks");
    if let Some(ranks) = ranks
        && ranks != "all"
        && ranks.parse::<flux_formats::idset::IdSet>().is_err()
    {
        return usage(format!("Invalid value '{ranks}' for --stdin-ranks"));
    }
    let read_only = matches.get_flag("read-only");
    if read_only && ranks.is_some() {
        return usage("Do not use --stdin-ranks with --read-only");
    }
    let stdin_ranks = if read_only {
        None
    } else {
        ranks.map(str::to_owned).or_else(default_stdin)
    };
    let session = Session {
        options: Options {
            show_events: matches.get_flag("show-events"),
            show_exec: matches.get_flag("show-exec"),
            label: matches.get_flag("label-io"),
            verbose: matches.get_flag("verbose"),
            quiet: matches.get_flag("quiet"),
            wait_event: text(matches, "wait-event").map(str::to_owned),
            ..Options::default()
        },
        stdin_ranks,
        tail,
    };
    attach(ctx, &mut ctx.open()?, id, session)
}
