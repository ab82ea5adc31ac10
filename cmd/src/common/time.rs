//! How are times read and shown? strftime in the local zone, UTC with microseconds, durations, dates from people.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use flux_formats::fsd::Fsd;
use flux_process::{LocalTime, local_time};

use super::error::{CmdError, fail};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// Returns the time now in seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Returns the whole seconds of a timestamp.
pub(crate) fn whole_secs(timestamp: f64) -> i64 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates, and no calendar has that year"
    )]
    let secs = timestamp.floor() as i64;
    secs
}

/// Formats a timestamp in the local time zone as strftime(3) does; unknown conversions are kept as they are.
pub(crate) fn strftime(timestamp: f64, format: &str) -> String {
    let time = local_time(whole_secs(timestamp));
    let mut out = String::with_capacity(format.len() * 2);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some(conversion) => expand(&mut out, conversion, &time, timestamp),
            None => out.push('%'),
        }
    }
    out
}

fn expand(out: &mut String, conversion: char, time: &LocalTime, timestamp: f64) {
    let month = usize::try_from(time.month)
        .ok()
        .and_then(|m| MONTHS.get(m.wrapping_sub(1)))
        .copied()
        .unwrap_or("?");
    let day = usize::try_from(time.weekday)
        .ok()
        .and_then(|d| DAYS.get(d))
        .copied()
        .unwrap_or("?");
    let hour12 = match time.hour % 12 {
        0 => 12,
        hour => hour,
    };
    // Writing to a String cannot fail.
    let _infallible = match conversion {
        'a' => write!(out, "{}", day.get(..3).unwrap_or(day)),
        'A' => write!(out, "{day}"),
        'b' | 'h' => write!(out, "{}", month.get(..3).unwrap_or(month)),
        'B' => write!(out, "{month}"),
        'c' => return expand_all(out, "a b e H:M:S Y", time, timestamp),
        'd' => write!(out, "{:02}", time.day),
        'D' | 'x' => return expand_all(out, "m/d/y", time, timestamp),
        'e' => write!(out, "{:2}", time.day),
        'f' => write!(out, "{:06}", micros(timestamp)),
        'F' => return expand_all(out, "Y-m-d", time, timestamp),
        'H' => write!(out, "{:02}", time.hour),
        'I' => write!(out, "{hour12:02}"),
        'j' => write!(out, "{:03}", time.yearday + 1),
        'm' => write!(out, "{:02}", time.month),
        'M' => write!(out, "{:02}", time.minute),
        'n' => writeln!(out),
        'p' => write!(out, "{}", if time.hour < 12 { "AM" } else { "PM" }),
        'R' => return expand_all(out, "H:M", time, timestamp),
        's' => write!(out, "{}", whole_secs(timestamp)),
        'S' => write!(out, "{:02}", time.second),
        't' => write!(out, "\t"),
        'T' | 'X' => return expand_all(out, "H:M:S", time, timestamp),
        'y' => write!(out, "{:02}", time.year.rem_euclid(100)),
        'Y' => write!(out, "{}", time.year),
        'z' => write!(out, "{}", zone(time.offset_secs, "")),
        '%' => write!(out, "%"),
        other => write!(out, "%{other}"),
    };
}

/// Expands letters as conversions and copies everything else.
fn expand_all(out: &mut String, pattern: &str, time: &LocalTime, timestamp: f64) {
    for c in pattern.chars() {
        if c.is_ascii_alphabetic() {
            expand(out, c, time, timestamp)
        } else {
            out.push(c)
        }
    }
}

fn zone(offset_secs: i64, separator: &str) -> String {
    let minutes = offset_secs.abs() / 60;
    let sign = if offset_secs < 0 { '-' } else { '+' };
    format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
}

/// Returns the microseconds of a timestamp, rounded as Python's datetime does.
fn micros(timestamp: f64) -> i64 {
    whole_secs(((timestamp - timestamp.floor()) * 1e6).round()).min(999_999)
}

/// Formats a timestamp as ISO 8601 in the local zone with microseconds: `2026-11-21T05:48:55.735532+00:00`, with `Z`
/// for UTC, as `--time-format=iso` prints it.
pub(crate) fn iso_local(timestamp: f64) -> String {
    let time = local_time(whole_secs(timestamp));
    let suffix = if time.offset_secs == 0 {
        "Z".to_owned()
    } else {
        zone(time.offset_secs, ":")
    };
    format!(
        "{}.{:06}{suffix}",
        strftime(timestamp, "%FT%T"),
        micros(timestamp)
    )
}

/// Formats a timestamp in UTC to the second: `2026-11-21T05:48:55Z`.
pub(crate) fn utc(timestamp: f64) -> String {
    let secs = whole_secs(timestamp);
    let (day, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(day);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of the Gregorian calendar so many days after 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    // years begin in March here, so that the leap day is the last one
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Formats a duration as a Flux Standard Duration.
pub(crate) fn fsd(secs: f64) -> String {
    Fsd::from_secs_f64(secs).map_or_else(String::new, |fsd| fsd.to_string())
}

/// Reads a Flux Standard Duration in seconds.
///
/// # Errors
/// `invalid duration: TEXT`.
pub(crate) fn parse_fsd(text: &str) -> Result<f64, CmdError> {
    match text.parse::<Fsd>() {
        Ok(fsd) => Ok(fsd.as_secs_f64()),
        Err(_) => fail(format!("invalid Flux standard duration: '{text}'")),
    }
}

/// Reads a point in time: seconds since 1970, `+FSD` or `-FSD` from now, `now`, or `YYYY-MM-DD[ T]HH:MM[:SS]`, which is
/// local time.
///
/// # Errors
/// `unable to parse datetime TEXT`.
pub(crate) fn parse_datetime(text: &str, now: f64) -> Result<f64, CmdError> {
    let text = text.trim();
    if text == "now" {
        return Ok(now);
    }
    if let Some(duration) = text.strip_prefix('+') {
        return Ok(now + parse_fsd(duration)?);
    }
    if let Some(duration) = text.strip_prefix('-') {
        return Ok(now - parse_fsd(duration)?);
    }
    if let Ok(secs) = text.parse::<f64>() {
        return Ok(secs);
    }
    parse_calendar(text).map_or_else(|| fail(format!("unable to parse datetime: {text:?}")), Ok)
}

fn parse_calendar(text: &str) -> Option<f64> {
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let mut fields = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
    let (clock, utc) = match clock.strip_suffix('Z') {
        Some(clock) => (clock, true),
        None => (clock, false),
    };
    let mut fields = clock.splitn(3, ':');
    let hour: i64 = fields.next()?.parse().ok()?;
    let minute: i64 = fields.next()?.parse().ok()?;
    let second: f64 = fields.next().map_or(Ok(0.0), str::parse).ok()?;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..61.0).contains(&second);
    if !valid {
        return None;
    }
    let secs = days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60;
    let offset = if utc { 0 } else { local_time(secs).offset_secs };
    // The second look sees the offset that holds at the instant itself, not at the same digits in UTC.
    let offset = if utc {
        0
    } else {
        local_time(secs - offset).offset_secs
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds of a year below 10000 are exact"
    )]
    let whole = (secs - offset) as f64;
    Some(whole + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip_through_the_local_zone() {
        for secs in [0.0, 951_826_800.0, 1_795_240_135.0, 1_750_000_000.0] {
            let text = strftime(secs, "%Y-%m-%dT%H:%M:%S");
            assert_eq!(parse_datetime(&text, 0.0).unwrap(), secs, "{text}");
        }
        assert_eq!(
            parse_datetime("2026-11-21T05:48:55Z", 0.0).unwrap(),
            1_795_240_135.0
        );
        assert_eq!(parse_datetime("+1h", 10.0).unwrap(), 3610.0);
        assert_eq!(parse_datetime("-10s", 10.0).unwrap(), 0.0);
        assert_eq!(parse_datetime("1795243737.5", 0.0).unwrap(), 1_795_243_737.5);
        for bad in ["", "tomorrowish", "2026-13-01", "2026-01-01T25:00", "+x"] {
            assert!(parse_datetime(bad, 0.0).is_err(), "{bad}");
        }
    }

    #[test]
    fn utc_dates() {
        assert_eq!(utc(0.0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_826_800.5), "2000-02-29T12:20:00Z");
        assert_eq!(utc(1_795_240_135.0), "2026-11-21T05:48:55Z");
        for days in (-800_000..800_000).step_by(97) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn strftime_conversions() {
        let time = LocalTime {
            year: 2026,
            month: 5,
            day: 2,
            hour: 0,
            minute: 7,
            second: 9,
            weekday: 6,
            yearday: 121,
            offset_secs: -5400,
        };
        let mut out = String::new();
        for c in "aAbBdDeFHIjmMpRSTyYz%Q".chars() {
            expand(&mut out, c, &time, 0.0);
            out.push(' ');
        }
        let want = "Sat Saturday May May 02 05/02/26  2 2026-05-02 00 12 122 05 07 AM 00:07 09 00:07:09 26 2026 -0130 % %Q ";
        assert_eq!(out, want);
        assert_eq!(strftime(0.25, "%f"), "250000");
    }
}
