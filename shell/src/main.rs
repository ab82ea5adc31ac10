//! flux-shell: runs the tasks of one job on one node.
//!
//! `flux-shell [--reconnect] JOBID`. Exit code: the highest of the tasks' (128 + signal for a killed one), 127 and
//! 126 when the command cannot be found or executed, 1 when the job cannot be run for another reason.

#![forbid(unsafe_code)]

mod base64;
mod claim;
mod commits;
mod ctx;
mod distribute;
mod env;
mod eventlog;
mod info;
mod lines;
mod link;
mod log;
mod options;
mod phases;
mod plugins;
mod reconnect;
mod request;
mod service;
mod spec;
mod start;
mod task;
mod template;

use std::io::Write;
use std::process::ExitCode;

use flux_formats::jobid::JobId;

const USAGE: &str = "Usage: flux-shell [OPTIONS] JOBID\n\
    Run the tasks of a job on this node; started by the execution system.\n\n\
    \x20     --reconnect   outlive the broker, and find it again\n\
    \x20 -h, --help        show this help\n";

/// What the command line asks for.
enum Arguments {
    Help,
    Run { id: JobId, reconnect: bool },
}

fn main() -> ExitCode {
    let arguments = match parse_arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => return fail(&message),
    };
    match arguments {
        Arguments::Help => {
            // Nobody to tell when standard output is closed.
            let _written = std::io::stdout().write_all(USAGE.as_bytes());
            ExitCode::SUCCESS
        }
        Arguments::Run { id, reconnect } => run(id, reconnect),
    }
}

fn run(id: JobId, reconnect: bool) -> ExitCode {
    // the description first: it says whether this shell may run at all
    let input = match info::read_input(id) {
        Ok(input) => input,
        Err(error) => return complain(id, reconnect, &chain(&error)),
    };
    let uid = flux_process::uid();
    if let Some(path) = input.as_ref().and_then(|input| input.claim.as_deref()) {
        if !request::is_own_socket(&flux_client::uri::default_uri(), uid) {
            return fail("another user's instance may not ask for a claim");
        }
        if let Err(error) = claim::make(path) {
            return fail(&chain(&error));
        }
    }
    let mut handle = match reconnect::open(reconnect) {
        Ok(handle) => handle,
        Err(error) => return fail(&chain(&error)),
    };
    match info::load(&mut handle, input, id, uid) {
        Ok(info) => ExitCode::from(phases::run(ctx::Ctx::new(info, handle, reconnect))),
        Err(error) => {
            let message = chain(&error);
            // the broker will end this shell for the exception: its exit code says more than a signal
            let _blocked = plugins::signal::receive();
            phases::report_failure(&mut handle, id, &message);
            fail(&message)
        }
    }
}

/// Tells the job why the shell cannot run, if the broker can be found, and standard error in any case.
fn complain(id: JobId, reconnect: bool, message: &str) -> ExitCode {
    if let Ok(mut handle) = reconnect::open(reconnect) {
        phases::report_failure(&mut handle, id, message);
    }
    fail(message)
}

fn parse_arguments(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut id, mut reconnect) = (None, false);
    for argument in arguments {
        match argument.as_str() {
            "--reconnect" => reconnect = true,
            "-h" | "--help" => return Ok(Arguments::Help),
            option if option.starts_with('-') => {
                return Err(format!("unrecognized option '{option}'"));
            }
            text if id.is_none() => {
                id = Some(text.parse().map_err(|_| format!("invalid jobid '{text}'"))?);
            }
            extra => return Err(format!("unexpected argument '{extra}'")),
        }
    }
    let id = id.ok_or("missing required argument JOBID")?;
    Ok(Arguments::Run { id, reconnect })
}

/// Says on standard error why the shell cannot run.
fn fail(message: &str) -> ExitCode {
    // Nobody to tell when standard error is closed.
    let _written = writeln!(std::io::stderr(), "flux-shell: FATAL: {message}");
    ExitCode::FAILURE
}

/// Returns an error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Returns the words for a system error, without the number that Rust adds.
pub(crate) fn errno_text(error: &std::io::Error) -> String {
    match error.raw_os_error().and_then(|errnum| u32::try_from(errnum).ok()) {
        Some(errnum) => flux_formats::errno::strerror(errnum).to_owned(),
        None => error.to_string(),
    }
}
