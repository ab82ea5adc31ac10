//! How are durations read and written for people? (RFC 23 Flux Standard Duration.)

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86400.0;

/// Returns the seconds of a duration such as `30m`, `1.5h` or `infinity`; none when it is malformed.
pub fn parse(text: &str) -> Option<f64> {
    if matches!(text.to_ascii_lowercase().as_str(), "inf" | "infinity") {
        return Some(f64::INFINITY);
    }
    let end = text.find(|c: char| c.is_ascii_alphabetic() && c != 'e' && c != 'E');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return None,
    };
    let plain = number.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let seconds = number.parse::<f64>().ok().filter(|_| plain)? * factor;
    seconds.is_finite().then_some(seconds)
}

/// Returns a duration with two significant digits, as flux-core writes it in messages.
pub fn format(seconds: f64) -> String {
    if seconds.is_infinite() {
        return "infinity".to_owned();
    }
    let (value, unit) = if seconds < 0.1 && seconds != 0.0 {
        (seconds * 1000.0, "ms")
    } else if seconds < MINUTE {
        (seconds, "s")
    } else if seconds < HOUR {
        (seconds / MINUTE, "m")
    } else if seconds < DAY {
        (seconds / HOUR, "h")
    } else {
        (seconds / DAY, "d")
    };
    format!("{}{unit}", significant(value))
}

/// Returns what C's `%.2g` writes.
fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let text = format!("{value:.1e}");
    let Some((digits, exponent)) = text.split_once('e') else {
        return text;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = digits.strip_suffix(".0").unwrap_or(digits);
    match exponent {
        0 => digits.to_owned(),
        1 => format!("{:0<2}", digits.replace('.', "")),
        -4..=-1 => {
            let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
            format!("0.{zeros}{}", digits.replace('.', ""))
        }
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, seconds) in [
            ("30m", 1800.0),
            ("2h", 7200.0),
            ("1.5h", 5400.0),
            ("0", 0.0),
            ("100ms", 0.1),
            ("1d", 86400.0),
            ("1e2s", 100.0),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
        }
        assert_eq!(parse("infinity"), Some(f64::INFINITY));
        for bad in ["", "x", "1x", "-1s", "1 h", "nan", "+1s", "h"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for (seconds, text) in [
            (0.0, "0s"),
            (0.05, "50ms"),
            (1.0, "1s"),
            (59.4, "59s"),
            (3600.0, "1h"),
            (5400.0, "1.5h"),
            (1800.0, "30m"),
            (7200.0, "2h"),
            (86400.0, "1d"),
            (86400.0 * 365.0, "3.6e+02d"),
            (0.25, "0.25s"),
        ] {
            assert_eq!(format(seconds), text, "{seconds}");
        }
        assert_eq!(format(f64::INFINITY), "infinity");
    }
}
