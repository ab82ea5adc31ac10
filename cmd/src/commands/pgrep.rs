//! `flux pgrep` and `flux pkill`: find or cancel jobs by their names.

use std::io::Write;

use clap::{ArgMatches, Command};
use flux_client::{Handle, Incoming, job};
use flux_formats::jobid::JobId;
use regex_lite::Regex;

use crate::attach::{Many, Options, Sink};
use crate::common::args::{flag, list, operands, parsed, text, value, values};
use crate::common::catalogue::Catalogue;
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, usage};
use crate::common::format::Format;
use crate::common::jobid::{f58, parse};
use crate::common::time::now;
use crate::common::user;
use crate::joblist::{Filter, JobFields, Query, Record, attrs, fetch_instances, list_jobs, needs_instance};

/// Jobs that are looked at when nobody says how many.
const ENTRIES_DEFAULT: u64 = 1000;

const FORMATS: Catalogue = Catalogue {
    program: "flux-pgrep",
    file: "flux-jobs",
    table: None,
    variable: "FLUX_PGREP_FORMAT_DEFAULT",
    builtin: &[
        ("default", "Default flux-pgrep format string", "{id.f58}"),
        (
            "full",
            "full flux-pgrep format string",
            "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} {status_abbrev:>2.2} {ntasks:>6} {nnodes:>6h} \
             {contextual_time!F:>8h} {contextual_info}",
        ),
        (
            "long",
            "Extended flux-pgrep format string",
            "{id.f58:>12} ?:{queue:<8.8} +:{username:<8} {name:<10.10+} {status:>9.9} {ntasks:>6} {nnodes:>6h} \
             {t_submit!d:%b%d %R::>12} {t_remaining!F:>12h} {contextual_time!F:>8h} {contextual_info}",
        ),
        (
            "deps",
            "Show job urgency, priority, and dependencies",
            "{id.f58:>12} ?:{queue:<8.8} {name:<10.10+} {urgency:<3} {priority:<12} {state:<8.8} {dependencies}",
        ),
    ],
};

fn selection(command: Command) -> Command {
    command
        .arg(flag("A", Some('A'), "Target all users"))
        .arg(value(
            "user",
            Some('u'),
            "USERNAME|UID",
            "Limit output to specific username or userid (Specify \"all\" for all users)",
        ))
        .arg(values(
            "filter",
            Some('f'),
            "STATE|RESULT",
            "List jobs with specific job state or result",
        ))
        .arg(values(
            "queue",
            Some('q'),
            "QUEUE,...",
            "Limit output to specific queue or queues",
        ))
        .arg(value(
            "count",
            Some('c'),
            "N",
            "Limit output to the first N matches",
        ))
        .arg(value(
            "max-entries",
            None,
            "N",
            "Limit number of searched jobs to N entries (default: 1000)",
        ))
        .arg(operands(
            "expression",
            1,
            "Regular expression for the job's name, or a range of ids FIRST..LAST",
        ))
}

pub(super) fn pgrep_args(command: Command) -> Command {
    selection(command)
        .arg(flag("a", Some('a'), "Target jobs in all states"))
        .arg(flag("no-header", Some('n'), "Suppress printing of header line"))
        .arg(value(
            "format",
            Some('o'),
            "FORMAT",
            "Specify output format using Python's string format syntax or a defined format by name (use 'help' to get \
             a list of names)",
        ))
}

pub(super) fn pkill_args(command: Command) -> Command {
    selection(command)
        .arg(flag("a", Some('a'), "Target jobs in all states").hide(true))
        .arg(flag("wait", None, "Wait for jobs to finish after cancel"))
}

/// What jobs must be like.
#[derive(Debug, Default)]
struct Expression {
    name: Option<Regex>,
    range: Option<(JobId, JobId)>,
}

impl Expression {
    fn parse(words: &[&str]) -> Result<Self, CmdError> {
        let mut expression = Expression::default();
        for word in words {
            if !word.contains(':')
                && let Some((first, last)) = word.split_once("..")
                && let (Ok(first), Ok(last)) = (parse(first), parse(last))
            {
                expression.range = Some((first, last));
                continue;
            }
            if expression.name.is_some() {
                return usage("expression error: Only one pattern can be provided");
            }
            let pattern = word.strip_prefix("name:").unwrap_or(word);
            match Regex::new(pattern) {
                Ok(regex) => expression.name = Some(regex),
                Err(err) => return usage(format!("expression error: {pattern}: {err}")),
            }
        }
        Ok(expression)
    }

    fn matches(&self, job: &Record) -> bool {
        let name = job.name.as_deref().unwrap_or("");
        self.name.as_ref().is_none_or(|regex| regex.is_match(name))
            && self
                .range
                .is_none_or(|(first, last)| (first.0..=last.0).contains(&job.id))
    }
}

fn find(handle: &mut Handle, matches: &ArgMatches, wanted: &[&str]) -> Result<Vec<Record>, CmdError> {
    let expression = Expression::parse(&list(matches, "expression"))?;
    let words = list(matches, "filter");
    let mut filter = if words.is_empty() {
        Filter::ACTIVE
    } else {
        Filter::parse(&words)?
    };
    if matches.get_flag("a") {
        filter = Filter::ALL;
    }
    let userid = match text(matches, "user") {
        _ if matches.get_flag("A") => user::USERID_ALL,
        Some(name) => user::parse(name)?,
        None => user::own(),
    };
    let queues = list(matches, "queue")
        .into_iter()
        .flat_map(|queues| queues.split(','));
    let query = Query {
        filter,
        userid,
        queues: queues.map(str::to_owned).collect(),
        max_entries: parsed(matches, "max-entries")?.unwrap_or(ENTRIES_DEFAULT),
        ..Query::default()
    };
    let mut attributes = vec!["name"];
    attributes.extend(wanted.iter().filter(|attr| **attr != "name"));
    let mut jobs = list_jobs(handle, &query, &attributes)?;
    jobs.retain(|job| expression.matches(job));
    if let Some(count) = parsed(matches, "count")? {
        jobs.truncate(count);
    }
    if jobs.is_empty() {
        return Err(CmdError::Silent(1));
    }
    Ok(jobs)
}

pub(super) fn pgrep(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut out = stdout();
    let fields = JobFields::new(now());
    let Some(format_text) = FORMATS.choose(text(matches, "format"), &mut out)? else {
        return Ok(0);
    };
    let format = Format::parse(&format_text, &fields)?;
    let mut jobs = find(&mut ctx.open()?, matches, &attrs(format.fields(), false))?;
    if needs_instance(format.fields()) {
        fetch_instances(&mut jobs, None);
    }
    // Bare ids are for other programs.
    let bare = FORMATS
        .builtin
        .first()
        .is_some_and(|(_, _, default)| *default == format_text);
    let no_header = matches.get_flag("no-header") || bare;
    format.print(&fields, &mut jobs, no_header, false, &mut out)?;
    out.flush()?;
    Ok(0)
}

pub(super) fn pkill(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut handle = ctx.open()?;
    let jobs = find(&mut handle, matches, &[])?;
    let mut pending = Vec::with_capacity(jobs.len());
    for record in &jobs {
        let rpc = job::raise_start(&mut handle, record.id, "cancel", 0, None)?;
        pending.push((JobId(record.id), rpc));
    }
    let (mut canceled, mut code) = (Vec::new(), 0);
    for (id, rpc) in &pending {
        match handle.wait(rpc) {
            Ok(_) => canceled.push(*id),
            Err(flux_client::Error::Rpc(err)) => {
                ctx.report(&format!("{}: cancel: {}", f58(*id), err.message()));
                code = 1;
            }
            Err(err) => return Err(err.into()),
        }
    }
    let plural = if canceled.len() == 1 { "" } else { "s" };
    ctx.warn(format!("INFO: Canceled {} job{plural}", canceled.len()));
    if matches.get_flag("wait") {
        wait(&mut handle, &canceled)?;
    }
    Ok(code)
}

/// Waits until jobs have ended.
fn wait(handle: &mut Handle, ids: &[JobId]) -> Result<(), CmdError> {
    let (mut many, mut sink) = (Many::default(), Sink::default());
    for id in ids {
        let options = Options {
            quiet: true,
            no_output: true,
            ..Options::default()
        };
        many.add(handle, *id, options)?;
    }
    while many.len() > 0 {
        if let Some(Incoming::Response(message)) = handle.next_incoming(None)? {
            many.on_response(handle, &message, &mut sink)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let job = |id: u64, name: &str| Record {
            id,
            name: Some(name.to_owned()),
            ..Record::default()
        };
        let matches = |words: &[&str], id, name| Expression::parse(words).unwrap().matches(&job(id, name));
        assert!(matches(&["^sle+p"], 1, "sleep"));
        assert!(matches(&["name:eep$"], 1, "sleep"));
        assert!(!matches(&["^x"], 1, "sleep"));
        assert!(matches(&["10..20"], 15, "x"));
        assert!(!matches(&["10..20", "x"], 21, "x"));
        assert!(matches(&["a..b"], 1, "axxb"));
        for bad in [&["a", "b"][..], &["("]] {
            assert!(Expression::parse(bad).is_err(), "{bad:?}");
        }
    }
}
