//! How do plugins run programs? As subprocesses of `rexec` on the ranks that they name (interface `exec`).

use super::super::JobManager;
use super::super::program::{self, Lines, NOT_STARTED, Reply, host_of, hosts_of};
use super::apply::inval;
use super::state::Waiting;
use super::view;
use crate::modules::resource::api as resource;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::resource_set::ResourceSet;
use flux_formats::rpc::rexec::IoObject;
use flux_policy::TapCall;
use regex_lite::Regex;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Programs of all plugins that run at a time.
const PROGRAMS_MAX: usize = 4096;
/// Time after SIGKILL when a program counts as ended, whatever its broker says.
const GONE: Duration = Duration::from_secs(10);
/// Time between SIGTERM and SIGKILL when a plugin names none.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// All programs that run.
#[derive(Debug, Default)]
pub(super) struct Programs {
    running: HashMap<u64, Program>,
    last: u64,
}

/// A program on its ranks.
#[derive(Debug)]
struct Program {
    plugin: Arc<str>,
    token: u64,
    id: JobId,
    name: String,
    /// Ranks on which it runs, with the process id once it is known.
    ranks: BTreeMap<u32, Option<i64>>,
    status: i32,
    failed: IdSet,
    timed_out: bool,
    /// The signal that ends it, once one was sent.
    killed: Option<i32>,
    kill_timeout: Duration,
    /// Drain the ranks on which it fails.
    drain: bool,
    ignore: Vec<Regex>,
    lines: Lines,
}

/// What `options` of `exec.spawn` say.
struct Options {
    name: String,
    ranks: IdSet,
    timeout: Option<Duration>,
    kill_timeout: Duration,
    drain: bool,
    environment: Map<String, Value>,
    ignore: Vec<Regex>,
}

impl Options {
    fn read(options: Vec<(String, String)>, size: u32) -> Result<Options, RpcError> {
        let mut read = Options {
            name: "program".to_owned(),
            ranks: std::iter::once(0).collect(),
            timeout: None,
            kill_timeout: KILL_TIMEOUT,
            drain: false,
            environment: Map::new(),
            ignore: Vec::new(),
        };
        for (key, value) in options {
            let bad = |what: &str| inval(format!("option {key}={value:?}: {what}"));
            let seconds = || {
                let seconds = value.parse().ok();
                seconds
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .ok_or_else(|| bad("must be seconds"))
            };
            match key.as_str() {
                "name" => read.name.clone_from(&value),
                "ranks" => {
                    let ranks: IdSet = value.parse().map_err(|_| bad("must be an idset"))?;
                    if ranks.is_empty() || ranks.iter().any(|rank| rank >= size) {
                        return Err(bad("must name brokers of this instance"));
                    }
                    read.ranks = ranks;
                }
                "timeout" => read.timeout = Some(seconds()?).filter(|time| !time.is_zero()),
                "kill-timeout" => read.kill_timeout = seconds()?,
                "drain" => read.drain = value.parse().map_err(|_| bad("must be true or false"))?,
                "log-ignore" => {
                    let regex = Regex::new(&value).map_err(|err| bad(&err.to_string()))?;
                    read.ignore.push(regex);
                }
                _ => match key.strip_prefix("env.") {
                    Some(name) if !name.is_empty() => {
                        read.environment.insert(name.to_owned(), value.into());
                    }
                    _ => return Err(bad("unknown option")),
                },
            }
        }
        Ok(read)
    }
}

impl JobManager {
    /// Starts a program on each of its ranks.
    pub(super) fn spawn_program(
        &mut self,
        cx: &mut Cx<'_>,
        plugin: &Arc<str>,
        token: u64,
        id: JobId,
        command: Vec<String>,
        options: Vec<(String, String)>,
    ) -> Result<(), RpcError> {
        let started = self.try_spawn(cx, plugin, token, id, command, options);
        if started.is_err() {
            // the plugin waits for an end
            let details = vec![("ranks".to_owned(), String::new())];
            self.tell_exit(cx, plugin, token, id, NOT_STARTED, details);
        }
        started
    }

    fn try_spawn(
        &mut self,
        cx: &mut Cx<'_>,
        plugin: &Arc<str>,
        token: u64,
        id: JobId,
        command: Vec<String>,
        options: Vec<(String, String)>,
    ) -> Result<(), RpcError> {
        if self.tap.programs.running.len() >= PROGRAMS_MAX {
            return Err(inval("too many programs run already"));
        }
        if command.first().is_none_or(String::is_empty) {
            return Err(inval("the command is empty"));
        }
        let options = Options::read(options, cx.size())?;
        self.tap.programs.last += 1;
        let number = self.tap.programs.last;
        let program = Program {
            plugin: plugin.clone(),
            token,
            id,
            name: options.name,
            ranks: options.ranks.iter().map(|rank| (rank, None)).collect(),
            status: 0,
            failed: IdSet::default(),
            timed_out: false,
            killed: None,
            kill_timeout: options.kill_timeout,
            drain: options.drain,
            ignore: options.ignore,
            lines: Lines::default(),
        };
        self.tap.programs.running.insert(number, program);
        let mut env = Map::new();
        if let Some(userid) = self.tap_find(id).map(|job| job.userid) {
            env.insert("FLUX_JOB_ID".to_owned(), id.to_string().into());
            env.insert("FLUX_JOB_USERID".to_owned(), userid.to_string().into());
        }
        let r = self.active.get(&id).and_then(|job| job.r.as_deref());
        if let Some(Ok(r)) = r.map(ResourceSet::from_value) {
            env.insert("FLUX_JOB_RANKS".to_owned(), r.ranks().to_string().into());
        }
        env.extend(options.environment);
        let request = program::request(cx, command, env);
        for rank in options.ranks.iter() {
            let message = cx.request("rexec.exec", rank, &request);
            cx.rpc_stream(message, move |me: &mut JobManager, cx, result| {
                me.on_program(cx, number, rank, result);
            });
        }
        if let Some(timeout) = options.timeout {
            cx.timer(timeout, move |me: &mut JobManager, cx| {
                if let Some(program) = me.tap.programs.running.get_mut(&number) {
                    program.timed_out = true;
                    me.kill_number(cx, number, SIGTERM);
                }
            });
        }
        Ok(())
    }

    fn on_program(&mut self, cx: &mut Cx<'_>, number: u64, rank: u32, result: Result<Message, RpcError>) {
        let Some(program) = self.tap.programs.running.get_mut(&number) else {
            return;
        };
        let reply = match result {
            Ok(message) => message.payload_json::<Reply>().ok(),
            Err(err) => {
                if err.errnum != errno::ENODATA {
                    program.status = program.status.max(NOT_STARTED);
                    program.failed.insert(rank);
                    let text = format!("{}: {}: rank {rank}: {}", program.id, program.name, err.text);
                    cx.log(3, &program.plugin.clone(), &text);
                }
                return self.rank_ended(cx, number, rank);
            }
        };
        let Some(reply) = reply else { return };
        match reply.kind.as_str() {
            "started" => {
                if let Some(known) = program.ranks.get_mut(&rank) {
                    *known = reply.pid;
                }
                if let (Some(pid), Some(signum)) = (reply.pid, program.killed) {
                    // it was to end before it had begun
                    program::kill(cx, rank, pid, signum);
                }
            }
            "output" => {
                if let Some(io) = reply.io {
                    self.program_output(cx, number, rank, &io);
                }
            }
            "finished" => {
                let status = reply.status.unwrap_or(0);
                if status != 0 {
                    program.failed.insert(rank);
                }
                program.status = program.status.max(status);
            }
            _ => {}
        }
    }

    /// Logs complete lines.
    fn program_output(&mut self, cx: &mut Cx<'_>, number: u64, rank: u32, io: &IoObject) {
        let Some(program) = self.tap.programs.running.get_mut(&number) else {
            return;
        };
        let mut lines = program.lines.add(rank, io);
        let host = host_of(cx, rank);
        let level = program::level_of(&io.stream);
        let (plugin, head) = (
            program.plugin.clone(),
            format!(
                "{}: {}: {host} (rank {rank}): {}: ",
                program.id, program.name, io.stream
            ),
        );
        let ignore = &program.ignore;
        lines.retain(|line| !ignore.iter().any(|regex| regex.is_match(line)));
        for line in lines {
            cx.log(level, &plugin, &format!("{head}{line}"));
        }
    }

    fn rank_ended(&mut self, cx: &mut Cx<'_>, number: u64, rank: u32) {
        let Some(program) = self.tap.programs.running.get_mut(&number) else {
            return;
        };
        program.ranks.remove(&rank);
        if !program.ranks.is_empty() {
            return;
        }
        let Some(program) = self.tap.programs.running.remove(&number) else {
            return;
        };
        if program.drain && program.killed.is_none_or(|_| program.timed_out) && !program.failed.is_empty() {
            let how = if program.timed_out { "timed out" } else { "failed" };
            program.drain(cx, &program.failed, how);
        }
        let hosts = hosts_of(cx, &program.failed);
        let mut details = vec![
            ("ranks".to_owned(), program.failed.to_string()),
            ("hosts".to_owned(), hosts),
        ];
        if program.timed_out {
            details.push(("timeout".to_owned(), "true".to_owned()));
        }
        let Program {
            plugin,
            token,
            id,
            status,
            ..
        } = program;
        self.tell_exit(cx, &plugin, token, id, status, details);
    }

    fn tell_exit(
        &mut self,
        cx: &mut Cx<'_>,
        plugin: &Arc<str>,
        token: u64,
        id: JobId,
        status: i32,
        details: Vec<(String, String)>,
    ) {
        let call = TapCall::Exited {
            token,
            status,
            details,
        };
        self.tap_ask(
            cx,
            view::id_only(id),
            call,
            Some(plugin.clone()),
            Waiting::Nothing,
        );
    }

    /// Sends a signal to a program of a plugin.
    pub(super) fn kill_program(
        &mut self,
        cx: &mut Cx<'_>,
        plugin: &Arc<str>,
        token: u64,
        signum: u32,
    ) -> Result<(), RpcError> {
        let signum = i32::try_from(signum)
            .ok()
            .filter(|signum| (1..=64).contains(signum))
            .ok_or_else(|| inval("there is no such signal"))?;
        let number = self
            .tap
            .programs
            .running
            .iter()
            .find(|(_, program)| program.plugin == *plugin && program.token == token)
            .map(|(number, _)| *number);
        if let Some(number) = number {
            self.kill_number(cx, number, signum);
        }
        Ok(())
    }

    fn kill_number(&mut self, cx: &mut Cx<'_>, number: u64, signum: i32) {
        let Some(program) = self.tap.programs.running.get_mut(&number) else {
            return;
        };
        program.killed = Some(signum);
        let wait = program.kill_timeout;
        for (rank, pid) in &program.ranks {
            let Some(pid) = *pid else { continue };
            program::kill(cx, *rank, pid, signum);
        }
        if signum == SIGKILL {
            cx.timer(GONE, move |me: &mut JobManager, cx| {
                me.program_is_gone(cx, number)
            });
        } else {
            cx.timer(wait, move |me: &mut JobManager, cx| me.kill_timed_out(cx, number));
        }
    }

    /// SIGTERM did not help.
    fn kill_timed_out(&mut self, cx: &mut Cx<'_>, number: u64) {
        let Some(program) = self.tap.programs.running.get(&number) else {
            return;
        };
        let text = format!(
            "{}: timed out waiting for SIGTERM to terminate {}",
            program.id, program.name
        );
        cx.log(3, &program.plugin.clone(), &text);
        if program.drain {
            let how = if program.timed_out {
                "timed out"
            } else {
                "canceled then timed out"
            };
            let ranks: IdSet = program.ranks.keys().copied().collect();
            program.drain(cx, &ranks, how);
        }
        self.kill_number(cx, number, SIGKILL);
    }

    /// Not even SIGKILL ended it: the job goes on without these ranks.
    fn program_is_gone(&mut self, cx: &mut Cx<'_>, number: u64) {
        let Some(program) = self.tap.programs.running.get_mut(&number) else {
            return;
        };
        let ranks: IdSet = program.ranks.keys().copied().collect();
        program.failed = program.failed.union(&ranks);
        program.status = program.status.max(SIGKILL);
        for rank in ranks.iter() {
            self.rank_ended(cx, number, rank);
        }
    }
}

impl Program {
    fn drain(&self, cx: &mut Cx<'_>, ranks: &IdSet, how: &str) {
        let reason = format!("{} {how} for job {}", self.name, self.id);
        resource::drain(cx, ranks, &reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: &[(&str, &str)]) -> Result<Options, String> {
        let options = options
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        Options::read(options, 4).map_err(|err| err.text)
    }

    #[test]
    fn options() {
        let good = read(&[
            ("name", "prolog"),
            ("ranks", "0-3"),
            ("timeout", "1.5"),
            ("kill-timeout", "2"),
            ("env.A", "b"),
            ("drain", "true"),
            ("log-ignore", "^noise"),
        ])
        .unwrap_or_else(|text| panic!("{text}"));
        assert_eq!(
            (good.name.as_str(), good.ranks.to_string().as_str()),
            ("prolog", "0-3")
        );
        assert_eq!(good.timeout, Some(Duration::from_millis(1500)));
        assert_eq!(good.kill_timeout, Duration::from_secs(2));
        assert_eq!(good.environment.get("A"), Some(&Value::from("b")));
        assert!(good.ignore[0].is_match("noise here") && !good.ignore[0].is_match("no noise"));
        assert!(good.drain && read(&[]).is_ok_and(|read| !read.drain));
        assert_eq!(read(&[("timeout", "0")]).map(|read| read.timeout), Ok(None));
        for bad in [
            ("ranks", "4"),
            ("ranks", ""),
            ("ranks", "x"),
            ("timeout", "-1"),
            ("timeout", "soon"),
            ("drain", "yes"),
            ("log-ignore", "("),
            ("cwd", "/"),
            ("env.", "x"),
        ] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
    }
}
