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

/// The jobs of a queue.
#[derive(Debug, Default)]
struct Queue {
    places: BTreeSet<Place>,
    /// Made when first asked for: a queue in strict order never is.
    limits: Option<Limits>,
}

/// How many jobs of each class have each time limit, by the limit's bits (which are in the limits' order).
#[derive(Debug, Default)]
struct Limits(ById<u32, BTreeMap<u64, usize>>);

impl Limits {
    fn insert(&mut self, job: &Job) {
        let limits = self.0.entry(job.class).or_default();
        *limits.entry(job.limit.to_bits()).or_default() += 1;
    }

    fn remove(&mut self, job: &Job) {
        let Some(limits) = self.0.get_mut(&job.class) else {
            return;
        };
        let bits = job.limit.to_bits();
        match limits.get_mut(&bits) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                limits.remove(&bits);
            }
        }
        if limits.is_empty() {
            self.0.remove(&job.class);
        }
    }
}

impl Queue {
    fn insert(&mut self, place: Place, job: &Job) {
        self.places.insert(place);
        if let Some(limits) = &mut self.limits {
            limits.insert(job);
        }
    }

    fn remove(&mut self, place: Place, job: &Job) {
        self.places.remove(&place);
        if let Some(limits) = &mut self.limits {
            limits.remove(job);
        }
    }

    fn limits(&mut self, jobs: &ById<u64, Job>) -> &Limits {
        self.limits.get_or_insert_with(|| {
            let mut limits = Limits::default();
            let known = self.places.iter().filter_map(|place| jobs.get(&place.1));
            known.for_each(|job| limits.insert(job));
            limits
        })
    }
}

/// All waiting jobs.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    jobs: ById<u64, Job>,
    queues: BTreeMap<u32, Queue>,
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
        self.queues.entry(job.queue).or_default().insert(place, &known);
        self.jobs.insert(job.id, known);
        place
    }

    /// Removes a job; returns its queue.
    pub(crate) fn remove(&mut self, id: u64) -> Option<u32> {
        let job = self.jobs.remove(&id)?;
        if let Some(queue) = self.queues.get_mut(&job.queue) {
            queue.remove((Reverse(job.priority), id), &job);
        }
        Some(job.queue)
    }

    /// Gives a job another priority; returns false when it is not there.
    pub(crate) fn move_to(&mut self, id: u64, priority: u64) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        if let Some(queue) = self.queues.get_mut(&job.queue) {
            queue.places.remove(&(Reverse(job.priority), id));
            queue.places.insert((Reverse(priority), id));
        }
        job.priority = priority;
        true
    }

    /// Returns the numbers of queues that have jobs.
    pub(crate) fn queues(&self) -> impl Iterator<Item = u32> + '_ {
        self.queues
            .iter()
            .filter(|(_, queue)| !queue.places.is_empty())
            .map(|(number, _)| *number)
    }

    /// Puts the first jobs of a queue behind a place into `out`, first ones last; a stretch at a time is cheaper than one by one.
    pub(crate) fn next(&self, queue: u32, behind: Option<Place>, count: usize, out: &mut Vec<Place>) {
        let Some(queue) = self.queues.get(&queue) else {
            return;
        };
        let from = behind.map_or(Bound::Unbounded, Bound::Excluded);
        out.extend(queue.places.range((from, Bound::Unbounded)).take(count));
        out.reverse();
    }

    /// Returns the first of all jobs.
    pub(crate) fn first(&self) -> Option<u64> {
        let firsts = self.queues.values().filter_map(|queue| queue.places.first());
        firsts.min().map(|place| place.1)
    }

    /// Returns how many jobs of a queue wait.
    pub(crate) fn count(&self, queue: u32) -> usize {
        self.queues.get(&queue).map_or(0, |queue| queue.places.len())
    }

    /// Returns a class with a job that a pass must try although others of the class were busy: one with a time limit shorter than those had.
    /// `first` is looked at before all others.
    pub(crate) fn open_class(&mut self, queue: u32, busy: &ById<u32, f64>, first: u32) -> Option<u32> {
        let Limits(limits) = self.queues.get_mut(&queue)?.limits(&self.jobs);
        let is_open = |class: u32, limits: &BTreeMap<u64, usize>| {
            let shortest = limits.keys().next().copied().map(f64::from_bits);
            // class 0 is of requests that have none of their own
            class == 0 || busy.get(&class).is_none_or(|busy| shortest < Some(*busy))
        };
        if limits.get(&first).is_some_and(|limits| is_open(first, limits)) {
            return Some(first);
        }
        let mut open = limits.iter().filter(|(class, limits)| is_open(**class, limits));
        open.next().map(|(class, _)| *class)
    }

    /// Returns the class and the time limit of a job; infinite without one.
    pub(crate) fn kind_of(&self, id: u64) -> (u32, f64) {
        self.jobs
            .get(&id)
            .map_or((0, f64::INFINITY), |job| (job.class, job.limit))
    }
}
