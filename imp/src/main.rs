//! `flux-imp exec SHELL JOBID | run NAME | whoami | version`

#![forbid(unsafe_code)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use flux_imp::log::Level;
use flux_imp::monitor;
use flux_imp::relay::{Monitor, command, report};
use flux_imp::start::{Caller, become_caller, clean};
use flux_imp::sys::process;

fn main() -> ExitCode {
    let begun = clean().and_then(|caller| Ok((start_monitor(&caller)?, caller)));
    // From here on this process is its caller's, also for saying what went wrong.
    if become_caller().is_err() {
        drop(std::io::stderr().write_all(b"flux-imp: Fatal: cannot drop privilege\n"));
        return ExitCode::FAILURE;
    }
    let done = begun.and_then(|(monitor, caller)| command::run(&caller, monitor));
    let code = done.unwrap_or_else(|why| {
        report::to_stderr(Level::Fatal, &why);
        1
    });
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

/// Starts the process that keeps its privilege, when the caller's first word is one that needs it.
fn start_monitor(caller: &Caller) -> Result<Option<Monitor>, String> {
    let Some(task) = caller.task else {
        return Ok(None);
    };
    let (to_monitor, to_relay) =
        UnixStream::pair().map_err(|err| format!("cannot make a socket pair: {err}"))?;
    match process::fork().map_err(|err| format!("cannot fork: {err}"))? {
        Some(pid) => Ok(Some((to_monitor, pid))),
        None => {
            drop(to_monitor);
            process::exit(monitor::run(caller, task, to_relay));
        }
    }
}
