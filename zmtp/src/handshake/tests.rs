//! Handshakes between the two machines: in any pieces, with wrong keys, damaged, and on arbitrary bytes.

use std::sync::Arc;

use super::*;
use crate::auth::{Authorizer, Expected, KeyTable};
use crate::keys::{Keypair, SecretKey};
use proptest::prelude::*;

fn keypair(seed: u8) -> Keypair {
    Keypair::from_secret(SecretKey::from_bytes([seed; 32]))
}

fn server_with(table: KeyTable) -> ServerHandshake {
    let entropy = ServerEntropy::from_bytes(&[0x17; 144]);
    ServerHandshake::new(
        Arc::new(keypair(1)),
        Arc::new(table) as Arc<dyn Authorizer>,
        entropy,
    )
}

fn server() -> ServerHandshake {
    let admitted = (keypair(2).public, Expected::Identity((*b"rank-7").into()));
    server_with(KeyTable::from_iter([admitted]))
}

fn client_as(pair: Keypair, server_key: PublicKey, identity: &'static [u8]) -> ClientHandshake {
    ClientHandshake::new(pair, server_key, Bytes::from_static(identity), &[0x42; 48])
}

fn client() -> ClientHandshake {
    client_as(keypair(2), keypair(1).public, b"rank-7")
}

#[derive(Default)]
struct Side {
    input: BytesMut,
    out: Vec<u8>,
    outcome: Option<Result<Established, HandshakeError>>,
}

impl Side {
    fn step(&mut self, machine: &mut dyn Handshake) {
        if self.outcome.is_none() {
            self.outcome = machine.advance(&mut self.input, &mut self.out).transpose();
        }
    }
}

/// Runs both machines against each other; `tamper` sees all bytes that the client sends, `piece` cuts them.
fn run(
    client: &mut ClientHandshake,
    server: &mut ServerHandshake,
    piece: usize,
    mut tamper: impl FnMut(&mut Vec<u8>),
) -> (Side, Side) {
    let (mut c, mut s) = (Side::default(), Side::default());
    for _ in 0..20 {
        c.step(client);
        let mut sent = std::mem::take(&mut c.out);
        tamper(&mut sent);
        for piece in sent.chunks(piece) {
            s.input.extend_from_slice(piece);
            s.step(server);
        }
        s.step(server);
        for piece in std::mem::take(&mut s.out).chunks(piece) {
            c.input.extend_from_slice(piece);
            c.step(client);
        }
    }
    (c, s)
}

fn failure(side: Side) -> HandshakeError {
    side.outcome.and_then(Result::err).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn both_sides_agree_in_any_pieces(piece in 1usize..300) {
        let (c, s) = run(&mut client(), &mut server(), piece, |_| {});
        let (c, s) = (c.outcome.unwrap().unwrap(), s.outcome.unwrap().unwrap());
        prop_assert_eq!(&s.identity[..], b"rank-7");
        prop_assert_eq!((s.peer_key, c.peer_key), (keypair(2).public, keypair(1).public));
        prop_assert_eq!((c.send_nonce, s.received_nonce, s.send_nonce, c.received_nonce), (3, 2, 2, 1));
        let mut data = *b"both have the same key";
        let tag = c.cipher.seal_in_place(&[0; 24], &mut data);
        prop_assert!(s.cipher.open_in_place(&[0; 24], &tag, &mut data).is_ok());
    }

    #[test]
    fn one_flipped_bit_of_the_client_never_establishes_another_peer(at in 0usize..573, bit in 0u8..8) {
        let mut seen = 0;
        let (_, s) = run(&mut client(), &mut server(), 1000, |sent| {
            if let Some(byte) = at.checked_sub(seen).and_then(|at| sent.get_mut(at)) {
                *byte ^= 1 << bit;
            }
            seen += sent.len();
        });
        if let Some(Ok(established)) = s.outcome {
            // Padding, the signature's middle, the version above 3, the filler, the padding of HELLO: bytes that mean nothing.
            prop_assert!(at < 146, "byte {}", at);
            prop_assert_eq!(established.peer_key, keypair(2).public);
        }
    }

    #[test]
    fn arbitrary_bytes_never_establish(input in prop::collection::vec(any::<u8>(), 0..700), greeted in any::<bool>()) {
        let mut bytes = if greeted { greeting::encode(false).to_vec() } else { Vec::new() };
        bytes.extend_from_slice(&input);
        let mut out = Vec::new();
        prop_assert!(!matches!(server().advance(&mut BytesMut::from(&bytes[..]), &mut out), Ok(Some(_))));
        prop_assert!(!matches!(client().advance(&mut BytesMut::from(&bytes[..]), &mut out), Ok(Some(_))));
    }
}

#[test]
fn the_commands_have_the_sizes_of_the_rfc() {
    let (mut c, mut s) = (client(), server());
    let (mut to_client, mut to_server, mut out) = (BytesMut::new(), BytesMut::new(), Vec::new());
    assert!(c.advance(&mut to_client, &mut out).unwrap().is_none());
    assert_eq!(out.len(), 64);
    to_server.extend_from_slice(&std::mem::take(&mut out));
    assert!(s.advance(&mut to_server, &mut out).unwrap().is_none());
    to_client.extend_from_slice(&std::mem::take(&mut out));
    assert!(c.advance(&mut to_client, &mut out).unwrap().is_none());
    assert_eq!(
        (out.len(), &out[..2]),
        (202, &[4u8, 200][..]),
        "RFC 26: HELLO has 200 octets"
    );
    to_server.extend_from_slice(&std::mem::take(&mut out));
    assert!(s.advance(&mut to_server, &mut out).unwrap().is_none());
    assert_eq!(
        (out.len(), &out[..2]),
        (170, &[4u8, 168][..]),
        "RFC 26: WELCOME has 168 octets"
    );
}

#[test]
fn a_client_with_another_server_key_is_dropped_at_hello() {
    let mut client = client_as(keypair(2), keypair(3).public, b"rank-7");
    let (_, s) = run(&mut client, &mut server(), 1000, |_| {});
    assert_eq!(failure(s), HandshakeError::Box("HELLO"));
}

#[test]
fn an_unknown_client_key_is_refused_and_told() {
    let mut client = client_as(keypair(9), keypair(1).public, b"rank-7");
    let (c, s) = run(&mut client, &mut server(), 1000, |_| {});
    assert_eq!(
        failure(s),
        HandshakeError::Refused {
            key: keypair(9).public,
            refusal: Refusal::UnknownKey
        }
    );
    assert_eq!(
        failure(c),
        HandshakeError::RefusedByServer { status: "400".into() }
    );
}

#[test]
fn the_right_key_with_another_identity_is_refused() {
    let mut client = client_as(keypair(2), keypair(1).public, b"rank-8");
    let (_, s) = run(&mut client, &mut server(), 1000, |_| {});
    assert_eq!(
        failure(s),
        HandshakeError::Refused {
            key: keypair(2).public,
            refusal: Refusal::WrongIdentity
        }
    );
}

#[test]
fn unusable_identities_are_refused() {
    for identity in [&b""[..], b"\0x"] {
        let mut client = client_as(keypair(2), keypair(1).public, identity);
        let mut server = server_with(KeyTable::from_iter([(keypair(2).public, Expected::Any)]));
        assert_eq!(
            failure(run(&mut client, &mut server, 1000, |_| {}).1),
            HandshakeError::Identity
        );
    }
}

/// A client that claims a key whose secret half it does not hold: the vouch is sealed with another key.
#[test]
fn a_claimed_key_must_be_proven() {
    let thief = Keypair {
        public: keypair(2).public,
        secret: keypair(3).secret,
    };
    let mut client = client_as(thief, keypair(1).public, b"rank-7");
    let (_, s) = run(&mut client, &mut server(), 1000, |_| {});
    assert_eq!(failure(s), HandshakeError::Vouch);
}

/// An INITIATE recorded on one connection is of no use on another.
#[test]
fn another_cookie_is_refused() {
    let mut recorded = Vec::new();
    let is_initiate = |sent: &[u8]| sent.windows(8).any(|window| window == b"INITIATE");
    drop(run(&mut client(), &mut server(), 1000, |sent| {
        if is_initiate(sent) {
            recorded.clone_from(sent);
        }
    }));
    assert!(!recorded.is_empty());
    let entropy = ServerEntropy::from_bytes(&[0x18; 144]);
    let mut other = ServerHandshake::new(Arc::new(keypair(1)), Arc::new(KeyTable::new()), entropy);
    let (_, s) = run(&mut client(), &mut other, 1000, |sent| {
        if is_initiate(sent) {
            sent.clone_from(&recorded);
        }
    });
    assert_eq!(failure(s), HandshakeError::Cookie);
}

#[test]
fn an_impostor_server_is_noticed() {
    // The impostor does not hold the secret of the key that the client expects, so it cannot even open HELLO; it
    // answers a WELCOME of its own making.
    let mut c = client();
    let (mut input, mut out) = (BytesMut::new(), Vec::new());
    assert!(c.advance(&mut input, &mut out).unwrap().is_none());
    input.extend_from_slice(&greeting::encode(true));
    let mut welcome = Vec::new();
    put_command(&mut welcome, "WELCOME", &[&[1; 16], &[2; 144]]);
    input.extend_from_slice(&welcome);
    assert_eq!(
        c.advance(&mut input, &mut out).err(),
        Some(HandshakeError::Box("WELCOME"))
    );
}

#[test]
fn errors_from_the_server_show_printable_characters_only() {
    for (data, expected) in [
        (
            &b"\x03400"[..],
            HandshakeError::RefusedByServer { status: "400".into() },
        ),
        (
            b"\x054\x1b[0m",
            HandshakeError::RefusedByServer {
                status: "4[0m".into(),
            },
        ),
        (b"\x0a400", HandshakeError::Malformed("ERROR")),
        (b"", HandshakeError::Malformed("ERROR")),
    ] {
        let mut c = client();
        let mut input = BytesMut::from(&greeting::encode(true)[..]);
        let mut frame = Vec::new();
        put_command(&mut frame, "ERROR", &[data]);
        input.extend_from_slice(&frame);
        assert_eq!(c.advance(&mut input, &mut Vec::new()).err(), Some(expected));
    }
}

#[test]
fn oversized_and_misplaced_commands_are_refused_at_their_header() {
    let after_greeting = |bytes: &[u8]| {
        let mut input = BytesMut::from(&greeting::encode(false)[..]);
        input.extend_from_slice(bytes);
        server().advance(&mut input, &mut Vec::new()).err()
    };
    let oversized = after_greeting(&[6, 0, 0, 0, 0, 0, 0, 0x10, 1]);
    assert!(matches!(
        oversized,
        Some(HandshakeError::Frame(FrameError::TooLarge { .. }))
    ));
    assert_eq!(
        after_greeting(b"\x00\x01"),
        Some(HandshakeError::Expected("HELLO"))
    );
    assert_eq!(
        after_greeting(b"\x04\x06\x05READY"),
        Some(HandshakeError::Expected("HELLO"))
    );
    assert_eq!(
        after_greeting(b"\x04\x06\x05HELLO"),
        Some(HandshakeError::Malformed("HELLO"))
    );
}
