//! `flux alloc`: an instance of its own for interactive work, or in the background.

use std::io::{IsTerminal, Write};

use clap::{ArgMatches, Command};
use flux_client::job::{self, WatchEvent};
use flux_client::{Error, Handle, NODEID_ANY};
use flux_formats::jobid::JobId;
use flux_process::Signal;
use flux_process::signal::SignalFd;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::attach::{Options, Session, attach, default_stdin};
use crate::common::args::{flag, list, trailing};
use crate::common::ctx::{Ctx, eprint, stdout};
use crate::common::error::{CmdError, CmdResult, fail};
use crate::common::eventlog::parse as parse_event;
use crate::common::jobid::f58;
use crate::common::json::python;
use crate::common::time::now;
use crate::common::uri::{Wish, resolve};
use crate::submission::{self, Job, Nested, Process};

pub(super) fn args(command: Command) -> Command {
    submission::add_slots(submission::add_dry_run(submission::add_common(command)))
        .arg(flag(
            "bg",
            None,
            "Wait for new instance to start, but do not attach to it",
        ))
        .arg(trailing(
            "command",
            false,
            "Initial program of the new instance; an interactive shell if absent",
        ))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    let background = matches.get_flag("bg");
    let program: Vec<String> = list(matches, "command").into_iter().map(str::to_owned).collect();
    let broker_options = if background && program.is_empty() {
        vec!["-Sbroker.rc2_none=1".to_owned()]
    } else {
        Vec::new()
    };
    // A terminal that waits for its user would keep a job in the background from ending.
    let shell_options = if background {
        vec![("pty.capture", json!(1))]
    } else if std::io::stdin().is_terminal() {
        vec![("pty.interactive", json!(1))]
    } else {
        Vec::new()
    };
    let nested = Nested {
        program,
        broker_options,
        shell_options,
        ..Nested::default()
    };
    let request = submission::build_nested(matches, nested, &Process::current(&ctx.env)?)?;
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
    let mut handle = ctx.open()?;
    let id = submission::submit_one(&mut handle, &job)?;
    let verbose = matches.get_count("verbose") > 0;
    if background {
        wait_until_ready(ctx, &mut handle, id, verbose)?;
        writeln!(stdout(), "{}", f58(id))?;
        return Ok(0);
    }
    if verbose {
        eprint(format!("jobid: {}", f58(id)));
    }
    let session = Session {
        options: Options {
            show_events: matches.get_count("verbose") > 1,
            ..Options::default()
        },
        stdin_ranks: default_stdin(),
        tail: None,
    };
    attach(ctx, &mut handle, id, session)
}

/// Waits until the new instance has come up; ctrl-C cancels the job.
fn wait_until_ready(ctx: &Ctx, handle: &mut Handle, id: JobId, verbose: bool) -> Result<(), CmdError> {
    #[derive(Deserialize)]
    struct Memo {
        uri: Option<String>,
    }
    let name = f58(id);
    let say = |seconds: f64, text: &str| {
        if verbose {
            eprint(format!("{name}: {seconds:6.3}s: {text}"));
        }
    };
    say(0.0, "waiting for resources");
    let signals = SignalFd::new(&[Signal::SIGINT]).map_err(CmdError::file("signals"))?;
    let watch = job::eventlog_watch(handle, id.0, "eventlog", 0)?;
    let mut start = None;
    while let Some(line) = next_line(handle, &watch, &signals, id)? {
        let event = parse_event(&line)?;
        let begin = *start.get_or_insert(event.timestamp);
        if event.name == "alloc" {
            say(event.timestamp - begin, "resources allocated");
        }
        if event.name != "memo" {
            continue;
        }
        let memo: Memo = event.context_as().map_err(CmdError::json("memo event"))?;
        if let Some(uri) = memo.uri {
            say(event.timestamp - begin, "waiting for instance");
            let uri = resolve(ctx, &uri, Wish::default())?;
            let mut instance =
                Handle::open(Some(&uri)).map_err(CmdError::doing(format!("{name}: unable to connect")))?;
            instance
                .call_empty::<IgnoredAny>("state-machine.wait", NODEID_ANY)
                .map_err(CmdError::doing(format!("{name}: instance startup failed")))?;
            say(now() - begin, "ready");
            return Ok(());
        }
    }
    // The job's own words say why it has ended.
    let session = Session {
        options: Options::default(),
        stdin_ranks: None,
        tail: None,
    };
    attach(ctx, handle, id, session)?;
    fail(format!("{name}: unexpectedly exited"))
}

/// Returns the next line of the eventlog; `None` at its end or when the job is finishing.
fn next_line(
    handle: &mut Handle,
    watch: &flux_client::Rpc,
    signals: &SignalFd,
    id: JobId,
) -> Result<Option<String>, CmdError> {
    use std::os::fd::AsFd;
    loop {
        while let Some(incoming) = handle.try_incoming() {
            let flux_client::Incoming::Response(msg) = incoming else {
                continue;
            };
            if !watch.matches(&msg) {
                continue;
            }
            if msg.errnum() != 0 {
                return Ok(None);
            }
            if let WatchEvent::Event(line) = job::watch_decode(&msg)? {
                return Ok(Some(line));
            }
        }
        let mut others = [flux_client::Other::input(signals.as_fd())];
        handle.poll(&mut others, None)?;
        if others.iter().any(flux_client::Other::is_readable) {
            eprint(format!("\r{}: Interrupt: canceling job", f58(id)));
            match job::raise(handle, id.0, "cancel", 0, Some("interrupted by ctrl-C")) {
                Ok(()) | Err(Error::Rpc(_)) => {}
                Err(err) => return Err(err.into()),
            }
            return Err(CmdError::Silent(1));
        }
    }
}
