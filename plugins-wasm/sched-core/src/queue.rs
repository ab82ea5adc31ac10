//! Which jobs wait, and in which order?

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use flux_policy_sdk::Pending;

/// Place in the order: highest priority first, then lowest id.
pub(crate) type Place = (Reverse<u64>, u64);

/// All waiting jobs.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    jobs: HashMap<u64, (u64, u32)>,
    queues: BTreeMap<u32, BTreeSet<Place>>,
}

impl Waiting {
    pub(crate) fn insert(&mut self, job: &Pending) -> Place {
        self.remove(job.id);
        let place = (Reverse(job.priority), job.id);
        self.jobs.insert(job.id, (job.priority, job.queue));
        self.queues.entry(job.queue).or_default().insert(place);
        place
    }

    /// Removes a job; returns its queue.
    pub(crate) fn remove(&mut self, id: u64) -> Option<u32> {
        let (priority, queue) = self.jobs.remove(&id)?;
        if let Some(places) = self.queues.get_mut(&queue) {
            places.remove(&(Reverse(priority), id));
        }
        Some(queue)
    }

    /// Gives a job another priority; returns false when it is not there.
    pub(crate) fn move_to(&mut self, id: u64, priority: u64) -> bool {
        let Some((old, queue)) = self.jobs.get_mut(&id) else {
            return false;
        };
        if let Some(places) = self.queues.get_mut(queue) {
            places.remove(&(Reverse(*old), id));
            places.insert((Reverse(priority), id));
        }
        *old = priority;
        true
    }

    /// Returns the numbers of queues that have jobs.
    pub(crate) fn queues(&self) -> impl Iterator<Item = u32> + '_ {
        self.queues
            .iter()
            .filter(|(_, places)| !places.is_empty())
            .map(|(queue, _)| *queue)
    }

    /// Returns the first job of a queue, or the first behind a place.
    pub(crate) fn next(&self, queue: u32, behind: Option<Place>) -> Option<Place> {
        let places = self.queues.get(&queue)?;
        match behind {
            None => places.first().copied(),
            Some(place) => places
                .range((Bound::Excluded(place), Bound::Unbounded))
                .next()
                .copied(),
        }
    }
}
