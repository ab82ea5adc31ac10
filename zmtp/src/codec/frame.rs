//! Where does a frame begin and end? Flags, a size of one or eight bytes, the body. ZeroMQ RFC 37 "Framing".

/// More frames of the same message follow.
pub(crate) const FLAG_MORE: u8 = 0x01;
/// The size takes eight bytes.
pub(crate) const FLAG_LONG: u8 = 0x02;
/// The frame is a command.
pub(crate) const FLAG_COMMAND: u8 = 0x04;

/// Bytes of the longest header.
pub(crate) const HEADER_BYTES_MAX: usize = 9;
const SHORT_BODY_BYTES_MAX: usize = 255;

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whether the frame is a command.
    pub(crate) is_command: bool,
    /// Bytes of the header itself.
    pub(crate) header_bytes: usize,
    /// Bytes of the body.
    pub(crate) body_bytes: usize,
}

/// Why a header cannot be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Reserved flag bits are set, or a command says that more follows.
    #[error("frame has invalid flags {0:#04x}")]
    Flags(u8),
    /// The announced size is above what is accepted here.
    #[error("frame of {size_bytes} bytes exceeds {size_bytes_max}")]
    TooLarge {
        /// The announced size.
        size_bytes: u64,
        /// What is accepted.
        size_bytes_max: usize,
    },
}

/// Decodes the header at the front of `input`. Returns `None` while it is incomplete.
///
/// # Errors
/// [`FrameError`] for invalid flags and for a body above `body_bytes_max`, before any of the body is waited for.
pub(crate) fn decode_header(input: &[u8], body_bytes_max: usize) -> Result<Option<Header>, FrameError> {
    let Some((flags, rest)) = input.split_first() else {
        return Ok(None);
    };
    let is_command = flags & FLAG_COMMAND != 0;
    if flags & !(FLAG_MORE | FLAG_LONG | FLAG_COMMAND) != 0 || (is_command && flags & FLAG_MORE != 0) {
        return Err(FrameError::Flags(*flags));
    }
    let (size_bytes, header_bytes) = if flags & FLAG_LONG == 0 {
        let Some(size) = rest.first() else {
            return Ok(None);
        };
        (u64::from(*size), 2)
    } else {
        let Some(size) = rest.first_chunk::<8>() else {
            return Ok(None);
        };
        (u64::from_be_bytes(*size), HEADER_BYTES_MAX)
    };
    match usize::try_from(size_bytes) {
        Ok(body_bytes) if body_bytes <= body_bytes_max => Ok(Some(Header {
            is_command,
            header_bytes,
            body_bytes,
        })),
        _ => Err(FrameError::TooLarge {
            size_bytes,
            size_bytes_max: body_bytes_max,
        }),
    }
}

/// Appends a header in its shortest form. `flags` is without [`FLAG_LONG`].
pub(crate) fn put_header(out: &mut Vec<u8>, flags: u8, body_bytes: usize) {
    match u8::try_from(body_bytes) {
        Ok(size) => out.extend_from_slice(&[flags, size]),
        Err(_) => {
            out.push(flags | FLAG_LONG);
            out.extend_from_slice(&u64::try_from(body_bytes).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
}

/// Returns the bytes that a frame with a body of this size takes on the wire.
pub(crate) fn frame_bytes(body_bytes: usize) -> usize {
    let header_bytes = if body_bytes <= SHORT_BODY_BYTES_MAX {
        2
    } else {
        HEADER_BYTES_MAX
    };
    body_bytes.saturating_add(header_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reserved_bits_and_a_command_with_more_are_refused() {
        for flags in [0x08, 0x10, 0x80, FLAG_COMMAND | FLAG_MORE] {
            assert_eq!(decode_header(&[flags, 0], 10), Err(FrameError::Flags(flags)));
        }
    }

    #[test]
    fn the_size_is_checked_before_the_body_arrives() {
        let mut header = vec![FLAG_LONG];
        header.extend_from_slice(&u64::MAX.to_be_bytes());
        let err = decode_header(&header, 1000).unwrap_err();
        assert_eq!(
            err.to_string(),
            "frame of 18446744073709551615 bytes exceeds 1000"
        );
        assert!(decode_header(&[0, 11], 10).is_err());
        assert!(decode_header(&[0, 10], 10).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn headers_round_trip_and_need_all_their_bytes(command in any::<bool>(), body_bytes in 0usize..1 << 40) {
            let mut out = Vec::new();
            put_header(&mut out, if command { FLAG_COMMAND } else { 0 }, body_bytes);
            prop_assert_eq!(out.len() + body_bytes, frame_bytes(body_bytes));
            for length in 0..out.len() {
                prop_assert_eq!(decode_header(&out[..length], usize::MAX), Ok(None));
            }
            let header = decode_header(&out, usize::MAX).unwrap().unwrap();
            prop_assert_eq!(header, Header { is_command: command, header_bytes: out.len(), body_bytes });
        }

        #[test]
        fn any_bytes_decode_or_are_refused(input in prop::collection::vec(any::<u8>(), 0..12), max in any::<usize>()) {
            if let Ok(Some(header)) = decode_header(&input, max) {
                prop_assert!(header.body_bytes <= max && header.header_bytes <= input.len());
            }
        }
    }
}
