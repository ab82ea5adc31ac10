//! How are 32-byte keys written as text? ZeroMQ RFC 32 "Z85": 4 bytes become 5 printable characters.

use zeroize::Zeroize as _;

/// The number of bytes in a CURVE key.
pub(crate) const KEY_BYTES: usize = 32;
/// The number of Z85 characters that encode a CURVE key.
pub(crate) const KEY_CHARS: usize = 40;

const ALPHABET: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
const INVALID: u8 = 0xff;
const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut table = [INVALID; 256];
    let mut digit: u8 = 0;
    while (digit as usize) < ALPHABET.len() {
        table[ALPHABET[digit as usize] as usize] = digit;
        digit += 1;
    }
    table
}

/// Encodes a key as 40 Z85 characters.
pub(crate) fn encode_key(key: &[u8; KEY_BYTES]) -> String {
    let mut text = String::with_capacity(KEY_CHARS);
    for chunk in key.as_chunks::<4>().0 {
        let mut value = u32::from_be_bytes(*chunk);
        let mut digits = [0u8; 5];
        for digit in digits.iter_mut().rev() {
            *digit = usize::try_from(value % 85)
                .ok()
                .and_then(|at| ALPHABET.get(at))
                .copied()
                .unwrap_or(b'0');
            value /= 85;
        }
        text.extend(digits.iter().map(|digit| char::from(*digit)));
        digits.zeroize();
    }
    text
}

/// Decodes 40 Z85 characters. Returns `None` for another length, another alphabet or an overflowing group.
pub(crate) fn decode_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    if text.len() != KEY_CHARS {
        return None;
    }
    let mut key = [0u8; KEY_BYTES];
    let groups = text.as_bytes().as_chunks::<5>().0;
    for (out, group) in key.as_chunks_mut::<4>().0.iter_mut().zip(groups) {
        let Some(value) = decode_group(group) else {
            key.zeroize();
            return None;
        };
        *out = value.to_be_bytes();
    }
    Some(key)
}

fn decode_group(group: &[u8; 5]) -> Option<u32> {
    let mut value: u32 = 0;
    for character in group {
        let digit = VALUES
            .get(usize::from(*character))
            .copied()
            .filter(|digit| *digit != INVALID)?;
        value = value.checked_mul(85)?.checked_add(u32::from(digit))?;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // RFC 26 "Test Cases": the keys of the CurveZMQ documentation.
    const PUBLIC_TEXT: &str = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
    const PUBLIC: [u8; 32] = [
        0xbb, 0x88, 0x47, 0x1d, 0x65, 0xe2, 0x65, 0x9b, 0x30, 0xc5, 0x5a, 0x53, 0x21, 0xce, 0xbb, 0x5a, 0xab,
        0x2b, 0x70, 0xa3, 0x98, 0x64, 0x5c, 0x26, 0xdc, 0xa2, 0xb2, 0xfc, 0xb4, 0x3f, 0xc5, 0x18,
    ];

    #[test]
    fn the_documented_key_converts_both_ways() {
        assert_eq!(encode_key(&PUBLIC), PUBLIC_TEXT);
        assert_eq!(decode_key(PUBLIC_TEXT), Some(PUBLIC));
    }

    #[test]
    fn other_lengths_alphabets_and_overflow_are_refused() {
        assert_eq!(decode_key(""), None);
        assert_eq!(decode_key(&PUBLIC_TEXT[1..]), None);
        assert_eq!(decode_key(&format!("{PUBLIC_TEXT}0")), None);
        assert_eq!(decode_key(&PUBLIC_TEXT.replace('Y', "\"")), None);
        assert_eq!(
            decode_key(&"#".repeat(40)),
            None,
            "85^5 - 1 does not fit four bytes"
        );
        assert_eq!(decode_key(&"é".repeat(20)), None);
    }

    proptest! {
        #[test]
        fn every_key_round_trips(key in any::<[u8; 32]>()) {
            prop_assert_eq!(decode_key(&encode_key(&key)), Some(key));
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in ".{0,60}") {
            if let Some(key) = decode_key(&text) {
                prop_assert_eq!(encode_key(&key), text);
            }
        }
    }
}
