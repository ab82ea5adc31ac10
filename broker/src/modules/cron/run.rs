//! How is an entry's command run, and what becomes of its output and end?

use super::entry::CronEntry;
use super::service::{Cron, duration, now};
use crate::service::{Cx, RpcError, TimerId};
use flux_formats::errno;
use flux_formats::msg::Message;
use flux_formats::rpc::rexec as rpc;
use flux_process::{Signal, WaitStatus};
use serde::Deserialize;
use std::collections::HashMap;

/// Longest line of output that is kept together, in bytes.
const LINE_MAX: usize = 4096;

/// A task that was given to the subprocess server.
#[derive(Debug, Default)]
pub(super) struct Running {
    timer: Option<TimerId>,
    /// Unfinished lines by stream.
    lines: HashMap<String, Vec<u8>>,
}

/// What the subprocess server says of a process (RFC 42).
#[derive(Deserialize)]
struct Report {
    r#type: String,
    #[serde(default)]
    pid: i64,
    #[serde(default)]
    status: i32,
    #[serde(default)]
    io: Option<rpc::IoObject>,
}

impl Cron {
    /// Runs the command of an entry whose task was scheduled.
    pub(super) fn run(&mut self, cx: &mut Cx<'_>, id: i64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Some(task) = &mut entry.task else { return };
        let now = now();
        task.started = Some(now);
        entry.stats.last_run = now;
        let request = &entry.request;
        let body = rpc::ExecRequest {
            cmd: rpc::CommandObject {
                cwd: request.cwd.clone(),
                cmdline: vec!["sh".to_owned(), "-c".to_owned(), request.command.clone()],
                env: request.environ.clone().unwrap_or_default(),
                ..rpc::CommandObject::default()
            },
            flags: rpc::FLAG_STDOUT | rpc::FLAG_STDERR,
            local_flags: 0,
        };
        let req = cx.request("rexec.exec", request.rank, &body);
        self.running.insert(id, Running::default());
        cx.rpc_stream(req, move |me: &mut Cron, cx, result| me.on_report(cx, id, result));
    }

    fn on_report(&mut self, cx: &mut Cx<'_>, id: i64, result: Result<Message, RpcError>) {
        match result.and_then(|msg| Ok(msg.payload_json::<Report>()?)) {
            Ok(report) => self.on_progress(cx, id, report),
            Err(err) if err.errnum == errno::ENODATA => self.on_end(cx, id, None),
            Err(err) => self.on_end(cx, id, Some(&err)),
        }
    }

    fn on_progress(&mut self, cx: &mut Cx<'_>, id: i64, report: Report) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Some(task) = &mut entry.task else { return };
        match report.r#type.as_str() {
            "started" => {
                (task.pid, task.running) = (report.pid, Some(now()));
                let timeout = entry.request.timeout;
                if timeout > 0.0
                    && let Some(running) = self.running.get_mut(&id)
                {
                    running.timer =
                        Some(cx.timer(duration(timeout), move |me: &mut Cron, cx| me.on_timeout(cx, id)));
                }
            }
            "finished" => (task.status, task.exited) = (report.status, true),
            "output" => {
                if let Some(io) = report.io {
                    self.on_output(cx, id, &io);
                }
            }
            _ => {}
        }
    }

    fn on_timeout(&mut self, cx: &mut Cx<'_>, id: i64) {
        if let Some(task) = self.entries.get_mut(&id).and_then(|entry| entry.task.as_mut()) {
            task.timed_out = true;
        }
        self.kill(cx, id);
    }

    /// Sends SIGTERM to the task of an entry, if it runs.
    pub(super) fn kill(&mut self, cx: &mut Cx<'_>, id: i64) {
        let task = self.entries.get(&id).and_then(|entry| entry.task.as_ref());
        let Some(task) = task.filter(|task| task.running.is_some() && !task.exited) else {
            return;
        };
        let body = rpc::KillRequest {
            pid: task.pid,
            signum: Signal::SIGTERM.number(),
            label: None,
        };
        let req = cx.request("rexec.kill", task.rank, &body);
        cx.notify(req);
    }

    /// Writes whole lines of output to the log.
    fn on_output(&mut self, cx: &mut Cx<'_>, id: i64, io: &rpc::IoObject) {
        let (Some(entry), Some(running)) = (self.entries.get(&id), self.running.get_mut(&id)) else {
            return;
        };
        let level = if io.stream == "stderr" { 3 } else { 6 };
        let held = running.lines.entry(io.stream.clone()).or_default();
        held.extend(io.bytes().unwrap_or_default());
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            log_line(cx, entry, level, line.get(..end).unwrap_or_default());
        }
        if !held.is_empty() && (io.eof || held.len() > LINE_MAX) {
            log_line(cx, entry, level, &std::mem::take(held));
        }
    }

    fn on_end(&mut self, cx: &mut Cx<'_>, id: i64, err: Option<&RpcError>) {
        if let Some(timer) = self.running.remove(&id).and_then(|running| running.timer) {
            cx.cancel_timer(timer);
        }
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Some(task) = &mut entry.task else { return };
        let command = &entry.request.command;
        if let Some(err) = err {
            task.failed = err.errnum;
            cx.log_as_me(3, &format!("cron-{id}: failure running {command}: {err}"));
        } else if task.status != 0 {
            let how = describe(WaitStatus(task.status));
            cx.log_as_me(3, &format!("cron-{id}: \"{command}\": Failed: {how}"));
        }
        let limit = entry.request.stop_on_failure;
        if entry.finish(now()) && !entry.stopped {
            cx.log_as_me(
                3,
                &format!("cron-{id}: exceeded failure limit of {limit}. stopping"),
            );
            self.stop_entry(cx, id);
        }
        if self.entries.get(&id).is_some_and(|entry| entry.deleted) {
            self.remove_entry(cx, id);
        }
    }
}

fn log_line(cx: &mut Cx<'_>, entry: &CronEntry, level: u8, line: &[u8]) {
    let request = &entry.request;
    let text = format!(
        "cron-{}[{}]: rank={}: command=\"{}\": \"{}\"",
        entry.id,
        request.name,
        request.rank,
        request.command,
        String::from_utf8_lossy(line)
    );
    cx.log_as_me(level, &text);
}

fn describe(status: WaitStatus) -> String {
    match status.signal() {
        Some(number) => format!("signal {number}"),
        None => format!("Exit {}", status.exit_code()),
    }
}
