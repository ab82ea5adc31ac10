//! What happens after the first task of the job has ended while others run? (`exit-timeout`, `exit-on-error`)

use std::time::{Duration, Instant};

use flux_formats::fsd::Fsd;
use flux_process::WaitStatus;
use serde::{Deserialize, Serialize};

use crate::ctx::Ctx;
use crate::log::Place;
use crate::options::OptionError;
use crate::task::Task;

/// Time that the other tasks have after the first exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Context of the `shell.task-exit` event (RFC 50), also sent by other shells to the leader.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TaskExit {
    localid: u32,
    rank: u32,
    state: String,
    pid: u32,
    wait_status: i32,
    signaled: i32,
    exitcode: i32,
}

impl TaskExit {
    /// Returns the report on a task that has ended.
    pub(crate) fn new(task: &Task, status: WaitStatus) -> Self {
        TaskExit {
            localid: task.local_id,
            rank: task.rank,
            state: status.state_name().to_owned(),
            pid: task.pid,
            wait_status: status.0,
            signaled: status.signal().unwrap_or(0),
            exitcode: status.exit_code(),
        }
    }
}

impl TaskExit {
    /// Returns `PROGRAM: task rank N on host H VERB (how)`.
    fn sentence(&self, ctx: &Ctx, verb: &str) -> String {
        let program = ctx.info.command.first().map(String::as_str).unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or(program);
        let node = ctx.info.taskmap.nodeid(self.rank);
        let host = node
            .and_then(|node| ctx.info.nodes.get(usize::try_from(node).ok()?))
            .map_or("unknown", |node| node.host.as_str());
        let how = WaitStatus(self.wait_status).signal().map_or_else(
            || format!("Exit {}", self.exitcode),
            flux_formats::signal::text_or_number,
        );
        format!("{program}: task rank {} on host {host} {verb} ({how})", self.rank)
    }

    /// Ends the job because of this exit.
    fn end_job(&self, ctx: &mut Ctx, text: &str) {
        let code = if self.signaled > 0 {
            128 + self.signaled
        } else {
            self.exitcode
        };
        let place = Place {
            file: file!(),
            line: line!(),
        };
        ctx.die_of(Some(self.wait_status), code, text, place);
    }
}

/// The watch over the first exit.
#[derive(Debug)]
pub(crate) struct Doom {
    timeout: Option<Duration>,
    on_error: bool,
    seen: bool,
    deadline: Option<Instant>,
    first: Option<TaskExit>,
    /// The first exit, for the words at the end of patience.
    told: Option<TaskExit>,
}

impl Doom {
    /// Reads the options.
    ///
    /// # Errors
    /// [`OptionError`].
    pub(crate) fn new(ctx: &Ctx) -> Result<Self, OptionError> {
        let options = &ctx.info.options;
        let default = (!ctx.info.is_instance()).then_some(EXIT_TIMEOUT);
        let timeout = options.duration("exit-timeout")?.unwrap_or(default);
        Ok(Doom {
            timeout,
            on_error: options.flag("exit-on-error")?,
            seen: false,
            deadline: None,
            first: None,
            told: None,
        })
    }

    /// Takes the end of a local task; the first of each shell goes to the leader.
    pub(crate) fn on_local_exit(&mut self, ctx: &mut Ctx, exit: TaskExit, now: Instant) {
        if ctx.info.is_leader() {
            self.on_exit(ctx, exit, now);
        } else if !self.seen {
            self.seen = true;
            ctx.notify_shell(0, "doom", &exit);
        }
    }

    /// Takes the end of a task at the leader; only the job's first counts.
    pub(crate) fn on_exit(&mut self, ctx: &mut Ctx, exit: TaskExit, now: Instant) {
        if self.seen {
            return;
        }
        self.seen = true;
        self.deadline = self.timeout.map(|timeout| now + timeout);
        if self.on_error && exit.wait_status != 0 {
            let text = format!("{} and exit-on-error is set", exit.sentence(ctx, "failed"));
            exit.end_job(ctx, &text);
        }
        self.told = Some(exit.clone());
        self.first = Some(exit);
    }

    /// Takes the report of the first exit that has not been written to the eventlog yet.
    pub(crate) fn take_first(&mut self) -> Option<TaskExit> {
        self.first.take()
    }

    /// Returns when patience ends.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Raises the exception when patience has ended.
    pub(crate) fn expire(&mut self, ctx: &mut Ctx, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            let timeout = self
                .timeout
                .map_or_else(String::new, |timeout| Fsd::from(timeout).to_string());
            if let Some(exit) = self.told.take() {
                let what = exit.sentence(ctx, "exited");
                exit.end_job(ctx, &format!("{what} and exit-timeout={timeout} has expired"));
            }
        }
    }
}
