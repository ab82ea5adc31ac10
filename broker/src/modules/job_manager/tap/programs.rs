//! How do plugins run programs? As subprocesses of `rexec` on the ranks that they name (interface `exec`).

use super::super::JobManager;
use super::apply::inval;
use super::state::Waiting;
use super::view;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::rpc::rexec::{CommandObject, ExecRequest, FLAG_STDERR, FLAG_STDOUT, IoObject, KillRequest};
use flux_policy::TapCall;
use regex_lite::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Programs of all plugins that run at a time.
const PROGRAMS_MAX: usize = 4096;
/// Time between SIGTERM and SIGKILL when a plugin names none.
const KILL_TIMEOUT: Duration = Duration::from_secs(60);
/// Wait status of `exit 127`.
const NOT_STARTED: i32 = 127 << 8;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// Broker variables that programs get.
const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "SHELL"];

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
    kill_timeout: Duration,
    ignore: Vec<Regex>,
    /// Beginnings of lines, by rank and stream.
    partial: HashMap<(u32, String), String>,
}

/// What `options` of `exec.spawn` say.
struct Options {
    name: String,
    ranks: IdSet,
    timeout: Option<Duration>,
    kill_timeout: Duration,
    environment: Map<String, Value>,
    ignore: Vec<Regex>,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    pid: Option<i64>,
    #[serde(default)]
    status: Option<i32>,
    #[serde(default)]
    io: Option<IoObject>,
}

impl Options {
    fn read(options: Vec<(String, String)>, size: u32) -> Result<Options, RpcError> {
        let mut read = Options {
            name: "program".to_owned(),
            ranks: std::iter::once(0).collect(),
            timeout: None,
            kill_timeout: KILL_TIMEOUT,
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
            kill_timeout: options.kill_timeout,
            ignore: options.ignore,
            partial: HashMap::new(),
        };
        self.tap.programs.running.insert(number, program);
        let mut env = Map::new();
        for name in INHERITED {
            if let Ok(value) = std::env::var(name) {
                env.insert(name.to_owned(), value.into());
            }
        }
        if let Some(uri) = cx.attrs.get("local-uri") {
            env.insert("FLUX_URI".to_owned(), uri.into());
        }
        if let Some(userid) = self.tap_find(id).map(|job| job.userid) {
            env.insert("FLUX_JOB_ID".to_owned(), id.to_string().into());
            env.insert("FLUX_JOB_USERID".to_owned(), userid.to_string().into());
        }
        env.extend(options.environment);
        let request = ExecRequest {
            cmd: CommandObject {
                cwd: Some("/".to_owned()),
                cmdline: command,
                env,
                ..CommandObject::default()
            },
            flags: FLAG_STDOUT | FLAG_STDERR,
            local_flags: 0,
        };
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
                if let Some(pid) = program.ranks.get_mut(&rank) {
                    *pid = reply.pid;
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
        let text = program.partial.entry((rank, io.stream.clone())).or_default();
        if let Some(data) = io.data.as_deref().filter(|_| io.encoding.is_none()) {
            text.push_str(data);
        }
        let mut lines: Vec<String> = Vec::new();
        while let Some(end) = text.find('\n') {
            let rest = text.split_off(end + 1);
            lines.push(std::mem::replace(text, rest).trim_end().to_owned());
        }
        if io.eof && !text.is_empty() {
            lines.push(std::mem::take(text));
        }
        let host = host_of(cx, rank);
        let level = if io.stream == "stderr" { 3 } else { 6 };
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
        let hosts: Vec<String> = program.failed.iter().map(|rank| host_of(cx, rank)).collect();
        let hosts: Hostlist = hosts.join(",").parse().unwrap_or_default();
        let mut details = vec![
            ("ranks".to_owned(), program.failed.to_string()),
            ("hosts".to_owned(), hosts.to_string()),
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
        self.tap_one(cx, plugin.clone(), view::id_only(id), call, Waiting::Nothing);
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
        let Some(program) = self.tap.programs.running.get(&number) else {
            return;
        };
        let wait = program.kill_timeout;
        for (rank, pid) in &program.ranks {
            let Some(pid) = *pid else { continue };
            let request = KillRequest {
                pid,
                signum,
                label: None,
            };
            let message = cx.request("rexec.kill", *rank, &request);
            cx.rpc(message, |_: &mut JobManager, _, result| {
                if let Err(err) = result {
                    // it may have ended meanwhile
                    tracing::debug!(err = %err, "signal not sent");
                }
            });
        }
        if signum != SIGKILL {
            cx.timer(wait, move |me: &mut JobManager, cx| {
                me.kill_number(cx, number, SIGKILL);
            });
        }
    }
}

fn host_of(cx: &Cx<'_>, rank: u32) -> String {
    let hosts: Option<Hostlist> = cx.attrs.get("hostlist").and_then(|text| text.parse().ok());
    let index = usize::try_from(rank).unwrap_or(usize::MAX);
    hosts
        .and_then(|hosts| hosts.iter().nth(index).map(|host| host.to_string()))
        .unwrap_or_else(|| format!("rank{rank}"))
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
        assert_eq!(read(&[("timeout", "0")]).map(|read| read.timeout), Ok(None));
        for bad in [
            ("ranks", "4"),
            ("ranks", ""),
            ("ranks", "x"),
            ("timeout", "-1"),
            ("timeout", "soon"),
            ("log-ignore", "("),
            ("cwd", "/"),
            ("env.", "x"),
        ] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
    }
}
