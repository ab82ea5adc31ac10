//! What does each line of a job's eventlogs mean to someone who follows the job?
//!
//! ```text
//!  eventlog ──submit──> watch guest.exec.eventlog ──shell.init──> watch guest.output, attach input
//!      │                                          └─complete (no shell.init)─> watch guest.output
//!      ├─finish──> exit code          ├─exception──> message, fatal: exit code 1 unless finish gave another
//!      └─clean (or --wait-event)──> cancel the watch; done when the other watches have ended
//! ```

use flux_formats::eventlog::EventRef;
use flux_formats::jobid::JobId;
use flux_formats::jobstate::{Exception, exit_code};
use serde::Deserialize;

use super::output::{Output, Sink};
use crate::common::error::CmdError;
use crate::common::eventlog::parse;
use crate::common::jobid::f58;

/// What to show of a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Shows the events of the main eventlog.
    pub(crate) show_events: bool,
    /// Shows the events of the exec eventlog.
    pub(crate) show_exec: bool,
    /// Begins each line of output with its task's rank.
    pub(crate) label: bool,
    /// Shows where in the shell a log message comes from.
    pub(crate) verbose: bool,
    /// Says nothing about how the job ended.
    pub(crate) quiet: bool,
    /// Does not look at output at all.
    pub(crate) no_output: bool,
    /// Event of the main eventlog that ends the watch; `clean` when absent.
    pub(crate) wait_event: Option<String>,
    /// What each line of output begins with.
    pub(crate) prefix: String,
}

/// One of the three eventlogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Log {
    /// `eventlog`
    Main,
    /// `guest.exec.eventlog`
    Exec,
    /// `guest.output`
    Output,
}

impl Log {
    /// Returns the path that a watch names.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Log::Main => "eventlog",
            Log::Exec => "guest.exec.eventlog",
            Log::Output => "guest.output",
        }
    }
}

/// What the owner of a [`Follow`] must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Starts the watch of a log.
    Watch(Log),
    /// Cancels the watch of a log.
    Cancel(Log),
    /// The shell can be reached.
    Shell(Shell),
}

/// Where the job's leader shell is reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Shell {
    /// Name of the shell's service.
    pub(crate) service: String,
    /// Broker rank of the leader shell.
    #[serde(rename = "leader-rank")]
    pub(crate) leader_rank: u32,
    /// Name of the method behind which the job's terminal is, when it has one.
    pub(crate) pty: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Idle,
    Open,
    Ended,
}

/// The state of following one job.
#[derive(Debug)]
pub(crate) struct Follow {
    id: JobId,
    options: Options,
    /// Time of the first event, from which others are counted.
    start: Option<f64>,
    main: Watch,
    exec: Watch,
    output_watch: Watch,
    output: Output,
    exec_finished: bool,
    started: bool,
    status: Option<i32>,
    fatal: Option<Exception>,
    cancelled_main: bool,
}

impl Follow {
    /// Returns the state in which only the main eventlog is watched.
    pub(crate) fn new(id: JobId, options: Options) -> Self {
        let output = Output::new(options.label, options.verbose, options.prefix.clone());
        Follow {
            id,
            options,
            start: None,
            main: Watch::Open,
            exec: Watch::Idle,
            output_watch: Watch::Idle,
            output,
            exec_finished: false,
            started: false,
            status: None,
            fatal: None,
            cancelled_main: false,
        }
    }

    /// Returns the job.
    pub(crate) fn id(&self) -> JobId {
        self.id
    }

    /// Returns true when nothing more can come that matters.
    pub(crate) fn is_done(&self) -> bool {
        let main = self.main == Watch::Ended || self.cancelled_main;
        let never_ran = main && !self.started;
        let exec = self.exec != Watch::Open || self.exec_finished || never_ran;
        let output = self.output_watch != Watch::Open || self.output.is_complete();
        main && exec && output
    }

    /// Returns the exit code of the job as its user sees it.
    pub(crate) fn exit_code(&self) -> u8 {
        let code = self.status.map_or(0, exit_code);
        let failed_otherwise = self.fatal.is_some() && code == 0;
        if failed_otherwise {
            1
        } else {
            u8::try_from(code).unwrap_or(1)
        }
    }

    /// Returns the wait status of the job, when it has run.
    pub(crate) fn status(&self) -> Option<i32> {
        self.status
    }

    /// Returns the exception that ended the job, if one did.
    pub(crate) fn fatal(&self) -> Option<&Exception> {
        self.fatal.as_ref()
    }

    /// Takes one line of a log.
    ///
    /// # Errors
    /// When the line is not an event or its context not what the RFCs say.
    pub(crate) fn line(
        &mut self,
        log: Log,
        line: &str,
        sink: &mut Sink,
        actions: &mut Vec<Action>,
    ) -> Result<(), CmdError> {
        let event = parse(line)?;
        let start = *self.start.get_or_insert(event.timestamp);
        match log {
            Log::Main => self.main_event(&event, start, sink, actions),
            Log::Exec => self.exec_event(&event, start, sink, actions),
            Log::Output => self.output.event(&event, start, sink),
        }
    }

    /// Notes that the watch of a log has ended, normally or with ENOENT for a log that never was.
    pub(crate) fn ended(&mut self, log: Log) {
        match log {
            Log::Main => self.main = Watch::Ended,
            Log::Exec => self.exec = Watch::Ended,
            Log::Output => self.output_watch = Watch::Ended,
        }
    }

    fn main_event(
        &mut self,
        event: &EventRef<'_>,
        start: f64,
        sink: &mut Sink,
        actions: &mut Vec<Action>,
    ) -> Result<(), CmdError> {
        match &*event.name {
            "submit" if self.exec == Watch::Idle && !self.options.no_output => {
                self.exec = Watch::Open;
                actions.push(Action::Watch(Log::Exec));
            }
            "start" => self.started = true,
            "finish" => {
                #[derive(Deserialize)]
                struct Finish {
                    status: i32,
                }
                let finish: Finish = event.context_as().map_err(CmdError::json("finish event"))?;
                self.status = Some(finish.status);
                if finish.status != 0 && !self.options.quiet {
                    sink.error_line(&format!("flux-job: task(s) {}", describe_exit(finish.status)));
                }
            }
            "exception" => {
                let exception: Exception = event.context_as().map_err(CmdError::json("exception event"))?;
                if !self.options.quiet {
                    sink.error_line(&format!(
                        "{:.3}s: job.exception {} type={} severity={} {}",
                        event.timestamp - start,
                        f58(self.id),
                        exception.kind,
                        exception.severity,
                        exception.note
                    ));
                }
                if exception.severity == 0 && self.fatal.is_none() {
                    self.fatal = Some(exception);
                }
            }
            _ => {}
        }
        if self.options.show_events && event.name != "exception" {
            show("job", event, start, sink);
        }
        let last = self.options.wait_event.as_deref().unwrap_or("clean");
        if event.name == last && !self.cancelled_main && self.main == Watch::Open {
            self.cancelled_main = true;
            actions.push(Action::Cancel(Log::Main));
            let early = event.name != "clean";
            for (log, watch) in [(Log::Exec, self.exec), (Log::Output, self.output_watch)] {
                if watch == Watch::Open && (early || !self.started) {
                    actions.push(Action::Cancel(log));
                }
            }
            if early {
                self.exec = Watch::Ended;
                self.output_watch = Watch::Ended;
            }
        }
        Ok(())
    }

    fn exec_event(
        &mut self,
        event: &EventRef<'_>,
        start: f64,
        sink: &mut Sink,
        actions: &mut Vec<Action>,
    ) -> Result<(), CmdError> {
        self.started = true;
        match &*event.name {
            "shell.init" => {
                let shell: Shell = event.context_as().map_err(CmdError::json("shell.init event"))?;
                self.watch_output(actions);
                actions.push(Action::Shell(shell));
            }
            "complete" => self.watch_output(actions),
            "done" => self.exec_finished = true,
            "log" => {
                #[derive(Deserialize)]
                struct Message {
                    #[serde(default)]
                    stream: String,
                    #[serde(default)]
                    data: String,
                }
                let message: Message = event.context_as().map_err(CmdError::json("exec log event"))?;
                let target = if message.stream == "stdout" {
                    &mut sink.out
                } else {
                    &mut sink.err
                };
                target.extend_from_slice(message.data.as_bytes());
            }
            _ => {}
        }
        if self.options.show_exec {
            show("exec", event, start, sink);
        }
        Ok(())
    }

    fn watch_output(&mut self, actions: &mut Vec<Action>) {
        if self.output_watch == Watch::Idle && !self.options.no_output {
            self.output_watch = Watch::Open;
            actions.push(Action::Watch(Log::Output));
        }
    }
}

/// Prints an event as `flux run -vv` does.
fn show(prefix: &str, event: &EventRef<'_>, start: f64, sink: &mut Sink) {
    let context = event
        .context
        .map_or_else(String::new, |context| format!(" {}", context.get()));
    sink.error_line(&format!(
        "{:.3}s: {prefix}.{}{context}",
        event.timestamp - start,
        event.name
    ));
}

/// Words for a wait status: `exited with exit code 3`, `Terminated`.
pub(crate) fn describe_exit(status: i32) -> String {
    let code = exit_code(status);
    match code
        .checked_sub(128)
        .filter(|signal| *signal > 0)
        .and_then(flux_formats::signal::text)
    {
        Some(text) => text.to_owned(),
        None => format!("exited with exit code {code}"),
    }
}
