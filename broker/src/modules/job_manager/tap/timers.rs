//! When does a plugin want to be woken? Wall-clock times, one timer of the broker for all.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Timers of one plugin.
const TIMERS_MAX: usize = 100_000;
/// A timer expires no sooner than this after it was set, so that none makes the broker spin.
const DELAY_MIN: f64 = 0.01;
/// The wall clock is looked at again after this time at the latest: it may have been set.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// So many timers of one plugin expire at a time; the rest follows after [`DELAY_MIN`].
const EXPIRED_MAX: usize = 64;

/// Microseconds since the epoch: times that can be ordered.
type Micros = u64;

/// All timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    plugins: HashMap<Arc<str>, Own>,
}

/// Those of one plugin.
#[derive(Debug, Default)]
struct Own {
    due: BTreeSet<(Micros, String)>,
    at: HashMap<String, Micros>,
}

impl Own {
    fn cancel(&mut self, key: &str) {
        if let Some((key, at)) = self.at.remove_entry(key) {
            self.due.remove(&(at, key));
        }
    }
}

impl Timers {
    /// Sets or replaces a timer; returns false when the plugin has too many.
    pub(super) fn set(&mut self, plugin: &Arc<str>, key: String, at: f64, now: f64) -> bool {
        let own = self.plugins.entry(plugin.clone()).or_default();
        own.cancel(&key);
        if own.at.len() >= TIMERS_MAX {
            return false;
        }
        let at = micros(at.max(now + DELAY_MIN));
        own.due.insert((at, key.clone()));
        own.at.insert(key, at);
        true
    }

    /// Takes a timer back.
    pub(super) fn cancel(&mut self, plugin: &str, key: &str) {
        if let Some(own) = self.plugins.get_mut(plugin) {
            own.cancel(key);
        }
    }

    /// Takes all timers of a plugin back.
    pub(super) fn forget(&mut self, plugin: &str) {
        self.plugins.remove(plugin);
    }

    /// Takes out timers that are due, a bounded number of each plugin.
    pub(super) fn take_due(&mut self, now: f64) -> Vec<(Arc<str>, String)> {
        let now = micros(now);
        let mut taken = Vec::new();
        for (plugin, own) in &mut self.plugins {
            let due = own.due.iter().take(EXPIRED_MAX).take_while(|(at, _)| *at <= now);
            let keys: Vec<String> = due.map(|(_, key)| key.clone()).collect();
            for key in keys {
                own.cancel(&key);
                taken.push((plugin.clone(), key));
            }
        }
        taken
    }

    /// Returns how long to sleep: at least [`DELAY_MIN`], so that a flood of timers does not keep the broker busy.
    pub(super) fn sleep(&self, now: f64) -> Option<Duration> {
        let first = self.plugins.values().filter_map(|own| own.due.first());
        let at = first.map(|(at, _)| *at).min()?;
        let left = Duration::from_micros(at.saturating_sub(micros(now)));
        Some(left.clamp(Duration::from_secs_f64(DELAY_MIN), SLEEP_MAX))
    }
}

fn micros(seconds: f64) -> Micros {
    let duration = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::from_secs(1 << 43));
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(timers: &mut Timers, now: f64) -> Vec<String> {
        timers.take_due(now).into_iter().map(|(_, key)| key).collect()
    }

    #[test]
    fn in_order_and_never_at_once() {
        let (a, b): (Arc<str>, Arc<str>) = (Arc::from("a"), Arc::from("b"));
        let mut timers = Timers::default();
        assert!(timers.set(&a, "x".into(), 20.0, 10.0) && timers.set(&b, "y".into(), 15.0, 10.0));
        assert!(
            timers.set(&a, "past".into(), 1.0, 10.0) && timers.set(&a, "never".into(), f64::INFINITY, 10.0)
        );
        assert!(timers.set(&a, "nan".into(), f64::NAN, 10.0));
        assert!(due(&mut timers, 10.0).is_empty());
        assert_eq!(timers.sleep(10.0), Some(Duration::from_millis(10)));
        assert_eq!(due(&mut timers, 10.02), ["nan", "past"]);
        assert!(timers.set(&b, "y".into(), 30.0, 10.0));
        assert_eq!(timers.take_due(25.0), [(a.clone(), "x".to_owned())]);
        assert!(due(&mut timers, 29.0).is_empty());
        timers.forget("b");
        assert_eq!(timers.sleep(29.0), Some(SLEEP_MAX));
        timers.cancel("a", "never");
        assert_eq!(timers.sleep(29.0), None);
    }

    /// A plugin with too many timers delays its own, not those of others.
    #[test]
    fn floods() {
        let (a, b): (Arc<str>, Arc<str>) = (Arc::from("a"), Arc::from("b"));
        let mut timers = Timers::default();
        for number in 0..TIMERS_MAX {
            assert!(timers.set(&a, number.to_string(), 50.0, 10.0));
        }
        assert!(!timers.set(&a, "one more".into(), 50.0, 10.0));
        assert!(timers.set(&b, "other".into(), 60.0, 10.0));
        let taken = timers.take_due(60.0);
        assert_eq!(
            taken.iter().filter(|(plugin, _)| *plugin == a).count(),
            EXPIRED_MAX
        );
        assert!(taken.contains(&(b, "other".to_owned())));
        assert_eq!(timers.sleep(60.0), Some(Duration::from_millis(10)));
    }
}
