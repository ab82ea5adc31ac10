//! How is a duration written? (RFC 23 Flux Standard Duration.)

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::number::format_g;

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FsdError {
    /// The text does not begin with a number from 0 to infinity.
    #[error("invalid Flux standard duration")]
    Number,
    /// The unit is none of ms, s, m, h, d, or follows infinity.
    #[error("invalid unit of Flux standard duration")]
    Unit,
}

/// A duration in seconds, from 0 to infinity (RFC 23).
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Fsd(f64);

impl Fsd {
    /// Returns a duration of `seconds`, or `None` when negative or not a number.
    pub fn from_secs_f64(seconds: f64) -> Option<Self> {
        (seconds >= 0.0).then_some(Fsd(seconds))
    }

    /// Returns seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0
    }

    /// Returns the standard library's form, or `None` for infinity and what exceeds it.
    pub fn to_duration(self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.0).ok()
    }
}

impl From<Duration> for Fsd {
    fn from(duration: Duration) -> Self {
        Fsd(duration.as_secs_f64())
    }
}

impl FromStr for Fsd {
    type Err = FsdError;

    fn from_str(text: &str) -> Result<Self, FsdError> {
        if text.eq_ignore_ascii_case("inf") || text.eq_ignore_ascii_case("infinity") {
            return Ok(Fsd(f64::INFINITY));
        }
        let lower_inf = text.get(..3).is_some_and(|head| head.eq_ignore_ascii_case("inf"));
        if lower_inf {
            return Err(FsdError::Unit);
        }
        let end = number_len(text);
        let (number, unit) = text.split_at_checked(end).ok_or(FsdError::Number)?;
        let value: f64 = number.parse().map_err(|_| FsdError::Number)?;
        let factor = match unit {
            "" | "s" => 1.0,
            "ms" => 1e-3,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(FsdError::Unit),
        };
        Fsd::from_secs_f64(value * factor).ok_or(FsdError::Number)
    }
}

/// Returns how many bytes at the start form a decimal floating point number.
fn number_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|c| c.is_ascii_digit()).count();
    let mut end = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    end += digits(end);
    if bytes.get(end) == Some(&b'.') {
        end += 1;
        end += digits(end);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    end
}

impl fmt::Display for Fsd {
    /// Writes six significant digits in the largest unit that keeps the number small, as flux-core does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0;
        if secs.is_infinite() {
            return f.write_str("infinity");
        }
        let (value, unit) = if secs > 0.0 && secs < 0.1 {
            (secs * 1000.0, "ms")
        } else if secs < 60.0 {
            (secs, "s")
        } else if secs < 3600.0 {
            (secs / 60.0, "m")
        } else if secs < 86400.0 {
            (secs / 3600.0, "h")
        } else {
            (secs / 86400.0, "d")
        };
        write!(f, "{}{unit}", format_g(value, 6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_vectors() {
        for (text, secs) in [
            ("2ms", 0.002),
            ("0.1s", 0.1),
            ("30", 30.0),
            ("1.2h", 4320.0),
            ("5m", 300.0),
            ("0s", 0.0),
            ("5d", 432_000.0),
            ("inf", f64::INFINITY),
            ("INF", f64::INFINITY),
            ("infinity", f64::INFINITY),
            ("1e3", 1000.0),
            (".5", 0.5),
        ] {
            assert_eq!(text.parse::<Fsd>().unwrap().as_secs_f64(), secs, "{text}");
        }
        for bad in [
            "", "s", "-1", "-1s", "1S", "1 s", "infs", "inf s", "nan", "1x", "1mm", ".", "e5", "1e", "ƒ",
        ] {
            assert!(bad.parse::<Fsd>().is_err(), "{bad}");
        }
    }

    #[test]
    fn output_rule() {
        for (secs, text) in [
            (0.0, "0s"),
            (0.001, "1ms"),
            (0.1, "0.1s"),
            (30.0, "30s"),
            (252.0, "4.2m"),
            (5400.0, "1.5h"),
            (86400.0, "1d"),
            (100.0, "1.66667m"),
            (f64::INFINITY, "infinity"),
        ] {
            assert_eq!(Fsd::from_secs_f64(secs).unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn round_trip(secs in 0.0..1e9f64) {
            let text = Fsd(secs).to_string();
            let back = text.parse::<Fsd>().unwrap().as_secs_f64();
            prop_assert!((back - secs).abs() <= secs * 1e-5, "{} {}", text, secs);
        }
        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = text.parse::<Fsd>();
        }
    }
}
