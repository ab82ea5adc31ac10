//! `flux watch`: follow the output of jobs until they have ended.

use std::io::{self, IsTerminal, Write};

use clap::{Arg, ArgAction, ArgMatches, Command};
use flux_client::{Handle, Incoming};
use flux_formats::jobid::JobId;

use crate::attach::{Many, Options, Sink, describe_exit};
use crate::common::args::{flag, list, operands, parsed, text, value, values};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, usage};
use crate::common::jobid::f58;
use crate::common::progress::Progress;
use crate::common::time::{now, parse_datetime};
use crate::joblist::{Filter, Query, fetch_ids, list_jobs};

pub(super) fn args(command: Command) -> Command {
    command
        .arg(flag("active", Some('a'), "Watch all active jobs for current user"))
        .arg(flag(
            "all",
            Some('A'),
            "Watch all jobs for current user in all states including inactive",
        ))
        .arg(value("count", Some('c'), "N", "Limit to N jobs (default: no limit)"))
        .arg(values(
            "filter",
            Some('f'),
            "STATE|RESULT",
            "Watch jobs with specific job state or result",
        ))
        .arg(value(
            "since",
            None,
            "WHEN",
            "Include only jobs that have been inactive since WHEN (implies -A if no other --filter option is specified)",
        ))
        .arg(flag("progress", None, "Show progress bar"))
        .arg(flag("jps", None, "Display jobs/s instead of elapsed time"))
        .arg(flag("label-io", Some('l'), "Label lines of output with task id"))
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::Count)
                .help("Increase verbosity: -v tells when jobs end, -vv shows their events"),
        )
        .arg(operands("jobid", 0, "Watch specific jobs"))
}

fn choose(ctx: &Ctx, handle: &mut Handle, matches: &ArgMatches) -> Result<Vec<JobId>, CmdError> {
    let ids = list(matches, "jobid");
    let words = list(matches, "filter");
    let since = match text(matches, "since") {
        None => 0.0,
        Some(text) => parse_datetime(text, now())?,
    };
    if since > now() {
        return usage(format!(
            "--since={} appears to be in the future",
            text(matches, "since").unwrap_or("")
        ));
    }
    let mut filter = if words.is_empty() {
        None
    } else {
        Some(Filter::parse(&words)?)
    };
    if matches.get_flag("active") {
        filter = Some(filter.map_or(Filter::ACTIVE, |filter| filter.or(Filter::ACTIVE)));
    }
    if matches.get_flag("all") || (text(matches, "since").is_some() && filter.is_none()) {
        filter = Some(Filter::ALL);
    }
    if !ids.is_empty() {
        if filter.is_some() || matches.contains_id("count") {
            ctx.warn("WARNING: Filtering options ignored with jobid list");
        }
        let (records, errors) = fetch_ids(handle, &ids, &["state"])?;
        for error in errors {
            ctx.report(&error);
        }
        return Ok(records.into_iter().map(|record| JobId(record.id)).collect());
    }
    let Some(filter) = filter else {
        return Err(CmdError::Exit {
            text:
                "At least one job selection option is required\nTry 'flux watch --help' for more information."
                    .to_owned(),
            code: 1,
        });
    };
    let query = Query {
        filter,
        since,
        max_entries: parsed(matches, "count")?.unwrap_or(0),
        ..Query::default()
    };
    let mut ids: Vec<JobId> = list_jobs(handle, &query, &["state"])?
        .into_iter()
        .map(|record| JobId(record.id))
        .collect();
    // oldest first: their output comes first
    ids.sort_unstable();
    Ok(ids)
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let ids = choose(ctx, &mut handle, matches)?;
    if ids.is_empty() {
        ctx.warn("INFO: No matching jobs");
        return Ok(0);
    }
    let verbose = matches.get_count("verbose");
    if verbose > 0 {
        ctx.warn(format!("INFO: Watching {} jobs", ids.len()));
    }
    let mut progress = matches.get_flag("progress");
    if progress && !io::stdout().is_terminal() {
        ctx.warn("WARNING: stdout is not a tty. Ignoring --progress option");
        progress = false;
    }
    let mut bar = progress.then(|| Progress::new(ids.len(), matches.get_flag("jps")));
    let (mut many, mut sink) = (Many::default(), Sink::default());
    let label = matches.get_flag("label-io");
    for id in &ids {
        let prefix = if label && ids.len() > 1 {
            format!("{}: ", f58(*id))
        } else {
            String::new()
        };
        let options = Options {
            label,
            show_events: verbose > 1,
            quiet: true,
            prefix,
            ..Options::default()
        };
        many.add(&mut handle, *id, options)?;
        if let Some(bar) = &mut bar {
            bar.started();
        }
    }
    let mut code = 0;
    while many.len() > 0 {
        let Some(Incoming::Response(message)) = handle.next_incoming(None)? else {
            continue;
        };
        if let Some(summary) = many.on_response(&mut handle, &message, &mut sink)? {
            code = code.max(summary.code);
            if verbose > 0 {
                let how = match (&summary.fatal, summary.status) {
                    (Some(exception), _) => format!("exception: type={} {}", exception.kind, exception.note),
                    (None, Some(status)) => describe_exit(status),
                    (None, None) => "ended".to_owned(),
                };
                sink.error_line(&format!("{}: {how}", f58(summary.id)));
            }
            if let Some(bar) = &mut bar {
                bar.finished(summary.code == 0);
            }
        }
        show(&mut sink, bar.as_mut())?;
    }
    if let Some(bar) = &mut bar {
        bar.finish();
    }
    Ok(code)
}

fn show(sink: &mut Sink, bar: Option<&mut Progress>) -> Result<(), CmdError> {
    if sink.out.is_empty() && sink.err.is_empty() {
        return Ok(());
    }
    if let Some(bar) = bar {
        bar.clear();
    }
    let mut out = io::stdout();
    out.write_all(&sink.out)?;
    out.flush()?;
    // nobody is left to tell when standard error cannot be written
    let _gone = io::stderr().write_all(&sink.err);
    sink.out.clear();
    sink.err.clear();
    Ok(())
}
