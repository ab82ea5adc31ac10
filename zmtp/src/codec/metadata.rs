//! What does a peer say about itself? Socket-Type and Identity. ZeroMQ RFC 23 "The READY command", RFC 28.

/// The identity's longest form, RFC 28.
pub(crate) const IDENTITY_BYTES_MAX: usize = 255;

/// The properties that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metadata<'a> {
    /// `DEALER`, `ROUTER`, ...
    pub(crate) socket_type: &'a [u8],
    /// The identity; empty when absent.
    pub(crate) identity: &'a [u8],
}

/// Decodes a property list. Properties of other names are skipped. Returns `None` if it is malformed, has a property
/// of ours twice, or no socket type.
pub(crate) fn decode(mut input: &[u8]) -> Option<Metadata<'_>> {
    let (mut socket_type, mut identity) = (None, None);
    while let Some((name_bytes, rest)) = input.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*name_bytes))?;
        let (value_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*value_bytes)).ok()?)?;
        // RFC 23: names are case-insensitive.
        let slot = if name.eq_ignore_ascii_case(b"Socket-Type") {
            Some(&mut socket_type)
        } else if name.eq_ignore_ascii_case(b"Identity") {
            Some(&mut identity)
        } else if name.is_empty() {
            return None;
        } else {
            None
        };
        if slot.is_some_and(|slot| slot.replace(value).is_some()) {
            return None;
        }
        input = rest;
    }
    Some(Metadata {
        socket_type: socket_type?,
        identity: identity.unwrap_or_default(),
    })
}

/// Appends the property list. `identity` has at most 255 bytes.
pub(crate) fn encode(out: &mut Vec<u8>, metadata: Metadata<'_>) {
    put(out, b"Socket-Type", metadata.socket_type);
    put(out, b"Identity", metadata.identity);
}

fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

/// Tells whether an identity may address a peer: 1 to 255 bytes, the first not zero. RFC 28.
pub(crate) fn is_identity(identity: &[u8]) -> bool {
    (1..=IDENTITY_BYTES_MAX).contains(&identity.len()) && identity.first() != Some(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_case_insensitive_and_others_skipped() {
        let mut list = Vec::new();
        put(&mut list, b"X-Other", b"1");
        put(&mut list, b"socket-TYPE", b"DEALER");
        assert_eq!(
            decode(&list),
            Some(Metadata {
                socket_type: b"DEALER",
                identity: b""
            })
        );
        put(&mut list, b"Socket-Type", b"ROUTER");
        assert_eq!(decode(&list), None, "twice");
    }

    #[test]
    fn malformed_lists_are_refused() {
        assert_eq!(decode(b""), None, "no socket type");
        assert_eq!(decode(b"\x00\x00\x00\x00\x00"), None, "an empty name");
        assert_eq!(
            decode(b"\x0bSocket-Type\x00\x00\x00\x07DEALER"),
            None,
            "cut short"
        );
        assert_eq!(decode(b"\x0bSocket-Type\xff\xff\xff\xffDEALER"), None, "too long");
    }

    #[test]
    fn identities_have_1_to_255_bytes_and_no_leading_zero() {
        assert!(is_identity(b"0") && is_identity(&[1; 255]));
        assert!(!is_identity(b"") && !is_identity(&[1; 256]) && !is_identity(b"\0a"));
    }

    proptest! {
        #[test]
        fn lists_round_trip(socket_type in "[A-Z]{1,10}", identity in prop::collection::vec(any::<u8>(), 0..255)) {
            let metadata = Metadata { socket_type: socket_type.as_bytes(), identity: &identity };
            let mut list = Vec::new();
            encode(&mut list, metadata);
            prop_assert_eq!(decode(&list), Some(metadata));
            for length in 1..list.len() {
                if let Some(cut) = decode(&list[..length]) {
                    prop_assert_eq!(cut.identity, b"", "only whole properties count");
                }
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(input in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&input);
        }
    }
}
