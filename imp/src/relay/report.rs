//! How does the caller learn what happened? On standard error, from a process that is the caller's own.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use flux_sign::kv::Kv;

use crate::log::{Level, plain};
use crate::sys::fd::poll;

/// How long standard error may be full before a line is dropped.
const FULL_WAIT: Duration = Duration::from_secs(1);

/// Writes a line to standard error, unless that is full or closed.
pub fn to_stderr(level: Level, text: &str) {
    let stderr = std::io::stderr();
    let stderr = stderr.as_fd();
    // A pipe with room takes a line of this length whole, without waiting.
    if poll([(stderr, libc::POLLOUT)], Some(FULL_WAIT)).is_ok_and(|[ready]| ready)
        && let Ok(fd) = stderr.try_clone_to_owned()
    {
        let line = format!("flux-imp: {}{}\n", mark(level), plain(text));
        drop(File::from(fd).write_all(line.as_bytes()));
    }
}

/// Reads a line that the monitor has logged.
pub fn decode(kv: &Kv) -> Option<(Level, &str)> {
    let all = [Level::Fatal, Level::Warning, Level::Info, Level::Debug];
    let number = kv.get_int("level")?;
    let level = all.into_iter().find(|level| level.number() == number)?;
    Some((level, kv.get_str("log")?))
}

/// The mark of a line, as the original's.
fn mark(level: Level) -> &'static str {
    match level {
        Level::Fatal => "Fatal: ",
        Level::Warning => "Warning: ",
        Level::Info => "",
        Level::Debug => "Debug: ",
    }
}

#[cfg(test)]
mod tests {
    use flux_sign::kv::Value;

    use super::*;

    #[test]
    fn lines_are_read() {
        let line = |number: i64| {
            let mut kv = Kv::new();
            kv.put("level", Value::Int(number)).unwrap();
            kv.put("log", Value::String("x".to_owned())).unwrap();
            decode(&kv).map(|(level, text)| (level, text.to_owned()))
        };
        for level in [Level::Debug, Level::Info, Level::Warning, Level::Fatal] {
            assert_eq!(line(level.number()), Some((level, "x".to_owned())));
        }
        assert_eq!(line(5), None);
        assert_eq!(decode(&Kv::new()), None);
    }
}
