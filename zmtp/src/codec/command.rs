//! What is inside a command? A name with its length, then data; PING and PONG. ZeroMQ RFC 37 "Commands".

/// Bytes of the longest PING context, RFC 37 "Heartbeating".
const PING_CONTEXT_BYTES_MAX: usize = 16;

/// A command's name and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command<'a> {
    /// The name, 1 to 255 bytes.
    pub(crate) name: &'a [u8],
    /// What follows.
    pub(crate) data: &'a [u8],
}

/// Splits a command's body. Returns `None` if it has no complete name.
pub(crate) fn split(body: &[u8]) -> Option<Command<'_>> {
    let (length, rest) = body.split_first()?;
    let (name, data) = rest.split_at_checked(usize::from(*length))?;
    (!name.is_empty()).then_some(Command { name, data })
}

/// A PING: the TTL in tenths of a second and a context that the PONG returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ping<'a> {
    /// Tenths of a second; 0 for none.
    pub(crate) ttl_deciseconds: u16,
    /// 0 to 16 bytes.
    pub(crate) context: &'a [u8],
}

/// Decodes a PING's data. Returns `None` if it is malformed.
pub(crate) fn decode_ping(data: &[u8]) -> Option<Ping<'_>> {
    let (ttl, context) = data.split_first_chunk::<2>()?;
    (context.len() <= PING_CONTEXT_BYTES_MAX).then(|| Ping {
        ttl_deciseconds: u16::from_be_bytes(*ttl),
        context,
    })
}

/// Makes a PING's body with an empty context.
pub(crate) fn encode_ping(ttl_deciseconds: u16) -> [u8; 7] {
    let [high, low] = ttl_deciseconds.to_be_bytes();
    [4, b'P', b'I', b'N', b'G', high, low]
}

/// Makes a PONG's body: the bytes and how many of them count.
pub(crate) fn encode_pong(context: &[u8]) -> ([u8; 5 + PING_CONTEXT_BYTES_MAX], usize) {
    let mut body = [0u8; 5 + PING_CONTEXT_BYTES_MAX];
    let mut used = 0;
    for (field, value) in body.iter_mut().zip(b"\x04PONG".iter().chain(context)) {
        *field = *value;
        used += 1;
    }
    (body, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_from_data() {
        assert_eq!(
            split(b"\x04PINGab"),
            Some(Command {
                name: b"PING",
                data: b"ab"
            })
        );
        assert_eq!(
            split(b"\x04PING"),
            Some(Command {
                name: b"PING",
                data: b""
            })
        );
        assert_eq!(split(b""), None);
        assert_eq!(split(b"\x00x"), None);
        assert_eq!(split(b"\x05PING"), None);
    }

    #[test]
    fn ping_and_pong_follow_the_rfc() {
        let ping = encode_ping(300);
        let command = split(&ping).unwrap();
        assert_eq!(command.name, b"PING");
        assert_eq!(
            decode_ping(command.data),
            Some(Ping {
                ttl_deciseconds: 300,
                context: b""
            })
        );
        assert_eq!(decode_ping(b"\x00"), None);
        assert!(decode_ping(&[0; 18]).is_some());
        assert_eq!(decode_ping(&[0; 19]), None, "RFC 37: a context of 0 to 16 octets");
        let (body, used) = encode_pong(b"0123456789abcdef");
        assert_eq!(&body[..used], b"\x04PONG0123456789abcdef");
    }
}
