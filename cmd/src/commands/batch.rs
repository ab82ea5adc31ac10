//! `flux batch`: submit a script that runs as the initial program of an instance of its own.

use std::ffi::OsString;
use std::io::{Read, Write};

use clap::{ArgMatches, Command};

use crate::common::args::{flag, list, trailing};
use crate::common::ctx::{Ctx, stdout};
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::jobid::f58;
use crate::common::json::python;
use crate::submission::{self, Job, Nested, Process};

/// File for standard output when `--output` names none.
const OUTPUT: &str = "flux-{{id}}.out";

pub(super) fn args(command: Command) -> Command {
    let command = submission::add_stdio(submission::add_common(command));
    submission::add_slots(submission::add_dry_run(command))
        .arg(flag("wrap", None, "Wrap arguments or stdin in a /bin/sh script"))
        .arg(trailing(
            "script",
            false,
            "Batch script and arguments to submit; standard input if absent",
        ))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let mut words = list(matches, "script");
    if words.first() == Some(&"--") {
        words.remove(0);
    }
    let wrap = matches.get_flag("wrap");
    let (name, text) = read(&words, wrap)?;
    // Options before the script prevail over those inside.
    let trailing = list(matches, "script").len();
    let own = ctx
        .words
        .get(..ctx.words.len().saturating_sub(trailing))
        .unwrap_or(&[]);
    let own = own.strip_suffix(&[OsString::from("--")]).unwrap_or(own);
    let all = if wrap && !words.is_empty() {
        own.to_vec()
    } else {
        submission::with_directives(&name, &text, own, |words| parse(words).map(|_| ()))?
    };
    let matches = match parse(&all) {
        Ok(matches) => matches,
        Err(text) => return usage(text),
    };
    let script = if matches.get_flag("wrap") {
        format!("#!/bin/sh\n{text}")
    } else {
        text
    };
    if !script.starts_with("#!") {
        return fail(format!("{name} does not appear to start with '#!'"));
    }
    let mut program = vec!["{{tmpdir}}/script".to_owned()];
    program.extend(words.iter().skip(1).map(|word| (*word).to_owned()));
    let nested = Nested {
        program,
        script: Some(&script),
        output: Some(OUTPUT),
        name: Some(words.first().map_or("batch", |word| *word).to_owned()),
        ..Nested::default()
    };
    let request = submission::build_nested(&matches, nested, &Process::current(&ctx.env)?)?;
    if matches.get_flag("dry-run") {
        writeln!(stdout(), "{}", python(&request.jobspec)?)?;
        return Ok(0);
    }
    let job = Job {
        jobspec: request.jobspec.to_string(),
        urgency: request.urgency,
        flags: request.flags,
        log: None,
        log_stderr: None,
    };
    let id = submission::submit_one(&mut ctx.open()?, &job)?;
    if !matches.get_flag("quiet") {
        writeln!(stdout(), "{}", f58(id))?;
    }
    Ok(0)
}

/// Returns the script and what messages call it.
fn read(words: &[&str], wrap: bool) -> Result<(String, String), CmdError> {
    let Some(path) = words.first() else {
        let mut text = String::new();
        return match std::io::stdin().read_to_string(&mut text) {
            Ok(_) => Ok(("stdin".to_owned(), text)),
            Err(err) if err.kind() == std::io::ErrorKind::InvalidData => no_script("stdin"),
            Err(err) => Err(CmdError::file("standard input")(err)),
        };
    };
    if wrap {
        return Ok(((*path).to_owned(), format!("{}\n", words.join(" "))));
    }
    let bytes = std::fs::read(path).map_err(CmdError::file(*path))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(((*path).to_owned(), text)),
        Err(_) => no_script(path),
    }
}

fn no_script<T>(name: &str) -> Result<T, CmdError> {
    fail(format!(
        "{name} does not appear to be a script, or failed to encode as utf-8"
    ))
}

/// Parses options, of the command line or of a directive.
fn parse(words: &[OsString]) -> Result<ArgMatches, String> {
    let command = args(Command::new("flux batch"))
        .infer_long_args(true)
        .args_override_self(true)
        .disable_help_flag(true);
    let words = std::iter::once(OsString::from("flux batch")).chain(words.iter().cloned());
    command.try_get_matches_from(words).map_err(|err| {
        let text = err.to_string();
        text.strip_prefix("error: ")
            .unwrap_or(&text)
            .trim_end()
            .to_owned()
    })
}
