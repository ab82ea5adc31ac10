//! How is munged asked to make or check a credential? Its socket protocol, version 4, one request per connection.
//!
//! ```text
//! frame    magic u32 = 0x00606D4B, version u8 = 4, type u8, retry u8, length u32, body     (all big endian)
//! encode   cipher u8, mac u8, zip u8, realm (u8 + bytes), ttl u32, uid u32, gid u32, data (u32 + bytes)
//! encoded  error u8, text (u8 + bytes), credential (u32 + bytes)
//! decode   credential (u32 + bytes)
//! decoded  error u8, text (u8 + bytes), cipher u8, mac u8, zip u8, realm (u8 + bytes), ttl u32, address (u8 + bytes),
//!          encode time u32, decode time u32, uid u32, gid u32, may-read uid u32, may-read gid u32, data (u32 + bytes)
//! ```
//!
//! munged learns who asks from the socket itself, so no secret is sent. Every length is bounded, nothing may follow
//! the last field, and each wait ends after [`TIMEOUT`].

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where munged listens unless `sign.munge.socket-path` says otherwise.
pub const SOCKET_DEFAULT: &str = "/run/munge/munge.socket.2";
/// How long one connection may take from beginning to end.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest body that is read or written; a credential over a SHA-256 digest takes about 200 bytes.
const BODY_MAX: usize = 16 << 10;
/// Longest credential that is sent to munged.
const CREDENTIAL_MAX: usize = 4 << 10;
/// How often a connection is tried while munged's queue is full or it has just gone away.
const ATTEMPTS: u8 = 5;
/// Wait before the second attempt; the n-th waits n times as long.
const BACKOFF: Duration = Duration::from_millis(10);

const MAGIC: u32 = 0x0060_6D4B;
const VERSION: u8 = 4;
const HEADER_SIZE: usize = 11;
const ENCODE_REQUEST: u8 = 2;
const ENCODE_RESPONSE: u8 = 3;
const DECODE_REQUEST: u8 = 4;
const DECODE_RESPONSE: u8 = 5;
/// Cipher, MAC and compression as munged is configured.
const ALGORITHM_DEFAULT: u8 = 1;
/// "Any user (or group) may decode".
const ANYBODY: u32 = u32::MAX;
const STATUS_SUCCESS: u8 = 0;
const STATUS_EXPIRED: u8 = 15;
const STATUS_REPLAYED: u8 = 17;

/// Connects to munged within the time given; programs with privilege bring one that also checks who listens.
pub type Connect = fn(&Path, Duration) -> io::Result<UnixStream>;

/// Connects as the standard library does.
///
/// # Errors
/// What `connect(2)` returns.
pub fn connect(path: &Path, _timeout: Duration) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

/// Why munged gave no answer, or a bad one.
#[derive(Debug)]
pub enum MungeError {
    /// The socket cannot be used.
    Io(io::Error),
    /// munged answered with bytes that are not its protocol.
    Protocol(&'static str),
    /// munged refused, with its status and words.
    Status(u8, String),
}

impl fmt::Display for MungeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MungeError::Io(err)
                if err.kind() == ErrorKind::WouldBlock || err.kind() == ErrorKind::TimedOut =>
            {
                f.write_str("munged does not answer")
            }
            MungeError::Io(err) => write!(f, "cannot talk to munged (is it running?): {err}"),
            MungeError::Protocol(what) => write!(f, "munged sent {what}"),
            MungeError::Status(status, text) if text.is_empty() => write!(f, "munged status {status}"),
            MungeError::Status(_, text) => f.write_str(text),
        }
    }
}

impl std::error::Error for MungeError {}

impl From<io::Error> for MungeError {
    fn from(err: io::Error) -> Self {
        MungeError::Io(err)
    }
}

/// What a valid credential says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Who made it.
    pub uid: u32,
    /// When, in seconds since 1970.
    pub encode_time: u32,
    /// What was signed.
    pub payload: Vec<u8>,
}

/// Asks munged for a credential over `payload`, in the name of the calling process.
///
/// # Errors
/// Any [`MungeError`].
pub fn encode(path: &Path, connect: Connect, payload: &[u8]) -> Result<String, MungeError> {
    let mut body = vec![ALGORITHM_DEFAULT, ALGORITHM_DEFAULT, ALGORITHM_DEFAULT, 0];
    body.extend_from_slice(&0u32.to_be_bytes());
    body.extend_from_slice(&ANYBODY.to_be_bytes());
    body.extend_from_slice(&ANYBODY.to_be_bytes());
    put_long(&mut body, payload)?;
    let answer = transact(path, connect, ENCODE_REQUEST, &body, ENCODE_RESPONSE)?;
    parse_encoded(&answer)
}

/// Asks munged whether `credential` is valid. Expired and replayed ones pass: `max-ttl` bounds their use instead.
///
/// # Errors
/// Any [`MungeError`].
pub fn decode(path: &Path, connect: Connect, credential: &str) -> Result<Credential, MungeError> {
    if credential.len() > CREDENTIAL_MAX {
        return Err(MungeError::Status(0, "credential is too long".to_owned()));
    }
    // munged passes over white space around it: one credential would have many forms.
    if !credential.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(MungeError::Status(0, "credential is not plain text".to_owned()));
    }
    // munged expects the end of a C string.
    let mut text = credential.as_bytes().to_vec();
    text.push(0);
    let mut body = Vec::with_capacity(text.len() + 4);
    put_long(&mut body, &text)?;
    let answer = transact(path, connect, DECODE_REQUEST, &body, DECODE_RESPONSE)?;
    parse_decoded(&answer)
}

/// Reads the body of munged's answer to "encode".
///
/// # Errors
/// [`MungeError::Protocol`], [`MungeError::Status`].
pub fn parse_encoded(body: &[u8]) -> Result<String, MungeError> {
    let mut fields = Fields(body);
    let (status, text) = (fields.byte()?, fields.short()?);
    let credential = fields.long()?;
    fields.end()?;
    if status != STATUS_SUCCESS {
        return Err(refused(status, text));
    }
    let credential = credential.strip_suffix(b"\0").unwrap_or(credential);
    // The token separates its parts by dots.
    let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'.';
    match std::str::from_utf8(credential) {
        Ok(text) if !text.is_empty() && credential.iter().all(plain) => Ok(text.to_owned()),
        _ => Err(MungeError::Protocol("a credential that is not plain text")),
    }
}

/// Reads the body of munged's answer to "decode".
///
/// # Errors
/// [`MungeError::Protocol`], [`MungeError::Status`].
pub fn parse_decoded(body: &[u8]) -> Result<Credential, MungeError> {
    let mut fields = Fields(body);
    let (status, text) = (fields.byte()?, fields.short()?);
    let (_cipher, _mac, _zip) = (fields.byte()?, fields.byte()?, fields.byte()?);
    let _realm = fields.short()?;
    let _ttl = fields.word()?;
    if !matches!(fields.short()?.len(), 0 | 4) {
        return Err(MungeError::Protocol("an address of odd length"));
    }
    let (encode_time, _decode_time) = (fields.word()?, fields.word()?);
    let (uid, _gid) = (fields.word()?, fields.word()?);
    let (_may_read_uid, _may_read_gid) = (fields.word()?, fields.word()?);
    let payload = fields.long()?.to_vec();
    fields.end()?;
    match status {
        STATUS_SUCCESS | STATUS_EXPIRED | STATUS_REPLAYED => Ok(Credential {
            uid,
            encode_time,
            payload,
        }),
        _ => Err(refused(status, text)),
    }
}

/// munged's words, without anything that could disturb a log.
fn refused(status: u8, text: &[u8]) -> MungeError {
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    let plain = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let text = text.iter().copied().filter(plain).map(char::from).collect();
    MungeError::Status(status, text)
}

fn put_long(body: &mut Vec<u8>, bytes: &[u8]) -> Result<(), MungeError> {
    let len =
        u32::try_from(bytes.len()).map_err(|_| MungeError::Protocol("nothing: the data is too long"))?;
    body.extend_from_slice(&len.to_be_bytes());
    body.extend_from_slice(bytes);
    Ok(())
}

/// One request and its answer, tried again while munged is busy or restarts.
fn transact(path: &Path, connect: Connect, kind: u8, body: &[u8], want: u8) -> Result<Vec<u8>, MungeError> {
    let mut retry = 0;
    loop {
        let err = match attempt(path, connect, (kind, retry), body, want) {
            Err(MungeError::Io(err)) => err,
            other => return other,
        };
        let passing = matches!(
            err.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
        );
        retry += 1;
        if !passing || retry == ATTEMPTS {
            return Err(MungeError::Io(err));
        }
        std::thread::park_timeout(BACKOFF * u32::from(retry));
    }
}

fn attempt(
    path: &Path,
    connect: Connect,
    (kind, retry): (u8, u8),
    body: &[u8],
    want: u8,
) -> Result<Vec<u8>, MungeError> {
    let deadline = Instant::now() + TIMEOUT;
    let mut stream = connect(path, TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut frame = Vec::with_capacity(HEADER_SIZE + body.len());
    frame.extend_from_slice(&MAGIC.to_be_bytes());
    frame.extend_from_slice(&[VERSION, kind, retry]);
    put_long(&mut frame, body)?;
    stream.write_all(&frame)?;
    let mut header = [0; HEADER_SIZE];
    read_until(&mut stream, &mut header, deadline)?;
    let size = parse_header(&header, want)?;
    let mut answer = vec![0; size];
    read_until(&mut stream, &mut answer, deadline)?;
    Ok(answer)
}

/// Returns the length of the body that an answer's header promises.
fn parse_header(header: &[u8], want: u8) -> Result<usize, MungeError> {
    let mut fields = Fields(header);
    if fields.word()? != MAGIC || fields.byte()? != VERSION {
        return Err(MungeError::Protocol("something that is not MUNGE version 4"));
    }
    if fields.byte()? != want {
        return Err(MungeError::Protocol("an answer of the wrong type"));
    }
    let _retry = fields.byte()?;
    match usize::try_from(fields.word()?) {
        Ok(size) if size <= BODY_MAX => Ok(size),
        _ => Err(MungeError::Protocol("an answer that is too long")),
    }
}

/// Fills `buffer`; the whole must be there before `deadline`, however slowly its bytes come.
fn read_until(stream: &mut UnixStream, buffer: &mut [u8], deadline: Instant) -> Result<(), MungeError> {
    let mut rest = buffer;
    while !rest.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(ErrorKind::TimedOut).into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(rest) {
            Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

/// The fields that are still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], MungeError> {
        let (field, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(MungeError::Protocol("an answer that is cut short"))?;
        self.0 = rest;
        Ok(field)
    }

    fn byte(&mut self) -> Result<u8, MungeError> {
        Ok(self.take(1)?.first().copied().unwrap_or(0))
    }

    fn word(&mut self) -> Result<u32, MungeError> {
        Ok(self
            .take(4)?
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }

    fn short(&mut self) -> Result<&'a [u8], MungeError> {
        let len = self.byte()?;
        self.take(usize::from(len))
    }

    fn long(&mut self) -> Result<&'a [u8], MungeError> {
        let len = self.word()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn end(&self) -> Result<(), MungeError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(MungeError::Protocol("more than an answer")),
        }
    }
}

#[cfg(test)]
#[path = "munge_tests.rs"]
pub(crate) mod tests;
