//! In which order does a shell do its work, and when is it done?
//!
//! ```text
//!   one shell:  ───────────────────────────────▶ Running ─▶ Draining ─▶ Reporting ─▶ Done
//!   several:    InitBarrier ─▶ StartBarrier ───▶    │                      ▲
//!                    │              │               │                      │
//!                    └──────────────┴───────────────┴──── fatal ───────────┘
//! ```
//! Tasks start on leaving `InitBarrier` (at once for one shell). `Running` ends when the local tasks have ended and
//! their output has been read; `Draining` when the other shells' output is there and every commit is answered.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use flux_client::{Error, Handle, Incoming, NODEID_ANY, PollFlags};
use flux_formats::jobid::JobId;
use flux_process::pmi::Driver;
use flux_process::signal::SignalFd;
use flux_process::{Interest, Signal, fd};

use crate::ctx::{Ctx, Purpose};
use crate::eventlog;
use crate::log::{Place, log};
use crate::plugins::doom::TaskExit;
use crate::plugins::rexec::Part;
use crate::plugins::signal;
use crate::reconnect;
use crate::start::{self, Parts};
use crate::task::{Stream, Task};

/// Time in which a short job's events gather for one commit.
const FIRST_COMMIT_DELAY: Duration = Duration::from_millis(3);
/// Bytes read from a task at once.
const READ_SIZE: usize = 64 * 1024;

/// How far the shell has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for the other shells before `shell.init`.
    InitBarrier,
    /// Tasks run; waits for the other shells before `shell.start`.
    StartBarrier,
    /// Tasks run.
    Running,
    /// Local tasks have ended.
    Draining,
    /// The exit status is on its way to the broker.
    Reporting,
    /// The process may exit.
    Done,
}

impl Phase {
    /// Returns how many barriers lie behind.
    pub(crate) fn barriers_passed(self) -> u32 {
        match self {
            Phase::InitBarrier => 0,
            Phase::StartBarrier => 1,
            _ => 2,
        }
    }
}

/// What a descriptor in the poll set is.
#[derive(Debug, Clone, Copy)]
enum Token {
    Signals,
    Exit(usize),
    Read(usize, Stream),
    Write(usize),
    Terminal(usize),
    Pmi(usize),
    Rexec(u32, Part),
}

/// The shell.
pub(crate) struct Shell {
    pub(crate) ctx: Ctx,
    pub(crate) parts: Parts,
    pub(crate) tasks: Vec<Task>,
    phase: Phase,
    signals: SignalFd,
    killed: bool,
    buffer: Vec<u8>,
}

/// Runs the job on this node and returns the exit code.
pub(crate) fn run(mut ctx: Ctx) -> u8 {
    start::register(&mut ctx);
    start::open_eventlog(&mut ctx);
    let signals = signal::receive().map_err(|error| start::StartError::system("signalfd", &error));
    let prepared = signals.and_then(|signals| Ok((signals, start::prepare(&mut ctx)?)));
    let (signals, parts) = match prepared {
        Ok(ready) => ready,
        Err(error) => {
            ctx.die(
                1,
                &error.to_string(),
                Place {
                    file: file!(),
                    line: line!(),
                },
            );
            return leave_early(ctx);
        }
    };
    let mut shell = Shell {
        ctx,
        parts,
        tasks: Vec::new(),
        phase: Phase::InitBarrier,
        signals,
        killed: false,
        buffer: vec![0; READ_SIZE],
    };
    shell.begin();
    shell.main_loop();
    u8::try_from(shell.exit_code()).unwrap_or(1)
}

/// Tells the job and the broker about a shell that never came up.
fn leave_early(mut ctx: Ctx) -> u8 {
    // The leader may not be there yet; then only the exception says why.
    ctx.leader_is_ready();
    ctx.commit();
    let code = ctx.exit_code;
    let rank = ctx.info.broker_rank_of(ctx.info.shell_rank);
    let body = exit_request(ctx.info.id, rank, code);
    ctx.rpc("job-exec.shell-exit", NODEID_ANY, &body, Purpose::ShellExit);
    loop {
        let response = match ctx.handle.next_incoming(ctx.retry_at()) {
            Ok(Some(Incoming::Response(response))) => response,
            Ok(_) => {
                ctx.retry_due(Instant::now());
                continue;
            }
            Err(_) if ctx.reconnects && reconnect::rejoin_waiting(&mut ctx) => continue,
            // Without a broker there is nobody to tell.
            Err(_) => break,
        };
        match ctx.purpose_of(&response) {
            Some(Purpose::ShellExit) => break,
            Some(Purpose::Commit { number, bytes }) => {
                ctx.on_committed(number, bytes, &response, Instant::now());
            }
            Some(Purpose::Mark) => ctx.on_mark(&response, Instant::now()),
            _ => {}
        }
    }
    u8::try_from(code).unwrap_or(1)
}

fn exit_request(id: JobId, rank: u32, code: i32) -> serde_json::Value {
    serde_json::json!({"id": id.0, "rank": rank, "status": (code & 0xff) << 8})
}

/// Tells the job about a shell that does not understand its description.
pub(crate) fn report_failure(handle: &mut Handle, id: JobId, message: &str) {
    let note = serde_json::json!({"id": id.0, "type": "exec", "severity": 0, "note": message});
    // The shell leaves with an exit code that says the same to whoever started it.
    let _raised = handle.call::<serde::de::IgnoredAny>("job-manager.raise", NODEID_ANY, &note);
}

impl Shell {
    fn begin(&mut self) {
        if self.ctx.info.shell_size() > 1 {
            self.enter_barrier();
            return;
        }
        start::announce(&mut self.ctx, self.parts.ptys.as_ref());
        self.start_tasks();
        if !self.ctx.fatal {
            start::announce_start(&mut self.ctx);
        }
        self.phase = Phase::Running;
        self.ctx.touch_within(FIRST_COMMIT_DELAY);
        self.watch_resources();
    }

    pub(crate) fn enter_barrier(&mut self) {
        let info = &self.ctx.info;
        let mut body = serde_json::json!({"id": info.id.0, "rank": info.broker_rank_of(info.shell_rank)});
        if self.ctx.reconnects {
            // an answer may get lost: it must be clear which barrier is meant
            body["number"] = (self.phase.barriers_passed() + 1).into();
        }
        // A broken connection is noticed by the next poll.
        let _sent = self
            .ctx
            .handle
            .notify("job-exec.shell-barrier", NODEID_ANY, &body);
    }

    /// Goes on after all shells have arrived.
    pub(crate) fn barrier_passed(&mut self) {
        match self.phase {
            Phase::InitBarrier => {
                self.ctx.leader_is_ready();
                start::announce(&mut self.ctx, self.parts.ptys.as_ref());
                self.ctx.commit();
                self.phase = Phase::StartBarrier;
                self.start_tasks();
                if !self.ctx.fatal {
                    self.enter_barrier();
                }
                self.watch_resources();
            }
            Phase::StartBarrier => {
                self.phase = Phase::Running;
                start::announce_start(&mut self.ctx);
                self.report_first_exit();
                self.ctx.touch_within(FIRST_COMMIT_DELAY);
            }
            _ => {}
        }
    }

    /// Follows changes of the job's expiration, when somebody is interested.
    pub(crate) fn watch_resources(&mut self) {
        let minds_the_time = self.ctx.reconnects && self.ctx.info.expiration > 0.0;
        if self.parts.warning.is_none() && !minds_the_time {
            return;
        }
        let body = serde_json::json!({"id": self.ctx.info.id.0, "key": "R", "flags": 0});
        if let Ok(rpc) = self.ctx.handle.stream("job-info.update-watch", NODEID_ANY, &body) {
            self.ctx.track(&rpc, Purpose::ResourceUpdate);
        }
    }

    fn main_loop(&mut self) {
        while self.phase != Phase::Done {
            self.advance();
            if self.phase == Phase::Done {
                break;
            }
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) if self.on_lost(&error) => {
                    // nobody hears of them any more
                    self.parts.rexec.end(&mut self.ctx);
                    continue;
                }
                Err(_) => {
                    self.abandon();
                    return;
                }
            };
            for token in ready {
                self.on_ready(token);
            }
            while let Some(incoming) = self.ctx.handle.try_incoming() {
                self.on_incoming(incoming);
            }
            self.on_time(Instant::now());
            self.parts.output.flush_files(&mut self.ctx);
        }
    }

    /// Sleeps until something happens and returns which descriptors are ready.
    fn wait(&mut self) -> Result<Vec<Token>, Error> {
        let deadline = self.deadline();
        let mut tokens = Vec::with_capacity(self.tasks.len() * 4 + 1);
        let mut others = Vec::with_capacity(tokens.capacity());
        let mut add = |token, fd, events| {
            tokens.push(token);
            others.push(reconnect::other(fd, events));
        };
        add(Token::Signals, self.signals.as_fd(), PollFlags::POLLIN);
        let stopped = self.parts.output.is_stopped(&self.ctx);
        for (index, task) in self.tasks.iter().enumerate() {
            watch_task(index, task, stopped, &mut add);
        }
        if let Some(ptys) = &self.parts.ptys {
            for (index, input) in ptys.waiting_input() {
                add(Token::Terminal(index), input.as_fd(), PollFlags::POLLOUT);
            }
        }
        for (client, socket, interest) in self.parts.pmi.iter().flat_map(|pmi| Driver::fds(pmi.driver())) {
            let events = match interest {
                Interest::ReadWrite => PollFlags::POLLIN | PollFlags::POLLOUT,
                _ => PollFlags::POLLIN,
            };
            add(Token::Pmi(client), socket, events);
        }
        for (pid, part, fd) in self.parts.rexec.fds() {
            let events = match part {
                Part::Write => PollFlags::POLLOUT,
                _ => PollFlags::POLLIN,
            };
            add(Token::Rexec(pid, part), fd, events);
        }
        Self::poll(&mut self.ctx, &mut others, deadline)?;
        let ready = tokens
            .into_iter()
            .zip(&others)
            .filter(|(_, other)| !other.ready.is_empty());
        Ok(ready.map(|(token, _)| token).collect())
    }

    fn deadline(&self) -> Option<Instant> {
        let warning = self.parts.warning.as_ref().and_then(signal::Warning::deadline);
        [
            self.ctx.flush_at(),
            self.ctx.retry_at().filter(|_| self.ctx.connection.is_up()),
            self.ctx.commits.refresh_at(),
            self.ctx.connection.deadline(),
            self.parts.doom.deadline(),
            warning,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn on_time(&mut self, now: Instant) {
        self.ctx.flush_due(now);
        if self.ctx.reconnects {
            self.ctx.retry_due(now);
            self.ctx.refresh_commits(now);
            self.reconnect_due(now);
        }
        self.parts.doom.expire(&mut self.ctx, now);
        let warning = self.parts.warning.as_mut();
        if let Some(signal) = warning.and_then(|warning| warning.expire(&mut self.ctx, now)) {
            self.kill_tasks(signal);
        }
    }

    fn on_ready(&mut self, token: Token) {
        match token {
            Token::Signals => self.on_signal(),
            Token::Exit(index) => self.on_task_exit(index),
            Token::Read(index, stream) => self.on_output(index, stream),
            Token::Write(index) => {
                if let Some(task) = self.tasks.get_mut(index) {
                    task.stdin.flush();
                }
            }
            Token::Terminal(index) => {
                if let Some(ptys) = &mut self.parts.ptys {
                    ptys.flush_input(index);
                }
            }
            Token::Pmi(client) => {
                if let Some(pmi) = &mut self.parts.pmi {
                    pmi.on_ready(&mut self.ctx, client);
                }
            }
            Token::Rexec(pid, part) => {
                let rexec = &mut self.parts.rexec;
                rexec.on_ready(&mut self.ctx, pid, part, &mut self.buffer);
            }
        }
    }

    fn on_signal(&mut self) {
        while let Ok(Some(signal)) = self.signals.next_signal() {
            log!(
                self.ctx,
                Debug,
                "",
                "forwarding signal {} to tasks",
                signal.number()
            );
            self.kill_tasks(signal);
            match self.phase {
                // There are no tasks yet whose end could end the shell.
                Phase::InitBarrier => {
                    self.ctx.exit_code = self.ctx.exit_code.max(128 + signal.number());
                    self.ctx.fatal = true;
                }
                // Whoever it waits for may be gone, and the signal says that the job is over.
                Phase::Draining => self.ctx.links.give_up(),
                // The broker does not answer, and nothing else is left to do.
                Phase::Reporting if !self.ctx.reconnects || !self.ctx.connection.is_up() => {
                    self.phase = Phase::Done;
                }
                _ => {}
            }
        }
    }

    /// Sends a signal to all tasks.
    pub(crate) fn kill_tasks(&mut self, signal: Signal) {
        self.killed = true;
        for task in &self.tasks {
            task.kill(signal);
        }
    }

    fn on_task_exit(&mut self, index: usize) {
        let Some(task) = self.tasks.get_mut(index) else {
            return;
        };
        let Some(status) = task.reap() else { return };
        let exit = TaskExit::new(task, status);
        log!(
            self.ctx,
            Debug,
            "",
            "task {} complete status={}",
            task.rank,
            status.exit_code()
        );
        self.parts.doom.on_local_exit(&mut self.ctx, exit, Instant::now());
        self.report_first_exit();
        self.check_terminal(index);
    }

    /// Writes `shell.task-exit` (RFC 50) of the job's first exit, once `shell.start` has been written.
    pub(crate) fn report_first_exit(&mut self) {
        if matches!(self.phase, Phase::InitBarrier | Phase::StartBarrier) {
            return;
        }
        if let Some(exit) = self.parts.doom.take_first() {
            eventlog::push(&mut self.ctx.events.exec, "shell.task-exit", &exit);
            self.ctx.touch();
        }
    }

    fn on_output(&mut self, index: usize, stream: Stream) {
        let Some(task) = self.tasks.get_mut(index) else {
            return;
        };
        let place = (task.rank, task.local_id);
        let Some(slot) = task.readers.get_mut(stream.index()) else {
            return;
        };
        let Some(reader) = slot else { return };
        let (ctx, output) = (&mut self.ctx, &mut self.parts.output);
        let count = match fd::read(&reader.fd, &mut self.buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            // A terminal ends with EIO.
            Err(_) => 0,
        };
        let data = self.buffer.get(..count).unwrap_or_default();
        if count > 0 {
            let wanted = match self.parts.ptys.as_mut().filter(|_| task.has_terminal) {
                Some(ptys) => ptys.on_output(ctx, place.0, data),
                None => true,
            };
            if wanted {
                reader
                    .pieces
                    .push(data, |piece| output.local(ctx, place, stream, piece));
            }
            return;
        }
        reader
            .pieces
            .finish(|piece| output.local(ctx, place, stream, piece));
        *slot = None;
        output.local_eof(ctx, place.0, stream);
        if task.has_terminal {
            output.local_eof(ctx, place.0, Stream::Stderr);
        }
        self.check_terminal(index);
    }

    /// Tells the clients of a terminal that its task has ended, after the last output.
    fn check_terminal(&mut self, index: usize) {
        let Some(task) = self
            .tasks
            .get(index)
            .filter(|task| task.has_terminal && task.is_complete())
        else {
            return;
        };
        if let (Some(ptys), Some(status)) = (&mut self.parts.ptys, task.status) {
            ptys.on_exit(&mut self.ctx, task.rank, status);
        }
    }

    /// Moves on through the last phases as far as possible.
    fn advance(&mut self) {
        if self.ctx.fatal && !matches!(self.phase, Phase::Draining | Phase::Reporting | Phase::Done) {
            self.kill_tasks(Signal::SIGKILL);
            self.finish_tasks();
        }
        let seen = self
            .parts
            .ptys
            .as_ref()
            .is_none_or(|ptys| ptys.is_complete(self.killed));
        if self.phase == Phase::Running && seen && self.tasks.iter().all(Task::is_complete) {
            self.finish_tasks();
        }
        if self.phase == Phase::Draining {
            let others_done = self.ctx.fatal || self.parts.output.is_complete();
            if others_done {
                self.parts.output.flush_files(&mut self.ctx);
                self.ctx.commit();
            }
            if others_done && !self.ctx.is_waiting() {
                self.send_report();
            }
        }
    }

    fn finish_tasks(&mut self) {
        self.phase = Phase::Draining;
        self.parts.rexec.end(&mut self.ctx);
        self.report_first_exit();
        log!(self.ctx, Debug, "", "exit {}", self.exit_code());
        self.parts.output.finish(&mut self.ctx);
    }

    fn send_report(&mut self) {
        self.phase = Phase::Reporting;
        let info = &self.ctx.info;
        let rank = info.broker_rank_of(info.shell_rank);
        let body = exit_request(info.id, rank, self.exit_code());
        self.ctx
            .rpc("job-exec.shell-exit", NODEID_ANY, &body, Purpose::ShellExit);
    }

    /// Takes the broker's answer to the report.
    pub(crate) fn on_reported(&mut self) {
        self.phase = Phase::Done;
    }

    /// Returns the highest exit code of the tasks and of the shell itself; that of the shell alone when it ended the
    /// tasks.
    fn exit_code(&self) -> i32 {
        if self.ctx.fatal && self.ctx.exit_code > 0 {
            return self.ctx.exit_code;
        }
        let codes = self
            .tasks
            .iter()
            .filter_map(|task| task.status)
            .map(|status| status.exit_code());
        codes.chain([self.ctx.exit_code]).max().unwrap_or(0)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn set_phase(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Returns true when the tasks have been sent a signal.
    pub(crate) fn was_killed(&self) -> bool {
        self.killed
    }
}

/// Adds the descriptors of a task to a poll set.
fn watch_task<'a>(
    index: usize,
    task: &'a Task,
    stopped: bool,
    add: &mut impl FnMut(Token, BorrowedFd<'a>, PollFlags),
) {
    if let Some(child) = task.child.as_ref().filter(|_| task.is_running()) {
        add(Token::Exit(index), child.pidfd().as_fd(), PollFlags::POLLIN);
    }
    if !stopped {
        for stream in Stream::BOTH {
            if let Some(Some(reader)) = task.readers.get(stream.index()) {
                add(Token::Read(index, stream), reader.fd.as_fd(), PollFlags::POLLIN);
            }
        }
    }
    if task.stdin.wants_write()
        && let Some(pipe) = &task.stdin.fd
    {
        add(Token::Write(index), pipe.as_fd(), PollFlags::POLLOUT);
    }
}
