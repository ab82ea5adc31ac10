//! What do all parts of the shell share? The job, the connection, the events waiting for a commit, the log.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use flux_client::kvs::{Transaction, commit_start};
use flux_client::{Error, Handle, Message, NODEID_ANY, Rpc};
use flux_formats::errno::strerror;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::value::{RawValue, to_raw_value};

use crate::eventlog::{self, Pending};
use crate::info::JobInfo;
use crate::log::{Level, LogContext, Place};

/// Longest time that output waits for more output before it is committed.
const BATCH_TIMEOUT: Duration = Duration::from_millis(500);
/// Waiting events that are committed without further delay, in bytes.
const BATCH_BYTES: usize = 256 * 1024;
/// Bytes in unanswered commits above which tasks' output is left in their pipes.
const IN_FLIGHT_MAX: usize = 4 << 20;

/// What an unanswered RPC is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// A commit of this many bytes; the transaction is kept when it may have to be sent again.
    Commit {
        bytes: usize,
        again: Option<Transaction>,
    },
    /// `service.add` or `event.subscribe`.
    Setup,
    /// `job-manager.raise`.
    Raise,
    /// PMI exchange with the parent shell.
    Exchange,
    /// Value of a PMI key that is an attribute of the broker.
    PmiAttr { key: &'static str },
    /// Processes of another shell for a process table.
    Pids { gather: u32, shell_rank: u32 },
    /// More room for output at the leader.
    Credit,
    /// Watch of R for changes of the expiration.
    ResourceUpdate,
    /// The last word: `job-exec.shell-exit`.
    ShellExit,
}

/// What is shared.
#[derive(Debug)]
pub(crate) struct Ctx {
    pub(crate) info: JobInfo,
    pub(crate) handle: Handle,
    pub(crate) events: Pending,
    /// Exit code of the shell when something failed before or beside the tasks.
    pub(crate) exit_code: i32,
    /// The job cannot go on: tasks are killed, the shell leaves.
    pub(crate) fatal: bool,
    /// The connection is to be made again when it breaks.
    pub(crate) reconnects: bool,
    namespace: String,
    rpcs: HashMap<u32, Purpose>,
    /// Messages for the leader that wait until it has registered its service; `None` once it has.
    held: Option<Vec<(String, Box<RawValue>)>>,
    in_flight: usize,
    batch_timeout: Duration,
    flush_at: Option<Instant>,
    log_level: Level,
    /// A commit was refused: the namespace is gone or closed, and further events have nowhere to go.
    lost: bool,
}

impl Ctx {
    pub(crate) fn new(info: JobInfo, handle: Handle, reconnects: bool) -> Self {
        let namespace = std::env::var("FLUX_KVS_NAMESPACE")
            .ok()
            .filter(|name| !name.is_empty());
        let namespace = namespace.unwrap_or_else(|| info.id.guest_namespace());
        Ctx {
            info,
            handle,
            events: Pending::default(),
            exit_code: 0,
            fatal: false,
            reconnects,
            namespace,
            rpcs: HashMap::new(),
            held: Some(Vec::new()),
            in_flight: 0,
            batch_timeout: BATCH_TIMEOUT,
            flush_at: None,
            log_level: Level::Notice,
            lost: false,
        }
    }

    /// Applies options that concern the log and the batching of output.
    pub(crate) fn configure(&mut self) -> Result<(), crate::options::OptionError> {
        let verbose = self.info.options.number("verbose")?.unwrap_or(0);
        self.log_level = match verbose {
            ..=0 => Level::Notice,
            1 => Level::Debug,
            _ => Level::Trace,
        };
        if let Some(timeout) = self.info.options.duration("output.batch-timeout")? {
            self.batch_timeout = timeout.unwrap_or(BATCH_TIMEOUT);
        }
        Ok(())
    }

    pub(crate) fn batch_timeout(&self) -> Duration {
        self.batch_timeout
    }

    /// Returns whether messages of this level are wanted.
    pub(crate) fn logs(&self, level: Level) -> bool {
        level <= self.log_level
    }

    /// Writes a message to the job's output eventlog, through the leader when this is another shell.
    pub(crate) fn log(&mut self, level: Level, component: &str, message: &str, place: Place) {
        let context = LogContext {
            rank: self.info.shell_rank,
            level,
            message,
            component: Some(component).filter(|component| !component.is_empty()),
            file: place.file.rsplit('/').next().unwrap_or(place.file),
            line: place.line,
        };
        if self.info.is_leader() {
            eventlog::push(&mut self.events.output, "log", &context);
            self.touch();
        } else {
            self.write_to_leader("log", &context);
        }
    }

    /// Logs a fatal error, raises an exception on the job and makes the shell leave with `exit_code`.
    pub(crate) fn die(&mut self, exit_code: i32, message: &str, place: Place) {
        self.die_of(None, exit_code, message, place);
    }

    /// Like [`Ctx::die`], naming the wait status of the task that caused it.
    pub(crate) fn die_of(&mut self, status: Option<i32>, exit_code: i32, message: &str, place: Place) {
        self.log(Level::Fatal, "", message, place);
        // whoever follows the job reads the words before the exception
        self.commit();
        let mut request =
            serde_json::json!({"id": self.info.id.0, "type": "exec", "severity": 0, "note": message});
        if let Some(status) = status {
            request["wait_status"] = status.into();
        }
        self.rpc("job-manager.raise", NODEID_ANY, &request, Purpose::Raise);
        self.exit_code = self.exit_code.max(exit_code);
        self.fatal = true;
    }

    /// Raises an exception on the job.
    pub(crate) fn raise(&mut self, kind: &str, severity: u8, note: &str) {
        let request =
            serde_json::json!({"id": self.info.id.0, "type": kind, "severity": severity, "note": note});
        self.rpc("job-manager.raise", NODEID_ANY, &request, Purpose::Raise);
    }

    /// Sends a message of the `write` protocol to the leader, as soon as the leader can take it.
    pub(crate) fn write_to_leader<C: Serialize + ?Sized>(&mut self, name: &str, context: &C) {
        #[derive(Serialize)]
        struct Write<'a, C: Serialize + ?Sized> {
            name: &'a str,
            shell_rank: u32,
            context: &'a C,
        }
        if let Some(held) = &mut self.held {
            held.extend(
                to_raw_value(context)
                    .ok()
                    .map(|context| (name.to_owned(), context)),
            );
            return;
        }
        let shell_rank = self.info.shell_rank;
        self.notify_shell(
            0,
            "write",
            &Write {
                name,
                shell_rank,
                context,
            },
        );
    }

    /// Sends what was held back for the leader, whose service is there from now on.
    pub(crate) fn leader_is_ready(&mut self) {
        for (name, context) in self.held.take().into_iter().flatten() {
            self.write_to_leader(&name, &context);
        }
    }

    /// Sends a request without response to another shell's service.
    pub(crate) fn notify_shell<C: Serialize + ?Sized>(&mut self, shell_rank: u32, method: &str, body: &C) {
        let topic = format!("{}.{method}", self.info.service);
        let nodeid = self.info.broker_rank_of(shell_rank);
        // A broken connection is noticed by the next poll.
        let _sent = self.handle.notify(topic, nodeid, body);
    }

    /// Queues an RPC.
    pub(crate) fn rpc<C: Serialize + ?Sized>(
        &mut self,
        topic: impl Into<flux_client::Topic>,
        nodeid: u32,
        body: &C,
        purpose: Purpose,
    ) {
        if let Ok(rpc) = self.handle.rpc(topic, nodeid, body) {
            self.track(&rpc, purpose);
        }
    }

    pub(crate) fn track(&mut self, rpc: &Rpc, purpose: Purpose) {
        self.rpcs.insert(rpc.matchtag(), purpose);
    }

    /// Returns what a response is for, forgetting the RPC unless more responses will come.
    pub(crate) fn purpose_of(&mut self, response: &Message) -> Option<Purpose> {
        let tag = response.matchtag();
        if response.is_streaming() && response.errnum() == 0 {
            return match self.rpcs.get(&tag)? {
                Purpose::ResourceUpdate => Some(Purpose::ResourceUpdate),
                _ => None,
            };
        }
        let purpose = self.rpcs.remove(&tag)?;
        if let Purpose::Commit { bytes, .. } = &purpose {
            self.in_flight -= bytes;
        }
        Some(purpose)
    }

    /// Returns true while a commit or an exception is not answered.
    pub(crate) fn is_waiting(&self) -> bool {
        self.rpcs
            .values()
            .any(|purpose| matches!(purpose, Purpose::Commit { .. } | Purpose::Raise))
    }

    /// Returns true while tasks' output should stay where it is.
    pub(crate) fn is_congested(&self) -> bool {
        self.in_flight > IN_FLIGHT_MAX || self.events.len() > IN_FLIGHT_MAX
    }

    /// Arranges that the waiting events are committed soon.
    pub(crate) fn touch(&mut self) {
        if self.events.len() > BATCH_BYTES {
            self.commit();
        } else if self.flush_at.is_none() && !self.events.is_empty() {
            self.flush_at = Some(Instant::now() + self.batch_timeout);
        }
    }

    /// Arranges that the waiting events are committed within a time.
    pub(crate) fn touch_within(&mut self, delay: Duration) {
        if !self.events.is_empty() {
            let at = Instant::now() + delay;
            self.flush_at = Some(self.flush_at.map_or(at, |before| before.min(at)));
        }
    }

    /// Returns when the waiting events are due.
    pub(crate) fn flush_at(&self) -> Option<Instant> {
        self.flush_at
    }

    /// Commits the waiting events when they are due.
    pub(crate) fn flush_due(&mut self, now: Instant) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.commit();
        }
    }

    /// Commits the waiting events now; the request leaves with the next poll.
    pub(crate) fn commit(&mut self) {
        self.flush_at = None;
        if self.events.is_empty() {
            return;
        }
        if self.lost {
            drop(self.events.take());
            return;
        }
        let bytes = self.events.len();
        let transaction = self.events.take();
        self.send_commit(transaction, bytes);
    }

    fn send_commit(&mut self, transaction: Transaction, bytes: usize) {
        if let Ok(rpc) = commit_start(&mut self.handle, &self.namespace, 0, &transaction) {
            let again = self.reconnects.then_some(transaction);
            self.in_flight += bytes;
            self.track(&rpc, Purpose::Commit { bytes, again });
        }
    }

    /// Connects again, waits until the broker runs, and sends the commits again that were not answered, in their order. Of other RPCs the caller
    /// must think itself. After an error everything is as before, for the next attempt.
    pub(crate) fn reconnect(&mut self) -> Result<(), Error> {
        self.handle.reconnect()?;
        match self
            .handle
            .call_empty::<IgnoredAny>("state-machine.wait", NODEID_ANY)
        {
            // A broker that does not know the service, or is past running, may still take what is left to say.
            Ok(_) | Err(Error::Rpc(_)) => {}
            Err(error) => return Err(error),
        }
        let mut lost: Vec<(u32, Purpose)> = self.rpcs.drain().collect();
        lost.sort_unstable_by_key(|(tag, _)| *tag);
        self.in_flight = 0;
        for (_, purpose) in lost {
            if let Purpose::Commit {
                bytes,
                again: Some(transaction),
            } = purpose
            {
                self.send_commit(transaction, bytes);
            }
        }
        Ok(())
    }

    /// Gives up committing after a refusal; the reason goes to standard error, the only place left.
    pub(crate) fn commit_refused(&mut self, response: &Message) {
        self.exit_code = self.exit_code.max(1);
        if std::mem::replace(&mut self.lost, true) {
            return;
        }
        drop(self.events.take());
        let text = error_text(response);
        // Nobody to tell when standard error is closed.
        let _written = writeln!(std::io::stderr(), "flux-shell: ERROR: eventlog commit: {text}");
    }

    /// Logs a failed RPC.
    pub(crate) fn rpc_failed(&mut self, what: &str, response: &Message) {
        let text = error_text(response).to_owned();
        crate::log::log!(self, Error, "", "{what}: {text}");
    }
}

/// Returns the text of an error response, or the words for its number.
fn error_text(response: &Message) -> &str {
    let text = response.payload_str().ok().filter(|text| !text.is_empty());
    text.unwrap_or_else(|| strerror(response.errnum()))
}
