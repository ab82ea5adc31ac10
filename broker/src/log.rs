//! What has this broker logged? A ring of RFC 5424 lines, with severity rules for stderr and forwarding.

use flux_formats::msg::Message;
use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest text of one entry in bytes; longer lines are cut.
const TEXT_BYTES_MAX: usize = 8192;

/// One log entry, as it travels: an RFC 5424 line without NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Syslog severity, 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Rank that logged it (the host name field).
    pub rank: String,
    /// The whole line.
    pub line: String,
}

impl Entry {
    /// Parses the header of an RFC 5424 line as clients send it.
    ///
    /// flux-core puts the severity above the facility (`severity * 8 + facility`), the other way round than RFC 5424.
    /// (flux-core: src/common/libutil/stdlog.h, behaviour)
    ///
    /// Returns `None` when the priority or the version is not there.
    pub fn parse(line: &str) -> Option<Entry> {
        let rest = line.strip_prefix('<')?;
        let (pri, rest) = rest.split_once('>')?;
        let pri: u16 = pri.parse().ok()?;
        let rest = rest.strip_prefix("1 ")?;
        let rank = rest.split(' ').nth(1)?.to_owned();
        Some(Entry {
            level: u8::try_from(pri >> 3).ok().filter(|level| *level <= 7)?,
            rank,
            line: line.trim_end_matches(['\0', '\n']).to_owned(),
        })
    }

    /// Returns application name and text.
    pub fn name_and_text(&self) -> (&str, &str) {
        // <PRI>1 TIMESTAMP HOST APP PROCID MSGID SD TEXT
        let mut fields = self.line.splitn(8, ' ');
        let name = fields.nth(3).unwrap_or("-");
        (name, fields.nth(3).unwrap_or(""))
    }

    /// Returns the form of `flux dmesg` and stderr: `name.level[rank]: text`.
    pub fn for_stderr(&self) -> String {
        let (name, text) = self.name_and_text();
        format!("{name}.{}[{}]: {text}", level_name(self.level), self.rank)
    }
}

/// Returns the name of a syslog severity as the original prints it.
pub fn level_name(level: u8) -> &'static str {
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

/// Formats a time as RFC 5424 wants it: UTC with microseconds, `2026-05-02T14:51:00.123456Z`.
pub fn format_timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let days = i64::try_from(seconds / 86_400).unwrap_or(0);
    let (year, month, day) = civil_from_days(days);
    let clock = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        clock / 3600,
        clock / 60 % 60,
        clock % 60,
        since.subsec_micros()
    )
}

/// Converts days since 1970-01-01 to a date of the proleptic Gregorian calendar.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Where entries go besides the ring.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Entries kept.
    pub ring_size: usize,
    /// Severities up to this one are kept.
    pub level: u8,
    /// Severities up to this one go to rank 0; -1 forwards nothing.
    pub forward_level: i8,
    /// Severities up to this one are printed on stderr; -1 prints nothing.
    pub stderr_level: i8,
    /// True when each broker prints its own entries, false when rank 0 prints all that reach it.
    pub stderr_local: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            ring_size: 1024,
            level: 7,
            forward_level: 3,
            stderr_level: 3,
            stderr_local: false,
        }
    }
}

/// The ring buffer and its counters.
#[derive(Debug, Default)]
pub struct LogRing {
    /// Rules, changed by attributes.
    pub config: LogConfig,
    entries: VecDeque<Entry>,
    /// Entries logged here.
    pub local_count: u64,
    /// Entries received from other ranks or clients.
    pub remote_count: u64,
    /// `log.dmesg` requests that follow the log.
    pub followers: Vec<Message>,
}

impl LogRing {
    /// Returns an empty ring.
    pub fn new(config: LogConfig) -> Self {
        LogRing {
            config,
            ..LogRing::default()
        }
    }

    /// Builds entries for a text logged by this broker (one per line), keeps them and returns them.
    pub fn append_local(&mut self, level: u8, name: &str, text: &str, rank: u32) -> Vec<Entry> {
        let stamp = format_timestamp(SystemTime::now());
        let pid = std::process::id();
        let mut made = Vec::with_capacity(1);
        for line in text.lines().filter(|line| !line.is_empty()) {
            let cut = line
                .char_indices()
                .take_while(|(at, _)| *at < TEXT_BYTES_MAX)
                .last();
            let line = cut.map_or("", |(at, c)| &line[..at + c.len_utf8()]);
            let pri = u16::from(level & 7) << 3;
            let entry = Entry {
                level: level & 7,
                rank: rank.to_string(),
                line: format!("<{pri}>1 {stamp} {rank} {name} {pid} - - {line}"),
            };
            self.local_count += 1;
            self.keep(&entry);
            made.push(entry);
        }
        made
    }

    /// Keeps an entry that came from a client or another rank.
    pub fn append_remote(&mut self, entry: &Entry) {
        self.remote_count += 1;
        self.keep(entry);
    }

    fn keep(&mut self, entry: &Entry) {
        if entry.level > self.config.level {
            return;
        }
        while self.entries.len() >= self.config.ring_size.max(1) {
            self.entries.pop_front();
        }
        self.entries.push_back(entry.clone());
    }

    /// Returns the kept entries, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Returns how many entries are kept.
    pub fn used(&self) -> usize {
        self.entries.len()
    }

    /// Forgets all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        let at = UNIX_EPOCH + Duration::from_micros(1_777_733_460_123_456);
        assert_eq!(format_timestamp(at), "2026-05-02T14:51:00.123456Z");
        assert_eq!(
            format_timestamp(UNIX_EPOCH + Duration::from_secs(951_782_400)),
            "2000-02-29T00:00:00.000000Z"
        );
    }

    #[test]
    fn ring_keeps_the_newest_and_splits_lines() {
        let mut ring = LogRing::new(LogConfig {
            ring_size: 2,
            ..LogConfig::default()
        });
        assert_eq!(ring.append_local(6, "broker", "a\nb\nc\n", 3).len(), 3);
        let texts: Vec<_> = ring.entries().map(Entry::for_stderr).collect();
        assert_eq!(texts, ["broker.info[3]: b", "broker.info[3]: c"]);
    }

    #[test]
    fn parses_client_lines() {
        let line = "<48>1 2026-05-02T14:51:00.1Z 0 logger 77 - - hello there";
        let entry = Entry::parse(line).unwrap();
        assert_eq!(
            (entry.level, entry.name_and_text()),
            (6, ("logger", "hello there"))
        );
        assert_eq!(Entry::parse(&line.replace("<48>", "<27>")).unwrap().level, 3);
        assert_eq!(Entry::parse("hello"), None);
        assert_eq!(Entry::parse("<64>1 a b c d - - x"), None);
        assert_eq!(Entry::parse("<99999>1 a"), None);
    }
}
