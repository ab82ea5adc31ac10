//! Stand-ins for the broker, for a policy's unit tests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use crate::host::{Host, Level};
use crate::policy::{AllocFailure, Counts, Job, Placement, Plan, Pool};

/// A broker with a configuration.
#[derive(Debug, Default)]
pub struct FakeHost {
    /// The object of `config.get`.
    pub config: Value,
    /// The plugin's arguments.
    pub args: Value,
    /// The time.
    pub now: f64,
    /// What was logged.
    pub logged: RefCell<Vec<(Level, String)>>,
}

impl FakeHost {
    /// Returns a broker with a configuration and no arguments.
    pub fn new(config: Value) -> FakeHost {
        FakeHost {
            config,
            args: Value::Object(serde_json::Map::new()),
            ..FakeHost::default()
        }
    }
}

impl Host for FakeHost {
    fn log(&self, level: Level, message: &str) {
        self.logged.borrow_mut().push((level, message.to_owned()));
    }

    fn now(&self) -> f64 {
        self.now
    }

    fn config(&self, path: &str) -> Option<String> {
        let keys = path.split('.').filter(|key| !key.is_empty());
        keys.into_iter()
            .try_fold(&self.config, |value, key| value.get(key))
            .map(Value::to_string)
    }

    fn args(&self) -> String {
        self.args.to_string()
    }
}

/// A job.
#[derive(Clone, Debug, Default)]
pub struct FakeJob {
    /// Owner.
    pub userid: u32,
    /// Roles.
    pub rolemask: u32,
    /// Urgency.
    pub urgency: u32,
    /// Submit flags.
    pub flags: u32,
    /// Jobspec text.
    pub jobspec: String,
}

impl FakeJob {
    /// Returns a job with a jobspec.
    pub fn new(jobspec: impl Into<String>) -> FakeJob {
        FakeJob {
            jobspec: jobspec.into(),
            urgency: 16,
            rolemask: 1,
            ..FakeJob::default()
        }
    }
}

impl Job for FakeJob {
    fn id(&self) -> u64 {
        0
    }

    fn userid(&self) -> u32 {
        self.userid
    }

    fn rolemask(&self) -> u32 {
        self.rolemask
    }

    fn urgency(&self) -> u32 {
        self.urgency
    }

    fn flags(&self) -> u32 {
        self.flags
    }

    fn jobspec(&self) -> String {
        self.jobspec.clone()
    }
}

/// Resources as one number of cores; jobs need what the test says, and run as long as it says.
#[derive(Debug, Default)]
pub struct FakePool {
    /// Free cores.
    pub free: RefCell<u64>,
    /// Cores that each pending job needs.
    pub needs: RefCell<HashMap<u64, u64>>,
    /// How long jobs run that the test gives a limit, in seconds; the others for ever.
    pub durations: RefCell<HashMap<u64, f64>>,
    /// The time.
    pub now: RefCell<f64>,
    /// Jobs that run: when they end, and their cores.
    pub running: RefCell<Vec<(f64, u64)>>,
    /// Jobs in the order in which they were started.
    pub started: RefCell<Vec<u64>>,
    /// Allocations and plans that are still allowed in this call; none is no limit.
    pub budget: RefCell<Option<u32>>,
    /// How often `allocate` was called.
    pub asked: RefCell<u32>,
    /// Plans: job, start, cores.
    pub plans: Rc<RefCell<Vec<(u64, Option<f64>, u64)>>>,
}

/// Removes a plan when dropped.
struct Kept {
    plans: Rc<RefCell<Vec<(u64, Option<f64>, u64)>>>,
    id: u64,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.plans.borrow_mut().retain(|plan| plan.0 != self.id);
    }
}

impl Kept {
    /// The plan moves to when the running jobs leave enough.
    fn renew(&self) -> Result<Option<f64>, AllocFailure> {
        let plans = self.plans.borrow();
        let own = plans.iter().find(|plan| plan.0 == self.id);
        own.map(|plan| plan.1).ok_or(AllocFailure::NotPending)
    }
}

impl FakePool {
    fn spend(&self) -> Result<(), AllocFailure> {
        if let Some(budget) = self.budget.borrow_mut().as_mut() {
            *budget = budget.checked_sub(1).ok_or(AllocFailure::Budget)?;
        }
        Ok(())
    }

    fn end(&self, id: u64, start: f64) -> f64 {
        start + self.durations.borrow().get(&id).copied().unwrap_or(f64::INFINITY)
    }
}

impl Pool for FakePool {
    fn allocate(&self, id: u64) -> Result<(), AllocFailure> {
        *self.asked.borrow_mut() += 1;
        let need = *self.needs.borrow().get(&id).ok_or(AllocFailure::NotPending)?;
        let end = self.end(id, *self.now.borrow());
        let hinders =
            |plan: &&(u64, Option<f64>, u64)| plan.0 != id && plan.1.is_none_or(|start| start < end);
        let kept: u64 = self
            .plans
            .borrow()
            .iter()
            .filter(hinders)
            .map(|plan| plan.2)
            .sum();
        // a plan may keep cores that are in use still
        let busy: u64 = self.running.borrow().iter().map(|job| job.1).sum();
        let beside = (*self.free.borrow() + busy)
            .saturating_sub(kept)
            .saturating_sub(busy);
        if need > beside {
            return Err(AllocFailure::Busy);
        }
        self.spend()?;
        *self.free.borrow_mut() -= need;
        self.running.borrow_mut().push((end, need));
        self.needs.borrow_mut().remove(&id);
        self.plans.borrow_mut().retain(|plan| plan.0 != id);
        self.started.borrow_mut().push(id);
        Ok(())
    }

    fn allocate_placed(&self, id: u64, _placement: Placement) -> Result<(), AllocFailure> {
        self.allocate(id)
    }

    fn count(&self) -> Counts {
        Counts {
            nodes_up: 1,
            cores_free: *self.free.borrow(),
            gpus_free: 0,
        }
    }

    fn query(&self, _constraint: &str) -> Result<Counts, String> {
        Ok(self.count())
    }

    fn earliest(&self, id: u64, after: f64) -> Result<Option<f64>, AllocFailure> {
        let need = *self.needs.borrow().get(&id).ok_or(AllocFailure::NotPending)?;
        let mut ends = self.running.borrow().clone();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut have = *self.free.borrow();
        if have >= need {
            return Ok(Some(after));
        }
        for (end, cores) in ends {
            have += cores;
            if have >= need {
                return Ok(end.is_finite().then_some(end.max(after)));
            }
        }
        Err(AllocFailure::Unavailable)
    }

    fn reserve(&self, id: u64, at: Option<f64>) -> Result<Plan, AllocFailure> {
        let now = *self.now.borrow();
        let start = self.earliest(id, at.unwrap_or(now))?;
        if at.is_some() && start > at {
            return Err(AllocFailure::Busy);
        }
        self.spend()?;
        let need = self.needs.borrow().get(&id).copied().unwrap_or(0);
        let mut plans = self.plans.borrow_mut();
        plans.retain(|plan| plan.0 != id);
        plans.push((id, start, need));
        let plans = self.plans.clone();
        Ok(Plan::new(start, Kept { plans, id }, Kept::renew))
    }

    fn queue_name(&self, number: u32) -> String {
        if number == 0 {
            String::new()
        } else {
            format!("queue{number}")
        }
    }
}
