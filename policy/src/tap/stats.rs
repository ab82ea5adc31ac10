//! How much does a plugin cost?

use std::sync::Arc;
use std::time::Duration;

use super::message::PluginState;

/// Classes of call times: four for each power of two of nanoseconds.
const CLASSES: usize = 4 * 40;

/// Call times.
#[derive(Clone, Debug)]
pub(super) struct Times {
    counts: Box<[u32; CLASSES]>,
    pub(super) calls: u64,
}

impl Default for Times {
    fn default() -> Self {
        Times {
            counts: Box::new([0; CLASSES]),
            calls: 0,
        }
    }
}

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        self.calls += 1;
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(4);
        let power = nanos.ilog2();
        let quarter = (nanos >> (power - 2)) & 3;
        let class = usize::try_from(u64::from(power - 2) * 4 + quarter).unwrap_or(CLASSES);
        if let Some(count) = self.counts.get_mut(class.min(CLASSES - 1)) {
            *count = count.saturating_add(1);
        }
    }

    /// Returns the time that this share of the calls does not exceed, as if the times of a class were spread evenly over it.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let all: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        #[expect(clippy::cast_precision_loss, reason = "a share of a count")]
        let wanted = all as f64 * share;
        let mut seen = 0.0;
        for (class, count) in self.counts.iter().enumerate() {
            let count = f64::from(*count);
            if count > 0.0 && seen + count >= wanted {
                let (power, quarter) = (class / 4, class % 4);
                let from = Duration::from_nanos((4 + u64::try_from(quarter).unwrap_or(0)) << power);
                return from + Duration::from_nanos(1 << power).mul_f64((wanted - seen) / count);
            }
            seen += count;
        }
        Duration::ZERO
    }
}

/// Figures of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginStats {
    /// Name under which it is known.
    pub name: Arc<str>,
    /// How it is.
    pub state: PluginState,
    /// Calls since it was loaded.
    pub calls: u64,
    /// Half of the calls were quicker.
    pub p50: Duration,
    /// All but one in a hundred were quicker.
    pub p99: Duration,
    /// Calls that failed.
    pub traps: u64,
    /// The last failure, in one line.
    pub last_failure: String,
    /// Bytes of the instance.
    pub memory_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut times = Times::default();
        assert_eq!(times.quantile(0.5), Duration::ZERO);
        for _ in 0..99 {
            times.add(Duration::from_nanos(800));
        }
        times.add(Duration::from_millis(3));
        let (half, nearly_all, all) = (times.quantile(0.5), times.quantile(0.98), times.quantile(1.0));
        // their class is that of 768 to 896 ns
        for (found, wanted) in [(half, 768 + 64), (nearly_all, 768 + 126)] {
            let wanted = Duration::from_nanos(wanted);
            assert!(found.abs_diff(wanted) < Duration::from_nanos(2), "{found:?}");
        }
        assert!(
            all >= Duration::from_millis(3) && all < Duration::from_millis(4),
            "{all:?}"
        );
        times.add(Duration::MAX);
        times.add(Duration::ZERO);
        assert_eq!(times.calls, 102);
    }
}
