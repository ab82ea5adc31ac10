//! How does a TCP connection become an established one? Drives a handshake machine over a socket.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::handshake::{Established, Handshake, HandshakeError};

/// The read buffer of a handshake: one command fits, and an idle attacker costs no more.
const READ_BYTES: usize = 1024;

/// Why a connection did not become established.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpeningError {
    /// The peer broke the protocol or is not admitted.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The socket failed.
    #[error("connection failed")]
    Io(#[from] io::Error),
}

/// Sets what every connection needs.
pub(super) fn tune(stream: &TcpStream, tcp_user_timeout: Option<Duration>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(timeout) = tcp_user_timeout {
        socket2::SockRef::from(stream).set_tcp_user_timeout(Some(timeout))?;
    }
    Ok(())
}

/// Runs the handshake. Returns what was received beyond it, too.
pub(super) async fn open<H: Handshake>(
    stream: &mut TcpStream,
    machine: &mut H,
) -> Result<(Established, BytesMut), OpeningError> {
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let mut out = Vec::new();
    loop {
        let outcome = machine.advance(&mut input, &mut out);
        if !out.is_empty() {
            let written = stream.write_all(&out).await;
            out.clear();
            // A failed handshake's own reason says more than that the peer has gone.
            if outcome.is_ok() {
                written?;
            }
        }
        if let Some(established) = outcome? {
            return Ok((established, input));
        }
        input.reserve(READ_BYTES);
        if stream.read_buf(&mut input).await? == 0 {
            return Err(HandshakeError::Closed.into());
        }
    }
}
