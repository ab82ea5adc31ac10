//! Who is told what the monitor decided? The administrator through syslog, the caller through the relay: one line each.

use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use flux_sign::kv::Value;

use crate::sys::fd::poll;
use crate::wire;

/// Longest line; more is cut.
const LINE_MAX: usize = 1024;
/// `LOG_AUTHPRIV`
const FACILITY: i64 = 10 << 3;

/// How much a line matters, with syslog's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Refused, or failed.
    Fatal = 3,
    /// Done, but with less than was asked for.
    Warning = 4,
    /// What was done.
    Info = 6,
    /// For those who look for a mistake.
    Debug = 7,
}

impl Level {
    /// Returns its number.
    pub fn number(self) -> i64 {
        self as i64
    }
}

/// Returns the text with everything but printable ASCII escaped, cut to the length of a line.
pub fn plain(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        if c.is_ascii_graphic() || c == ' ' {
            line.push(c);
        } else {
            line.extend(c.escape_default());
        }
        if line.len() > LINE_MAX {
            line.truncate(LINE_MAX);
            return line + "...";
        }
    }
    line
}

/// The monitor's two listeners. It has no standard error of its own and lets the relay write there.
#[derive(Debug)]
pub struct Log {
    /// The socket to the relay.
    pub relay: UnixStream,
    syslog: Option<UnixDatagram>,
    /// The highest number that the relay is told.
    pub level_max: i64,
}

impl Log {
    /// Logs to the relay, and to syslog where there is one.
    pub fn new(relay: UnixStream) -> Self {
        let syslog = UnixDatagram::unbound().and_then(|socket| {
            // A logger that is stuck costs lines, not jobs.
            socket.set_nonblocking(true)?;
            socket.connect("/dev/log").map(|()| socket)
        });
        Log {
            relay,
            syslog: syslog.ok(),
            level_max: Level::Warning.number(),
        }
    }

    /// Logs a decision.
    pub fn line(&mut self, level: Level, text: &str) {
        let text = plain(text);
        if let Some(syslog) = &self.syslog {
            let (priority, pid) = (FACILITY + level.number(), std::process::id());
            let line = format!("<{priority}>flux-imp[{pid}]: {text}");
            drop(syslog.send(line.as_bytes()));
        }
        // A relay that does not read loses lines; the monitor waits for nobody.
        let room = poll([(self.relay.as_fd(), libc::POLLOUT)], Some(Duration::ZERO));
        if level.number() <= self.level_max && room.is_ok_and(|[room]| room) {
            let mut kv = wire::one("level", Value::Int(level.number()));
            let _put = kv.put("log", Value::String(text));
            drop(wire::send(&mut self.relay, &kv));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_plain_and_short() {
        assert_eq!(plain("a\u{1b}[31m\nb\u{192}%s"), "a\\u{1b}[31m\\nb\\u{192}%s");
        let long = plain(&"x\n".repeat(5000));
        assert!(
            long.len() < LINE_MAX + 16 && long.ends_with("..."),
            "{}",
            long.len()
        );
    }
}
