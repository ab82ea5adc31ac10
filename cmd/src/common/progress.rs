//! How does a person see that long work goes on? A bar on standard error, when that is a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between two drawings.
const INTERVAL: Duration = Duration::from_millis(100);
/// Columns of the bar itself.
const WIDTH: usize = 32;

/// A bar with counters.
#[derive(Debug)]
pub(crate) struct Progress {
    total: usize,
    started: usize,
    good: usize,
    bad: usize,
    begin: Instant,
    drawn: Option<Instant>,
    visible: bool,
    rate: bool,
    shown: bool,
}

impl Progress {
    /// Returns a bar for `total` jobs; `rate` adds jobs per second.
    pub(crate) fn new(total: usize, rate: bool) -> Self {
        Progress {
            total,
            started: 0,
            good: 0,
            bad: 0,
            begin: Instant::now(),
            drawn: None,
            visible: std::io::stderr().is_terminal(),
            rate,
            shown: false,
        }
    }

    /// Returns the number of jobs.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Counts a job that has begun.
    pub(crate) fn started(&mut self) {
        self.started += 1;
        self.draw(false);
    }

    /// Counts a job that has ended.
    pub(crate) fn finished(&mut self, good: bool) {
        if good {
            self.good += 1;
        } else {
            self.bad += 1;
        }
        self.draw(self.good + self.bad == self.total);
    }

    /// Removes the bar so that other text can be printed.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            // Nobody is left to tell when standard error cannot be written.
            let _gone = write!(std::io::stderr(), "\r\x1b[K");
            self.shown = false;
            self.drawn = None;
        }
    }

    /// Draws the bar a last time and leaves it.
    pub(crate) fn finish(&mut self) {
        self.draw(true);
        if self.shown {
            let _gone = writeln!(std::io::stderr());
            self.shown = false;
        }
    }

    fn draw(&mut self, now: bool) {
        if !self.visible || (!now && self.drawn.is_some_and(|drawn| drawn.elapsed() < INTERVAL)) {
            return;
        }
        self.drawn = Some(Instant::now());
        self.shown = true;
        let line = self.line(self.begin.elapsed());
        let _gone = write!(std::io::stderr(), "\r{line}\x1b[K");
    }

    fn line(&self, elapsed: Duration) -> String {
        let done = self.good + self.bad;
        let filled = (done * WIDTH).checked_div(self.total).unwrap_or(WIDTH).min(WIDTH);
        let percent = (done * 100).checked_div(self.total).unwrap_or(100);
        let pending = self.total.saturating_sub(self.started.max(done));
        let running = self.started.saturating_sub(done);
        let bar = format!("{}{}", "█".repeat(filled), "░".repeat(WIDTH - filled));
        let tail = if self.rate {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
            format!("{rate:.1} job/s")
        } else {
            let secs = elapsed.as_secs();
            format!("{}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
        };
        format!(
            "PD:{pending:<4} R:{running:<4} CD:{:<4} F:{:<4} │{bar}│{percent:>5}% {tail}",
            self.good, self.bad
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut progress = Progress::new(4, true);
        progress.visible = false;
        progress.started();
        progress.started();
        progress.finished(true);
        let line = progress.line(Duration::from_secs(2));
        assert!(
            line.starts_with("PD:2    R:1    CD:1    F:0    │████████░"),
            "{line}"
        );
        assert!(line.ends_with("25% 0.5 job/s"));
        progress.finish();
        assert!(
            Progress::new(0, false)
                .line(Duration::from_secs(61))
                .ends_with("100% 0:01:01")
        );
    }
}
