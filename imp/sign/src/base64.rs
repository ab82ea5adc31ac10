//! How do bytes become the text between the dots? RFC 4648 base64, standard alphabet, padded.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the base64 text of `bytes` to `out`.
pub fn encode(bytes: &[u8], out: &mut String) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .enumerate()
            .fold(0u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for digit in 0..4usize {
            if digit <= chunk.len() {
                out.push(symbol(word >> (18 - 6 * digit)));
            } else {
                out.push('=');
            }
        }
    }
}

fn symbol(bits: u32) -> char {
    let index = usize::try_from(bits & 63).unwrap_or(0);
    ALPHABET.get(index).map_or('=', |byte| char::from(*byte))
}

/// Decodes padded base64 text; `None` for anything that [`encode`] could not have written.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text
        .iter()
        .rev()
        .take(2)
        .take_while(|byte| **byte == b'=')
        .count();
    let digits = text.get(..text.len() - padding)?;
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in digits.chunks(4) {
        let mut word = 0u32;
        for (at, byte) in chunk.iter().enumerate() {
            word |= value(*byte)? << (18 - 6 * at);
        }
        let whole = word.to_be_bytes();
        let used = match chunk.len() {
            4 => 3,
            3 if word & 0xff == 0 => 2,
            2 if word & 0xffff == 0 => 1,
            // A lone digit, or bits that the padding says are not there.
            _ => return None,
        };
        out.extend_from_slice(whole.get(1..1 + used)?);
    }
    Some(out)
}

fn value(byte: u8) -> Option<u32> {
    Some(match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 4648 section 10.
    #[test]
    fn vectors() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, text) in cases {
            let mut out = String::new();
            encode(plain.as_bytes(), &mut out);
            assert_eq!(out, text);
            assert_eq!(decode(text).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn all_bytes_round_trip() {
        for len in 0..300usize {
            let bytes: Vec<u8> = (0..len)
                .map(|n| u8::try_from((n * 7 + len) % 256).unwrap())
                .collect();
            let mut out = String::new();
            encode(&bytes, &mut out);
            assert_eq!(decode(&out), Some(bytes));
        }
    }

    #[test]
    fn refuses_what_is_not_canonical() {
        for bad in [
            "Z", "Zg", "Zg=", "Zg===", "====", "Zh==", "Zm9=", "Zm-v", "Zm9v\n", "=m9v", "Z=9v", "Zm=v",
        ] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
