//! What stays in memory of a job that is over? 32 bytes and an index entry; the rest is in the KVS and in job-list.

use super::job::{End, Job};
use flux_formats::jobid::JobId;
use indexmap::IndexMap;

/// Purged entries that stay in the table before it is made smaller.
const DEAD_MIN: usize = if cfg!(test) { 4 } else { 1024 };

/// An inactive job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Inactive {
    /// When it became inactive, seconds since the epoch.
    pub(super) t_clean: f64,
    /// Its user.
    pub(super) userid: u32,
    /// 1 completed, 2 failed, 4 cancelled, 8 timeout (RFC 21 results); 0 marks an entry that was purged.
    pub(super) result: u8,
    /// It ran.
    pub(super) started: bool,
    /// It had resources.
    pub(super) alloc: bool,
    /// A fatal exception came first.
    pub(super) exception: bool,
}

impl Inactive {
    /// Returns what stays of a job.
    pub(super) fn of(job: &Job) -> Self {
        let result = match &job.end {
            Some(End::Finish { status: 0 }) => 1,
            Some(End::Exception { kind, .. }) if kind == "cancel" => 4,
            Some(End::Exception { kind, .. }) if kind == "timeout" => 8,
            _ => 2,
        };
        Inactive {
            t_clean: job.t_clean,
            userid: job.userid,
            result,
            started: job.marks.started,
            alloc: job.r.is_some(),
            exception: matches!(job.end, Some(End::Exception { .. })),
        }
    }

    fn is_dead(&self) -> bool {
        self.result == 0
    }
}

/// All inactive jobs, ordered by the time they became inactive.
///
/// Purged ones are marked, and leave when they are half of the table: removing one from the front of a large table
/// moves all others.
#[derive(Debug, Default)]
pub(super) struct InactiveJobs {
    jobs: IndexMap<u64, Inactive>,
    /// Purged entries.
    dead: usize,
    /// All entries before this one are purged.
    start: usize,
    /// True while a replay adds jobs in another order.
    unsorted: bool,
}

impl InactiveJobs {
    /// Adds a job that became inactive.
    pub(super) fn insert(&mut self, job: &Job) {
        self.restore(job.id, Inactive::of(job));
    }

    /// Adds what is known of a job.
    pub(super) fn restore(&mut self, id: JobId, job: Inactive) {
        if self
            .jobs
            .last()
            .is_some_and(|(_, last)| last.t_clean > job.t_clean)
        {
            self.unsorted = true;
        }
        let job = Inactive {
            result: job.result.max(1),
            ..job
        };
        if let Some(old) = self.jobs.insert(id.0, job) {
            self.dead -= usize::from(old.is_dead());
            self.unsorted = true;
        }
    }

    pub(super) fn contains(&self, id: JobId) -> bool {
        self.get(id).is_some()
    }

    pub(super) fn get(&self, id: JobId) -> Option<&Inactive> {
        self.jobs.get(&id.0).filter(|job| !job.is_dead())
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len() - self.dead
    }

    /// Returns the jobs, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, &Inactive)> + '_ {
        let live = self.jobs.iter().filter(|(_, job)| !job.is_dead());
        live.map(|(id, job)| (JobId(*id), job))
    }

    /// Returns the ids, oldest end first.
    pub(super) fn ids(&mut self) -> impl Iterator<Item = JobId> + '_ {
        self.sort();
        self.iter().map(|(id, _)| id)
    }

    /// Returns the first end.
    pub(super) fn oldest_end(&mut self) -> Option<f64> {
        self.sort();
        self.jobs.get_index(self.start).map(|(_, job)| job.t_clean)
    }

    /// Returns ids and ends, in any order.
    pub(super) fn ends(&self) -> Vec<(JobId, f64)> {
        self.iter().map(|(id, job)| (id, job.t_clean)).collect()
    }

    /// Returns how many jobs a purge with these limits would take.
    pub(super) fn eligible(&mut self, now: f64, age_limit: Option<f64>, num_limit: Option<usize>) -> usize {
        self.sort();
        let by_count = num_limit.map_or(0, |limit| self.len().saturating_sub(limit));
        let by_age = age_limit.map_or(0, |limit| {
            let jobs = self.jobs.as_slice();
            let old = jobs.partition_point(|_, job| now - job.t_clean > limit);
            let old = jobs.get_range(self.start..old.max(self.start));
            old.map_or(0, |old| old.values().filter(|job| !job.is_dead()).count())
        });
        by_count.max(by_age)
    }

    /// Takes out the oldest `count` jobs.
    pub(super) fn take_oldest(&mut self, count: usize) -> Vec<(JobId, Inactive)> {
        self.sort();
        let mut taken = Vec::with_capacity(count.min(self.len()));
        for at in self.start..self.jobs.len() {
            if taken.len() == count {
                break;
            }
            if let Some((id, job)) = self.jobs.get_index_mut(at).filter(|(_, job)| !job.is_dead()) {
                taken.push((JobId(*id), *job));
                job.result = 0;
            }
        }
        self.dead += taken.len();
        self.shrink();
        taken
    }

    /// Takes out one job.
    pub(super) fn take(&mut self, id: JobId) -> Option<Inactive> {
        let job = self.jobs.get_mut(&id.0).filter(|job| !job.is_dead())?;
        let taken = *job;
        job.result = 0;
        self.dead += 1;
        self.shrink();
        Some(taken)
    }

    /// Finds the first entry that is not purged, and lets go of the purged ones when they are many.
    fn shrink(&mut self) {
        if self.dead > DEAD_MIN && self.dead * 2 > self.jobs.len() {
            self.jobs.retain(|_, job| !job.is_dead());
            self.jobs.shrink_to(self.jobs.len() * 2);
            (self.dead, self.start) = (0, 0);
        }
        let slice = self.jobs.as_slice();
        while slice.get_index(self.start).is_some_and(|(_, job)| job.is_dead()) {
            self.start += 1;
        }
    }

    fn sort(&mut self) {
        if std::mem::take(&mut self.unsorted) {
            self.jobs.retain(|_, job| !job.is_dead());
            (self.dead, self.start) = (0, 0);
            self.jobs.sort_by(|_, a, _, b| a.t_clean.total_cmp(&b.t_clean));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn over(t_clean: u32) -> Inactive {
        Inactive {
            t_clean: t_clean.into(),
            userid: 7,
            result: 1,
            started: true,
            alloc: true,
            exception: false,
        }
    }

    proptest! {
        /// Purging in any order leaves what a sorted list would have.
        #[test]
        fn as_a_sorted_list(ends in prop::collection::vec(0u32..50, 0..60), purges in prop::collection::vec((any::<bool>(), 0usize..9), 0..20)) {
            let mut jobs = InactiveJobs::default();
            let mut model: Vec<(u32, u64)> = Vec::new();
            for (end, id) in ends.iter().zip(1u64..) {
                jobs.restore(JobId(id), over(*end));
                model.push((*end, id));
            }
            model.sort_by_key(|(end, _)| *end);
            for (oldest, number) in purges {
                if oldest {
                    let taken: Vec<u64> = jobs.take_oldest(number).into_iter().map(|(id, _)| id.0).collect();
                    let wanted: Vec<u64> = model.drain(..number.min(model.len())).map(|(_, id)| id).collect();
                    prop_assert_eq!(taken, wanted);
                } else if number < model.len() {
                    let (_, id) = model.remove(number);
                    prop_assert!(jobs.take(JobId(id)).is_some() && jobs.take(JobId(id)).is_none());
                    prop_assert!(!jobs.contains(JobId(id)));
                }
                prop_assert_eq!(jobs.len(), model.len());
                prop_assert_eq!(jobs.oldest_end(), model.first().map(|(end, _)| f64::from(*end)));
                let old = model.iter().filter(|(end, _)| *end < 20).count();
                prop_assert_eq!(jobs.eligible(30.0, Some(10.0), None), old);
                prop_assert_eq!(jobs.eligible(30.0, None, Some(5)), model.len().saturating_sub(5));
            }
            let ids: Vec<u64> = jobs.ids().map(|id| id.0).collect();
            prop_assert_eq!(ids, model.iter().map(|(_, id)| *id).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_entry_is_small() {
        assert!(std::mem::size_of::<(usize, u64, Inactive)>() <= 32);
    }
}
