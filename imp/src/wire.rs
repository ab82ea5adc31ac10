//! What do the relay and the monitor say to each other? Length-prefixed RFC 38 text, each key at most once, in order.
//!
//! ```text
//! frame     length u32 (native order, at most 4 MiB), RFC 38 key-value text
//! relay     {cmd exec …} or {cmd run …} once, then {signal N} any number of times
//! monitor   {level L, log TEXT} any number of times, then {exit N} or {killed N}
//! ```

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use flux_sign::kv::{Kv, Value};

use crate::sys::fd::poll;
use crate::sys::process::Status;

/// Longest text of a frame; the original has the same limit.
pub const FRAME_MAX: usize = 4 << 20;
/// Longest path, address, name or value beside J.
pub const TEXT_MAX: usize = 4096;
/// Most variables of `imp run`.
pub const VARIABLES_MAX: usize = 256;
/// Most rules for devices.
pub const DEVICES_MAX: usize = 256;

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
    let mut length = [0; 4];
    if !fill(stream, &mut length, deadline)? {
        return Ok(None);
    }
    let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(usize::MAX);
    if length == 0 || length > FRAME_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Memory grows with what has come, not with what is announced.
    let mut text = Vec::new();
    while text.len() < length {
        let at = text.len();
        text.resize(length.min(at + (64 << 10)), 0);
        let part = text.get_mut(at..).unwrap_or_default();
        if !fill(stream, part, deadline)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Kv::decode(&text)
        .map(Some)
        .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))
}

/// Fills the buffer; false when the stream ended before its first byte.
fn fill(stream: &mut UnixStream, buffer: &mut [u8], deadline: Instant) -> io::Result<bool> {
    let mut rest = &mut *buffer;
    let mut begun = false;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if !poll([(stream.as_fd(), libc::POLLIN)], Some(left))?[0] {
            continue;
        }
        match stream.read(rest) {
            Ok(0) if begun => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(false),
            Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            // The relay was killed with something of ours unread.
            Err(err) if err.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(err) => return Err(err),
        }
        begun = true;
    }
    Ok(true)
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

/// Keys are taken one after the other; whatever is out of order stays behind and is an error.
struct Reader<'a, I: Iterator<Item = (&'a str, &'a Value)>>(std::iter::Peekable<I>);

impl<'a, I: Iterator<Item = (&'a str, &'a Value)>> Reader<'a, I> {
    fn take(&mut self, key: &str) -> Option<&'a Value> {
        self.0.next_if(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn text(&mut self, key: &str, size_max: usize) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if text.len() <= size_max => Some(text.clone()),
            _ => None,
        }
    }

    fn list(&mut self, prefix: &str, count_max: usize) -> Option<Vec<(String, String)>> {
        let mut list = Vec::new();
        while let Some((name, value)) = self.0.next_if(|(name, _)| name.starts_with(prefix)) {
            let (Some(name), Value::String(text)) = (name.strip_prefix(prefix), value) else {
                return None;
            };
            if list.len() == count_max || name.len() > TEXT_MAX || text.len() > TEXT_MAX {
                return None;
            }
            list.push((name.to_owned(), text.clone()));
        }
        Some(list)
    }
}

impl Request {
    /// Reads a frame's text; `None` for anything that [`encode`](Request::encode) would not write.
    pub fn decode(kv: &Kv) -> Option<Self> {
        let mut reader = Reader(kv.iter().peekable());
        let request = match reader.text("cmd", TEXT_MAX)?.as_str() {
            "exec" => {
                let mut exec = Exec {
                    token: reader.text("J", FRAME_MAX)?,
                    shell: reader.text("shell", TEXT_MAX)?,
                    jobid: reader.text("jobid", TEXT_MAX)?,
                    reconnect: reader.take("reconnect").is_some_and(|v| *v == Value::Bool(true)),
                    ..Exec::default()
                };
                for (name, place) in VARIABLES.iter().zip(&mut exec.variables) {
                    *place = reader.text(name, TEXT_MAX);
                }
                if reader.take("devices") == Some(&Value::Bool(true)) {
                    let rules = reader.list("device.", DEVICES_MAX)?;
                    exec.devices = Some(rules.into_iter().map(|(_, rule)| rule).collect());
                }
                Request::Exec(exec)
            }
            "run" => Request::Run(Run {
                name: reader.text("name", TEXT_MAX)?,
                variables: reader.list("env.", VARIABLES_MAX)?,
            }),
            _ => return None,
        };
        reader.0.next().is_none().then_some(request)
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

pub(crate) fn one(key: &str, value: Value) -> Kv {
    let mut kv = Kv::new();
    // A constant key and a number are never refused.
    let _put = kv.put(key, value);
    kv
}

pub(crate) fn only(kv: &Kv, key: &str) -> Option<i64> {
    kv.get_int(key).filter(|_| kv.iter().count() == 1)
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
