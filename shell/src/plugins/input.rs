//! How do tasks get their standard input: from clients through the leader, or from a file? (RFC 24)

use std::fs::File;
use std::os::fd::OwnedFd;

use flux_client::Message;
use flux_formats::errno::{EFBIG, ENOENT, EPROTO, Errnum};
use flux_formats::idset::IdSet;
use flux_formats::size::parse_size;
use flux_process::fd;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ctx::Ctx;
use crate::eventlog::{self, Header};
use crate::options::OptionError;
use crate::task::{Stdin, Task};
use crate::template::Scope;

/// Input that the eventlog takes, in bytes, when the user sets no limit.
const LIMIT_DEFAULT: u64 = 10 << 20;
/// Highest limit that a user may set.
const LIMIT_MAX: u64 = 32 << 20;

/// Where input comes from.
#[derive(Debug)]
enum Source {
    Service,
    File(String),
}

/// The input of all tasks.
#[derive(Debug)]
pub(crate) struct Input {
    source: Source,
    limit: u64,
    taken: u64,
}

/// Why a task's input cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// An option is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The file cannot be opened.
    #[error("input: error opening {path}: {text}")]
    Open {
        /// Its name after expansion.
        path: String,
        /// Why.
        text: String,
    },
    /// No pipe could be made.
    #[error("input: pipe: {0}")]
    Pipe(String),
}

impl Input {
    /// Reads the options.
    ///
    /// # Errors
    /// [`InputError::Option`].
    pub(crate) fn new(ctx: &Ctx) -> Result<Self, InputError> {
        let options = &ctx.info.options;
        let kind = options.text("input.stdin.type")?;
        let source = match kind.as_deref() {
            None | Some("service") => Source::Service,
            Some("file") => match options.text("input.stdin.path")? {
                Some(path) => Source::File(path),
                None => {
                    let error = OptionError {
                        name: "input.stdin.path".to_owned(),
                        value: "null".to_owned(),
                    };
                    return Err(error.into());
                }
            },
            Some(kind) => {
                let error = OptionError {
                    name: "input.stdin.type".to_owned(),
                    value: format!("\"{kind}\""),
                };
                return Err(error.into());
            }
        };
        let limit = match options.text("input.limit")? {
            None => LIMIT_DEFAULT,
            Some(text) => parse_size(&text)
                .ok()
                .filter(|limit| *limit > 0 && *limit <= LIMIT_MAX)
                .ok_or(OptionError {
                    name: "input.limit".to_owned(),
                    value: text,
                })?,
        };
        Ok(Input {
            source,
            limit,
            taken: 0,
        })
    }

    /// Writes the eventlog's header.
    pub(crate) fn init(&self, ctx: &mut Ctx) {
        if ctx.info.is_leader() && matches!(self.source, Source::Service) {
            eventlog::push(&mut ctx.events.input, "header", &Header::input());
        }
    }

    /// Opens the standard input of a task; the task keeps the writing end.
    ///
    /// # Errors
    /// [`InputError::Open`], [`InputError::Pipe`].
    pub(crate) fn open(&self, ctx: &Ctx, task: &mut Task, tmpdir: &str) -> Result<OwnedFd, InputError> {
        match &self.source {
            Source::Service => {
                let (reader, writer) =
                    fd::pipe().map_err(|error| InputError::Pipe(crate::errno_text(&error)))?;
                task.stdin = Stdin::new(writer);
                Ok(reader)
            }
            Source::File(path) => {
                let info = &ctx.info;
                let place = Some((task.rank, task.local_id));
                let path = Scope {
                    info,
                    shell_rank: info.shell_rank,
                    task: place,
                    tmpdir,
                }
                .expand(path);
                match File::open(&path) {
                    Ok(file) => Ok(file.into()),
                    Err(error) => Err(InputError::Open {
                        path,
                        text: crate::errno_text(&error),
                    }),
                }
            }
        }
    }

    /// Takes a client's `stdin` request at the leader: keeps it in the eventlog, gives it to the local tasks, sends
    /// it on to the shells of the others.
    ///
    /// # Errors
    /// ENOENT when input does not come from clients, EPROTO, EFBIG above the limit; with a text.
    pub(crate) fn on_stdin(
        &mut self,
        ctx: &mut Ctx,
        tasks: &mut [Task],
        request: &Message,
    ) -> Result<(), (Errnum, &'static str)> {
        if !matches!(self.source, Source::Service) {
            return Err((ENOENT, "job input is not from the service"));
        }
        let payload = request.payload_str().map_err(|_| (EPROTO, ""))?;
        let data = Data::parse(payload)?;
        let size = u64::try_from(data.bytes.len()).unwrap_or(u64::MAX);
        self.taken = self.taken.saturating_add(size);
        if self.taken > self.limit {
            return Err((EFBIG, "limit for standard input exceeded"));
        }
        let context: Box<RawValue> = RawValue::from_string(payload.to_owned()).map_err(|_| (EPROTO, ""))?;
        eventlog::push(&mut ctx.events.input, "data", &context);
        ctx.touch();
        for shell_rank in 1..ctx.info.shell_size() {
            let concerned = match &data.ranks {
                None => true,
                Some(ranks) => ctx.info.taskmap.task_ids(shell_rank).intersects(ranks),
            };
            if concerned {
                ctx.notify_shell(shell_rank, "stdin-forward", &context);
            }
        }
        data.deliver(tasks);
        Ok(())
    }

    /// Takes what the leader sends on.
    pub(crate) fn on_forward(&mut self, tasks: &mut [Task], request: &Message) {
        if let Some(data) = request
            .payload_str()
            .ok()
            .and_then(|payload| Data::parse(payload).ok())
        {
            data.deliver(tasks);
        }
    }
}

struct Data {
    /// `None` means all.
    ranks: Option<IdSet>,
    bytes: Vec<u8>,
    eof: bool,
}

impl Data {
    fn parse(payload: &str) -> Result<Self, (Errnum, &'static str)> {
        #[derive(Deserialize)]
        struct Context {
            stream: String,
            rank: String,
            #[serde(default)]
            data: Option<String>,
            #[serde(default)]
            encoding: Option<String>,
            #[serde(default)]
            eof: bool,
        }
        let context: Context = serde_json::from_str(payload).map_err(|_| (EPROTO, ""))?;
        if context.stream != "stdin" {
            return Err((EPROTO, "stream is not stdin"));
        }
        let ranks = match context.rank.as_str() {
            "all" => None,
            text => Some(text.parse().map_err(|_| (EPROTO, "invalid rank"))?),
        };
        let text = context.data.unwrap_or_default();
        let bytes = match context.encoding.as_deref() {
            Some("base64") => crate::base64::decode(&text).ok_or((EPROTO, "invalid base64"))?,
            _ => text.into_bytes(),
        };
        Ok(Data {
            ranks,
            bytes,
            eof: context.eof,
        })
    }

    fn deliver(&self, tasks: &mut [Task]) {
        for task in tasks {
            if self.ranks.as_ref().is_none_or(|ranks| ranks.contains(task.rank)) {
                task.stdin.push(&self.bytes, self.eof);
            }
        }
    }
}
