//! Who is told what the IMP decided? The caller on standard error, the administrator through syslog: one line each.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use flux_sign::kv::{Kv, Value};

use crate::sys::fd::{connect_unix, poll, standard};
use crate::sys::process::own_pid;
use crate::wire;

/// Longest line; more is cut.
const LINE_MAX: usize = 1024;
/// How long standard error may be full before a line is dropped.
const FULL_WAIT: Duration = Duration::from_secs(1);
/// `LOG_AUTHPRIV`
const FACILITY: u8 = 10 << 3;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look for a mistake.
    Debug,
    /// What was done.
    Info,
    /// Done, but with less than was asked for.
    Warning,
    /// Refused, or failed.
    Fatal,
}

impl Level {
    /// Returns the level of a word of the configuration.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warning" => Level::Warning,
            _ => return None,
        })
    }

    fn number(self) -> i64 {
        match self {
            Level::Debug => 7,
            Level::Info => 6,
            Level::Warning => 4,
            Level::Fatal => 3,
        }
    }

    fn from_number(number: i64) -> Self {
        match number {
            ..=3 => Level::Fatal,
            4 => Level::Warning,
            5 | 6 => Level::Info,
            _ => Level::Debug,
        }
    }

    /// The mark of a line on standard error, as the original's.
    fn mark(self) -> &'static str {
        match self {
            Level::Debug => "Debug: ",
            Level::Info => "",
            Level::Warning => "Warning: ",
            Level::Fatal => "Fatal: ",
        }
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
            line.push_str("...");
            break;
        }
    }
    line
}

/// Writes a line to standard error, unless that is full or closed.
pub fn to_stderr(level: Level, text: &str) {
    let stderr = standard(2);
    // A pipe with room takes a line of this length whole, without waiting.
    if poll([(stderr, libc::POLLOUT)], Some(FULL_WAIT)).is_ok_and(|[ready]| ready)
        && let Ok(fd) = stderr.try_clone_to_owned()
    {
        let line = format!("flux-imp: {}{}\n", level.mark(), plain(text));
        drop(File::from(fd).write_all(line.as_bytes()));
    }
}

/// The monitor's log: it has no standard error of its own and lets the relay write there.
#[derive(Debug)]
pub struct Log {
    relay: UnixStream,
    syslog: Option<File>,
    /// The least level that the relay is told.
    pub level: Level,
}

impl Log {
    /// Logs through a copy of the socket to the relay, and to syslog where there is one.
    ///
    /// # Errors
    /// What copying a descriptor returns.
    pub fn new(relay: &UnixStream) -> std::io::Result<Self> {
        Ok(Log {
            relay: relay.try_clone()?,
            syslog: connect_unix(c"/dev/log", libc::SOCK_DGRAM, None)
                .ok()
                .map(File::from),
            level: Level::Warning,
        })
    }

    /// Logs a decision.
    pub fn line(&mut self, level: Level, text: &str) {
        let text = plain(text);
        if let Some(syslog) = &mut self.syslog {
            let priority = i64::from(FACILITY) + level.number();
            let line = format!("<{priority}>flux-imp[{}]: {}{text}", own_pid(), level.mark());
            drop(syslog.write_all(line.as_bytes()));
        }
        if level >= self.level {
            let mut kv = Kv::new();
            let _put = kv.put("level", Value::Int(level.number()));
            let _put = kv.put("log", Value::String(text));
            // A relay that does not read loses lines; the monitor waits for nobody.
            if poll([(self.relay.as_fd(), libc::POLLOUT)], Some(Duration::ZERO)).is_ok_and(|[ready]| ready) {
                drop(wire::send(&mut self.relay, &kv));
            }
        }
    }

    /// Logs a refusal or failure.
    pub fn fatal(&mut self, text: &str) {
        self.line(Level::Fatal, text);
    }
}

/// Reads a line that the monitor has logged.
pub fn decode(kv: &Kv) -> Option<(Level, &str)> {
    Some((Level::from_number(kv.get_int("level")?), kv.get_str("log")?))
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

    #[test]
    fn levels_are_ordered_and_keep_their_numbers() {
        assert!(Level::Debug < Level::Info && Level::Warning < Level::Fatal);
        for level in [Level::Debug, Level::Info, Level::Warning, Level::Fatal] {
            assert_eq!(Level::from_number(level.number()), level);
        }
        assert_eq!(Level::from_name("loud"), None);
    }
}
