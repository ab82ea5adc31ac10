//! A scheduler that misbehaves as the configuration `hostile.sched` says: `loop`, `trap`, `trap-later`, `lie`.

use std::hint::black_box;

use flux_policy_sdk::{Changes, Host, Pending, Pool, Refusal, Scheduler};

flux_policy_sdk::export_scheduler!(Hostile);

/// The policy.
#[derive(Debug, Default)]
pub struct Hostile {
    mode: String,
    ids: Vec<u64>,
}

impl Scheduler for Hostile {
    fn configure(host: &dyn Host) -> Result<Self, Refusal> {
        let mode = host.config("hostile.sched").unwrap_or_default();
        Ok(Hostile {
            mode: mode.trim_matches('"').to_owned(),
            ids: Vec::new(),
        })
    }

    fn reconfigure(&mut self, host: &dyn Host) -> Result<(), Refusal> {
        self.mode = Hostile::configure(host)?.mode;
        Ok(())
    }

    fn submitted(&mut self, jobs: Vec<Pending>, _replay: bool) {
        self.ids.extend(jobs.iter().map(|job| job.id));
    }

    fn removed(&mut self, ids: Vec<u64>) {
        self.ids.retain(|id| !ids.contains(id));
    }

    fn reprioritized(&mut self, _jobs: Vec<(u64, u64)>) {}

    fn schedule(&mut self, _host: &dyn Host, pool: &dyn Pool, _changes: Changes) -> bool {
        match self.mode.as_str() {
            "loop" => loop {
                black_box(&self.ids);
            },
            "trap" => std::process::abort(),
            "trap-later" => {
                // one honest decision, then the end
                if let Some(id) = self.ids.pop() {
                    let _ = pool.allocate(id);
                }
                std::process::abort()
            }
            "lie" => {
                // jobs of nobody, and each job twice
                for id in self.ids.iter().chain([&0, &u64::MAX]).flat_map(|id| [*id, *id]) {
                    let _ = pool.allocate(id);
                }
                true
            }
            _ => {
                for id in std::mem::take(&mut self.ids) {
                    let _ = pool.allocate(id);
                }
                false
            }
        }
    }
}
