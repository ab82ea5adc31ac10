//! Sessions: round trips in any pieces, limits, replays, damage.

use super::*;
use crate::keys::PublicKey;
use proptest::prelude::*;

const MESSAGE_BYTES_MAX: usize = 100_000;
const PARTS_MAX: usize = 5;

/// Two ends with a shared key: the client's and the server's (sealer, opener).
fn pair() -> ((Sealer, Opener), (Sealer, Opener)) {
    let end = |is_server: bool| {
        let (ours, theirs) = if is_server {
            ([5u8; 32], [9u8; 32])
        } else {
            ([9u8; 32], [5u8; 32])
        };
        let cipher = Cipher::new(&Cipher::public_key(&theirs), &ours).ok().unwrap();
        let established = Established {
            cipher,
            is_server,
            send_nonce: 3,
            received_nonce: 2,
            peer_key: PublicKey::from_bytes([0; 32]),
            identity: Bytes::new(),
        };
        split(established, MESSAGE_BYTES_MAX, PARTS_MAX)
    };
    (end(false), end(true))
}

fn sealed(sealer: &mut Sealer, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    sealer.put_message(&mut out, parts);
    out
}

fn open_one(opener: &mut Opener, wire: &[u8]) -> Result<Inbound, ProtocolError> {
    opener.next(&mut BytesMut::from(wire))
}

proptest! {
    #[test]
    fn messages_arrive_whole_from_any_pieces(
        messages in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..PARTS_MAX), 1..6),
        piece in 1usize..5000,
    ) {
        let ((mut sealer, _), (_, mut opener)) = pair();
        let mut wire = Vec::new();
        for message in &messages {
            let before = wire.len();
            sealer.put_message(&mut wire, message);
            let expected: usize = message.iter().map(|part| Sealer::wire_bytes(part.len())).sum();
            prop_assert_eq!(wire.len() - before, expected);
        }
        let (mut input, mut received) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(piece) {
            input.extend_from_slice(piece);
            loop {
                match opener.next(&mut input).unwrap() {
                    Inbound::NeedMore(missing) => { prop_assert!(missing > 0); break }
                    Inbound::Message(parts, bytes) => {
                        prop_assert_eq!(bytes, parts.iter().map(Bytes::len).sum::<usize>());
                        received.push(parts.iter().map(|part| part.to_vec()).collect::<Vec<_>>());
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
        prop_assert!(input.is_empty());
        prop_assert_eq!(received, messages);
    }

    #[test]
    fn one_flipped_bit_never_gets_through(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let ((mut sealer, _), (_, mut opener)) = pair();
        let clean = sealed(&mut sealer, &[b"the payload"]);
        let mut wire = clean.clone();
        let at = at.index(wire.len());
        wire[at] ^= 1 << bit;
        match open_one(&mut opener, &wire) {
            Err(_) | Ok(Inbound::NeedMore(_)) => {}
            // The outer command flag is not part of the box; the content is the one that was sent.
            Ok(Inbound::Message(parts, _)) => prop_assert!(at == 0 && parts == [&b"the payload"[..]], "{}", at),
            Ok(other) => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn junk_is_refused_or_waited_for(junk in prop::collection::vec(any::<u8>(), 0..300)) {
        let (_, (_, mut opener)) = pair();
        match open_one(&mut opener, &junk) {
            Err(_) | Ok(Inbound::NeedMore(_)) => {}
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn large_frames_are_opened_where_they_stand() {
    let ((mut sealer, _), (_, mut opener)) = pair();
    let body = vec![7u8; MESSAGE_BYTES_MAX];
    let mut input = BytesMut::from(&sealed(&mut sealer, &[&body])[..]);
    input.extend_from_slice(&sealed(&mut sealer, &[b"next"]));
    let Inbound::Message(parts, _) = opener.next(&mut input).unwrap() else {
        panic!()
    };
    assert_eq!(parts, [&body[..]]);
    assert_eq!(
        opener.next(&mut input),
        Ok(Inbound::Message(vec![Bytes::from_static(b"next")], 4))
    );
}

#[test]
fn a_replayed_frame_is_refused() {
    let ((mut sealer, _), (_, mut opener)) = pair();
    let (first, second) = (sealed(&mut sealer, &[b"1"]), sealed(&mut sealer, &[b"2"]));
    assert!(open_one(&mut opener, &second).is_ok());
    assert_eq!(open_one(&mut opener, &second), Err(ProtocolError::Nonce));
    assert_eq!(open_one(&mut opener, &first), Err(ProtocolError::Nonce));
}

#[test]
fn a_frame_sent_back_does_not_open() {
    let ((mut sealer, mut opener), _) = pair();
    assert_eq!(
        open_one(&mut opener, &sealed(&mut sealer, &[b"1"])),
        Err(ProtocolError::BadBox)
    );
}

#[test]
fn plaintext_is_refused() {
    let (_, (_, mut opener)) = pair();
    assert_eq!(
        open_one(&mut opener, b"\x00\x05hello"),
        Err(ProtocolError::NotSealed)
    );
    assert_eq!(
        open_one(&mut opener, b"\x04\x05\x04PING"),
        Err(ProtocolError::NotSealed)
    );
}

#[test]
fn limits_hold_for_frames_messages_and_parts() {
    let ((mut sealer, _), (_, mut opener)) = pair();
    let too_large = vec![0u8; MESSAGE_BYTES_MAX + 1];
    let wire = sealed(&mut sealer, &[&too_large]);
    assert!(matches!(
        open_one(&mut opener, &wire[..9]),
        Err(ProtocolError::Frame(FrameError::TooLarge { .. }))
    ));
    let half = &too_large[..MESSAGE_BYTES_MAX / 2 + 1];
    let wire = sealed(&mut sealer, &[half, half]);
    let expected = ProtocolError::MessageTooLarge {
        bytes_max: MESSAGE_BYTES_MAX,
    };
    assert_eq!(open_one(&mut opener, &wire), Err(expected));

    let ((mut sealer, _), (_, mut opener)) = pair();
    let wire = sealed(&mut sealer, &[&b""[..]; PARTS_MAX + 1]);
    assert_eq!(
        open_one(&mut opener, &wire),
        Err(ProtocolError::TooManyParts { parts_max: PARTS_MAX })
    );
}

#[test]
fn commands_may_come_between_the_parts_of_a_message() {
    let ((mut sealer, _), (_, mut opener)) = pair();
    let mut wire = Vec::new();
    sealer.put(&mut wire, INNER_MORE, b"a");
    sealer.put_command(&mut wire, &command::encode_ping(20));
    sealer.put_command(&mut wire, b"\x04PONG");
    sealer.put_command(&mut wire, b"\x06FUTUREx");
    sealer.put(&mut wire, 0, b"b");
    let mut input = BytesMut::from(&wire[..]);
    let ping = Inbound::Ping {
        ttl_deciseconds: 20,
        context: Bytes::new(),
    };
    assert_eq!(opener.next(&mut input), Ok(ping));
    assert_eq!(opener.next(&mut input), Ok(Inbound::Other));
    assert_eq!(opener.next(&mut input), Ok(Inbound::Other));
    let parts = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
    assert_eq!(opener.next(&mut input), Ok(Inbound::Message(parts, 2)));
    assert_eq!(opener.next(&mut input), Ok(Inbound::NeedMore(9)));
}

#[test]
fn malformed_commands_and_flags_are_refused() {
    for (flags, body, expected) in [
        (INNER_COMMAND, &b""[..], ProtocolError::Command),
        (INNER_COMMAND, b"\x09PING", ProtocolError::Command),
        (INNER_COMMAND, b"\x04PING\x00", ProtocolError::Command),
        (INNER_COMMAND | INNER_MORE, b"\x04PONG", ProtocolError::Flags(3)),
        (0x80, b"x", ProtocolError::Flags(0x80)),
    ] {
        let ((mut sealer, _), (_, mut opener)) = pair();
        let mut wire = Vec::new();
        sealer.put(&mut wire, flags, body);
        assert_eq!(open_one(&mut opener, &wire), Err(expected));
    }
}
