//! How do two peers agree on keys? CURVE as pure state machines: bytes in, bytes out, no I/O, no randomness of its own.
//!
//! ZeroMQ RFC 26 "CurveZMQ". C, S are the long-term public keys; C', S' are made for one connection.
//!
//! ```text
//!  client                                         server
//!  Greeting --- greeting -------------------->  Greeting
//!           <-- greeting ---------------------
//!  Welcome  --- HELLO C', Box[0](C'->S) ----->  Hello       box opens: the client knows S
//!           <-- WELCOME Box[S',cookie](S->C')-
//!  Ready    --- INITIATE cookie,             ->  Initiate    box opens, the vouch opens: the client holds c
//!               Box[C,vouch,metadata](C'->S')
//!           <-- READY Box[metadata](S'->C') --              authorized (else ERROR "400")
//!  done                                         done
//! ```
//!
//! Our cookie is 96 random bytes compared by the machine: the RFC's cookie lets a server forget the connection between
//! WELCOME and INITIATE, which over TCP nobody does, and a client only echoes it.

mod client;
mod server;
#[cfg(test)]
mod tests;

use bytes::{Buf as _, Bytes, BytesMut};

pub(crate) use client::ClientHandshake;
pub(crate) use server::{ServerEntropy, ServerHandshake};

use crate::auth::Refusal;
use crate::cipher::{BoxCipher as _, Cipher, NONCE_BYTES, Nonce, TAG_BYTES, Tag};
use crate::codec::command::{self, Command};
pub use crate::codec::frame::FrameError;
use crate::codec::frame::{self, FLAG_COMMAND};
use crate::codec::greeting;
pub use crate::codec::greeting::GreetingError;
use crate::keys::PublicKey;

/// The largest command accepted during a handshake: INITIATE with an identity of 255 bytes takes under 600.
pub(crate) const COMMAND_BYTES_MAX: usize = 4096;
/// Bytes of the cookie.
const COOKIE_BYTES: usize = 96;

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer ended the connection first. A libzmq server does so when the client has a wrong server key.
    #[error("connection closed during the handshake")]
    Closed,
    /// The peer is not a ZMTP 3 peer with CURVE.
    #[error("greeting is not acceptable")]
    Greeting(#[from] GreetingError),
    /// A frame header is invalid or announces too much.
    #[error("frame is not acceptable")]
    Frame(#[from] FrameError),
    /// A command out of turn, or not a command.
    #[error("expected a {0} command")]
    Expected(&'static str),
    /// The expected command with a wrong size or content.
    #[error("{0} command is malformed")]
    Malformed(&'static str),
    /// The command's box does not open. In HELLO: the client has another server key than ours; in WELCOME: the server
    /// does not hold the expected key.
    #[error("{0} command does not decrypt with the expected key")]
    Box(&'static str),
    /// INITIATE carries another cookie than ours.
    #[error("cookie is not the one given")]
    Cookie,
    /// The client does not prove that it holds the secret of the public key it claims.
    #[error("client does not prove its key")]
    Vouch,
    /// A nonce does not grow.
    #[error("nonce of {0} does not grow")]
    Nonce(&'static str),
    /// The peer's socket type does not go with ours.
    #[error("socket type of the peer is not compatible")]
    SocketType,
    /// The client has no usable identity.
    #[error("identity is not 1 to 255 bytes without a leading zero")]
    Identity,
    /// The authorizer refuses the client.
    #[error("client {key} is refused")]
    Refused {
        /// The key that the client has proven.
        key: PublicKey,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// The server refuses us, with a ZAP status such as `400`. RFC 27.
    #[error("server refuses this client with status {status}")]
    RefusedByServer {
        /// Printable characters of the status.
        status: String,
    },
}

/// What a completed handshake gives.
pub(crate) struct Established {
    /// The connection's own cipher.
    pub(crate) cipher: Cipher,
    /// Whether we are the server.
    pub(crate) is_server: bool,
    /// The next short nonce that we send.
    pub(crate) send_nonce: u64,
    /// The last short nonce of the peer.
    pub(crate) received_nonce: u64,
    /// The peer's long-term key.
    pub(crate) peer_key: PublicKey,
    /// The peer's identity; empty when it gave none.
    pub(crate) identity: Bytes,
}

/// A handshake that bytes can be fed to.
pub(crate) trait Handshake {
    /// Takes what is complete from the front of `input` and appends what is to be sent to `out`. Returns the outcome
    /// once the handshake is complete; bytes beyond it stay in `input`. On an error `out` may hold a last command for
    /// the peer.
    fn advance(
        &mut self,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
    ) -> Result<Option<Established>, HandshakeError>;
}

/// Takes a complete greeting from the front of `input`.
fn take_greeting(input: &mut BytesMut) -> Result<bool, HandshakeError> {
    let complete = greeting::check(input)?;
    if complete {
        input.advance(greeting::GREETING_BYTES);
    }
    Ok(complete)
}

/// Takes a complete command frame from the front of `input`.
fn take_command(input: &mut BytesMut, expected: &'static str) -> Result<Option<BytesMut>, HandshakeError> {
    let Some(header) = frame::decode_header(input, COMMAND_BYTES_MAX)? else {
        return Ok(None);
    };
    if !header.is_command {
        return Err(HandshakeError::Expected(expected));
    }
    if input.len() < header.header_bytes + header.body_bytes {
        return Ok(None);
    }
    input.advance(header.header_bytes);
    Ok(Some(input.split_to(header.body_bytes)))
}

/// Splits a command of the given name.
fn named<'a>(body: &'a [u8], name: &'static str) -> Result<&'a [u8], HandshakeError> {
    match command::split(body) {
        Some(Command { name: found, data }) if found == name.as_bytes() => Ok(data),
        _ => Err(HandshakeError::Expected(name)),
    }
}

/// Appends a command frame: its name, then the fields.
fn put_command(out: &mut Vec<u8>, name: &str, fields: &[&[u8]]) {
    let body_bytes = 1 + name.len() + fields.iter().map(|field| field.len()).sum::<usize>();
    frame::put_header(out, FLAG_COMMAND, body_bytes);
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name.as_bytes());
    for field in fields {
        out.extend_from_slice(field);
    }
}

/// Joins a nonce of a 16-byte prefix and a counter.
pub(crate) fn short_nonce(prefix: &[u8; 16], counter: u64) -> Nonce {
    join(prefix, &counter.to_be_bytes())
}

/// Joins a nonce of an 8-byte prefix and 16 random bytes.
fn long_nonce(prefix: &[u8; 8], random: &[u8; 16]) -> Nonce {
    join(prefix, random)
}

fn join(front: &[u8], back: &[u8]) -> Nonce {
    let mut nonce = [0u8; NONCE_BYTES];
    for (field, value) in nonce.iter_mut().zip(front.iter().chain(back)) {
        *field = *value;
    }
    nonce
}

/// Opens a box, tag first, in a copy.
fn open(cipher: &Cipher, nonce: &Nonce, sealed: &[u8]) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let (tag, data) = sealed.split_first_chunk::<TAG_BYTES>()?;
    let mut plain = zeroize::Zeroizing::new(data.to_vec());
    cipher.open_in_place(nonce, tag, &mut plain).ok()?;
    Some(plain)
}

/// Seals `data` where it stands and returns the tag that goes before it.
fn seal(cipher: &Cipher, nonce: &Nonce, data: &mut [u8]) -> Tag {
    cipher.seal_in_place(nonce, data)
}
