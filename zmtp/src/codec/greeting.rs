//! What do peers say first? The greeting of 64 bytes: signature, version, mechanism, as-server, filler.

/// Bytes of a greeting.
pub(crate) const GREETING_BYTES: usize = 64;

const SIGNATURE_FIRST: u8 = 0xff;
const SIGNATURE_LAST: u8 = 0x7f;
const MAJOR: u8 = 3;
const MINOR: u8 = 1;
const MECHANISM: &[u8; 20] = b"CURVE\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Why a greeting is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// The first bytes are not ZMTP's, or are those of a version before 2.
    #[error("not a ZMTP peer")]
    Signature,
    /// A version before 3.
    #[error("ZMTP version {0} is not supported")]
    Version(u8),
    /// NULL, PLAIN or another mechanism than CURVE.
    #[error("security mechanism is not CURVE")]
    Mechanism,
}

/// Makes our greeting: ZMTP 3.1, CURVE.
pub(crate) fn encode(as_server: bool) -> [u8; GREETING_BYTES] {
    let mut greeting = [0u8; GREETING_BYTES];
    let mut fields = greeting.iter_mut();
    let head = [
        SIGNATURE_FIRST,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        1,
        SIGNATURE_LAST,
        MAJOR,
        MINOR,
    ];
    let values = head.iter().chain(MECHANISM).copied().chain([u8::from(as_server)]);
    for (field, value) in fields.by_ref().zip(values) {
        *field = value;
    }
    greeting
}

/// Checks as much of a greeting as is there, so that junk is refused at its first wrong byte. Returns whether it is
/// complete.
///
/// The as-server octet is not looked at: libzmq's CURVE server sends 0 in it.
///
/// # Errors
/// [`GreetingError`] at the first byte that cannot be a greeting's.
pub(crate) fn check(input: &[u8]) -> Result<bool, GreetingError> {
    if input.first().is_some_and(|byte| *byte != SIGNATURE_FIRST)
        || input.get(9).is_some_and(|byte| *byte != SIGNATURE_LAST)
    {
        return Err(GreetingError::Signature);
    }
    if let Some(major) = input.get(10).filter(|major| **major < MAJOR) {
        return Err(GreetingError::Version(*major));
    }
    if input.get(12..32).is_some_and(|mechanism| mechanism != MECHANISM) {
        return Err(GreetingError::Mechanism);
    }
    Ok(input.len() >= GREETING_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_greeting_is_accepted_in_any_pieces() {
        let greeting = encode(true);
        for length in 0..GREETING_BYTES {
            assert_eq!(check(&greeting[..length]), Ok(false), "{length}");
        }
        assert_eq!(check(&greeting), Ok(true));
        assert_eq!(greeting[32], 1);
        assert_eq!(encode(false)[32], 0);
    }

    #[test]
    fn others_are_refused_at_the_first_wrong_byte() {
        assert_eq!(check(b"GET / HTTP/1.1"), Err(GreetingError::Signature));
        let mut greeting = encode(false);
        greeting[9] = 0;
        assert_eq!(check(&greeting[..10]), Err(GreetingError::Signature));
        greeting[9] = 0x7f;
        greeting[10] = 2;
        assert_eq!(check(&greeting[..11]), Err(GreetingError::Version(2)));
        greeting[10] = 4;
        assert_eq!(
            check(&greeting),
            Ok(true),
            "RFC 23: a peer accepts higher versions"
        );
        greeting[12..17].copy_from_slice(b"NULL\0");
        assert_eq!(check(&greeting), Err(GreetingError::Mechanism));
    }
}
