//! How do messages travel once keys are agreed? Each frame in a box of its own, with a nonce that only grows.
//!
//! ZeroMQ RFC 26 "MESSAGE": `%d7 "MESSAGE"`, a short nonce of 8 bytes, a box of one flags byte (1: more frames follow,
//! 2: a command) and the frame's body. Like libzmq we send each as an ordinary message frame. Pure: no I/O.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::cipher::{BoxCipher as _, Cipher, TAG_BYTES};
use crate::codec::command;
use crate::codec::frame::{self, FrameError, HEADER_BYTES_MAX};
use crate::handshake::{Established, short_nonce};

const MESSAGE: &[u8; 8] = b"\x07MESSAGE";
const NONCE_BYTES: usize = 8;
/// What a box adds to a body, besides the frame header: name, nonce, tag, flags.
const OVERHEAD_BYTES: usize = MESSAGE.len() + NONCE_BYTES + TAG_BYTES + 1;

/// In the box: more frames of the same message follow.
const INNER_MORE: u8 = 0x01;
/// In the box: the body is a command.
const INNER_COMMAND: u8 = 0x02;

const CLIENT_PREFIX: &[u8; 16] = b"CurveZMQMESSAGEC";
const SERVER_PREFIX: &[u8; 16] = b"CurveZMQMESSAGES";

/// How a peer broke the protocol or a limit after the handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A frame header is invalid or announces too much.
    #[error("frame is not acceptable")]
    Frame(#[from] FrameError),
    /// A frame that is not a MESSAGE: plaintext traffic is never accepted.
    #[error("frame is not a sealed message")]
    NotSealed,
    /// A nonce does not grow: a replay.
    #[error("nonce does not grow")]
    Nonce,
    /// A box does not open: forged or damaged.
    #[error("message does not decrypt")]
    BadBox,
    /// The flags in the box are invalid.
    #[error("message has invalid flags {0:#04x}")]
    Flags(u8),
    /// A malformed command in the box.
    #[error("command is malformed")]
    Command,
    /// A message of too many bytes.
    #[error("message exceeds {bytes_max} bytes")]
    MessageTooLarge {
        /// What is accepted.
        bytes_max: usize,
    },
    /// A message of too many parts.
    #[error("message exceeds {parts_max} parts")]
    TooManyParts {
        /// What is accepted.
        parts_max: usize,
    },
}

/// Makes the two directions of an established connection.
pub(crate) fn split(
    established: Established,
    message_bytes_max: usize,
    parts_max: usize,
) -> (Sealer, Opener) {
    let cipher = Arc::new(established.cipher);
    let (ours, theirs) = if established.is_server {
        (SERVER_PREFIX, CLIENT_PREFIX)
    } else {
        (CLIENT_PREFIX, SERVER_PREFIX)
    };
    let sealer = Sealer {
        cipher: Arc::clone(&cipher),
        prefix: ours,
        nonce: established.send_nonce,
    };
    let opener = Opener {
        cipher,
        prefix: theirs,
        nonce: established.received_nonce,
        message_bytes_max,
        parts_max,
        parts: Vec::new(),
        parts_bytes: 0,
        arena: BytesMut::new(),
    };
    (sealer, opener)
}

/// The sending direction.
pub(crate) struct Sealer {
    cipher: Arc<Cipher>,
    prefix: &'static [u8; 16],
    nonce: u64,
}

impl Sealer {
    /// Returns the bytes that a body of this size takes on the wire.
    pub(crate) fn wire_bytes(body_bytes: usize) -> usize {
        frame::frame_bytes(body_bytes.saturating_add(OVERHEAD_BYTES))
    }

    /// Appends all parts of a message.
    pub(crate) fn put_message<P: AsRef<[u8]>>(&mut self, out: &mut Vec<u8>, parts: &[P]) {
        let mut left = parts.len();
        for part in parts {
            left -= 1;
            self.put(out, if left > 0 { INNER_MORE } else { 0 }, part.as_ref());
        }
    }

    /// Appends a command.
    pub(crate) fn put_command(&mut self, out: &mut Vec<u8>, body: &[u8]) {
        self.put(out, INNER_COMMAND, body);
    }

    /// Appends one sealed frame.
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, flags: u8, body: &[u8]) {
        let counter = self.nonce;
        // 2^64 frames are not sent in the life of a connection.
        self.nonce = self.nonce.wrapping_add(1);
        frame::put_header(out, 0, body.len() + OVERHEAD_BYTES);
        out.extend_from_slice(MESSAGE);
        out.extend_from_slice(&counter.to_be_bytes());
        let tag_at = out.len();
        out.extend_from_slice(&[0; TAG_BYTES]);
        out.push(flags);
        out.extend_from_slice(body);
        let sealed = out
            .get_mut(tag_at..)
            .and_then(|rest| rest.split_first_chunk_mut::<TAG_BYTES>());
        if let Some((tag, data)) = sealed {
            *tag = self
                .cipher
                .seal_in_place(&short_nonce(self.prefix, counter), data);
        }
    }
}

/// What an [`Opener`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// The next item is incomplete; at least this many bytes are missing.
    NeedMore(usize),
    /// A whole message and the sum of its parts' sizes.
    Message(Vec<Bytes>, usize),
    /// A PING.
    Ping {
        /// The peer wants the connection to end after this much silence; 0 for no such wish.
        ttl_deciseconds: u16,
        /// To be returned in a PONG.
        context: Bytes,
    },
    /// A PONG, or a command that this version does not know.
    Other,
}

/// Plain bodies up to this size share an allocation with their neighbours.
const SMALL_BYTES_MAX: usize = 2 * 1024;
/// The size of that allocation: what the longest-lived of the neighbours keeps alive.
const ARENA_BYTES: usize = 8 * 1024;
/// Frames from this size are decrypted where they were received, without a copy.
const LARGE_BYTES_MIN: usize = 32 * 1024;

/// The receiving direction: puts frames together to messages.
pub(crate) struct Opener {
    cipher: Arc<Cipher>,
    prefix: &'static [u8; 16],
    nonce: u64,
    message_bytes_max: usize,
    parts_max: usize,
    parts: Vec<Bytes>,
    parts_bytes: usize,
    arena: BytesMut,
}

impl Opener {
    /// Takes the next item from the front of `input`.
    ///
    /// # Errors
    /// [`ProtocolError`]; the connection is then of no more use.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Inbound, ProtocolError> {
        loop {
            let body_bytes_max = self.message_bytes_max.saturating_add(OVERHEAD_BYTES);
            let Some(header) = frame::decode_header(input, body_bytes_max)? else {
                return Ok(Inbound::NeedMore(
                    HEADER_BYTES_MAX.saturating_sub(input.len()).max(1),
                ));
            };
            let frame_bytes = header.header_bytes.saturating_add(header.body_bytes);
            if input.len() < frame_bytes {
                return Ok(Inbound::NeedMore(frame_bytes - input.len()));
            }
            let (flags, body) = if frame_bytes >= LARGE_BYTES_MIN {
                self.open_in_place(input.split_to(frame_bytes), header.header_bytes)?
            } else {
                let opened =
                    self.open_copy(input.get(header.header_bytes..frame_bytes).unwrap_or_default())?;
                input.advance(frame_bytes);
                opened
            };
            if let Some(inbound) = self.take(flags, body)? {
                return Ok(inbound);
            }
        }
    }

    /// Opens a frame's body into an allocation of its own or one shared with small neighbours.
    fn open_copy(&mut self, body: &[u8]) -> Result<(u8, Bytes), ProtocolError> {
        let (counter, tag, sealed) = split_sealed(body)?;
        self.check_nonce(counter)?;
        let nonce = short_nonce(self.prefix, counter);
        let mut plain = if sealed.len() <= SMALL_BYTES_MAX {
            if self.arena.capacity() < sealed.len() {
                self.arena = BytesMut::with_capacity(ARENA_BYTES);
            }
            self.arena.resize(sealed.len(), 0);
            self.arena.split()
        } else {
            BytesMut::zeroed(sealed.len())
        };
        self.cipher
            .open_into(&nonce, tag, sealed, &mut plain)
            .map_err(|_| ProtocolError::BadBox)?;
        self.nonce = counter;
        Ok(split_flags(plain))
    }

    /// Opens a whole frame where it stands.
    fn open_in_place(
        &mut self,
        mut frame: BytesMut,
        header_bytes: usize,
    ) -> Result<(u8, Bytes), ProtocolError> {
        frame.advance(header_bytes);
        let (counter, tag, _) = split_sealed(&frame)?;
        let tag = *tag;
        self.check_nonce(counter)?;
        frame.advance(OVERHEAD_BYTES - 1);
        self.cipher
            .open_in_place(&short_nonce(self.prefix, counter), &tag, &mut frame)
            .map_err(|_| ProtocolError::BadBox)?;
        self.nonce = counter;
        Ok(split_flags(frame))
    }

    fn check_nonce(&self, counter: u64) -> Result<(), ProtocolError> {
        if counter > self.nonce {
            Ok(())
        } else {
            Err(ProtocolError::Nonce)
        }
    }

    /// Adds an opened body to the message in progress, or handles it as a command.
    fn take(&mut self, flags: u8, body: Bytes) -> Result<Option<Inbound>, ProtocolError> {
        match flags {
            INNER_COMMAND => take_command(&body).map(Some),
            0 | INNER_MORE => {
                self.parts_bytes = self.parts_bytes.saturating_add(body.len());
                if self.parts_bytes > self.message_bytes_max {
                    return Err(ProtocolError::MessageTooLarge {
                        bytes_max: self.message_bytes_max,
                    });
                }
                if self.parts.len() >= self.parts_max {
                    return Err(ProtocolError::TooManyParts {
                        parts_max: self.parts_max,
                    });
                }
                self.parts.push(body);
                if flags == INNER_MORE {
                    return Ok(None);
                }
                let bytes = std::mem::take(&mut self.parts_bytes);
                Ok(Some(Inbound::Message(std::mem::take(&mut self.parts), bytes)))
            }
            other => Err(ProtocolError::Flags(other)),
        }
    }
}

/// Splits a MESSAGE body into its nonce counter, tag and sealed bytes (at least the flags).
fn split_sealed(body: &[u8]) -> Result<(u64, &[u8; TAG_BYTES], &[u8]), ProtocolError> {
    let split = |body| {
        let rest = <[u8]>::strip_prefix(body, MESSAGE)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (tag, sealed) = rest.split_first_chunk::<TAG_BYTES>()?;
        (!sealed.is_empty()).then(|| (u64::from_be_bytes(*nonce), tag, sealed))
    };
    split(body).ok_or(ProtocolError::NotSealed)
}

fn split_flags(mut plain: BytesMut) -> (u8, Bytes) {
    let flags = plain.first().copied().unwrap_or_default();
    if !plain.is_empty() {
        plain.advance(1);
    }
    (flags, plain.freeze())
}

fn take_command(body: &Bytes) -> Result<Inbound, ProtocolError> {
    let found = command::split(body).ok_or(ProtocolError::Command)?;
    if found.name != b"PING" {
        return Ok(Inbound::Other);
    }
    let ping = command::decode_ping(found.data).ok_or(ProtocolError::Command)?;
    Ok(Inbound::Ping {
        ttl_deciseconds: ping.ttl_deciseconds,
        context: body.slice_ref(ping.context),
    })
}
