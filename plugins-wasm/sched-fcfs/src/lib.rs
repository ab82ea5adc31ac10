//! Scheduler `fcfs`: first come, first served, in order of priority.
//!
//! The job with the highest priority, among equals the one with the lowest id, is tried first; while it must wait nobody passes it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use flux_policy_sdk::{AllocFailure, Changes, Host, Pending, Pool, Refusal, Scheduler};

flux_policy_sdk::export_scheduler!(Fcfs);

/// Place in the queue: highest priority first, then lowest id.
type Place = (Reverse<u64>, u64);

/// The policy.
#[derive(Debug, Default)]
pub struct Fcfs {
    queue: BTreeSet<Place>,
    priorities: HashMap<u64, u64>,
    /// The head of the queue when it was found to need what others hold; it need not be asked again before resources change.
    blocked: Option<Place>,
}

impl Scheduler for Fcfs {
    fn configure(_host: &dyn Host) -> Result<Self, Refusal> {
        Ok(Fcfs::default())
    }

    fn submitted(&mut self, jobs: Vec<Pending>, _replay: bool) {
        for job in jobs {
            self.remove(job.id);
            self.insert(job.id, job.priority);
        }
    }

    fn removed(&mut self, ids: Vec<u64>) {
        for id in ids {
            self.remove(id);
        }
    }

    fn reprioritized(&mut self, jobs: Vec<(u64, u64)>) {
        for (id, priority) in jobs {
            if self.remove(id) {
                self.insert(id, priority);
            }
        }
    }

    fn schedule(&mut self, _host: &dyn Host, pool: &dyn Pool, changes: Changes) -> bool {
        if changes.resources {
            self.blocked = None;
        }
        while let Some(&place) = self.queue.first() {
            if self.blocked == Some(place) {
                return false;
            }
            match pool.allocate(place.1) {
                Ok(()) | Err(AllocFailure::NotPending) => {
                    self.remove(place.1);
                }
                Err(AllocFailure::Busy) => {
                    self.blocked = Some(place);
                    return false;
                }
                Err(AllocFailure::Budget) => return true,
            }
        }
        false
    }
}

impl Fcfs {
    fn insert(&mut self, id: u64, priority: u64) {
        self.queue.insert((Reverse(priority), id));
        self.priorities.insert(id, priority);
    }

    fn remove(&mut self, id: u64) -> bool {
        match self.priorities.remove(&id) {
            Some(priority) => self.queue.remove(&(Reverse(priority), id)),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakePool};

    const BOTH: Changes = Changes {
        queue: true,
        resources: true,
    };
    const QUEUE: Changes = Changes {
        queue: true,
        resources: false,
    };

    fn submit(policy: &mut Fcfs, pool: &FakePool, jobs: &[(u64, u64, u64)]) {
        let pending = jobs
            .iter()
            .map(|&(id, priority, _)| Pending {
                id,
                priority,
                ..Pending::default()
            })
            .collect();
        pool.needs
            .borrow_mut()
            .extend(jobs.iter().map(|&(id, _, cores)| (id, cores)));
        policy.submitted(pending, false);
    }

    fn schedule(policy: &mut Fcfs, pool: &FakePool, changes: Changes) -> bool {
        policy.schedule(&FakeHost::default(), pool, changes)
    }

    #[test]
    fn head_blocks_the_rest() {
        let (mut policy, pool) = (Fcfs::default(), FakePool::default());
        *pool.free.borrow_mut() = 4;
        submit(
            &mut policy,
            &pool,
            &[(3, 16, 1), (1, 16, 2), (2, 16, 4), (9, 20, 1)],
        );
        assert!(!schedule(&mut policy, &pool, BOTH));
        assert_eq!(*pool.started.borrow(), [9, 1]);
        // nothing changed: the pool is not even asked
        let asked = *pool.asked.borrow();
        schedule(&mut policy, &pool, QUEUE);
        assert_eq!(*pool.asked.borrow(), asked);
        // a job that goes before the blocked one is tried at once
        submit(&mut policy, &pool, &[(10, 31, 1)]);
        schedule(&mut policy, &pool, QUEUE);
        assert_eq!(*pool.started.borrow(), [9, 1, 10]);
        policy.removed(vec![2, 77]);
        *pool.free.borrow_mut() = 1;
        schedule(&mut policy, &pool, QUEUE);
        assert_eq!(*pool.started.borrow(), [9, 1, 10, 3]);
    }

    #[test]
    fn goes_on_after_its_budget() {
        let (mut policy, pool) = (Fcfs::default(), FakePool::default());
        *pool.free.borrow_mut() = 100;
        let jobs: Vec<_> = (0..10).map(|id| (id, 16, 1)).collect();
        submit(&mut policy, &pool, &jobs);
        policy.reprioritized(vec![(7, 30), (50, 31)]);
        for _ in 0..2 {
            *pool.budget.borrow_mut() = Some(4);
            assert!(schedule(&mut policy, &pool, BOTH));
        }
        *pool.budget.borrow_mut() = Some(4);
        assert!(!schedule(&mut policy, &pool, BOTH));
        assert_eq!(*pool.started.borrow(), [7, 0, 1, 2, 3, 4, 5, 6, 8, 9]);
    }
}
