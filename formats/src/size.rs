//! How many bytes is "10M"?

/// Why a text is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a number, optionally followed by one of k, K, M, G, T, P, E.
    #[error("invalid size")]
    Invalid,
    /// More than 64 bits.
    #[error("size is too large")]
    TooLarge,
}

/// Parses a number with an optional suffix for powers of 1024: `k`/`K`, `M`, `G`, `T`, `P`, `E`; fractions are cut.
///
/// # Errors
/// Any [`SizeError`].
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(number_end).ok_or(SizeError::Invalid)?;
    let shift = match suffix {
        "" => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return Err(SizeError::Invalid),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') {
        return Err(SizeError::Invalid);
    }
    let unit = 1u64 << shift;
    let whole: u64 = whole.parse().map_err(|_| SizeError::TooLarge)?;
    let mut bytes = whole.checked_mul(unit).ok_or(SizeError::TooLarge)?;
    let mut weight = 1u128;
    let mut numerator = 0u128;
    for digit in fraction.bytes().take(18) {
        weight *= 10;
        numerator = numerator * 10 + u128::from(digit - b'0');
    }
    // below 10^18 * 2^60, and the quotient is below one unit
    let part = u64::try_from(numerator * u128::from(unit) / weight).map_err(|_| SizeError::TooLarge)?;
    bytes = bytes.checked_add(part).ok_or(SizeError::TooLarge)?;
    Ok(bytes)
}

/// Returns a size in the largest unit of 1024 that keeps it above 1, with at most six significant digits.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    let index = bytes.checked_ilog2().unwrap_or(0) / 10;
    let unit = usize::try_from(index)
        .ok()
        .and_then(|index| UNITS.get(index))
        .copied()
        .unwrap_or("");
    let shift = index * 10;
    let whole = bytes >> shift;
    // 1024ths of a unit are enough digits for people
    let rest = (bytes >> shift.saturating_sub(10)) & 1023;
    if shift == 0 || rest == 0 {
        return format!("{whole}{unit}");
    }
    let text = format!("{whole}.{:03}", rest * 1000 / 1024);
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("42", 42),
            ("1k", 1024),
            ("4K", 4096),
            ("10M", 10 << 20),
            ("1.5G", 3 << 29),
            ("15E", 15 << 60),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "M",
            ".5",
            "1.2.3",
            "-1",
            "1 M",
            "1MB",
            "16E",
            "18446744073709551616",
            "1e3",
            "ƒ",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(format_size(0), "0");
        assert_eq!(format_size(10 << 20), "10M");
        assert_eq!(format_size(3 << 29), "1.5G");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9.kM]{0,30}", bytes: u64) {
            let _size = parse_size(&text);
            prop_assert!(parse_size(&format_size(bytes)).is_ok());
        }
    }
}
