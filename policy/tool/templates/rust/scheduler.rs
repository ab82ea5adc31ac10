//! Starts the smallest waiting job first.

use std::collections::BTreeMap;

use flux_policy_sdk::{AllocFailure, Changes, Host, Pending, Pool, Refusal, Scheduler};

flux_policy_sdk::export_scheduler!(Policy);

/// The policy: waiting jobs by cores, then id.
#[derive(Default)]
pub struct Policy {
    waiting: BTreeMap<(u64, u64), ()>,
    size: BTreeMap<u64, u64>,
}

impl Scheduler for Policy {
    fn configure(_host: &dyn Host) -> Result<Self, Refusal> {
        Ok(Policy::default())
    }

    fn submitted(&mut self, jobs: Vec<Pending>, _replay: bool) {
        for job in jobs {
            let cores = u64::from(job.nslots) * u64::from(job.cores_per_slot);
            self.waiting.insert((cores, job.id), ());
            self.size.insert(job.id, cores);
        }
    }

    fn removed(&mut self, ids: Vec<u64>) {
        for id in ids {
            if let Some(cores) = self.size.remove(&id) {
                self.waiting.remove(&(cores, id));
            }
        }
    }

    fn reprioritized(&mut self, _jobs: Vec<(u64, u64)>) {}

    fn schedule(&mut self, _host: &dyn Host, pool: &dyn Pool, _changes: Changes) -> bool {
        while let Some((&(cores, id), ())) = self.waiting.first_key_value() {
            match pool.allocate(id) {
                Ok(()) | Err(AllocFailure::NotPending) => {
                    self.waiting.remove(&(cores, id));
                    self.size.remove(&id);
                }
                Err(AllocFailure::Budget) => return true,
                Err(AllocFailure::Busy | AllocFailure::Unavailable) => return false,
            }
        }
        false
    }
}
