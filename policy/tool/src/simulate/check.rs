//! Does a scheduler keep its promises? (Checked by the simulator, whatever the policy says of itself.)
//!
//! The machine is counted in units that may stand for each other: cores, or whole nodes. While the first job waits, the time at which it could
//! start if nobody else started any more is known; no job that starts before it may make that later.

use std::collections::{BTreeMap, BTreeSet};

use flux_policy::pool::Time;

/// Seconds that sums of times may differ.
const ROUNDING_SECS: f64 = 1e-6;

/// Running jobs and those that wait, by units.
#[derive(Debug)]
pub(crate) struct Watch {
    free: u64,
    /// Units by the end that is promised (limit), then by job; infinite ends count as never.
    ends: BTreeMap<(Time, usize), u64>,
    /// Waiting jobs in order of submission, which is their order in the queue.
    waiting: BTreeSet<usize>,
    units: Vec<u64>,
    /// The first job and the latest time at which it must start.
    promise: Option<(usize, f64)>,
    pub(crate) found: Found,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Found {
    /// Times at which the first job was delayed by one that passed it.
    pub(crate) head_delays: usize,
    /// The first of these, in words.
    pub(crate) first_delay: Option<String>,
    /// Jobs that started while one before them waited.
    pub(crate) passed: usize,
    /// Times at which the first job waited although there was room.
    pub(crate) idle_heads: usize,
}

impl Watch {
    pub(crate) fn new(units_all: u64, units: Vec<u64>) -> Watch {
        Watch {
            free: units_all,
            ends: BTreeMap::new(),
            waiting: BTreeSet::new(),
            units,
            promise: None,
            found: Found::default(),
        }
    }

    pub(crate) fn on_submit(&mut self, job: usize) {
        self.waiting.insert(job);
    }

    pub(crate) fn on_reject(&mut self, job: usize) {
        self.waiting.remove(&job);
    }

    pub(crate) fn on_end(&mut self, job: usize, promised: f64) {
        if let Some(units) = self.ends.remove(&(Time(promised), job)) {
            self.free += units;
        }
    }

    /// Takes what started at one time, each with its promised end, and judges it.
    pub(crate) fn on_starts(&mut self, now: f64, starts: &[(usize, f64)]) {
        for (job, _) in starts {
            self.waiting.remove(job);
        }
        let head = self.waiting.first().copied();
        let is_before = |job: usize| head.is_none_or(|head| job < head);
        for &(job, end) in starts.iter().filter(|(job, _)| is_before(*job)) {
            self.start(job, end);
        }
        let Some(head) = head else { return };
        let promised = self.shadow(head, now);
        for &(job, end) in starts.iter().filter(|(job, _)| !is_before(*job)) {
            self.found.passed += 1;
            self.start(job, end);
        }
        if self.free >= self.need(head) {
            self.found.idle_heads += 1;
        }
        let real = self.shadow(head, now);
        let earlier = self
            .promise
            .filter(|(job, _)| *job == head)
            .map_or(f64::INFINITY, |(_, at)| at);
        let promise = promised.min(earlier);
        if real > promise + ROUNDING_SECS {
            self.found.head_delays += 1;
            self.found.first_delay.get_or_insert_with(|| {
                format!(
                    "at {now} s job {} was first and could start at {promise} s; then at {real} s",
                    head + 1
                )
            });
        }
        self.promise = Some((head, promise.max(now)));
    }

    fn start(&mut self, job: usize, end: f64) {
        let units = self.need(job);
        self.free = self.free.saturating_sub(units);
        self.ends.insert((Time(end), job), units);
    }

    fn need(&self, job: usize) -> u64 {
        self.units.get(job).copied().unwrap_or(0)
    }

    /// Returns when a job could start if nobody else did.
    fn shadow(&self, job: usize, now: f64) -> f64 {
        let need = self.need(job);
        let mut have = self.free;
        if have >= need {
            return now;
        }
        for ((end, _), units) in &self.ends {
            have += units;
            if have >= need {
                return end.0.max(now);
            }
        }
        f64::INFINITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_found() {
        // 4 units: job 0 takes 3 until 10, job 1 wants 4, jobs 2 and 3 one each
        let mut watch = Watch::new(4, vec![3, 4, 1, 1]);
        (0..4).for_each(|job| watch.on_submit(job));
        watch.on_starts(0.0, &[(0, 10.0), (2, 10.0)]);
        assert_eq!((watch.found.passed, watch.found.head_delays), (1, 0));
        watch.on_end(2, 10.0);
        watch.on_starts(5.0, &[(3, 11.0)]);
        assert_eq!(watch.found.head_delays, 1);
        let first = watch.found.first_delay.clone().unwrap();
        assert_eq!(
            first,
            "at 5 s job 2 was first and could start at 10 s; then at 11 s"
        );
        watch.on_end(0, 10.0);
        watch.on_end(3, 11.0);
        watch.on_starts(11.0, &[]);
        assert_eq!(watch.found.idle_heads, 1);
    }
}
