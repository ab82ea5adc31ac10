//! Runs a process on each of some brokers: input, output, signals, exit codes.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::fd::AsFd;

use flux_client::{Handle, Incoming, Message, Other, Rpc};
use flux_formats::errno::{self, strerror};
use flux_formats::idset::IdSet;
use flux_formats::ioencode::Data;
use flux_formats::jobstate::exit_code;
use flux_process::Signal;
use flux_process::signal::SignalFd;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::attach::push_labelled;
use crate::common::ctx::Ctx;
use crate::common::error::{CmdError, CmdResult, fail};

/// Exit code for a rank that cannot be reached.
const EXIT_NO_HOST: u8 = 68;
/// Most bytes of standard input in one message.
const CHUNK: usize = 16 * 1024;

/// What the options say of input and output.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) label: bool,
    pub(super) quiet: bool,
    pub(super) verbose: bool,
    pub(super) input: bool,
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

/// Processes on brokers, and what they are given and say.
pub(super) struct Runner<'a> {
    ctx: &'a Ctx,
    handle: Handle,
    service: String,
    /// Named in errors: the program, or the process that was attached to.
    program: String,
    /// What `--attach` named: then an interrupt leaves it alone.
    attached: Option<String>,
    procs: Vec<Proc>,
    by_tag: HashMap<u32, usize>,
    how: How,
    stdin_open: bool,
    /// Standard input is still to be closed once every process has started.
    close_input: bool,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl<'a> Runner<'a> {
    /// Returns a runner of `program` that has started nothing yet.
    pub(super) fn new(ctx: &'a Ctx, handle: Handle, service: &str, program: &str, how: How) -> Self {
        Runner {
            ctx,
            handle,
            service: service.to_owned(),
            program: program.to_owned(),
            attached: None,
            procs: Vec::new(),
            by_tag: HashMap::new(),
            how,
            stdin_open: how.input,
            close_input: false,
            out: Vec::new(),
            err: Vec::new(),
        }
    }

    /// Asks for a process on each of these ranks.
    pub(super) fn start(&mut self, ranks: &IdSet, request: &Value, background: bool) -> Result<(), CmdError> {
        self.ask("exec", ranks, request, !background)
    }

    /// Attaches to the background process that `word` names on each of these ranks.
    pub(super) fn attach(&mut self, ranks: &IdSet, request: &Value, word: &str) -> Result<(), CmdError> {
        self.attached = Some(word.to_owned());
        self.ask("attach", ranks, request, true)
    }

    fn ask(&mut self, method: &str, ranks: &IdSet, request: &Value, stream: bool) -> Result<(), CmdError> {
        for rank in ranks.iter() {
            let topic = format!("{}.{method}", self.service);
            let rpc = if stream {
                self.handle.stream(topic, rank, request)?
            } else {
                self.handle.rpc(topic, rank, request)?
            };
            self.by_tag.insert(rpc.matchtag(), self.procs.len());
            self.procs.push(Proc {
                rank,
                rpc,
                pid: None,
                credit: 0,
                code: None,
                failed: false,
            });
        }
        Ok(())
    }

    /// Returns the ranks whose process failed or could not be started.
    pub(super) fn failed(&self) -> IdSet {
        let failed = self.procs.iter().filter(|proc| proc.code != Some(0));
        failed.map(|proc| proc.rank).collect()
    }

    fn running(&self) -> bool {
        self.procs.iter().any(|proc| proc.code.is_none())
    }

    pub(super) fn wait_background(&mut self) -> CmdResult {
        let mut code = 0;
        for at in 0..self.procs.len() {
            let Some((rank, rpc)) = self.procs.get(at).map(|proc| (proc.rank, proc.rpc.clone())) else {
                continue;
            };
            match self.handle.get::<Response>(&rpc) {
                Ok(response) if !self.how.quiet => {
                    let pid = response.pid.unwrap_or(-1).to_string();
                    let label = if self.how.label {
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

    pub(super) fn wait(&mut self, no_input: bool) -> CmdResult {
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
            if others[0].is_readable() && self.signalled(&signals)? {
                return Ok(0);
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

    /// Passes signals on; returns true when one ends the attachment instead.
    fn signalled(&mut self, signals: &SignalFd) -> Result<bool, CmdError> {
        while let Some(signal) = signals.next_signal().map_err(CmdError::file("signals"))? {
            if let (Signal::SIGINT, Some(word)) = (signal, &self.attached) {
                let hint = format!("detached; use 'flux sproc kill SIGNUM {word}' to signal it");
                crate::common::ctx::eprint(hint);
                return Ok(true);
            }
            self.forward(signal)?;
        }
        Ok(false)
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
        if !self.how.quiet {
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
            kind @ ("started" | "attached") => {
                proc.pid = response.pid;
                if self.how.verbose {
                    let pid = response.pid.unwrap_or(-1);
                    let what = if kind == "started" {
                        "started"
                    } else {
                        "attached to"
                    };
                    let line = format!("{}: rank {}: {what} pid {pid}\n", self.ctx.name, proc.rank);
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
        if !self.how.label {
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
        if self.how.quiet {
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
