//! What do all parts of the shell share? The job, the connection, the events waiting for a commit, the log.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use flux_client::msg::json_payload;
use flux_client::{Handle, Message, NODEID_ANY, Rpc};
use flux_formats::errno::{EHOSTUNREACH, ENOSYS, strerror};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::commits::Commits;
use crate::eventlog::{self, Pending};
use crate::info::JobInfo;
use crate::link::Links;
use crate::log::{Level, LogContext, Place};
use crate::reconnect::{Connection, PAUSE};

/// Longest time that output waits for more output before it is committed.
const BATCH_TIMEOUT: Duration = Duration::from_millis(500);
/// Waiting events that are committed without further delay, in bytes.
const BATCH_BYTES: usize = 256 * 1024;

/// What an unanswered RPC is for.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// A commit: which transaction of this shell, and how many bytes.
    Commit { number: u64, bytes: usize },
    /// The number of the last transaction that the store has.
    Mark,
    /// A message to another shell that must arrive.
    Relay { to: u32, number: u64, attempt: u32 },
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
    /// `state-machine.wait` after a reconnect.
    Running,
    /// `job-exec.shell-hello` after a reconnect.
    Hello,
}

impl Purpose {
    /// Returns true for requests that are sent again as they are when their answer is lost.
    fn is_repeated(&self) -> bool {
        matches!(
            self,
            Purpose::Raise | Purpose::PmiAttr { .. } | Purpose::Credit | Purpose::ShellExit
        )
    }

    /// Returns true for requests whose service may not be there again yet.
    fn may_be_early(&self) -> bool {
        matches!(self, Purpose::Credit | Purpose::ShellExit)
    }
}

/// An unanswered RPC.
#[derive(Debug)]
struct Outstanding {
    purpose: Purpose,
    /// The request, when it may have to be sent again.
    request: Option<Message>,
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
    /// The shell outlives its broker and finds it again.
    pub(crate) reconnects: bool,
    pub(crate) connection: Connection,
    pub(crate) commits: Commits,
    pub(crate) links: Links,
    rpcs: HashMap<u32, Outstanding>,
    /// Requests that are sent when the connection is there again, or at `retry_at`.
    unsent: VecDeque<(Message, Purpose)>,
    retry_at: Option<Instant>,
    /// Messages for the leader that wait until it has registered its service; `None` once it has.
    held: Option<Vec<(String, Box<RawValue>)>>,
    batch_timeout: Duration,
    flush_at: Option<Instant>,
    log_level: Level,
}

impl Ctx {
    pub(crate) fn new(info: JobInfo, handle: Handle, reconnects: bool) -> Self {
        let namespace = std::env::var("FLUX_KVS_NAMESPACE")
            .ok()
            .filter(|name| !name.is_empty());
        let namespace = namespace.unwrap_or_else(|| info.id.guest_namespace());
        let commits = Commits::new(namespace, info.shell_rank, reconnects);
        Ctx {
            info,
            handle,
            events: Pending::default(),
            exit_code: 0,
            fatal: false,
            reconnects,
            connection: Connection::Up,
            commits,
            links: Links::default(),
            rpcs: HashMap::new(),
            unsent: VecDeque::new(),
            retry_at: None,
            held: Some(Vec::new()),
            batch_timeout: BATCH_TIMEOUT,
            flush_at: None,
            log_level: Level::Notice,
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

    // ---- log and exceptions ----------------------------------------------------------------------------

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

    /// Logs a failed RPC.
    pub(crate) fn rpc_failed(&mut self, what: &str, response: &Message) {
        let text = error_text(response).to_owned();
        crate::log::log!(self, Error, "", "{what}: {text}");
    }

    // ---- other shells ----------------------------------------------------------------------------------

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

    /// Sends a message to another shell. One that outlives its broker sees to it that it arrives, once and in order.
    pub(crate) fn notify_shell<C: Serialize + ?Sized>(&mut self, shell_rank: u32, method: &str, body: &C) {
        if self.reconnects {
            self.relay(shell_rank, method, body);
            return;
        }
        let topic = format!("{}.{method}", self.info.service);
        let nodeid = self.info.broker_rank_of(shell_rank);
        // A broken connection is noticed by the next poll.
        let _sent = self.handle.notify(topic, nodeid, body);
    }

    // ---- RPCs ------------------------------------------------------------------------------------------

    /// Queues an RPC.
    pub(crate) fn rpc<C: Serialize + ?Sized>(
        &mut self,
        topic: impl Into<flux_client::Topic>,
        nodeid: u32,
        body: &C,
        purpose: Purpose,
    ) {
        if let Ok(payload) = json_payload(body) {
            self.send_rpc(Message::request(topic, nodeid, Some(payload)), purpose);
        }
    }

    fn send_rpc(&mut self, request: Message, purpose: Purpose) {
        let again = self.reconnects && purpose.is_repeated();
        if again && !self.connection.is_up() {
            self.unsent.push_back((request, purpose));
            return;
        }
        let copy = again.then(|| request.clone());
        match self.handle.rpc_message(request) {
            Ok(rpc) => {
                let outstanding = Outstanding {
                    purpose,
                    request: copy,
                };
                self.rpcs.insert(rpc.matchtag(), outstanding);
            }
            // the connection has just broken, which the next poll will find
            Err(_) => self.unsent.extend(copy.map(|request| (request, purpose))),
        }
    }

    pub(crate) fn track(&mut self, rpc: &Rpc, purpose: Purpose) {
        let outstanding = Outstanding {
            purpose,
            request: None,
        };
        self.rpcs.insert(rpc.matchtag(), outstanding);
    }

    /// Returns what a response is for, forgetting the RPC unless more responses will come. `None` for one that nobody
    /// waits for, or whose request is going to be sent again.
    pub(crate) fn purpose_of(&mut self, response: &Message) -> Option<Purpose> {
        let tag = response.matchtag();
        if response.is_streaming() && response.errnum() == 0 {
            return match self.rpcs.get(&tag)?.purpose {
                Purpose::ResourceUpdate => Some(Purpose::ResourceUpdate),
                _ => None,
            };
        }
        let Outstanding { purpose, request } = self.rpcs.remove(&tag)?;
        let early = response.errnum() == ENOSYS && purpose.may_be_early();
        match request {
            Some(request) if response.errnum() == EHOSTUNREACH || early => {
                self.unsent.push_back((request, purpose));
                self.retry_later(Instant::now());
                None
            }
            _ => Some(purpose),
        }
    }

    /// Returns true while something that must arrive has not arrived.
    pub(crate) fn is_waiting(&self) -> bool {
        let unanswered = |purpose: &Purpose| matches!(purpose, Purpose::Commit { .. } | Purpose::Raise);
        self.rpcs.values().any(|rpc| unanswered(&rpc.purpose))
            || self.unsent.iter().any(|(_, purpose)| unanswered(purpose))
            || (self.reconnects && self.commits.is_interrupted())
            || self.links.are_waiting()
    }

    /// Returns true while tasks' output should stay where it is.
    pub(crate) fn is_congested(&self) -> bool {
        self.commits.is_congested(self.events.len()) || self.links.are_congested()
    }

    /// Forgets all that the lost broker will not answer any more, keeping what is to be sent again.
    pub(crate) fn forget_answers(&mut self) {
        let mut lost: Vec<(u32, Outstanding)> = self.rpcs.drain().collect();
        lost.sort_unstable_by_key(|(tag, _)| *tag);
        for (_, Outstanding { purpose, request }) in lost.into_iter().rev() {
            if let Some(request) = request {
                self.unsent.push_front((request, purpose));
            }
        }
        self.commits.interrupt();
        self.links.interrupt();
        self.retry_at = None;
    }

    /// Forgets the RPCs that `gone` accepts.
    pub(crate) fn forget_rpcs(&mut self, gone: impl Fn(&Purpose) -> bool) {
        self.rpcs.retain(|_, rpc| !gone(&rpc.purpose));
    }

    /// Arranges that what could not be sent is tried again.
    pub(crate) fn retry_later(&mut self, now: Instant) {
        self.retry_at.get_or_insert(now + PAUSE);
    }

    /// Returns when something is to be tried again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Tries again what could not be sent before, when it is time.
    pub(crate) fn retry_due(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) && self.connection.is_up() {
            self.send_unsent();
        }
    }

    /// Sends everything that waits for a connection, or for a service to come back.
    pub(crate) fn send_unsent(&mut self) {
        self.retry_at = None;
        self.ask_mark();
        self.resend_links();
        for (request, purpose) in std::mem::take(&mut self.unsent) {
            self.send_rpc(request, purpose);
        }
    }

    // ---- events ----------------------------------------------------------------------------------------

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

    pub(crate) fn set_flush_at(&mut self, at: Option<Instant>) {
        self.flush_at = at;
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
}

/// Returns the text of an error response, or the words for its number.
pub(crate) fn error_text(response: &Message) -> &str {
    let text = response.payload_str().ok().filter(|text| !text.is_empty());
    text.unwrap_or_else(|| strerror(response.errnum()))
}
