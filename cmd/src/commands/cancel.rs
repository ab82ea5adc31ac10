//! `flux cancel`: end jobs.

use clap::{ArgMatches, Command};
use flux_client::job;
use flux_formats::errno;
use flux_formats::jobstate::JobState;

use super::job::change::{Counted, raise_all, states};
use crate::common::args::{flag, list, operands, text, value};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, usage};
use crate::common::jobid::parse;
use crate::common::user;

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag("all", None, "Target all jobs").hide(true))
        .arg(flag(
            "dry-run",
            Some('n'),
            "Do not cancel any jobs, but print a message indicating how many jobs would have been canceled",
        ))
        .arg(flag(
            "quiet",
            Some('q'),
            "Do not print any output when canceling multiple jobs",
        ))
        .arg(value(
            "user",
            Some('u'),
            "USER",
            "Set target user or 'all' (instance owner only)",
        ))
        .arg(
            value(
                "states",
                Some('S'),
                "STATES",
                "List of job states to target (default=active)",
            )
            .short_alias('s'),
        )
        .arg(value("message", Some('m'), "NOTE", "Set optional exception note"))
        .arg(operands("jobid", 0, "Jobs"))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let ids = list(matches, "jobid");
    let note = text(matches, "message");
    let several = ["user", "states"]
        .iter()
        .any(|option| text(matches, option).is_some())
        || matches.get_flag("all");
    if !ids.is_empty() && several {
        return usage("Specify a list of jobids, or one of --all, --user, or --states");
    }
    if ids.is_empty() {
        if !several {
            return usage("Specify at least one jobid, or one of --all, --user, or --states");
        }
        return cancel_several(ctx, matches, note);
    }
    if matches.get_flag("dry-run") {
        report(
            ctx,
            matches,
            Counted {
                count: u64::try_from(ids.len()).unwrap_or(u64::MAX),
                errors: 0,
            },
        );
        return Ok(0);
    }
    let mut handle = ctx.open()?;
    let mut pending = Vec::with_capacity(ids.len());
    for name in ids {
        pending.push((
            name,
            job::raise_start(&mut handle, parse(name)?.0, "cancel", 0, note)?,
        ));
    }
    let mut code = 0;
    for (name, rpc) in &pending {
        match handle.wait(rpc) {
            Ok(_) => {}
            Err(flux_client::Error::Rpc(err)) => {
                let text = match err.errnum {
                    errno::ENOENT if err.text.is_none() => format!("{name}: unknown or inactive job"),
                    _ => format!("{name}: {}", err.message()),
                };
                ctx.report(&text);
                code = 1;
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok(code)
}

fn cancel_several(ctx: &Ctx, matches: &ArgMatches, note: Option<&str>) -> CmdResult {
    let userid = text(matches, "user").map_or(Ok(user::own()), user::parse)?;
    let mask = text(matches, "states").map_or(Ok(JobState::ACTIVE), states)?;
    let dry_run = matches.get_flag("dry-run");
    let counted =
        raise_all(&mut ctx.open()?, dry_run, userid, mask, 0, "cancel", note).map_err(|err| match err {
            CmdError::Client(source) => CmdError::Doing {
                what: "cancel".to_owned(),
                source,
            },
            other => other,
        })?;
    report(ctx, matches, counted);
    Ok(u8::from(counted.errors > 0))
}

fn report(ctx: &Ctx, matches: &ArgMatches, counted: Counted) {
    if matches.get_flag("quiet") {
        return;
    }
    let plural = if counted.count == 1 { "job" } else { "jobs" };
    if counted.count == 0 {
        ctx.warn("Matched 0 jobs");
    } else if matches.get_flag("dry-run") {
        ctx.warn(format!("Would cancel {} {plural}", counted.count));
    } else {
        let errors = if counted.errors == 1 { "error" } else { "errors" };
        ctx.warn(format!(
            "Canceled {} {plural} ({} {errors})",
            counted.count, counted.errors
        ));
    }
}
