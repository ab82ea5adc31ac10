//! `flux exec`: run a command on brokers.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::AsFd;

use clap::{ArgMatches, Command};
use flux_client::{Handle, Incoming, Message, NODEID_ANY, Other, Rpc, attr};
use flux_formats::errno::{self, strerror};
use flux_formats::idset::IdSet;
use flux_formats::ioencode::Data;
use flux_formats::jobstate::exit_code;
use flux_process::Signal;
use flux_process::signal::SignalFd;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::attach::push_labelled;
use crate::common::args::{flag, list, text, trailing, value, values};
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, fail, usage};
use crate::common::jobid;

/// Flags of an exec request: stdout, stderr, write credit, and waitable.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const WRITE_CREDIT: u32 = 8;
const WAITABLE: u32 = 16;
/// Exit code for a rank that cannot be reached.
const EXIT_NO_HOST: u8 = 68;
/// Most bytes of standard input in one message.
const CHUNK: usize = 16 * 1024;

pub(super) fn args(command: Command) -> Command {
    command
        .arg(value(
            "rank",
            Some('r'),
            "IDSET",
            "Target ranks in IDSET (default: all)",
        ))
        .arg(value("exclude", Some('x'), "IDSET", "Exclude ranks"))
        .arg(value(
            "jobid",
            Some('j'),
            "JOBID",
            "Set target ranks to those of the job",
        ))
        .arg(flag("bg", None, "Run command in background"))
        .arg(flag(
            "waitable",
            None,
            "Allow background process to be waited for",
        ))
        .arg(flag("attach", None, "Attach to running process"))
        .arg(value("label", None, "LABEL", "Set a label for the process"))
        .arg(value("dir", Some('d'), "PATH", "Set the working directory"))
        .arg(flag(
            "label-io",
            Some('l'),
            "Label lines of output with the source RANK",
        ))
        .arg(flag("noinput", Some('n'), "Redirect stdin from /dev/null"))
        .arg(flag("verbose", Some('v'), "Run with more verbosity"))
        .arg(flag("quiet", Some('q'), "Suppress extraneous output"))
        .arg(flag("with-imp", None, "Run args under 'flux-imp run'"))
        .arg(value("service", None, "NAME", "Set service name (default: rexec)").hide(true))
        .arg(values("setopt", None, "NAME=VALUE", "Set subcommand option").hide(true))
        .arg(trailing("command", true, "Command and arguments"))
}

/// One process.
#[derive(Debug)]
struct Proc {
    rank: u32,
    rpc: Rpc,
    pid: Option<i64>,
    credit: usize,
    code: Option<u8>,
    failed: bool,
}

#[derive(Deserialize)]
struct Response {
    #[serde(rename = "type")]
    kind: String,
    pid: Option<i64>,
    status: Option<i32>,
    io: Option<Data>,
    channels: Option<Map<String, Value>>,
}

struct Runner<'a> {
    ctx: &'a Ctx,
    handle: Handle,
    service: String,
    /// Named in the error when the program cannot be started and the broker sends no text.
    program: String,
    procs: Vec<Proc>,
    by_tag: HashMap<u32, usize>,
    label: bool,
    quiet: bool,
    verbose: bool,
    stdin_open: bool,
    /// Standard input is still to be closed once every process has started.
    close_input: bool,
    out: Vec<u8>,
    err: Vec<u8>,
}

fn targets(handle: &mut Handle, matches: &ArgMatches) -> Result<(IdSet, u32), CmdError> {
    let size = attr::get_u32(handle, "size")?;
    let ids = |option: &str, word: &str| -> Result<IdSet, CmdError> {
        word.parse()
            .or_else(|_| usage(format!("--{option}: invalid idset '{word}'")))
    };
    let mut ranks = match (text(matches, "jobid"), text(matches, "rank")) {
        (Some(_), Some(_)) => return usage("--rank and --jobid cannot be used together"),
        (Some(id), None) => {
            let id = jobid::parse(id)?;
            let request = json!({ "id": id.0, "attrs": ["ranks"] });
            let response: Value = handle.call("job-list.list-id", NODEID_ANY, &request)?;
            let ranks = response
                .pointer("/job/ranks")
                .and_then(Value::as_str)
                .unwrap_or("");
            ids("jobid", ranks)?
        }
        (None, Some("all") | None) => IdSet::first_n(size),
        (None, Some(word)) => ids("rank", word)?,
    };
    if let Some(word) = text(matches, "exclude") {
        ranks = ranks.difference(&ids("exclude", word)?);
    }
    if ranks.is_empty() {
        return fail("No nodes specified.");
    }
    Ok((ranks, size))
}

pub(super) fn run(ctx: &Ctx, matches: &ArgMatches) -> CmdResult {
    for (option, set) in [
        ("with-imp", matches.get_flag("with-imp")),
        ("attach", matches.get_flag("attach")),
    ] {
        if set {
            return fail(format!("--{option} is not available yet in this version"));
        }
    }
    let mut handle = ctx.open()?;
    let (ranks, _) = targets(&mut handle, matches)?;
    let background = matches.get_flag("bg");
    let command = command_object(ctx, matches)?;
    let mut flags = if background {
        0
    } else {
        STDOUT | STDERR | WRITE_CREDIT
    };
    if matches.get_flag("waitable") {
        flags |= WAITABLE;
    }
    let service = text(matches, "service").unwrap_or("rexec").to_owned();
    let request = json!({ "cmd": command, "flags": flags });
    let mut runner = Runner {
        ctx,
        handle,
        service,
        program: list(matches, "command")
            .into_iter()
            .next()
            .unwrap_or_default()
            .to_string(),
        procs: Vec::new(),
        by_tag: HashMap::new(),
        label: matches.get_flag("label-io"),
        quiet: matches.get_flag("quiet"),
        verbose: matches.get_flag("verbose"),
        stdin_open: !background && !matches.get_flag("noinput"),
        close_input: false,
        out: Vec::new(),
        err: Vec::new(),
    };
    for rank in ranks.iter() {
        let topic = format!("{}.exec", runner.service);
        let rpc = if background {
            runner.handle.rpc(topic, rank, &request)?
        } else {
            runner.handle.stream(topic, rank, &request)?
        };
        runner.by_tag.insert(rpc.matchtag(), runner.procs.len());
        runner.procs.push(Proc {
            rank,
            rpc,
            pid: None,
            credit: 0,
            code: None,
            failed: false,
        });
    }
    if background {
        runner.wait_background()
    } else {
        runner.wait(matches.get_flag("noinput"))
    }
}

fn command_object(ctx: &Ctx, matches: &ArgMatches) -> Result<Value, CmdError> {
    let cwd = match text(matches, "dir") {
        Some(dir) => dir.to_owned(),
        None => std::env::current_dir()
            .map_err(CmdError::file("working directory"))?
            .to_string_lossy()
            .into_owned(),
    };
    let env: Map<String, Value> = ctx
        .env
        .iter()
        .filter_map(|(key, value)| Some((key.to_str()?.to_owned(), Value::from(value.to_str()?))))
        // Each broker tells its own processes where it is.
        .filter(|(key, _)| key != "FLUX_URI")
        .collect();
    let mut opts = Map::new();
    for option in list(matches, "setopt") {
        let (key, value) = option.split_once('=').unwrap_or((option, "1"));
        opts.insert(key.to_owned(), Value::from(value));
    }
    let mut command = json!({
        "cwd": cwd,
        "cmdline": list(matches, "command"),
        "env": env,
        "opts": opts,
        "channels": [],
    });
    if let (Some(label), Some(object)) = (text(matches, "label"), command.as_object_mut()) {
        object.insert("label".to_owned(), json!(label));
    }
    Ok(command)
}

impl Runner<'_> {
    fn running(&self) -> bool {
        self.procs.iter().any(|proc| proc.code.is_none())
    }

    fn wait_background(&mut self) -> CmdResult {
        let mut code = 0;
        for at in 0..self.procs.len() {
            let Some((rank, rpc)) = self.procs.get(at).map(|proc| (proc.rank, proc.rpc.clone())) else {
                continue;
            };
            match self.handle.get::<Response>(&rpc) {
                Ok(response) if !self.quiet => {
                    let pid = response.pid.unwrap_or(-1).to_string();
                    let label = if self.label {
                        format!("{rank}: ")
                    } else {
                        String::new()
                    };
                    push_labelled(&mut self.out, &label, pid.as_bytes());
                }
                Ok(_) => {}
                Err(flux_client::Error::Rpc(err)) => {
                    self.ctx.warn(format!("Error: rank {rank}: {}", err.message()));
                    code = code.max(start_code(err.errnum));
                }
                Err(err) => return Err(err.into()),
            }
        }
        self.show()?;
        Ok(code)
    }

    fn wait(&mut self, no_input: bool) -> CmdResult {
        let signals = SignalFd::new(&[Signal::SIGINT, Signal::SIGTERM]).map_err(CmdError::file("signals"))?;
        let stdin = io::stdin();
        if no_input {
            self.close_input = true;
        }
        while self.running() {
            while let Some(incoming) = self.handle.try_incoming() {
                if let Incoming::Response(message) = incoming {
                    self.response(&message)?;
                }
            }
            self.show()?;
            if !self.running() {
                break;
            }
            let credit = self.credit();
            let wants_input = self.stdin_open && credit > 0;
            let mut others = [Other::input(signals.as_fd()), Other::input(stdin.as_fd())];
            let watched = if wants_input {
                &mut others[..]
            } else {
                others.get_mut(..1).unwrap_or_default()
            };
            self.handle.poll(watched, None)?;
            if others[0].is_readable() {
                while let Some(signal) = signals.next_signal().map_err(CmdError::file("signals"))? {
                    self.forward(signal)?;
                }
            }
            if wants_input && others[1].is_readable() {
                self.forward_input(credit)?;
            }
        }
        self.show()?;
        self.report();
        Ok(self.procs.iter().filter_map(|proc| proc.code).max().unwrap_or(0))
    }

    /// Returns how much every running process can take; 0 before all have started.
    fn credit(&self) -> usize {
        self.procs
            .iter()
            .filter(|proc| proc.code.is_none())
            .map(|proc| proc.credit)
            .min()
            .unwrap_or(0)
    }

    fn forward_input(&mut self, credit: usize) -> Result<(), CmdError> {
        let mut buffer = vec![0u8; credit.min(CHUNK)];
        // A process in the background may not read the terminal.
        let count = flux_process::fd::read(io::stdin(), &mut buffer).unwrap_or(0);
        let bytes = buffer.get(..count).unwrap_or(&[]);
        self.stdin_open = count > 0;
        self.write_input(bytes, count == 0)
    }

    fn write_input(&mut self, bytes: &[u8], eof: bool) -> Result<(), CmdError> {
        for proc in self.procs.iter_mut().filter(|proc| proc.code.is_none()) {
            let data = Data::encode("stdin", &proc.rank.to_string(), bytes, eof);
            let request = json!({ "matchtag": proc.rpc.matchtag(), "io": data });
            self.handle
                .notify(format!("{}.write", self.service), proc.rank, &request)?;
            proc.credit = proc.credit.saturating_sub(bytes.len());
        }
        Ok(())
    }

    fn forward(&mut self, signal: Signal) -> Result<(), CmdError> {
        let mut count = 0;
        for proc in self.procs.iter().filter(|proc| proc.code.is_none()) {
            if let Some(pid) = proc.pid {
                let request = json!({ "pid": pid, "signum": signal.number() });
                let rpc = self
                    .handle
                    .rpc(format!("{}.kill", self.service), proc.rank, &request)?;
                self.handle.forget(rpc);
                count += 1;
            }
        }
        if !self.quiet {
            self.ctx.warn(format!(
                "sending {} to {count} running processes",
                signal.name().unwrap_or("signal")
            ));
        }
        Ok(())
    }

    fn response(&mut self, message: &Message) -> Result<(), CmdError> {
        let Some(at) = self.by_tag.get(&message.matchtag()).copied() else {
            return Ok(());
        };
        let Some(proc) = self.procs.get_mut(at) else {
            return Ok(());
        };
        if message.errnum() != 0 {
            self.by_tag.remove(&message.matchtag());
            if message.errnum() != errno::ENODATA {
                let text = message
                    .payload_str()
                    .unwrap_or_else(|_| strerror(message.errnum()));
                let (name, program) = (&self.ctx.name, &self.program);
                let line = format!("{name}: Error: rank {}: {program}: {text}\n", proc.rank);
                self.err.extend_from_slice(line.as_bytes());
                proc.failed = true;
                proc.code = Some(start_code(message.errnum()));
            } else if proc.code.is_none() {
                proc.code = Some(0);
            }
            return Ok(());
        }
        let response: Response = message
            .payload_json()
            .map_err(|source| flux_client::Error::Payload {
                topic: message.topic.clone(),
                source,
            })?;
        match response.kind.as_str() {
            "started" => {
                proc.pid = response.pid;
                if self.verbose {
                    let line = format!(
                        "{}: rank {}: started pid {}\n",
                        self.ctx.name,
                        proc.rank,
                        response.pid.unwrap_or(-1)
                    );
                    self.err.extend_from_slice(line.as_bytes());
                }
            }
            "add-credit" => {
                let credit = response
                    .channels
                    .as_ref()
                    .and_then(|channels| channels.get("stdin"))
                    .and_then(Value::as_u64);
                proc.credit += usize::try_from(credit.unwrap_or(0)).unwrap_or(0);
            }
            "finished" => {
                let code = exit_code(response.status.unwrap_or(0));
                proc.code = Some(u8::try_from(code).unwrap_or(1));
            }
            "output" => {
                let rank = proc.rank;
                if let Some(data) = response.io {
                    self.output(rank, &data)?;
                }
            }
            _ => {}
        }
        if self.close_input
            && self
                .procs
                .iter()
                .all(|proc| proc.pid.is_some() || proc.code.is_some())
        {
            self.close_input = false;
            self.write_input(&[], true)?;
        }
        Ok(())
    }

    fn output(&mut self, rank: u32, data: &Data) -> Result<(), CmdError> {
        let bytes = data
            .decode(None)
            .or_else(|err| fail(format!("output of rank {rank}: {err}")))?;
        let target = if data.stream == "stderr" {
            &mut self.err
        } else {
            &mut self.out
        };
        if !self.label {
            target.extend_from_slice(&bytes);
            return Ok(());
        }
        push_labelled(target, &format!("{rank}: "), &bytes);
        Ok(())
    }

    fn show(&mut self) -> Result<(), CmdError> {
        if !self.err.is_empty() {
            // Nobody is left to tell when standard error cannot be written.
            let _gone = io::stderr().write_all(&self.err);
            self.err.clear();
        }
        if !self.out.is_empty() {
            let mut out = io::stdout();
            out.write_all(&self.out)?;
            out.flush()?;
            self.out.clear();
        }
        Ok(())
    }

    /// Says which ranks failed, in groups of equal exit codes.
    fn report(&self) {
        if self.quiet {
            return;
        }
        let mut groups: Vec<(u8, IdSet)> = Vec::new();
        for proc in self.procs.iter().filter(|proc| !proc.failed) {
            let Some(code) = proc.code.filter(|code| *code != 0) else {
                continue;
            };
            match groups.iter_mut().find(|(known, _)| *known == code) {
                Some((_, ranks)) => {
                    ranks.insert(proc.rank);
                }
                None => groups.push((code, IdSet::from(proc.rank))),
            }
        }
        for (code, ranks) in groups {
            let words = match code
                .checked_sub(128)
                .and_then(|signal| flux_formats::signal::text(i32::from(signal)))
            {
                Some(text) => text.to_owned(),
                None => format!("Exit {code}"),
            };
            crate::common::ctx::eprint(format!("[{ranks}]: {words}"));
        }
    }
}

/// Returns the exit code for a process that could not be started.
fn start_code(errnum: u32) -> u8 {
    match errnum {
        errno::EHOSTUNREACH => EXIT_NO_HOST,
        errno::ENOENT => 127,
        errno::EACCES | errno::EPERM => 126,
        _ => 1,
    }
}
