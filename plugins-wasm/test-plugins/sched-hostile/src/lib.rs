//! A scheduler that misbehaves as the configuration `hostile.sched` says: `loop`, `bomb`, `recurse`, `trap`, `trap-later`, `lie`, `numbers`, `flood`.

use std::hint::black_box;

use flux_policy_sdk::{Changes, Host, Level, Pending, Pool, Refusal, Scheduler};

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

    fn schedule(&mut self, host: &dyn Host, pool: &dyn Pool, _changes: Changes) -> bool {
        match self.mode.as_str() {
            "loop" => loop {
                black_box(&self.ids);
            },
            "bomb" => {
                let mut hoard: Vec<Vec<u8>> = Vec::new();
                loop {
                    hoard.push(black_box(vec![1; 1 << 20]));
                }
            }
            "recurse" => recurse(black_box(u64::MAX)) == 0,
            "trap" => std::process::abort(),
            "numbers" => {
                numbers(pool, &self.ids);
                self.serve(pool)
            }
            "flood" => {
                for line in 0..100_000 {
                    host.log(Level::Err, &format!("line {line}\nwith a break"));
                }
                self.serve(pool)
            }
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
            _ => self.serve(pool),
        }
    }
}

impl Hostile {
    /// Does what a scheduler should.
    fn serve(&mut self, pool: &dyn Pool) -> bool {
        self.ids.retain(|id| pool.allocate(*id).is_err());
        false
    }
}

/// Asks with numbers and texts that make no sense.
fn numbers(pool: &dyn Pool, ids: &[u64]) {
    let times = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -1.0,
        1e300,
        f64::MIN_POSITIVE,
    ];
    for id in ids.iter().chain([&0, &u64::MAX]) {
        for time in times {
            let _ = pool.earliest(*id, time);
            // dropped at once, and kept
            drop(pool.reserve(*id, Some(time)));
            let _ = pool.reserve(*id, Some(time)).map(std::mem::forget);
        }
    }
    let nested = "[".repeat(100_000);
    for text in [
        "",
        "{",
        "null",
        "{\"ranks\":[\"0-4294967295\"]}",
        "{\"not\":[]}",
        &nested,
    ] {
        let _ = pool.query(text);
    }
    let _ = pool.queue_name(u32::MAX);
}

/// Uses the stack until there is none.
fn recurse(depth: u64) -> u64 {
    let here = black_box([depth; 64]);
    if depth == 0 {
        return 0;
    }
    recurse(depth - 1) + u64::from(here[black_box(7)] == 3)
}
