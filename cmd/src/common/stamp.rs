//! How are the times of a sequence of lines shown? raw, ISO, offset from the first, or for people.

use super::time::{iso_local, strftime, whole_secs};

/// The time formats of `--time-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeFormat {
    /// Seconds since 1970 with six decimals.
    Raw,
    /// ISO 8601 in the local zone.
    Iso,
    /// Seconds since the first line.
    Offset,
    /// `[Nov21 05:48]`, then offsets within the minute.
    Human,
}

impl TimeFormat {
    /// Returns the format of a name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "raw" => TimeFormat::Raw,
            "iso" => TimeFormat::Iso,
            "offset" => TimeFormat::Offset,
            "human" | "reltime" => TimeFormat::Human,
            _ => return None,
        })
    }
}

/// Remembers what the lines before looked like.
#[derive(Debug)]
pub(crate) struct Stamper {
    format: TimeFormat,
    delta: bool,
    first: Option<f64>,
    last: f64,
    /// Time of the last line that showed a date, and its minute.
    dated: f64,
    minute: i64,
}

impl Stamper {
    /// Returns a stamper; with `delta`, human offsets count from the line before.
    pub(crate) fn new(format: TimeFormat, delta: bool) -> Self {
        Stamper {
            format,
            delta,
            first: None,
            last: 0.0,
            dated: 0.0,
            minute: i64::MIN,
        }
    }

    /// Returns the text for the next line's time.
    pub(crate) fn next(&mut self, timestamp: f64) -> String {
        let first = *self.first.get_or_insert(timestamp);
        let text = match self.format {
            TimeFormat::Raw => format!("{timestamp:.6}"),
            TimeFormat::Iso => iso_local(timestamp),
            TimeFormat::Offset => format!("{:.6}", timestamp - first),
            TimeFormat::Human => self.human(timestamp),
        };
        self.last = timestamp;
        text
    }

    fn human(&mut self, timestamp: f64) -> String {
        let minute = whole_secs(timestamp).div_euclid(60);
        if minute != self.minute {
            self.minute = minute;
            self.dated = timestamp;
            return strftime(timestamp, "[%b%d %R]");
        }
        let base = if self.delta { self.last } else { self.dated };
        format!("[{:>+11.6}]", timestamp - base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let times = [
            1_795_240_138.651_370_3,
            1_795_240_138.662_372_6,
            1_795_240_138.673_368_2,
        ];
        let show = |format, delta| {
            let mut stamper = Stamper::new(format, delta);
            times.map(|time| stamper.next(time))
        };
        assert_eq!(
            show(TimeFormat::Raw, false),
            ["1795240138.651370", "1795240138.662373", "1795240138.673368"]
        );
        assert_eq!(
            show(TimeFormat::Offset, false),
            ["0.000000", "0.011002", "0.021998"]
        );
        let human = show(TimeFormat::Human, false);
        assert_eq!(human[1..], ["[  +0.011002]", "[  +0.021998]"]);
        assert_eq!(human[0], strftime(times[0], "[%b%d %H:%M]"));
        assert_eq!(show(TimeFormat::Human, true)[2], "[  +0.010996]");
        assert_eq!(TimeFormat::from_name("x"), None);
    }
}
