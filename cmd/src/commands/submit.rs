//! `flux submit`: submit one job or many copies of it, and wait for them or watch them when asked.

use std::ffi::OsString;
use std::io::Write;

use clap::{Arg, ArgMatches, Command};
use flux_formats::idset::IdSet;
use serde_json::Value;

use crate::common::args::{flag, list, text, trailing, value};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, usage};
use crate::common::json::python;
use crate::submission::{self, After, Job, Process, Request};

pub(super) fn args(command: Command) -> Command {
    with_copies(command).arg(trailing("command", true, "Job command and arguments"))
}

/// Adds everything but the command; for `bulksubmit` too.
pub(super) fn with_copies(command: Command) -> Command {
    let command = submission::add_stdio(submission::add_common(command));
    let command = submission::add_shape(submission::add_dry_run(command));
    command
        .arg(value(
            "cc",
            None,
            "IDSET",
            "Replicate job for each ID in IDSET (FLUX_JOB_CC=ID is set in each job)",
        ))
        .arg(value(
            "bcc",
            None,
            "IDSET",
            "Like --cc, but FLUX_JOB_CC is not set",
        ))
        .arg(value(
            "wait-event",
            None,
            "NAME",
            "Wait for event NAME for all jobs after submission",
        ))
        .arg(flag(
            "wait",
            None,
            "Wait for all jobs to complete after submission (same as --wait-event=clean)",
        ))
        .arg(flag("watch", None, "Watch all job output (implies --wait)"))
        .arg(value(
            "log",
            None,
            "FILE",
            "Print program log messages (e.g. submitted jobid) to FILE",
        ))
        .arg(value("log-stderr", None, "FILE", "Send standard error to FILE"))
        .arg(flag(
            "progress",
            None,
            "Show progress of job submission or completion (with --wait)",
        ))
        .arg(flag("jps", None, "With --progress, show job throughput"))
        .arg(Arg::new("cc-value").long("cc-value").hide(true))
}

/// The copies of one command line.
#[derive(Debug)]
pub(super) enum Copies {
    /// The job itself.
    One,
    /// `--cc`, with FLUX_JOB_CC in each job's environment.
    Cc(IdSet),
    /// `--bcc`
    Bcc(IdSet),
}

impl Copies {
    pub(super) fn from_matches(matches: &ArgMatches) -> Result<Self, CmdError> {
        let idset = |option: &str| -> Result<Option<IdSet>, CmdError> {
            match text(matches, option).map(str::parse::<IdSet>) {
                None => Ok(None),
                Some(Ok(set)) if !set.is_empty() => Ok(Some(set)),
                Some(_) => usage(format!(
                    "--{option}: invalid idset '{}'",
                    text(matches, option).unwrap_or("")
                )),
            }
        };
        match (idset("cc")?, idset("bcc")?) {
            (Some(_), Some(_)) => usage("specify only one of --cc or --bcc"),
            (Some(set), None) => Ok(Copies::Cc(set)),
            (None, Some(set)) => Ok(Copies::Bcc(set)),
            (None, None) => Ok(Copies::One),
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Copies::One => 1,
            Copies::Cc(set) | Copies::Bcc(set) => usize::try_from(set.count()).unwrap_or(usize::MAX),
        }
    }

    pub(super) fn ids(&self) -> Vec<Option<u32>> {
        match self {
            Copies::One => vec![None],
            Copies::Cc(set) | Copies::Bcc(set) => set.iter().map(Some).collect(),
        }
    }

    fn sets_variable(&self) -> bool {
        matches!(self, Copies::Cc(_))
    }
}

/// Makes the jobs of one command line, one copy after the other.
pub(super) struct Maker<'a> {
    words: Vec<OsString>,
    process: &'a Process,
    copies: Copies,
    /// The request that all copies share, when nothing in the words depends on the copy.
    shared: Option<(Request, Option<String>, Option<String>)>,
    define: fn(Command) -> Command,
}

impl<'a> Maker<'a> {
    pub(super) fn new(
        words: Vec<OsString>,
        matches: &ArgMatches,
        process: &'a Process,
        define: fn(Command) -> Command,
    ) -> Result<Self, CmdError> {
        let copies = Copies::from_matches(matches)?;
        let depends = words.iter().any(|word| word.to_string_lossy().contains("{cc}"));
        let shared = if depends {
            None
        } else {
            let request = submission::build(matches, &list(matches, "command"), process)?;
            Some((request, log_of(matches, "log"), log_of(matches, "log-stderr")))
        };
        Ok(Maker {
            words,
            process,
            copies,
            shared,
            define,
        })
    }

    pub(super) fn copies(&self) -> &Copies {
        &self.copies
    }

    /// Returns the request of one copy and its log files.
    pub(super) fn request(
        &self,
        cc: Option<u32>,
    ) -> Result<(Request, Option<String>, Option<String>), CmdError> {
        let (mut request, log, log_stderr) = match (&self.shared, cc) {
            (Some(shared), _) => shared.clone(),
            (None, cc) => {
                let cc = cc.map_or_else(String::new, |cc| cc.to_string());
                let words: Vec<OsString> = self
                    .words
                    .iter()
                    .map(|word| OsString::from(word.to_string_lossy().replace("{cc}", &cc)))
                    .collect();
                let matches = self.parse(&words)?;
                let request = submission::build(&matches, &list(&matches, "command"), self.process)?;
                (request, log_of(&matches, "log"), log_of(&matches, "log-stderr"))
            }
        };
        if let (Some(cc), true) = (cc, self.copies.sets_variable()) {
            set_cc(&mut request.jobspec, cc);
        }
        Ok((request, log, log_stderr))
    }

    fn parse(&self, words: &[OsString]) -> Result<ArgMatches, CmdError> {
        let command = (self.define)(Command::new("flux").infer_long_args(true));
        let words = std::iter::once(OsString::from("flux")).chain(words.iter().cloned());
        command
            .try_get_matches_from(words)
            .or_else(|err| usage(err.to_string()))
    }

    pub(super) fn job(&self, cc: Option<u32>) -> Result<Job, CmdError> {
        let (request, log, log_stderr) = self.request(cc)?;
        Ok(Job {
            jobspec: request.jobspec.to_string(),
            urgency: request.urgency,
            flags: request.flags,
            log,
            log_stderr,
        })
    }
}

fn log_of(matches: &ArgMatches, option: &str) -> Option<String> {
    text(matches, option).map(str::to_owned)
}

/// Puts the number of the copy into the job's environment.
fn set_cc(jobspec: &mut Value, cc: u32) {
    if let Some(Value::Object(environment)) = jobspec.pointer_mut("/attributes/system/environment") {
        environment.insert("FLUX_JOB_CC".to_owned(), Value::String(cc.to_string()));
    }
}

/// Reads what is to be done after submitting; `total` is the number of jobs.
pub(super) fn after(matches: &ArgMatches, total: usize) -> Result<After, CmdError> {
    let watch = matches.get_flag("watch");
    let wait = matches.get_flag("wait");
    let event = text(matches, "wait-event").map(str::to_owned);
    if wait && event.is_some() {
        return usage("--wait and --wait-event cannot be used together");
    }
    let progress = matches.get_flag("progress");
    if matches.get_flag("jps") && !progress {
        return usage("--jps can only be used with --progress");
    }
    Ok(After {
        quiet: matches.get_flag("quiet"),
        wait_event: event.or_else(|| wait.then(|| "clean".to_owned())),
        watch,
        label: matches.get_flag("label-io"),
        verbose: matches.get_count("verbose"),
        progress: progress.then_some(total),
        jps: matches.get_flag("jps"),
    })
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let process = Process::current(&ctx.env)?;
    let maker = Maker::new(ctx.words.clone(), matches, &process, args)?;
    let ids = maker.copies().ids();
    if matches.get_flag("dry-run") {
        let mut out = stdout();
        for cc in ids {
            writeln!(out, "{}", python(&maker.request(cc)?.0.jobspec)?)?;
        }
        out.flush()?;
        return Ok(0);
    }
    let after = after(matches, ids.len())?;
    submission::submit_all(ctx, ids.into_iter().map(|cc| maker.job(cc)), after)
}
