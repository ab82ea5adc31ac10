//! How does a program write to the instance's log? (`log.append`, one RFC 5424 line per message)

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use flux_formats::msg::{Message, NODEID_ANY};

use crate::{Error, Handle};

/// Severity of a message, as in syslog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Severity {
    /// The system is unusable.
    Emerg = 0,
    /// Act at once.
    Alert = 1,
    /// Critical condition.
    Crit = 2,
    /// Error.
    Err = 3,
    /// Warning.
    Warning = 4,
    /// Normal but significant.
    Notice = 5,
    /// Information.
    Info = 6,
    /// Debugging.
    Debug = 7,
}

impl Severity {
    /// Returns the severity of a syslog name (`err`, `warning`, ...).
    pub fn from_name(name: &str) -> Option<Severity> {
        Some(match name {
            "emerg" | "panic" => Severity::Emerg,
            "alert" => Severity::Alert,
            "crit" => Severity::Crit,
            "err" | "error" => Severity::Err,
            "warning" | "warn" => Severity::Warning,
            "notice" => Severity::Notice,
            "info" => Severity::Info,
            "debug" => Severity::Debug,
            _ => return None,
        })
    }

    /// Returns the name as `flux dmesg` shows it.
    pub fn name(level: u8) -> &'static str {
        match level {
            0 => "emerg",
            1 => "alert",
            2 => "crit",
            3 => "err",
            4 => "warning",
            5 => "notice",
            6 => "info",
            _ => "debug",
        }
    }
}

/// Queues a log message, one RPC per line. The broker's answer is not waited for.
///
/// `rank` is the broker rank that becomes the host name field.
///
/// # Errors
/// As [`Handle::rpc`].
pub fn append(
    handle: &mut Handle,
    appname: &str,
    rank: u32,
    severity: Severity,
    text: &str,
) -> Result<(), Error> {
    let stamp = timestamp_utc(SystemTime::now());
    // the severity stands above the facility, unlike RFC 5424: stock clients read it so
    let pri = (severity as u8) << 3;
    let pid = std::process::id();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let entry = format!("<{pri}>1 {stamp} {rank} {appname} {pid} - - {line}");
        let msg = Message::request("log.append", NODEID_ANY, Some(Bytes::from(entry.into_bytes())));
        handle.send(&msg)?;
    }
    Ok(())
}

/// Formats a time as RFC 5424 does: UTC with microseconds and `Z`.
pub fn timestamp_utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil_from_days(since.as_secs() / 86400);
    let of_day = since.as_secs() % 86400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        since.subsec_micros()
    )
}

/// Returns year, month and day of the Gregorian calendar for a day counted from 1970-01-01.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    // Years begin on 1 March here, so the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn calendar() {
        for (secs, want) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_795_240_135, "2026-11-21T05:48:55.000000Z"),
            (4_107_542_399, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp_utc(UNIX_EPOCH + Duration::from_secs(secs)), want);
        }
    }

    #[test]
    fn severities() {
        for level in 0..8 {
            assert_eq!(
                Severity::from_name(Severity::name(level)).map(|s| s as u8),
                Some(level)
            );
        }
        assert_eq!(Severity::from_name("loud"), None);
    }
}
