//! How are many jobs followed at once, in one connection? For `flux submit --wait`, `--watch`, `job status`.

use std::collections::HashMap;

use flux_client::job::{self, WatchEvent};
use flux_client::{Handle, Message, Rpc};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::jobstate::Exception;

use super::follow::{Action, Follow, Log, Options};
use super::output::Sink;
use crate::common::error::{CmdError, fail};

/// How a job that was followed ended.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// The job.
    pub(crate) id: JobId,
    /// Its exit code as its user sees it.
    pub(crate) code: u8,
    /// Its wait status, when it has run.
    pub(crate) status: Option<i32>,
    /// The exception that ended it, if one did.
    pub(crate) fatal: Option<Exception>,
}

/// The jobs that are being followed.
#[derive(Debug, Default)]
pub(crate) struct Many {
    follows: HashMap<u64, Follow>,
    watches: HashMap<u32, (u64, Log, Rpc)>,
    actions: Vec<Action>,
}

impl Many {
    /// Returns how many jobs are still followed.
    pub(crate) fn len(&self) -> usize {
        self.follows.len()
    }

    /// Begins to follow a job.
    ///
    /// # Errors
    /// Those of the connection.
    pub(crate) fn add(&mut self, handle: &mut Handle, id: JobId, options: Options) -> Result<(), CmdError> {
        self.follows.insert(id.0, Follow::new(id, options));
        self.watch(handle, id.0, Log::Main)
    }

    fn watch(&mut self, handle: &mut Handle, id: u64, log: Log) -> Result<(), CmdError> {
        let rpc = job::eventlog_watch(handle, id, log.path(), 0)?;
        self.watches.insert(rpc.matchtag(), (id, log, rpc));
        Ok(())
    }

    /// Returns true when a response belongs to one of the watches.
    pub(crate) fn owns(&self, message: &Message) -> bool {
        self.watches.contains_key(&message.matchtag())
    }

    /// Returns the job that a response belongs to.
    pub(crate) fn job_of(&self, message: &Message) -> Option<u64> {
        self.watches.get(&message.matchtag()).map(|(id, _, _)| *id)
    }

    /// Takes a response that [`Many::owns`]; returns how the job ended when it now has.
    ///
    /// # Errors
    /// When the job does not exist or belongs to someone else, and those of the connection.
    pub(crate) fn on_response(
        &mut self,
        handle: &mut Handle,
        message: &Message,
        sink: &mut Sink,
    ) -> Result<Option<Summary>, CmdError> {
        let Some((id, log, _)) = self.watches.get(&message.matchtag()) else {
            return Ok(None);
        };
        let (id, log) = (*id, *log);
        if message.errnum() != 0 {
            self.watches.remove(&message.matchtag());
        }
        let Some(follow) = self.follows.get_mut(&id) else {
            return Ok(None);
        };
        match message.errnum() {
            0 => {
                if let WatchEvent::Event(text) = job::watch_decode(message)? {
                    for line in text.lines() {
                        follow.line(log, line, sink, &mut self.actions)?;
                    }
                }
            }
            errno::ENODATA | errno::ECANCELED => follow.ended(log),
            errno::ENOENT if log != Log::Main => follow.ended(log),
            errno::ENOENT => return fail(format!("{}: No such job", crate::common::jobid::f58(JobId(id)))),
            errno::EPERM => {
                return fail(format!(
                    "{}: that is not your job",
                    crate::common::jobid::f58(JobId(id))
                ));
            }
            errnum => {
                let text = message.payload_str().unwrap_or_else(|_| errno::strerror(errnum));
                return fail(format!(
                    "{}: {}: {text}",
                    crate::common::jobid::f58(JobId(id)),
                    log.path()
                ));
            }
        }
        let done = follow.is_done();
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Watch(log) => self.watch(handle, id, log)?,
                Action::Cancel(log) => {
                    if let Some((_, _, rpc)) = self
                        .watches
                        .values()
                        .find(|(other, watched, _)| *other == id && *watched == log)
                    {
                        job::watch_cancel(handle, rpc)?;
                    }
                }
                Action::Shell(_) => {}
            }
        }
        if !done {
            return Ok(None);
        }
        Ok(self.follows.remove(&id).map(|follow| Summary {
            id: follow.id(),
            code: follow.exit_code(),
            status: follow.status(),
            fatal: follow.fatal().cloned(),
        }))
    }
}
