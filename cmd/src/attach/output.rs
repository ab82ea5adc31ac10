//! What do the events of a job's output eventlog put on standard output and standard error? (RFC 24)

use std::io::Write as _;

use flux_formats::eventlog::EventRef;
use flux_formats::idset::IdSet;
use flux_formats::ioencode::{Data, Header, Log, Redirect};
use serde_json::Value;

use crate::common::error::{CmdError, fail};

/// Bytes on their way to the terminal.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    /// For standard output.
    pub(crate) out: Vec<u8>,
    /// For standard error.
    pub(crate) err: Vec<u8>,
}

impl Sink {
    /// Adds one line to standard error.
    pub(crate) fn error_line(&mut self, text: &str) {
        self.err.extend_from_slice(text.as_bytes());
        self.err.push(b'\n');
    }
}

/// The state of one output eventlog.
#[derive(Debug, Default)]
pub(crate) struct Output {
    header: Option<Header>,
    /// Streams that have not ended, when the header has said how many there are.
    open: Option<u64>,
    label: bool,
    verbose: bool,
    /// What each line begins with, beside the label; for watching several jobs.
    prefix: String,
}

impl Output {
    /// Returns the state before the first event; with `label` each line begins with its task rank.
    pub(crate) fn new(label: bool, verbose: bool, prefix: String) -> Self {
        Output {
            label,
            verbose,
            prefix,
            ..Output::default()
        }
    }

    /// Returns true when every stream has said that it ends.
    pub(crate) fn is_complete(&self) -> bool {
        self.open == Some(0)
    }

    /// Takes one event; `start` is the time from which log messages count.
    ///
    /// # Errors
    /// When the context is not what RFC 24 says.
    pub(crate) fn event(
        &mut self,
        event: &EventRef<'_>,
        start: f64,
        sink: &mut Sink,
    ) -> Result<(), CmdError> {
        let wrong = |source: serde_json::Error| CmdError::Json {
            what: format!("output event {}", event.name),
            source,
        };
        match &*event.name {
            "header" => {
                let header: Header = event.context_as().map_err(wrong)?;
                self.open = Some(header.count.values().filter_map(Value::as_u64).sum());
                self.header = Some(header);
            }
            "data" => self.data(&event.context_as().map_err(wrong)?, sink)?,
            "redirect" => {
                let redirect: Redirect = event.context_as().map_err(wrong)?;
                self.redirect(&redirect, sink);
            }
            "log" => {
                let log: Log = event.context_as().map_err(wrong)?;
                self.log(&log, event.timestamp - start, sink);
            }
            _ => {}
        }
        Ok(())
    }

    fn data(&mut self, data: &Data, sink: &mut Sink) -> Result<(), CmdError> {
        if data.eof {
            self.close(&data.rank);
        }
        let default = self
            .header
            .as_ref()
            .and_then(|header| header.encoding_of(&data.stream));
        let bytes = match data.decode(default) {
            Ok(bytes) => bytes,
            Err(err) => return fail(format!("output of task {}: {err}", data.rank)),
        };
        let target = if data.stream == "stderr" {
            &mut sink.err
        } else {
            &mut sink.out
        };
        let label = if self.label {
            format!("{}{}: ", self.prefix, data.rank)
        } else {
            self.prefix.clone()
        };
        for _ in 0..data.repeat.unwrap_or(1) {
            if label.is_empty() {
                target.extend_from_slice(&bytes);
            } else {
                push_labelled(target, &label, &bytes);
            }
        }
        Ok(())
    }

    fn close(&mut self, rank: &str) {
        let ended = rank
            .parse::<u32>()
            .map_or_else(|_| rank.parse::<IdSet>().map_or(1, |set| set.count()), |_| 1);
        self.open = self.open.map(|open| open.saturating_sub(ended));
    }

    fn redirect(&mut self, redirect: &Redirect, sink: &mut Sink) {
        if let Some(path) = &redirect.path {
            sink.error_line(&format!(
                "{}: {} redirected to {path}",
                redirect.rank, redirect.stream
            ));
        }
    }

    fn log(&self, log: &Log, offset: f64, sink: &mut Sink) {
        // the shell's own names for the severities of RFC 5424
        let level = match log.level {
            0..=2 => "FATAL: ",
            3 => "ERROR: ",
            4 => " WARN: ",
            5 => "",
            6 => "DEBUG: ",
            7.. => "TRACE: ",
        };
        let program = log.program.as_deref().unwrap_or("flux-shell");
        let rank = log.rank.map_or_else(String::new, |rank| format!("[{rank}]"));
        let component = log
            .component
            .as_ref()
            .map_or_else(String::new, |name| format!("{name}: "));
        let place = match (&log.file, log.line) {
            (Some(file), Some(line)) if self.verbose => format!("{file}:{line}: "),
            _ => String::new(),
        };
        // Writing to a Vec cannot fail.
        let _infallible = writeln!(
            sink.err,
            "{}{offset:.3}s: {program}{rank}: {level}{component}{place}{}",
            self.prefix, log.message
        );
    }
}

/// Adds lines, each after a label; the last one gets its newline too.
pub(crate) fn push_labelled(target: &mut Vec<u8>, label: &str, bytes: &[u8]) {
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        target.extend_from_slice(label.as_bytes());
        target.extend_from_slice(line);
        if !line.ends_with(b"\n") {
            target.push(b'\n');
        }
    }
}
