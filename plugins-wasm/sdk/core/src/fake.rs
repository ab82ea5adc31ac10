//! Stand-ins for the broker, for a policy's unit tests.

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::Value;

use crate::host::{Host, Level};
use crate::policy::{AllocFailure, Counts, Job, Pool};

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

/// Resources as one number of cores; jobs need what the test says.
#[derive(Debug, Default)]
pub struct FakePool {
    /// Free cores.
    pub free: RefCell<u64>,
    /// Cores that each pending job needs.
    pub needs: RefCell<HashMap<u64, u64>>,
    /// Jobs in the order in which they were started.
    pub started: RefCell<Vec<u64>>,
    /// Allocations that are still allowed in this call; none is no limit.
    pub budget: RefCell<Option<u32>>,
    /// How often `allocate` was called.
    pub asked: RefCell<u32>,
}

impl Pool for FakePool {
    fn allocate(&self, id: u64) -> Result<(), AllocFailure> {
        *self.asked.borrow_mut() += 1;
        let mut needs = self.needs.borrow_mut();
        let need = *needs.get(&id).ok_or(AllocFailure::NotPending)?;
        let mut free = self.free.borrow_mut();
        let left = free.checked_sub(need).ok_or(AllocFailure::Busy)?;
        if let Some(budget) = self.budget.borrow_mut().as_mut() {
            *budget = budget.checked_sub(1).ok_or(AllocFailure::Budget)?;
        }
        *free = left;
        needs.remove(&id);
        self.started.borrow_mut().push(id);
        Ok(())
    }

    fn count(&self) -> Counts {
        Counts {
            nodes_up: 1,
            cores_free: *self.free.borrow(),
            gpus_free: 0,
        }
    }
}
