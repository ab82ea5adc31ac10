//! How does a fuzzer drive the parsers of untrusted bytes? Pure entry points; none may panic, hang or allocate beyond
//! its input's order of size.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::auth::{Expected, KeyTable};
use crate::cipher::{BoxCipher as _, Cipher};
use crate::codec::{command, frame, greeting, metadata};
use crate::handshake::{self, ClientHandshake, Established, Handshake, ServerEntropy, ServerHandshake};
use crate::keys::{Keypair, PublicKey, SecretKey};
use crate::session::{self, Inbound};
use crate::zcert::Certificate;

const MESSAGE_BYTES_MAX: usize = 1 << 20;
const PARTS_MAX: usize = 16;

/// Decodes a greeting.
pub fn greeting(input: &[u8]) {
    let _ = greeting::check(input);
}

/// Decodes a frame header.
pub fn frame_header(input: &[u8]) {
    let _ = frame::decode_header(input, MESSAGE_BYTES_MAX);
}

/// Decodes a command, as PING, as an INITIATE's metadata.
pub fn command(input: &[u8]) {
    if let Some(found) = command::split(input) {
        let _ = command::decode_ping(found.data);
        let _ = metadata::decode(found.data);
    }
    let _ = metadata::decode(input);
}

/// Reads text as certificate, keys and endpoint.
pub fn text(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        drop(Certificate::decode(text));
        drop(text.parse::<PublicKey>());
        drop(text.parse::<SecretKey>());
        drop(text.parse::<crate::addr::Endpoint>());
    }
}

/// Feeds a server's handshake. The first byte says in which pieces.
pub fn server_handshake(input: &[u8]) {
    drop(feed(&mut server(), input));
}

/// Feeds a client's handshake. The first byte says in which pieces.
pub fn client_handshake(input: &[u8]) {
    drop(feed(&mut client(), input));
}

/// Runs a client against a server with the client's bytes changed as the input says: triples of a position (two bytes,
/// big endian) and a value that is XORed there. Returns whether the server established a peer.
///
/// # Panics
/// When the server establishes a peer with another key or identity than the client's: what a fuzzer looks for.
#[must_use]
pub fn tampered_handshake(input: &[u8]) -> bool {
    let (mut client, mut server) = (client(), server());
    let (mut to_client, mut to_server) = (BytesMut::new(), BytesMut::new());
    let mut position = 0usize;
    for _ in 0..4 {
        let mut out = Vec::new();
        drop(client.advance(&mut to_client, &mut out));
        for triple in input.as_chunks::<3>().0 {
            let [high, low, value] = *triple;
            let at = usize::from(u16::from_be_bytes([high, low])).checked_sub(position);
            if let Some(byte) = at.and_then(|at| out.get_mut(at)) {
                *byte ^= value;
            }
        }
        position += out.len();
        to_server.extend_from_slice(&out);
        let mut out = Vec::new();
        match server.advance(&mut to_server, &mut out) {
            Ok(Some(established)) => {
                assert!(established.peer_key == keypair(2).public && established.identity == "fuzz");
                return true;
            }
            Ok(None) => to_client.extend_from_slice(&out),
            Err(_) => return false,
        }
    }
    false
}

/// Feeds an established connection's receiver with raw bytes. Returns whether anything was delivered.
#[must_use]
pub fn session_raw(input: &[u8]) -> bool {
    let (_, mut opener) = session::split(established(true), MESSAGE_BYTES_MAX, PARTS_MAX);
    let mut input = BytesMut::from(input);
    matches!(opener.next(&mut input), Ok(Inbound::Message(..)))
}

/// Feeds an established connection's receiver with sealed frames of the fuzzer's content: what an admitted but hostile
/// peer can send. Each frame is a flags byte, a length byte and that many bytes.
pub fn session_sealed(input: &[u8]) {
    let (mut sealer, _) = session::split(established(false), MESSAGE_BYTES_MAX, PARTS_MAX);
    let (_, mut opener) = session::split(established(true), MESSAGE_BYTES_MAX, PARTS_MAX);
    let mut wire = Vec::new();
    let mut rest = input;
    while let Some(([flags, length], behind)) = rest.split_first_chunk::<2>() {
        let (body, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        sealer.put(&mut wire, *flags, body);
        rest = behind;
    }
    let mut wire = BytesMut::from(&wire[..]);
    while let Ok(found) = opener.next(&mut wire) {
        if matches!(found, Inbound::NeedMore(_)) {
            return;
        }
    }
}

fn keypair(seed: u8) -> Keypair {
    Keypair::from_secret(SecretKey::from_bytes([seed; 32]))
}

fn server() -> ServerHandshake {
    let table = KeyTable::from_iter([(keypair(2).public, Expected::Identity((*b"fuzz").into()))]);
    ServerHandshake::new(
        Arc::new(keypair(1)),
        Arc::new(table),
        ServerEntropy::from_bytes(&[3; 144]),
    )
}

fn client() -> ClientHandshake {
    ClientHandshake::new(
        keypair(2),
        keypair(1).public,
        Bytes::from_static(b"fuzz"),
        &[4; 48],
    )
}

fn feed<H: Handshake>(machine: &mut H, input: &[u8]) -> Result<(), handshake::HandshakeError> {
    let Some((piece_bytes, rest)) = input.split_first() else {
        return Ok(());
    };
    let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
    for piece in rest.chunks(usize::from(*piece_bytes).max(1)) {
        buffer.extend_from_slice(piece);
        if machine.advance(&mut buffer, &mut out)?.is_some() {
            return Ok(());
        }
    }
    Ok(())
}

/// Two ends of one session share a key: X25519 of (5, 9) in either order.
fn established(is_server: bool) -> Established {
    let (ours, theirs) = if is_server {
        ([5u8; 32], [9u8; 32])
    } else {
        ([9u8; 32], [5u8; 32])
    };
    let cipher = Cipher::new(&Cipher::public_key(&theirs), &ours);
    #[expect(clippy::expect_used, reason = "a constant key that is not of low order")]
    let cipher = cipher.expect("a usable key");
    Established {
        cipher,
        is_server,
        send_nonce: 3,
        received_nonce: 2,
        peer_key: PublicKey::from_bytes(theirs),
        identity: Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_untouched_handshake_establishes() {
        assert!(tampered_handshake(&[]));
    }

    proptest! {
        #[test]
        fn no_entry_panics(input in prop::collection::vec(any::<u8>(), 0..800)) {
            greeting(&input);
            frame_header(&input);
            command(&input);
            text(&input);
            server_handshake(&input);
            client_handshake(&input);
            prop_assert!(!session_raw(&input));
            session_sealed(&input);
        }

        #[test]
        fn tampering_never_makes_another_peer(input in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = tampered_handshake(&input);
        }
    }
}
