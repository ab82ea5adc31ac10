//! How are jobs sent to the broker? Signed, many at a time, and, when asked, followed until they end.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};

use flux_client::{Handle, Incoming, Rpc, job};
use flux_formats::jobid::JobId;

use crate::attach::{Many, Options, Sink, describe_exit};
use crate::common::ctx::{Ctx, eprint};
use crate::common::error::{CmdError, fail};
use crate::common::jobid::f58;
use crate::common::progress::Progress;

use super::sign::{SignOptions, Signing, refusal};

/// Most submissions that are not answered yet.
const WINDOW: usize = 512;

/// A job ready to be submitted.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Jobspec as JSON text.
    pub(crate) jobspec: String,
    /// 0 to 31.
    pub(crate) urgency: i32,
    /// Bits of the submit flags.
    pub(crate) flags: u32,
    /// File for what would go to standard output.
    pub(crate) log: Option<String>,
    /// File for what would go to standard error.
    pub(crate) log_stderr: Option<String>,
}

/// What happens after a job has been submitted.
#[derive(Clone, Debug, Default)]
pub(crate) struct After {
    /// Prints no job ids.
    pub(crate) quiet: bool,
    /// Waits for this event of each job.
    pub(crate) wait_event: Option<String>,
    /// Shows the output of each job.
    pub(crate) watch: bool,
    /// Begins each line of output with its task's rank.
    pub(crate) label: bool,
    /// Increases what is said on standard error.
    pub(crate) verbose: u8,
    /// Shows a bar with this many jobs.
    pub(crate) progress: Option<usize>,
    /// Shows jobs per second in the bar.
    pub(crate) jps: bool,
}

/// Submits one job and returns its id.
///
/// # Errors
/// `[Errno N] TEXT` when it is refused.
pub(crate) fn submit_one(handle: &mut Handle, job: &Job) -> Result<JobId, CmdError> {
    submit_signed(handle, job, &SignOptions::default())
}

/// Submits one job, signed as the options say, and returns its id.
///
/// # Errors
/// As [`submit_one`], and those of [`Signing::new`].
pub(crate) fn submit_signed(
    handle: &mut Handle,
    job: &Job,
    options: &SignOptions,
) -> Result<JobId, CmdError> {
    let token = Signing::new(handle, options)?.sign(&job.jobspec)?;
    match job::submit(handle, &token, job.urgency, job.flags) {
        Ok(id) => Ok(JobId(id)),
        Err(flux_client::Error::Rpc(err)) => fail(refusal(err.errnum, err.text.as_deref())),
        Err(err) => Err(err.into()),
    }
}

/// Where output of one job goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Target {
    log: Option<String>,
    log_stderr: Option<String>,
}

struct Submitter<'a> {
    ctx: &'a Ctx,
    handle: Handle,
    signing: Signing,
    after: After,
    pending: HashMap<u32, (Rpc, Target)>,
    many: Many,
    targets: HashMap<u64, Target>,
    files: HashMap<String, File>,
    sink: Sink,
    progress: Option<Progress>,
    code: u8,
}

/// Submits jobs as fast as they are answered, and follows them when asked; returns the exit code: the highest of the
/// jobs that were waited for, 1 when one was refused.
///
/// # Errors
/// Those of the connection, and of making a job.
pub(crate) fn submit_all(
    ctx: &Ctx,
    jobs: impl Iterator<Item = Result<Job, CmdError>>,
    after: After,
) -> Result<u8, CmdError> {
    let progress = after.progress.map(|total| Progress::new(total, after.jps));
    let mut handle = ctx.open()?;
    let signing = Signing::new(&mut handle, &SignOptions::default())?;
    let mut submitter = Submitter {
        ctx,
        handle,
        signing,
        after,
        pending: HashMap::new(),
        many: Many::default(),
        targets: HashMap::new(),
        files: HashMap::new(),
        sink: Sink::default(),
        progress,
        code: 0,
    };
    let result = submitter.run(jobs);
    submitter.show(&Target::default())?;
    if let Some(progress) = &mut submitter.progress {
        progress.finish();
    }
    result.map(|()| submitter.code)
}

impl Submitter<'_> {
    fn run(&mut self, mut jobs: impl Iterator<Item = Result<Job, CmdError>>) -> Result<(), CmdError> {
        let mut more = true;
        loop {
            while more && self.pending.len() < WINDOW {
                match jobs.next() {
                    Some(job) => self.start(&job?)?,
                    None => more = false,
                }
            }
            if !more && self.pending.is_empty() && self.many.len() == 0 {
                return Ok(());
            }
            if let Some(Incoming::Response(message)) = self.handle.next_incoming(None)? {
                self.response(&message)?;
            }
            while let Some(incoming) = self.handle.try_incoming() {
                if let Incoming::Response(message) = incoming {
                    self.response(&message)?;
                }
            }
            self.show(&Target::default())?;
        }
    }

    fn start(&mut self, job: &Job) -> Result<(), CmdError> {
        let token = self.signing.sign(&job.jobspec)?;
        let rpc = job::submit_start(&mut self.handle, &token, job.urgency, job.flags)?;
        let target = Target {
            log: job.log.clone(),
            log_stderr: job.log_stderr.clone(),
        };
        self.pending.insert(rpc.matchtag(), (rpc, target));
        Ok(())
    }

    fn response(&mut self, message: &flux_client::Message) -> Result<(), CmdError> {
        if let Some((_, target)) = self.pending.remove(&message.matchtag()) {
            return self.submitted(message, target);
        }
        if !self.many.owns(message) {
            return Ok(());
        }
        let id = self.many.job_of(message);
        let ended = self.many.on_response(&mut self.handle, message, &mut self.sink)?;
        let target = id
            .and_then(|id| self.targets.get(&id))
            .cloned()
            .unwrap_or_default();
        if let Some(summary) = ended {
            self.targets.remove(&summary.id.0);
            self.code = self.code.max(summary.code);
            if summary.code != 0 && !self.after.watch {
                self.sink.error_line(&match (&summary.fatal, summary.status) {
                    (Some(exception), _) => {
                        format!(
                            "{}: exception: type={} {}",
                            f58(summary.id),
                            exception.kind,
                            exception.note
                        )
                    }
                    (None, status) => {
                        format!("{}: {}", f58(summary.id), describe_exit(status.unwrap_or(256)))
                    }
                });
            }
            if let Some(progress) = &mut self.progress {
                progress.finished(summary.code == 0);
            }
        }
        self.show(&target)
    }

    fn submitted(&mut self, message: &flux_client::Message, target: Target) -> Result<(), CmdError> {
        #[derive(serde::Deserialize)]
        struct Response {
            id: i64,
        }
        if message.errnum() != 0 {
            self.sink
                .error_line(&refusal(message.errnum(), message.payload_str().ok()));
            self.code = self.code.max(1);
            if let Some(progress) = &mut self.progress {
                progress.finished(false);
            }
            return self.show(&Target::default());
        }
        let response: Response = message
            .payload_json()
            .map_err(|source| flux_client::Error::Payload {
                topic: message.topic.clone(),
                source,
            })?;
        let id = JobId(response.id.cast_unsigned());
        if !self.after.quiet {
            self.sink.out.extend_from_slice(f58(id).as_bytes());
            self.sink.out.push(b'\n');
            self.show(&target)?;
        }
        if self.after.verbose > 0 {
            eprint(format!("{}: submitted {}", self.ctx.name, f58(id)));
        }
        let watch = self.after.watch;
        if self.after.wait_event.is_some() || watch || self.progress.is_some() {
            let several =
                self.after.label && self.progress.as_ref().is_none_or(|progress| progress.total() > 1);
            let options = Options {
                label: self.after.label,
                quiet: !watch,
                no_output: !watch,
                wait_event: self.after.wait_event.clone(),
                prefix: if several && watch {
                    format!("{}: ", f58(id))
                } else {
                    String::new()
                },
                ..Options::default()
            };
            self.many.add(&mut self.handle, id, options)?;
            if target != Target::default() {
                self.targets.insert(id.0, target);
            }
            if let Some(progress) = &mut self.progress {
                progress.started();
            }
        }
        Ok(())
    }

    /// Writes what has been collected to where it belongs.
    fn show(&mut self, target: &Target) -> Result<(), CmdError> {
        if self.sink.out.is_empty() && self.sink.err.is_empty() {
            return Ok(());
        }
        if let Some(progress) = &mut self.progress {
            progress.clear();
        }
        match &target.log {
            Some(path) => log_file(&mut self.files, path)?.write_all(&self.sink.out)?,
            None => {
                let mut out = io::stdout();
                out.write_all(&self.sink.out)?;
                out.flush()?;
            }
        }
        match &target.log_stderr {
            Some(path) => log_file(&mut self.files, path)?.write_all(&self.sink.err)?,
            None => {
                // Nobody is left to tell when standard error cannot be written.
                let _gone = io::stderr().write_all(&self.sink.err);
            }
        }
        self.sink.out.clear();
        self.sink.err.clear();
        Ok(())
    }
}

/// Opens a log file at its first use.
fn log_file<'f>(files: &'f mut HashMap<String, File>, path: &str) -> Result<&'f mut File, CmdError> {
    if !files.contains_key(path) {
        let file = File::create(path).map_err(CmdError::file(format!("--log={path}")))?;
        files.insert(path.to_owned(), file);
    }
    match files.get_mut(path) {
        Some(file) => Ok(file),
        None => fail(format!("--log={path}: not open")),
    }
}
