//! May this plugin write one more line to the log?

/// Longest message in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1024;

/// Lets so many messages through per second of event time, and counts the rest.
#[derive(Debug)]
pub(crate) struct LogGate {
    rate: u32,
    second: f64,
    passed: u32,
    dropped: u64,
}

impl LogGate {
    pub(crate) fn new(rate: u32) -> LogGate {
        LogGate {
            rate,
            second: f64::NEG_INFINITY,
            passed: 0,
            dropped: 0,
        }
    }

    /// Returns true when a message may pass at `now`.
    pub(crate) fn pass(&mut self, now: f64) -> bool {
        if now >= self.second + 1.0 || now < self.second {
            self.second = now;
            self.passed = 0;
        }
        if self.passed < self.rate {
            self.passed += 1;
            return true;
        }
        self.dropped += 1;
        false
    }

    /// Returns how many were dropped since the last call, once a second has gone by.
    pub(crate) fn take_dropped(&mut self, now: f64) -> Option<u64> {
        if self.dropped == 0 || (now < self.second + 1.0 && now >= self.second) {
            return None;
        }
        Some(std::mem::take(&mut self.dropped))
    }
}

/// Returns `text` cut to `bytes_max` at a character's border, in one line.
pub(crate) fn cut_line(text: &str, bytes_max: usize) -> String {
    let end = text.floor_char_boundary(bytes_max);
    text.get(..end)
        .unwrap_or("")
        .replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_are_counted() {
        let mut gate = LogGate::new(2);
        assert_eq!(
            [gate.pass(1.0), gate.pass(1.1), gate.pass(1.2), gate.pass(1.9)],
            [true, true, false, false]
        );
        assert_eq!(gate.take_dropped(1.9), None);
        assert_eq!(gate.take_dropped(2.0), Some(2));
        assert_eq!(gate.take_dropped(2.0), None);
        assert!(gate.pass(2.0));
        // a clock that was set back does not silence the plugin
        assert!(gate.pass(0.5) && gate.pass(0.5) && !gate.pass(0.5));
    }

    #[test]
    fn cuts_at_characters() {
        assert_eq!(cut_line("aé\nb", 2), "a");
        assert_eq!(cut_line("aé\nb", 4), "aé ");
    }
}
