//! Stand-ins for the broker, for a policy's unit tests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use crate::host::{Host, Level};
use crate::jobtap::{Bypass, Exec, JobtapHost};
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
    /// What a jobtap plugin asked for, one line each, such as `dependency-add 7 singleton`.
    pub wishes: RefCell<Vec<String>>,
    /// A jobtap plugin's state.
    pub state: RefCell<std::collections::BTreeMap<String, String>>,
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

impl FakeHost {
    /// Returns what was asked for since the last call.
    pub fn take_wishes(&self) -> Vec<String> {
        std::mem::take(&mut self.wishes.borrow_mut())
    }

    fn wish(&self, line: String) {
        self.wishes.borrow_mut().push(line);
    }
}

impl JobtapHost for FakeHost {
    fn dependency_add(&self, job: u64, description: &str) {
        self.wish(format!("dependency-add {job} {description}"));
    }

    fn dependency_remove(&self, job: u64, description: &str) {
        self.wish(format!("dependency-remove {job} {description}"));
    }

    fn prioritize(&self, job: u64, priority: u64) {
        self.wish(format!("prioritize {job} {priority}"));
    }

    fn reprioritize(&self, job: u64) {
        self.wish(format!("reprioritize {job}"));
    }

    fn reprioritize_all(&self) {
        self.wish("reprioritize-all".to_owned());
    }

    fn annotate(&self, job: u64, annotations: &str) {
        self.wish(format!("annotate {job} {annotations}"));
    }

    fn raise(&self, job: u64, kind: &str, severity: u8, note: &str) {
        self.wish(format!("raise {job} {kind} {severity} {note}"));
    }

    fn set_flag(&self, job: u64, flag: &str) {
        self.wish(format!("set-flag {job} {flag}"));
    }

    fn post(&self, job: u64, name: &str, context: &str) {
        self.wish(format!("post {job} {name} {context}"));
    }

    fn update_jobspec(&self, job: u64, updates: &str) {
        self.wish(format!("update-jobspec {job} {updates}"));
    }

    fn subscribe(&self, job: u64) {
        self.wish(format!("subscribe {job}"));
    }

    fn unsubscribe(&self, job: u64) {
        self.wish(format!("unsubscribe {job}"));
    }

    fn prolog_start(&self, job: u64, description: &str) {
        self.wish(format!("prolog-start {job} {description}"));
    }

    fn prolog_finish(&self, job: u64, description: &str, status: i32) {
        self.wish(format!("prolog-finish {job} {description} {status}"));
    }

    fn epilog_start(&self, job: u64, description: &str) {
        self.wish(format!("epilog-start {job} {description}"));
    }

    fn epilog_finish(&self, job: u64, description: &str, status: i32) {
        self.wish(format!("epilog-finish {job} {description} {status}"));
    }

    fn look_up(&self, job: u64) -> u64 {
        self.wish(format!("look-up {job}"));
        1
    }

    fn set_timer(&self, key: &str, at: f64) {
        self.wish(format!("timer {key} {at}"));
    }

    fn cancel_timer(&self, key: &str) {
        self.wish(format!("timer-cancel {key}"));
    }

    fn state_get(&self, key: &str) -> Option<String> {
        self.state.borrow().get(key).cloned()
    }

    fn state_set(&self, key: &str, value: &str) {
        self.state.borrow_mut().insert(key.to_owned(), value.to_owned());
    }

    fn state_remove(&self, key: &str) {
        self.state.borrow_mut().remove(key);
    }

    fn state_keys(&self) -> Vec<String> {
        self.state.borrow().keys().cloned().collect()
    }
}

impl Exec for FakeHost {
    fn spawn(&self, job: u64, command: &[String], options: &[(String, String)]) -> u64 {
        self.wish(format!("spawn {job} {} {options:?}", command.join(" ")));
        1
    }

    fn kill(&self, token: u64, signum: u32) {
        self.wish(format!("kill {token} {signum}"));
    }
}

impl Bypass for FakeHost {
    fn set_resources(&self, job: u64, r: &str) {
        self.wish(format!("set-resources {job} {r}"));
    }
}

/// A job.
#[derive(Clone, Debug, Default)]
pub struct FakeJob {
    /// Id.
    pub id: u64,
    /// State bit.
    pub state: u32,
    /// Events that were posted.
    pub posted: Vec<&'static str>,
    /// Result.
    pub result: u32,
    /// The event that ended it.
    pub ended_by: &'static str,
    /// R.
    pub r: Option<String>,
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
        self.id
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

    fn attribute(&self, path: &str) -> Option<String> {
        let jobspec: Value = serde_json::from_str(&self.jobspec).ok()?;
        path.split('.')
            .try_fold(&jobspec, |value, key| value.get(key))
            .map(Value::to_string)
    }

    fn state(&self) -> u32 {
        self.state
    }

    fn priority(&self) -> i64 {
        -1
    }

    fn t_submit(&self) -> f64 {
        0.0
    }

    fn resources(&self) -> Option<String> {
        self.r.clone()
    }

    fn posted(&self, event: &str) -> bool {
        self.posted.contains(&event)
    }

    fn result(&self) -> u32 {
        self.result
    }

    fn ended_by(&self) -> String {
        self.ended_by.to_owned()
    }
}

/// A plan of the [`FakePool`]: job, start, cores.
pub type FakePlan = (u64, Option<f64>, u64);
/// All plans, shared by the handles that undo them.
pub type Plans = Rc<RefCell<Vec<FakePlan>>>;

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
    /// Plans.
    pub plans: Plans,
}

/// Removes a plan when dropped.
struct Kept {
    plans: Plans,
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
        let hinders = |plan: &&FakePlan| plan.0 != id && plan.1.is_none_or(|start| start < end);
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
