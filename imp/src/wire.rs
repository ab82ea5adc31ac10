//! What do the relay and the monitor say to each other? Length-prefixed RFC 38 text, each key at most once, in order.
//!
//! ```text
//! frame     length u32 (native order, at most 4 MiB), RFC 38 key-value text
//! relay     {cmd exec …} or {cmd run …} once, then {signal N} any number of times
//! monitor   {level L, log TEXT} any number of times, then {exit N} or {killed N}
//! ```

use std::io::{self, Read, Write};
use std::iter::Peekable;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flux_sign::kv::{Kv, Value};

use crate::sys::fd::poll;
use crate::sys::process::Status;

/// Longest text of a frame; the original has the same limit.
pub const FRAME_MAX: usize = 4 << 20;
/// How much is read at once.
const PART_SIZE: usize = 16 << 10;
/// Longest path, address, name or value beside J.
pub const TEXT_MAX: usize = 4096;
/// Most variables of `imp run`, rules for devices, users or shells in the configuration.
pub const LIST_MAX: usize = 256;

/// Writes a frame.
///
/// # Errors
/// Those of the socket; a frame that is too long is `InvalidInput`.
pub fn send(stream: &mut impl Write, kv: &Kv) -> io::Result<()> {
    let text = kv.encode();
    let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= FRAME_MAX);
    let length = length.ok_or(io::ErrorKind::InvalidInput)?;
    let mut frame = length.to_ne_bytes().to_vec();
    frame.extend_from_slice(&text);
    stream.write_all(&frame)
}

/// Reads a frame, all of it within the time; `None` at the end of the stream.
///
/// # Errors
/// Those of the socket, `TimedOut`, `InvalidData` for a bad length or text.
pub fn receive(stream: &mut UnixStream, time: Duration) -> io::Result<Option<Kv>> {
    let deadline = Instant::now() + time;
    let mut stream = Timed { stream, deadline };
    let mut length = Vec::new();
    if (&mut stream).take(4).read_to_end(&mut length)? == 0 {
        return Ok(None);
    }
    let length: [u8; 4] = length.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let length = u64::from(u32::from_ne_bytes(length));
    if length == 0 || length > FRAME_MAX as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Memory grows with what has come, not with what is announced.
    let mut text = Vec::with_capacity(PART_SIZE);
    let read = stream.take(length).read_to_end(&mut text)?;
    if (read as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let kv = Kv::decode(&text);
    kv.map(Some)
        .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))
}

/// A stream that is read no longer than to a deadline.
struct Timed<'a> {
    stream: &'a mut UnixStream,
    deadline: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match poll([(self.stream.as_fd(), libc::POLLIN)], Some(left))? {
                [true] => break,
                [false] if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
                [false] => {}
            }
        }
        match self.stream.read(buffer) {
            // The other was killed with something of ours unread.
            Err(err) if err.kind() == io::ErrorKind::ConnectionReset => Ok(0),
            other => other,
        }
    }
}

/// What the relay asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `flux-imp exec`
    Exec(Exec),
    /// `flux-imp run`
    Run(Run),
}

/// A shell for a job. Everything is as the caller gave it; nothing has been checked but its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// The signed request.
    pub token: String,
    /// Path of the shell.
    pub shell: String,
    /// The job's id, as text.
    pub jobid: String,
    /// Whether the shell shall survive the loss of its broker (`--reconnect`).
    pub reconnect: bool,
    /// `FLUX_URI`, `FLUX_KVS_NAMESPACE`, `TZ`, `LANG`, in this order.
    pub variables: [Option<String>; 4],
    /// Which devices the job may open; `None` for all. Elements are `c:MAJOR:MINOR:rwm`, numbers may be `*`.
    pub devices: Option<Vec<String>>,
}

/// A script of the administrator's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Its name in the configuration.
    pub name: String,
    /// Environment that the caller would like to pass on.
    pub variables: Vec<(String, String)>,
}

/// Names of [`Exec::variables`].
pub const VARIABLES: [&str; 4] = ["FLUX_URI", "FLUX_KVS_NAMESPACE", "TZ", "LANG"];

/// Keys are taken one after the other; whatever is out of order, or of another kind, stays behind and is an error.
struct Reader<'a>(&'a Kv, Peekable<std::vec::IntoIter<&'a str>>);

impl Reader<'_> {
    fn take<T>(&mut self, key: &str, value: Option<T>) -> Option<T> {
        let value = value?;
        self.1.next_if(|next| *next == key).map(|_| value)
    }

    fn text(&mut self, key: &str, size_max: usize) -> Option<String> {
        let text = self.0.get_str(key).filter(|text| text.len() <= size_max);
        self.take(key, text.map(str::to_owned))
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        self.take(key, self.0.get_bool(key))
    }

    /// Takes all texts whose keys begin so, with what follows; at most [`LIST_MAX`], none longer than [`TEXT_MAX`].
    fn list(&mut self, prefix: &str) -> Option<Vec<(String, String)>> {
        let mut list = Vec::new();
        while let Some(key) = self.1.next_if(|key| key.starts_with(prefix)) {
            let (name, text) = (key.strip_prefix(prefix)?, self.0.get_str(key)?);
            if list.len() == LIST_MAX || name.len() > TEXT_MAX || text.len() > TEXT_MAX {
                return None;
            }
            list.push((name.to_owned(), text.to_owned()));
        }
        Some(list)
    }
}

impl Request {
    /// Reads a frame's text; `None` for anything that [`encode`](Request::encode) would not write.
    pub fn decode(kv: &Kv) -> Option<Self> {
        let keys: Vec<&str> = kv.iter().map(|(key, _)| key).collect();
        let mut reader = Reader(kv, keys.into_iter().peekable());
        let request = match reader.text("cmd", TEXT_MAX)?.as_str() {
            "exec" => Request::Exec(Exec {
                token: reader.text("J", FRAME_MAX)?,
                shell: reader.text("shell", TEXT_MAX)?,
                jobid: reader.text("jobid", TEXT_MAX)?,
                reconnect: reader.flag("reconnect")?,
                variables: VARIABLES.map(|name| reader.text(name, TEXT_MAX)),
                devices: match (reader.flag("devices")?, reader.list("device.")?) {
                    (true, rules) => Some(rules.into_iter().map(|(_, rule)| rule).collect()),
                    (false, rules) if rules.is_empty() => None,
                    _ => return None,
                },
            }),
            "run" => Request::Run(Run {
                name: reader.text("name", TEXT_MAX)?,
                variables: reader.list("env.")?,
            }),
            _ => return None,
        };
        reader.1.next().is_none().then_some(request)
    }
}

/// Reads a relayed signal.
pub fn decode_signal(kv: &Kv) -> Option<i32> {
    only(kv, "signal").and_then(|number| i32::try_from(number).ok())
}

/// Returns the text that says how it ended.
pub fn ended(status: Status) -> Kv {
    match status {
        Status::Exited(code) => one("exit", Value::Int(i64::from(code))),
        Status::Killed(signal) => one("killed", Value::Int(i64::from(signal))),
    }
}

/// Returns a text with one key, of ours and short.
pub fn one(key: &str, value: Value) -> Kv {
    let mut kv = Kv::new();
    let _put = kv.put(key, value);
    kv
}

/// Returns the number of the only key.
pub fn only(kv: &Kv, key: &str) -> Option<i64> {
    kv.get_int(key).filter(|_| kv.iter().count() == 1)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
