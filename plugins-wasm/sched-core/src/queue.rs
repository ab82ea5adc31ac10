//! Which jobs wait, and in which order?

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use flux_policy_sdk::Pending;

use crate::by_id::ById;

/// Place in the order: highest priority first, then lowest id.
pub(crate) type Place = (Reverse<u64>, u64);

#[derive(Clone, Copy, Debug)]
struct Job {
    priority: u64,
    queue: u32,
    class: u32,
    limit: f64,
}

/// All waiting jobs.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    jobs: ById<u64, Job>,
    queues: BTreeMap<u32, BTreeSet<Place>>,
}

impl Waiting {
    pub(crate) fn insert(&mut self, job: &Pending) -> Place {
        self.remove(job.id);
        let place = (Reverse(job.priority), job.id);
        let limit = if job.duration > 0.0 {
            job.duration
        } else {
            f64::INFINITY
        };
        let known = Job {
            priority: job.priority,
            queue: job.queue,
            class: job.class,
            limit,
        };
        self.jobs.insert(job.id, known);
        self.queues.entry(job.queue).or_default().insert(place);
        place
    }

    /// Removes a job; returns its queue.
    pub(crate) fn remove(&mut self, id: u64) -> Option<u32> {
        let job = self.jobs.remove(&id)?;
        if let Some(places) = self.queues.get_mut(&job.queue) {
            places.remove(&(Reverse(job.priority), id));
        }
        Some(job.queue)
    }

    /// Gives a job another priority; returns false when it is not there.
    pub(crate) fn move_to(&mut self, id: u64, priority: u64) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        if let Some(places) = self.queues.get_mut(&job.queue) {
            places.remove(&(Reverse(job.priority), id));
            places.insert((Reverse(priority), id));
        }
        job.priority = priority;
        true
    }

    /// Returns the numbers of queues that have jobs.
    pub(crate) fn queues(&self) -> impl Iterator<Item = u32> + '_ {
        self.queues
            .iter()
            .filter(|(_, places)| !places.is_empty())
            .map(|(queue, _)| *queue)
    }

    /// Puts the first jobs of a queue behind a place into `out`, first ones last; a stretch at a time is cheaper than one by one.
    pub(crate) fn next(&self, queue: u32, behind: Option<Place>, count: usize, out: &mut Vec<Place>) {
        let Some(places) = self.queues.get(&queue) else {
            return;
        };
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        out.extend(places.range((from, Bound::Unbounded)).take(count));
        out.reverse();
    }

    /// Returns the first of all jobs.
    pub(crate) fn first(&self) -> Option<u64> {
        let firsts = self.queues.values().filter_map(|places| places.first());
        firsts.min().map(|place| place.1)
    }

    /// Returns the class and the time limit of a job; infinite without one.
    pub(crate) fn kind_of(&self, id: u64) -> (u32, f64) {
        self.jobs
            .get(&id)
            .map_or((0, f64::INFINITY), |job| (job.class, job.limit))
    }
}
