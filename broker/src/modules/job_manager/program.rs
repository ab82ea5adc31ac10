//! What is common to programs that the job manager has run for a job on brokers: prolog, epilog, housekeeping, and
//! those of plugins.

use crate::service::Cx;
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::rpc::rexec::{CommandObject, ExecRequest, FLAG_STDERR, FLAG_STDOUT, IoObject, KillRequest};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Wait status of `exit 127`.
pub(super) const NOT_STARTED: i32 = 127 << 8;
/// Broker variables that programs get.
const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "SHELL"];

/// Bytes of a line that are kept until its end comes.
const LINE_MAX: usize = 16 << 10;

/// What `rexec.exec` answers (RFC 42).
#[derive(Deserialize)]
pub(super) struct Reply {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) pid: Option<i64>,
    #[serde(default)]
    pub(super) status: Option<i32>,
    #[serde(default)]
    pub(super) io: Option<IoObject>,
}

/// Returns the request that runs a program in `/` with a few variables of the broker's own environment and these.
pub(super) fn request(cx: &Cx<'_>, command: Vec<String>, more: Map<String, Value>) -> ExecRequest {
    let mut env = Map::new();
    for name in INHERITED {
        if let Ok(value) = std::env::var(name) {
            env.insert(name.to_owned(), value.into());
        }
    }
    if let Some(uri) = cx.attrs.get("local-uri") {
        env.insert("FLUX_URI".to_owned(), uri.into());
    }
    env.extend(more);
    ExecRequest {
        cmd: CommandObject {
            cwd: Some("/".to_owned()),
            cmdline: command,
            env,
            ..CommandObject::default()
        },
        flags: FLAG_STDOUT | FLAG_STDERR,
        local_flags: 0,
    }
}

/// Sends a signal to a process that `rexec` started; it may have ended meanwhile.
pub(super) fn kill(cx: &mut Cx<'_>, rank: u32, pid: i64, signum: i32) {
    let request = KillRequest {
        pid,
        signum,
        label: None,
    };
    let message = cx.request("rexec.kill", rank, &request);
    cx.rpc(message, |_: &mut super::JobManager, _, result| {
        if let Err(err) = result {
            tracing::debug!(err = %err, "signal not sent");
        }
    });
}

/// Beginnings of lines, by rank and stream.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<(u32, String), String>);

impl Lines {
    /// Adds output; returns the lines that are complete now, without their ends.
    pub(super) fn add(&mut self, rank: u32, io: &IoObject) -> Vec<String> {
        let text = self.0.entry((rank, io.stream.clone())).or_default();
        if let Some(data) = io.data.as_deref().filter(|_| io.encoding.is_none()) {
            text.push_str(data);
        }
        let mut lines: Vec<String> = Vec::new();
        while let Some(end) = text.find('\n') {
            let rest = text.split_off(end + 1);
            lines.push(std::mem::replace(text, rest).trim_end().to_owned());
        }
        if (io.eof && !text.is_empty()) || text.len() > LINE_MAX {
            lines.push(std::mem::take(text));
        }
        lines
    }
}

/// Returns the log level of a stream: errors are told as such.
pub(super) fn level_of(stream: &str) -> u8 {
    if stream == "stderr" { 3 } else { 6 }
}

/// Returns the host of a broker, or `rankN`.
pub(super) fn host_of(cx: &Cx<'_>, rank: u32) -> String {
    let hosts: Option<Hostlist> = cx.attrs.get("hostlist").and_then(|text| text.parse().ok());
    hosts
        .and_then(|hosts| hosts.nth(u64::from(rank)))
        .unwrap_or_else(|| format!("rank{rank}"))
}

/// Returns the hosts of brokers, a hostlist.
pub(super) fn hosts_of(cx: &Cx<'_>, ranks: &IdSet) -> String {
    let hosts: Vec<String> = ranks.iter().map(|rank| host_of(cx, rank)).collect();
    let hosts: Hostlist = hosts.join(",").parse().unwrap_or_default();
    hosts.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_their_newline_or_the_stream() {
        let mut lines = Lines::default();
        let mut add = |rank, stream: &str, data: &str, eof| {
            lines.add(
                rank,
                &IoObject {
                    stream: stream.to_owned(),
                    data: Some(data.to_owned()),
                    eof,
                    ..IoObject::default()
                },
            )
        };
        assert!(add(0, "stdout", "a", false).is_empty());
        assert!(add(1, "stdout", "x", false).is_empty());
        assert_eq!(add(0, "stdout", "b\nc\r\nd", false), ["ab", "c"]);
        assert_eq!(add(0, "stdout", "", true), ["d"]);
        assert_eq!(add(1, "stdout", "\n", false), ["x"]);
        assert!(add(0, "stderr", "", true).is_empty());
        assert_eq!(add(2, "stdout", &"z".repeat(LINE_MAX + 1), false).len(), 1);
        assert_eq!((level_of("stderr"), level_of("stdout")), (3, 6));
    }
}
