//! A scheduler that does its work (`trapping.policy` of the configuration: fcfs, easy, conservative, hybrid) and traps at calls that the
//! time of the event chooses; an instance that was just made for a replay goes through with the same event.

use flux_policy_sdk::{
    AllocFailure, Changes, Counts, Host, Pending, Placement, Plan, Pool, Refusal, Scheduler,
};
use flux_sched_core::{Backfill, Kind};

flux_policy_sdk::export_scheduler!(Trapping);

/// The policy.
#[derive(Debug)]
pub struct Trapping {
    inner: Backfill,
    /// The instance learnt all jobs from a replay that it has not survived for a whole event yet.
    replayed: bool,
    calm: Option<f64>,
}

impl Scheduler for Trapping {
    fn configure(host: &dyn Host) -> Result<Self, Refusal> {
        let kind = match host.config("trapping.policy").as_deref() {
            Some("\"easy\"") => Kind::Easy,
            Some("\"conservative\"") => Kind::Conservative,
            Some("\"hybrid\"") => Kind::Hybrid,
            _ => Kind::Fcfs,
        };
        Ok(Trapping {
            inner: Backfill::configure(host, kind)?,
            replayed: false,
            calm: None,
        })
    }

    fn submitted(&mut self, jobs: Vec<Pending>, replay: bool) {
        self.replayed |= replay;
        self.inner.submitted(&jobs);
    }

    fn removed(&mut self, ids: Vec<u64>) {
        self.inner.removed(&ids);
    }

    fn reprioritized(&mut self, jobs: Vec<(u64, u64)>) {
        self.inner.reprioritized(&jobs);
    }

    fn schedule(&mut self, host: &dyn Host, pool: &dyn Pool, changes: Changes) -> bool {
        let now = host.now();
        if std::mem::take(&mut self.replayed) {
            self.calm = Some(now);
        }
        // the multiplier spreads neighbouring times
        let dice = now.to_bits().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let trapping = TrappingPool {
            pool,
            left: (dice < 40 && self.calm != Some(now)).then(|| std::cell::Cell::new(dice % 5)),
        };
        trapping.step();
        self.inner.schedule(&trapping, changes)
    }
}

/// A pool whose use traps after some calls.
struct TrappingPool<'a> {
    pool: &'a dyn Pool,
    left: Option<std::cell::Cell<u64>>,
}

impl TrappingPool<'_> {
    fn step(&self) {
        if let Some(left) = &self.left {
            match left.get().checked_sub(1) {
                Some(rest) => left.set(rest),
                None => std::process::abort(),
            }
        }
    }
}

impl Pool for TrappingPool<'_> {
    fn allocate(&self, id: u64) -> Result<(), AllocFailure> {
        let result = self.pool.allocate(id);
        self.step();
        result
    }

    fn allocate_placed(&self, id: u64, placement: Placement) -> Result<(), AllocFailure> {
        self.pool.allocate_placed(id, placement)
    }

    fn count(&self) -> Counts {
        self.pool.count()
    }

    fn query(&self, constraint: &str) -> Result<Counts, String> {
        self.pool.query(constraint)
    }

    fn earliest(&self, id: u64, after: f64) -> Result<Option<f64>, AllocFailure> {
        self.pool.earliest(id, after)
    }

    fn reserve(&self, id: u64, at: Option<f64>) -> Result<Plan, AllocFailure> {
        let plan = self.pool.reserve(id, at);
        self.step();
        plan
    }

    fn queue_name(&self, number: u32) -> String {
        self.pool.queue_name(number)
    }
}
