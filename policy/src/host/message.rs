//! What do the broker's modules say to the policy host, and what does it answer?

use std::sync::Arc;

use flux_formats::errno::Errnum;

use crate::error::PolicyError;
use crate::sched::{SchedAnswer, SchedCommand};
use crate::tap::{TapAnswer, TapCommand};

/// A job at submission, before it has an id.
#[derive(Clone, Debug, PartialEq)]
pub struct IngestJob {
    /// Submitting user.
    pub userid: u32,
    /// Roles of the request (RFC 12).
    pub rolemask: u32,
    /// Urgency, 0 to 31.
    pub urgency: u32,
    /// Submit flags.
    pub flags: u32,
    /// True skips the validators (the owner's no-validation flag); frobnicators run all the same.
    pub novalidate: bool,
    /// Jobspec as JSON text.
    pub jobspec: Arc<str>,
}

/// A submission that passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted {
    /// The jobspec to store; the text that was submitted (same pointer) when no frobnicator changed it.
    pub jobspec: Arc<str>,
    /// True when a frobnicator changed it.
    pub changed: bool,
}

/// A submission that did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The plugin that refused or failed.
    pub plugin: Arc<str>,
    /// Error number of the response; EIO when the plugin failed.
    pub errnum: Errnum,
    /// Text of the response.
    pub text: String,
}

/// One message to the host. `token` is the sender's own and comes back with the answer.
#[derive(Debug)]
pub enum Command {
    /// Runs frobnicators and validators on a submission.
    Ingest {
        /// Comes back.
        token: u64,
        /// The submission.
        job: Box<IngestJob>,
    },
    /// Gives all plugins the configuration (the whole object of `config.get` as JSON). All take it or none does.
    Configure {
        /// Comes back.
        token: u64,
        /// JSON text.
        config: Arc<str>,
    },
    /// Something for the scheduler.
    Sched(SchedCommand),
    /// Something for the jobtap plugins.
    Tap(TapCommand),
}

/// One message from the host.
#[derive(Debug)]
pub enum Answer {
    /// All plugins are loaded and configured, or why not; the first answer of every host. After a failure each `Ingest` is refused
    /// with EIO and the scheduler answers nothing.
    Ready(Result<(), PolicyError>),
    /// To [`Command::Ingest`].
    Ingest {
        /// From the command.
        token: u64,
        /// What became of it.
        result: Result<Accepted, Refusal>,
    },
    /// To [`Command::Configure`].
    Configured {
        /// From the command.
        token: u64,
        /// The first plugin's refusal, after which all have their former configuration again.
        result: Result<(), PolicyError>,
    },
    /// From the scheduler.
    Sched(SchedAnswer),
    /// From the jobtap plugins.
    Tap(TapAnswer),
    /// A plugin or the host has something to say in the broker's log.
    Log(LogRecord),
}

/// A line for the broker's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Plugin that it is from or about.
    pub plugin: Arc<str>,
    /// Severity, 0 (emerg) to 7 (debug), as in RFC 5424.
    pub level: u8,
    /// One line of at most 1 KiB.
    pub message: String,
}
