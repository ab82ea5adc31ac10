//! How are events of the guest's eventlogs written and gathered into one commit? (RFC 18, 24, 50)

use std::time::{SystemTime, UNIX_EPOCH};

use flux_client::kvs::Transaction;
use serde::Serialize;
use serde::ser::Serializer;

/// Key of the execution eventlog in the guest namespace.
pub(crate) const EXEC: &str = "exec.eventlog";
/// Key of the output eventlog.
pub(crate) const OUTPUT: &str = "output";
/// Key of the input eventlog.
pub(crate) const INPUT: &str = "input";

#[derive(Serialize)]
struct EventLine<'a, C: Serialize + ?Sized> {
    timestamp: f64,
    name: &'a str,
    context: &'a C,
}

/// Returns the time for an event in seconds since the epoch.
pub(crate) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Appends one event's line to a log.
pub(crate) fn push<C: Serialize + ?Sized>(log: &mut Vec<u8>, name: &str, context: &C) {
    push_at(log, now(), name, context);
}

/// Appends one event's line with a given time to a log.
pub(crate) fn push_at<C: Serialize + ?Sized>(log: &mut Vec<u8>, timestamp: f64, name: &str, context: &C) {
    let before = log.len();
    match serde_json::to_writer(
        &mut *log,
        &EventLine {
            timestamp,
            name,
            context,
        },
    ) {
        Ok(()) => log.push(b'\n'),
        // Only a value that JSON cannot hold fails; half a line must not stay.
        Err(_) => log.truncate(before),
    }
}

/// Events that wait for the next commit, by eventlog.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) exec: Vec<u8>,
    pub(crate) output: Vec<u8>,
    pub(crate) input: Vec<u8>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.exec.is_empty() && self.output.is_empty() && self.input.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.exec.len() + self.output.len() + self.input.len()
    }

    /// Takes everything as one transaction of appends.
    pub(crate) fn take(&mut self) -> Transaction {
        let mut transaction = Transaction::new();
        for (key, log) in [
            (OUTPUT, &mut self.output),
            (INPUT, &mut self.input),
            (EXEC, &mut self.exec),
        ] {
            if !log.is_empty() {
                transaction.append(key, log);
                log.clear();
            }
        }
        transaction
    }
}

/// Header of an output or input eventlog (RFC 24).
#[derive(Serialize)]
pub(crate) struct Header {
    version: u32,
    encoding: Streams<&'static str>,
    count: Streams<u32>,
    options: Empty,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Streams<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stdin: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<T>,
}

impl Header {
    /// Returns the header of the output eventlog.
    pub(crate) fn output(ntasks: u32) -> Self {
        Header {
            version: 1,
            encoding: Streams {
                stdin: None,
                stdout: Some("UTF-8"),
                stderr: Some("UTF-8"),
            },
            count: Streams {
                stdin: None,
                stdout: Some(ntasks),
                stderr: Some(ntasks),
            },
            options: Empty {},
        }
    }

    /// Returns the header of the input eventlog.
    pub(crate) fn input() -> Self {
        Header {
            version: 1,
            encoding: Streams {
                stdin: Some("UTF-8"),
                stdout: None,
                stderr: None,
            },
            count: Streams {
                stdin: Some(1),
                stdout: None,
                stderr: None,
            },
            options: Empty {},
        }
    }
}

/// Data of a stream in RFC 24's form; what is not UTF-8 becomes base64.
#[derive(Serialize, Debug)]
pub(crate) struct DataContext<'a> {
    pub(crate) stream: &'a str,
    #[serde(serialize_with = "rank_text")]
    pub(crate) rank: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    eof: bool,
}

fn rank_text<S: Serializer>(rank: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(rank)
}

impl<'a> DataContext<'a> {
    /// Returns the context of a piece of data.
    pub(crate) fn data(stream: &'a str, rank: u32, data: &'a [u8]) -> Self {
        let (encoding, data) = match std::str::from_utf8(data) {
            Ok(text) => (None, text.into()),
            Err(_) => (Some("base64"), crate::base64::encode(data).into()),
        };
        DataContext {
            stream,
            rank,
            encoding,
            data: Some(data),
            eof: false,
        }
    }

    /// Returns the context of the end of a stream.
    pub(crate) fn eof(stream: &'a str, rank: u32) -> Self {
        DataContext {
            stream,
            rank,
            encoding: None,
            data: None,
            eof: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<C: Serialize>(name: &str, context: &C) -> String {
        let mut log = Vec::new();
        push_at(&mut log, 1795240138.5264924, name, context);
        String::from_utf8(log).unwrap()
    }

    #[test]
    fn golden_output_lines() {
        assert_eq!(
            line("header", &Header::output(4)),
            concat!(
                r#"{"timestamp":1795240138.5264924,"name":"header","context":{"version":1,"#,
                r#""encoding":{"stdout":"UTF-8","stderr":"UTF-8"},"count":{"stdout":4,"stderr":4},"options":{}}}"#,
                "\n"
            )
        );
        assert!(
            line("header", &Header::input())
                .contains(r#"{"version":1,"encoding":{"stdin":"UTF-8"},"count":{"stdin":1},"options":{}}"#)
        );
        assert!(
            line("data", &DataContext::data("stderr", 3, b"hello stderr\n"))
                .contains(r#""context":{"stream":"stderr","rank":"3","data":"hello stderr\n"}"#)
        );
        assert!(
            line("data", &DataContext::eof("stdout", 1))
                .contains(r#""context":{"stream":"stdout","rank":"1","eof":true}"#)
        );
        assert!(
            line("data", &DataContext::data("stdout", 0, b"\xff\x00"))
                .contains(r#"{"stream":"stdout","rank":"0","encoding":"base64","data":"/wA="}"#)
        );
    }

    #[test]
    fn a_commit_holds_what_was_pushed() {
        let mut pending = Pending::default();
        assert!(pending.is_empty());
        push(&mut pending.output, "header", &Header::output(1));
        push(&mut pending.exec, "shell.init", &Header::input());
        assert!(!pending.take().is_empty());
        assert!(pending.is_empty());
        assert!(pending.take().is_empty());
    }
}
