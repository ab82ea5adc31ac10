//! Where does the tasks' output go: the output eventlog, files, or the leader? (RFC 24)

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use flux_client::Message;
use flux_formats::idset::IdSet;
use flux_formats::size::{format_size, parse_size};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ctx::{Ctx, Purpose};
use crate::eventlog::{self, DataContext};
use crate::log::log;
use crate::options::OptionError;
use crate::task::Stream;
use crate::template::{self, Scope};

/// Output of one stream that the eventlog takes in an instance that serves many users, in bytes.
const LIMIT_MULTI_USER: u64 = 10 << 20;
/// The same in an instance of the job's own user.
const LIMIT_SINGLE_USER: u64 = 1 << 30;
/// Messages that a shell may send to the leader before it asks for more.
const CREDITS: i64 = 1000;
/// Left credits at which it asks.
const CREDITS_LOW: i64 = 500;

/// Why output cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// An option is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The kind of destination is not known.
    #[error("output.{stream}.type: unknown type '{kind}'")]
    Kind {
        /// stdout or stderr.
        stream: &'static str,
        /// As given.
        kind: String,
    },
    /// A file destination has no name.
    #[error("output.{0}.path: missing file name")]
    Path(&'static str),
    /// A file cannot be opened.
    #[error("output: error opening {path}: {text}")]
    Open {
        /// Its name after expansion.
        path: String,
        /// Why.
        text: String,
    },
}

/// What is asked of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StreamConfig {
    path: Option<String>,
    label: bool,
    by_line: bool,
}

/// Where one stream goes.
#[derive(Debug)]
enum Target {
    /// Into the eventlog, or to the leader who puts it there.
    Kvs,
    /// Into one file of the leader.
    Leader(usize),
    /// Into a file of this shell for each local task.
    Local(Vec<usize>),
}

#[derive(Debug)]
struct Sink {
    path: String,
    file: File,
    buffer: Vec<u8>,
}

/// The output of all tasks.
#[derive(Debug)]
pub(crate) struct Output {
    config: [StreamConfig; 2],
    targets: [Target; 2],
    sinks: Vec<Sink>,
    limit: u64,
    written: [u64; 2],
    truncated: [bool; 2],
    /// Other shells that may still send output; only the leader's counts.
    senders: HashSet<u32>,
    credits: i64,
    credit_asked: bool,
    /// Shells whose wish for credit waits until the eventlog has caught up.
    credit_waiting: Vec<(Message, i64)>,
}

impl Output {
    /// Reads the options; nothing is opened yet.
    ///
    /// # Errors
    /// [`OutputError`] of wrong options.
    pub(crate) fn new(ctx: &Ctx) -> Result<Self, OutputError> {
        let stdout = stream_config(ctx, Stream::Stdout, None)?;
        let stderr = stream_config(ctx, Stream::Stderr, Some(&stdout))?;
        let limit = match ctx.info.options.text("output.limit")? {
            None => default_limit(ctx.info.uid),
            Some(text) => parse_size(&text)
                .ok()
                .filter(|limit| *limit > 0 && *limit <= LIMIT_SINGLE_USER)
                .ok_or(OptionError {
                    name: "output.limit".to_owned(),
                    value: text,
                })?,
        };
        let senders = if ctx.info.is_leader() {
            (1..ctx.info.shell_size()).collect()
        } else {
            HashSet::new()
        };
        Ok(Output {
            config: [stdout, stderr],
            targets: [Target::Kvs, Target::Kvs],
            sinks: Vec::new(),
            limit,
            written: [0, 0],
            truncated: [false, false],
            senders,
            credits: CREDITS,
            credit_asked: false,
            credit_waiting: Vec::new(),
        })
    }

    /// Opens the files.
    ///
    /// # Errors
    /// [`OutputError::Open`].
    pub(crate) fn init(&mut self, ctx: &mut Ctx, tmpdir: &str) -> Result<(), OutputError> {
        let append = ctx.info.options.text("output.mode")?.as_deref() == Some("append");
        for stream in Stream::BOTH {
            let Some(path) = self.config(stream).path.clone() else {
                continue;
            };
            let target = self.open_target(ctx, &path, append, tmpdir)?;
            if ctx.info.is_leader() {
                redirect_events(ctx, stream, &path, tmpdir);
            }
            if let Some(slot) = self.targets.get_mut(stream.index()) {
                *slot = target;
            }
        }
        log!(
            ctx,
            Debug,
            "output",
            "batch timeout = {:.3}s",
            ctx.batch_timeout().as_secs_f64()
        );
        Ok(())
    }

    fn open_target(
        &mut self,
        ctx: &Ctx,
        path: &str,
        append: bool,
        tmpdir: &str,
    ) -> Result<Target, OutputError> {
        let info = &ctx.info;
        let scope = |task| Scope {
            info,
            shell_rank: info.shell_rank,
            task,
            tmpdir,
        };
        if template::is_local(path) {
            let tasks = (0..).zip(&info.local_tasks);
            let sinks: Result<Vec<usize>, OutputError> = tasks
                .map(|(local, rank)| self.open(&scope(Some((*rank, local))).expand(path), append))
                .collect();
            return Ok(Target::Local(sinks?));
        }
        // Only the leader opens it; the others send it their output.
        let sink = if info.is_leader() {
            self.open(&scope(None).expand(path), append)?
        } else {
            0
        };
        Ok(Target::Leader(sink))
    }

    /// Opens a file once, however many streams go there.
    fn open(&mut self, path: &str, append: bool) -> Result<usize, OutputError> {
        if let Some(known) = self.sinks.iter().position(|sink| sink.path == path) {
            return Ok(known);
        }
        let mut options = OpenOptions::new();
        options.create(true);
        if append {
            options.append(true)
        } else {
            options.write(true).truncate(true)
        };
        let file = options.open(path).map_err(|error| OutputError::Open {
            path: path.to_owned(),
            text: crate::errno_text(&error),
        })?;
        self.sinks.push(Sink {
            path: path.to_owned(),
            file,
            buffer: Vec::new(),
        });
        Ok(self.sinks.len() - 1)
    }

    fn config(&self, stream: Stream) -> &StreamConfig {
        let [stdout, stderr] = &self.config;
        if stream == Stream::Stdout { stdout } else { stderr }
    }

    /// Returns whether a stream is cut into lines.
    pub(crate) fn by_line(&self, stream: Stream) -> bool {
        self.config(stream).by_line
    }

    /// Returns true while the tasks' pipes should not be read.
    pub(crate) fn is_stopped(&self, ctx: &Ctx) -> bool {
        ctx.is_congested() || self.credits <= 0
    }

    /// Takes a piece of a local task's output.
    pub(crate) fn local(&mut self, ctx: &mut Ctx, task: (u32, u32), stream: Stream, data: &[u8]) {
        let (rank, local_id) = task;
        let label = self.config(stream).label;
        match self.targets.get(stream.index()) {
            Some(Target::Local(sinks)) => {
                let sink = usize::try_from(local_id)
                    .ok()
                    .and_then(|local| sinks.get(local).copied());
                self.write_file(sink, label.then_some(rank), data);
            }
            _ if ctx.info.is_leader() => self.at_leader(ctx, rank, stream, data),
            _ => {
                ctx.write_to_leader("data", &DataContext::data(stream.name(), rank, data));
                self.use_credit(ctx);
            }
        }
    }

    /// Takes the end of a local task's stream.
    pub(crate) fn local_eof(&mut self, ctx: &mut Ctx, rank: u32, stream: Stream) {
        match self.targets.get(stream.index()) {
            Some(Target::Kvs) if ctx.info.is_leader() => {
                eventlog::push(
                    &mut ctx.events.output,
                    "data",
                    &DataContext::eof(stream.name(), rank),
                );
                ctx.touch();
            }
            Some(Target::Kvs) => {
                ctx.write_to_leader("data", &DataContext::eof(stream.name(), rank));
                self.use_credit(ctx);
            }
            _ => {}
        }
    }

    fn at_leader(&mut self, ctx: &mut Ctx, rank: u32, stream: Stream, data: &[u8]) {
        if let Some(Target::Leader(sink)) = self.targets.get(stream.index()) {
            let (sink, label) = (*sink, self.config(stream).label);
            self.write_file(Some(sink), label.then_some(rank), data);
            return;
        }
        if self.within_limit(ctx, stream, data.len()) {
            eventlog::push(
                &mut ctx.events.output,
                "data",
                &DataContext::data(stream.name(), rank, data),
            );
            ctx.touch();
        }
    }

    fn within_limit(&mut self, ctx: &mut Ctx, stream: Stream, size: usize) -> bool {
        let (Some(written), Some(truncated)) = (
            self.written.get_mut(stream.index()),
            self.truncated.get_mut(stream.index()),
        ) else {
            return false;
        };
        *written = written.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
        if *written <= self.limit {
            return true;
        }
        if !std::mem::replace(truncated, true) {
            let limit = format_size(self.limit);
            log!(ctx, Warn, "", "{}: truncating output at {limit}", stream.name());
        }
        false
    }

    fn write_file(&mut self, sink: Option<usize>, label: Option<u32>, data: &[u8]) {
        let Some(sink) = sink.and_then(|sink| self.sinks.get_mut(sink)) else {
            return;
        };
        if let Some(rank) = label {
            // Writing to a vector cannot fail.
            let _written = write!(sink.buffer, "{rank}: ");
        }
        sink.buffer.extend_from_slice(data);
    }

    /// Writes to the files what has been gathered since the last call.
    pub(crate) fn flush_files(&mut self, ctx: &mut Ctx) {
        for sink in &mut self.sinks {
            if sink.buffer.is_empty() {
                continue;
            }
            if let Err(error) = sink.file.write_all(&sink.buffer) {
                log!(
                    ctx,
                    Error,
                    "output",
                    "error writing {}: {}",
                    sink.path,
                    crate::errno_text(&error)
                );
            }
            sink.buffer.clear();
        }
    }

    /// Takes a `write` request of another shell.
    ///
    /// # Errors
    /// The parser's, for a payload that is no such request.
    pub(crate) fn on_write(&mut self, ctx: &mut Ctx, request: &Message) -> Result<(), serde_json::Error> {
        #[derive(Deserialize)]
        struct Write<'a> {
            name: &'a str,
            shell_rank: u32,
            #[serde(borrow)]
            context: &'a RawValue,
        }
        let payload = request.payload_str().unwrap_or("");
        let write: Write<'_> = serde_json::from_str(payload)?;
        match write.name {
            "eof" => {
                self.senders.remove(&write.shell_rank);
            }
            "data" => self.on_remote_data(ctx, write.context)?,
            name => {
                eventlog::push(&mut ctx.events.output, name, write.context);
                ctx.touch();
            }
        }
        Ok(())
    }

    fn on_remote_data(&mut self, ctx: &mut Ctx, context: &RawValue) -> Result<(), serde_json::Error> {
        #[derive(Deserialize)]
        struct Data {
            stream: String,
            rank: IdSet,
            #[serde(default)]
            data: Option<String>,
            #[serde(default)]
            encoding: Option<String>,
        }
        let data: Data = serde_json::from_str(context.get())?;
        let Some(stream) = Stream::from_name(&data.stream) else {
            return Ok(());
        };
        let size = data.data.as_ref().map_or(0, String::len);
        match self.targets.get(stream.index()) {
            Some(Target::Kvs) => {
                if size == 0 || self.within_limit(ctx, stream, size) {
                    eventlog::push(&mut ctx.events.output, "data", context);
                    ctx.touch();
                }
            }
            _ => {
                let Some(text) = data.data else { return Ok(()) };
                let bytes = match data.encoding.as_deref() {
                    Some("base64") => crate::base64::decode(&text).unwrap_or_default(),
                    _ => text.into_bytes(),
                };
                self.at_leader(ctx, data.rank.first().unwrap_or(0), stream, &bytes);
            }
        }
        Ok(())
    }

    /// Tells the leader that no more output comes from this shell.
    pub(crate) fn finish(&mut self, ctx: &mut Ctx) {
        if !ctx.info.is_leader() {
            #[derive(Serialize)]
            struct Nothing {}
            ctx.write_to_leader("eof", &Nothing {});
        }
    }

    /// Notes that another shell is gone.
    pub(crate) fn lost_shell(&mut self, shell_rank: u32) {
        self.senders.remove(&shell_rank);
    }

    /// Returns true when no other shell will send more output.
    pub(crate) fn is_complete(&self) -> bool {
        self.senders.is_empty()
    }

    fn use_credit(&mut self, ctx: &mut Ctx) {
        self.credits -= 1;
        self.ask_credit(ctx);
    }

    /// Asks for as much as is missing; one read may use more than was left.
    fn ask_credit(&mut self, ctx: &mut Ctx) {
        if self.credits <= CREDITS_LOW && !self.credit_asked {
            self.credit_asked = true;
            let topic = format!("{}.write-getcredit", ctx.info.service);
            let body = serde_json::json!({"credits": CREDITS - self.credits});
            let leader = ctx.info.broker_rank_of(0);
            ctx.rpc(topic, leader, &body, Purpose::Credit);
        }
    }

    /// Takes the leader's answer to a wish for credit.
    pub(crate) fn on_credit(&mut self, ctx: &mut Ctx, response: &Message) {
        #[derive(Deserialize)]
        struct Credit {
            credits: i64,
        }
        self.credit_asked = false;
        // A leader that refuses is not to stop the tasks for ever.
        let credits = response
            .payload_json::<Credit>()
            .map_or(CREDITS, |credit| credit.credits.max(0));
        self.credits = self.credits.saturating_add(credits);
        self.ask_credit(ctx);
    }

    /// Takes another shell's wish for credit; it is granted when the eventlog is not behind.
    pub(crate) fn on_getcredit(&mut self, ctx: &mut Ctx, request: Message) {
        #[derive(Deserialize)]
        struct Credit {
            credits: i64,
        }
        let credits = request
            .payload_json::<Credit>()
            .map_or(0, |credit| credit.credits);
        self.credit_waiting.push((request, credits));
        self.grant(ctx);
    }

    /// Grants waiting wishes for credit when there is room.
    pub(crate) fn grant(&mut self, ctx: &mut Ctx) {
        if ctx.is_congested() {
            return;
        }
        for (request, credits) in self.credit_waiting.drain(..) {
            let _sent = ctx
                .handle
                .respond(&request, Some(&serde_json::json!({"credits": credits})));
        }
    }
}

fn stream_config(
    ctx: &Ctx,
    stream: Stream,
    fallback: Option<&StreamConfig>,
) -> Result<StreamConfig, OutputError> {
    let options = &ctx.info.options;
    let name = |key: &str| format!("output.{}.{key}", stream.name());
    let kind = options.text(&name("type"))?;
    let path = match kind.as_deref() {
        None => fallback.and_then(|stdout| stdout.path.clone()),
        Some("kvs") => None,
        Some("file") => match (options.text(&name("path"))?, fallback) {
            (Some(path), _) => Some(path),
            (None, Some(StreamConfig { path: Some(path), .. })) => Some(path.clone()),
            (None, _) => return Err(OutputError::Path(stream.name())),
        },
        Some(kind) => {
            return Err(OutputError::Kind {
                stream: stream.name(),
                kind: kind.to_owned(),
            });
        }
    };
    let label = match options.get(&name("label")) {
        Some(_) => options.flag(&name("label"))?,
        None => kind.is_none() && fallback.is_some_and(|stdout| stdout.label),
    };
    let by_line = match options.text(&name("buffer.type"))?.as_deref() {
        None | Some("line") => true,
        Some("none") => false,
        Some(other) => {
            return Err(OptionError {
                name: name("buffer.type"),
                value: format!("\"{other}\""),
            }
            .into());
        }
    };
    Ok(StreamConfig { path, label, by_line })
}

/// Returns the limit that fits the instance: its owner's own jobs may write more.
fn default_limit(uid: u32) -> u64 {
    let owner = std::env::var("FLUX_URI").ok().and_then(|uri| {
        let path = uri.strip_prefix("local://")?.to_owned();
        Some(std::fs::metadata(path).ok()?.uid())
    });
    if owner == Some(uid) {
        LIMIT_SINGLE_USER
    } else {
        LIMIT_MULTI_USER
    }
}

/// Says in the eventlog which tasks' stream is in which file.
fn redirect_events(ctx: &mut Ctx, stream: Stream, path: &str, tmpdir: &str) {
    #[derive(Serialize)]
    struct Redirect<'a> {
        stream: &'a str,
        rank: String,
        path: &'a str,
    }
    let mut files: Vec<(String, IdSet)> = Vec::new();
    let local = template::is_local(path);
    if !local {
        let scope = Scope {
            info: &ctx.info,
            shell_rank: 0,
            task: None,
            tmpdir,
        };
        files.push((scope.expand(path), IdSet::first_n(ctx.info.taskmap.ntasks())));
    }
    for shell_rank in 0..if local { ctx.info.shell_size() } else { 0 } {
        for (local, rank) in (0..).zip(ctx.info.taskmap.task_ids(shell_rank).iter()) {
            let scope = Scope {
                info: &ctx.info,
                shell_rank,
                task: Some((rank, local)),
                tmpdir,
            };
            let name = scope.expand(path);
            match files.iter_mut().rev().find(|(known, _)| *known == name) {
                Some((_, ranks)) => drop(ranks.insert(rank)),
                None => files.push((name, IdSet::from(rank))),
            }
        }
    }
    for (path, ranks) in &files {
        let redirect = Redirect {
            stream: stream.name(),
            rank: ranks.to_string(),
            path,
        };
        eventlog::push(&mut ctx.events.output, "redirect", &redirect);
    }
}
