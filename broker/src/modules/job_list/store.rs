//! Where are inactive jobs kept?

use super::job::Job;
use flux_formats::jobid::JobId;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

/// Inactive jobs, by id and by the time they became inactive.
pub(super) trait InactiveStore: std::fmt::Debug {
    /// Adds a job.
    fn insert(&mut self, job: Job);
    /// Returns a job.
    fn get(&self, id: JobId) -> Option<&Job>;
    /// Removes and returns a job.
    fn remove(&mut self, id: JobId) -> Option<Job>;
    /// Returns the jobs, the last one that became inactive first; with `before` those that come after that one.
    fn newest_first(&self, before: Option<(f64, JobId)>) -> Box<dyn Iterator<Item = &Job> + '_>;
}

/// Keeps jobs in memory, about 300 bytes each.
#[derive(Debug, Default)]
pub(super) struct MemoryStore {
    jobs: HashMap<JobId, Box<Job>>,
    /// Bits of the time, which order like the (positive) time itself.
    order: BTreeSet<(u64, JobId)>,
}

impl InactiveStore for MemoryStore {
    fn insert(&mut self, job: Job) {
        self.order.insert((job.t_inactive.to_bits(), job.id));
        self.jobs.insert(job.id, Box::new(job));
    }

    fn get(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(&id).map(Box::as_ref)
    }

    fn remove(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        self.order.remove(&(job.t_inactive.to_bits(), id));
        Some(*job)
    }

    fn newest_first(&self, before: Option<(f64, JobId)>) -> Box<dyn Iterator<Item = &Job> + '_> {
        let end = before.map_or(Bound::Unbounded, |(time, id)| {
            Bound::Excluded((time.to_bits(), id))
        });
        let order = self.order.range((Bound::Unbounded, end));
        Box::new(order.rev().filter_map(|(_, id)| self.get(*id)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::apply::tests::{job, life};
    use super::*;

    #[test]
    fn newest_come_first() {
        let mut store = MemoryStore::default();
        for id in 1..4 {
            let mut job = job(id, &life());
            job.t_inactive = if id == 2 { 99.0 } else { job.t_inactive };
            store.insert(job);
        }
        let ids: Vec<u64> = store.newest_first(None).map(|job| job.id.0).collect();
        assert_eq!(ids, [2, 3, 1]);
        let rest: Vec<u64> = store
            .newest_first(Some((99.0, JobId(2))))
            .map(|job| job.id.0)
            .collect();
        assert_eq!(rest, [3, 1]);
        assert!(store.remove(JobId(3)).is_some() && store.remove(JobId(3)).is_none());
        assert_eq!((store.jobs.len(), store.newest_first(None).count()), (2, 2));
    }

    #[test]
    fn a_record_is_small() {
        assert!(std::mem::size_of::<Job>() <= 192);
    }
}
