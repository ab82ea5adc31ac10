//! What does the process do that has become its caller again? It reads the caller's input, asks the monitor, and relays.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{ask, devices, input, report};
use crate::environment::is_name;
use crate::log::Level;
use crate::start::Caller;
use crate::supervise::RELAYED;
use crate::sys::fd::poll;
use crate::sys::process::{self, Pid, Status};
use crate::sys::signal::{self, SIGNAL_INFO_SIZE};
use crate::wire::{self, LIST_MAX, Request, VARIABLES};

/// Longest document; J alone may have 4 MiB.
const INPUT_MAX: usize = wire::FRAME_MAX + (1 << 20);
/// How long the rest of a frame of the monitor's may take.
const FRAME_TIME: Duration = Duration::from_secs(5);
/// Program that writes the document instead of standard input.
const HELPER: &str = "FLUX_IMP_EXEC_HELPER";

/// The monitor: the socket to it, and its process.
pub type Monitor = (UnixStream, Pid);

/// What the caller's words ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `exec SHELL JOBID [--reconnect]`
    Exec {
        /// Path of the shell.
        shell: String,
        /// The job's id.
        jobid: String,
        /// `--reconnect` was given.
        reconnect: bool,
    },
    /// `run NAME`
    Run(String),
}

/// Runs the relay to its end; returns the exit code, or does not return when a signal ended the job.
pub fn run(caller: &Caller, wanted: Wanted, (mut monitor, child): Monitor) -> i32 {
    let signals = match signal::signal_file(&RELAYED) {
        Ok(signals) => signals,
        Err(err) => return fail(&format!("cannot wait for signals: {err}")),
    };
    match request(caller, wanted, &signals, &monitor) {
        Ok(None) => {}
        Ok(Some(request)) => {
            if let Err(why) = ask(&mut monitor, &request) {
                return fail(&why);
            }
        }
        Err(why) => return fail(&why),
    }
    loop {
        let events = [(monitor.as_fd(), libc::POLLIN), (signals.as_fd(), libc::POLLIN)];
        let Ok([spoke, signalled]) = poll(events, None) else {
            return fail("cannot wait");
        };
        if signalled && let Some(number) = next_signal(&signals) {
            // The monitor may have ended at this moment; then it has said how.
            drop(wire::send(&mut monitor, &ask::signal(number)));
        }
        if spoke {
            match wire::receive(&mut monitor, FRAME_TIME) {
                Ok(Some(kv)) => {
                    if let Some((level, text)) = report::decode(&kv) {
                        report::to_stderr(level, text);
                    } else if let Some(status) = ask::decode_ended(&kv) {
                        // It ends now; nobody else has to bury it.
                        drop(process::wait(child));
                        return end(status);
                    }
                }
                Ok(None) => return fail("the monitor has ended without a word"),
                Err(err) => return fail(&format!("the monitor cannot be heard: {err}")),
            }
        }
    }
}

fn ask(monitor: &mut UnixStream, request: &Request) -> Result<(), String> {
    let kv = request
        .encode()
        .map_err(|err| format!("exec: the input cannot be sent: {err}"))?;
    match wire::send(monitor, &kv) {
        Err(err) if err.kind() == io::ErrorKind::InvalidInput => {
            Err("exec: the input is too long".to_owned())
        }
        // A monitor that has refused already does not read; its words are what counts.
        _ => Ok(()),
    }
}

fn fail(why: &str) -> i32 {
    report::to_stderr(Level::Fatal, why);
    1
}

/// Ends as the job did.
fn end(status: Status) -> i32 {
    match status {
        Status::Exited(code) => code,
        Status::Killed(number) => {
            let own = i32::try_from(std::process::id()).ok().and_then(process::child);
            if signal::unblock_all().is_ok() {
                own.inspect(|own| process::kill(*own, number));
            }
            // The signal does not end this process, so the code must say it.
            128 + number
        }
    }
}

fn next_signal(mut signals: &File) -> Option<i32> {
    let mut info = [0; SIGNAL_INFO_SIZE];
    signals.read_exact(&mut info).ok()?;
    // The number is the first word.
    Some(i32::from_ne_bytes(*info.first_chunk()?))
}

/// Returns what to ask for; nothing when the monitor has refused before the input was there.
fn request(
    caller: &Caller,
    wanted: Wanted,
    signals: &File,
    monitor: &UnixStream,
) -> Result<Option<Request>, String> {
    let (shell, jobid, reconnect) = match wanted {
        Wanted::Run(name) => {
            return Ok(Some(Request::Run(wire::Run {
                name,
                variables: script_variables(caller),
            })));
        }
        Wanted::Exec {
            shell,
            jobid,
            reconnect,
        } => (shell, jobid, reconnect),
    };
    let document = match variable(caller, HELPER) {
        Some(words) => Some(ask_helper(caller, &words)?),
        None => read_standard_input(signals, monitor)?,
    };
    let Some(document) = document else {
        return Ok(None);
    };
    let input = input::parse(&document)?;
    let (devices, warnings) = devices::resolve(&input);
    for warning in warnings {
        report::to_stderr(Level::Warning, &warning);
    }
    Ok(Some(Request::Exec(wire::Exec {
        token: input.token,
        shell,
        jobid,
        reconnect,
        variables: VARIABLES.map(|name| variable(caller, name)),
        devices,
    })))
}

fn variable(caller: &Caller, name: &str) -> Option<String> {
    let found = caller.environment.iter().find(|(key, _)| key == OsStr::new(name));
    found.and_then(|(_, value)| value.clone().into_string().ok())
}

/// The caller's variables that could be passed on; which are, the monitor decides.
fn script_variables(caller: &Caller) -> Vec<(String, String)> {
    let text = |(key, value): &(std::ffi::OsString, std::ffi::OsString)| {
        let (key, value) = (key.to_str()?, value.to_str()?);
        (is_name(key) && value.len() <= wire::TEXT_MAX).then(|| (key.to_owned(), value.to_owned()))
    };
    let mut list: Vec<_> = caller.environment.iter().filter_map(text).collect();
    // When there are too many, Flux's own come first; of two with one name the first counts.
    list.sort_by_key(|(key, _)| (!key.starts_with("FLUX_"), key.clone()));
    list.dedup_by(|later, first| later.0 == first.0);
    list.truncate(LIST_MAX);
    list
}

/// Runs the caller's helper, as the caller; its output is data.
fn ask_helper(caller: &Caller, words: &str) -> Result<Vec<u8>, String> {
    let mut words = words.split_whitespace();
    let program = words.next().ok_or(format!("exec: {HELPER} is empty"))?;
    let failed = |err: io::Error| format!("exec: {HELPER}: {program}: {err}");
    let mut child = Command::new(program)
        .args(words)
        .env_clear()
        .envs(caller.environment.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut document = Vec::new();
    let limit = u64::try_from(INPUT_MAX).unwrap_or(u64::MAX);
    if let Some(output) = child.stdout.take() {
        output.take(limit).read_to_end(&mut document).map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    if status.success() {
        Ok(document)
    } else {
        Err(format!("exec: {HELPER}: {program} failed ({status})"))
    }
}

/// Reads the document from standard input: all of it, or, where input can seek, its first line. What follows that line is the
/// shell's. Nothing when the monitor has something to say before.
fn read_standard_input(signals: &File, monitor: &UnixStream) -> Result<Option<Vec<u8>>, String> {
    let failed = |err: io::Error| format!("exec: cannot read standard input: {err}");
    let stdin = io::stdin();
    let stdin = stdin.as_fd();
    // Not through the library's buffer: what is not ours has to stay unread.
    let mut file = File::from(stdin.try_clone_to_owned().map_err(failed)?);
    let begin = file.stream_position().ok();
    let mut document = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        let events = [stdin, signals.as_fd(), monitor.as_fd()].map(|fd| (fd, libc::POLLIN));
        let [_, signalled, spoke] = poll(events, None).map_err(failed)?;
        if spoke {
            return Ok(None);
        }
        if signalled {
            return Err("exec: ended by a signal before there was any input".to_owned());
        }
        let count = match file.read(&mut part) {
            Ok(count) => count,
            Err(err) if matches!(err.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(err) => return Err(failed(err)),
        };
        let from = document.len();
        document.extend_from_slice(part.get(..count).unwrap_or_default());
        let line = document
            .iter()
            .skip(from)
            .position(|byte| *byte == b'\n')
            .map(|at| from + at);
        if let (Some(begin), Some(line)) = (begin, line) {
            document.truncate(line);
            let rest = begin.saturating_add(u64::try_from(line + 1).unwrap_or(u64::MAX));
            file.seek(SeekFrom::Start(rest)).map_err(failed)?;
            return Ok(Some(document));
        }
        if count == 0 {
            return Ok(Some(document));
        }
        if document.len() > INPUT_MAX {
            return Err(format!("exec: the input is longer than {INPUT_MAX} bytes"));
        }
    }
}
