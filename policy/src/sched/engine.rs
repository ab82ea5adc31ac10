//! How are commands applied, the policy asked and its failures survived?
//!
//! The engine holds everything that matters (resources, pending jobs); the policy holds only an order, which is replayed into a new instance
//! after a trap. When traps repeat, the engine goes on without it in strict order of priority and id.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use flux_formats::idset::IdSet;
use serde_json::Value;

use crate::error::PolicyError;
use crate::guest::{Changes, Configuration, Failure, Function, Functions, Guest, Pending};
use crate::host::LogRecord;
use crate::pool::{Request, ResourcePool};

use super::message::{SchedAnswer, SchedCommand, Submit};
use super::settings::Settings;
use super::slot::Trusted;

/// So many lost instances within [`TRAP_WINDOW_SECS`] end the use of a policy.
const TRAPS_MAX: usize = 5;
/// In seconds of event time.
const TRAP_WINDOW_SECS: f64 = 60.0;
/// Jobs that the built-in order looks at in one step.
const NATIVE_STEP: u32 = 64;
/// Calls in a row that may plan and decide nothing.
const ONLY_PLANNED_MAX: u32 = 1000;

/// The scheduler: trusted resources and queue, and the policy that orders it.
pub struct SchedEngine {
    trusted: Box<Trusted>,
    guest: Option<Guest>,
    /// Times of the latest traps.
    trapped: Vec<f64>,
    /// What the policy must be told before it is asked again.
    news: Vec<News>,
    changes: Changes,
    /// True while resources are not known.
    undefined: bool,
    more: bool,
    /// Calls in a row that planned and decided nothing.
    only_planned: u32,
    /// What the site should know of its settings was said.
    noted: bool,
    logs: Vec<LogRecord>,
}

/// One thing to tell the policy; neighbours of a kind are told together.
enum News {
    Submitted(Vec<Pending>, bool),
    Removed(Vec<u64>),
    Reprioritized(Vec<(u64, u64)>),
}

impl SchedEngine {
    /// Returns an engine without a policy: strict order of priority, then id.
    pub fn native() -> SchedEngine {
        SchedEngine {
            trusted: Box::default(),
            guest: None,
            trapped: Vec::new(),
            news: Vec::new(),
            changes: Changes::default(),
            undefined: true,
            more: false,
            only_planned: 0,
            noted: false,
            logs: Vec::new(),
        }
    }

    /// Returns an engine with a policy.
    pub(crate) fn with_policy(guest: Guest) -> SchedEngine {
        SchedEngine {
            guest: Some(guest),
            ..SchedEngine::native()
        }
    }

    /// Applies a batch at `now` (seconds since the epoch) and asks the policy once. Then [`more`](Self::more) is to be called until it
    /// returns false.
    pub fn run(&mut self, now: f64, commands: Vec<SchedCommand>, answers: &mut Vec<SchedAnswer>) {
        self.trusted.now = now;
        for command in commands {
            self.apply(command);
        }
        self.more = true;
        self.more(answers);
    }

    /// Goes on with scheduling, a bounded step; returns true while there is more to do.
    pub fn more(&mut self, answers: &mut Vec<SchedAnswer>) -> bool {
        if self.more {
            self.more = self.step();
            if !self.more {
                self.only_planned = 0;
                self.annotate();
            }
        }
        answers.append(&mut self.trusted.answers);
        self.more
    }

    /// Returns how many jobs wait.
    pub fn pending_count(&self) -> usize {
        self.trusted.pending.len()
    }

    /// Returns the resources.
    pub fn pool(&self) -> &ResourcePool {
        &self.trusted.pool
    }

    /// Gives the policy a configuration.
    pub(crate) fn configure(
        &mut self,
        configuration: Arc<Configuration>,
        now: f64,
    ) -> Result<(), PolicyError> {
        self.set(&configuration.value)?;
        let Some(guest) = self.guest.as_mut() else {
            return Ok(());
        };
        if guest.is_lost() {
            self.news = vec![replay(&mut self.trusted)];
        }
        let result = guest.configure(configuration, now);
        guest.rest();
        guest.take_logs(&mut self.logs);
        if matches!(result, Err(PolicyError::Trapped { .. })) {
            self.on_trap();
        }
        self.more = true;
        result
    }

    /// Takes what the trusted side needs of a configuration.
    ///
    /// # Errors
    /// [`PolicyError::Settings`] when a value cannot be used; then nothing changes.
    pub(crate) fn set(&mut self, config: &Value) -> Result<(), PolicyError> {
        let mut notes = Vec::new();
        let settings = Settings::read(config, &mut notes).map_err(PolicyError::Settings)?;
        let same = settings == self.trusted.settings;
        self.trusted.pool.set_placement(settings.default_placement());
        self.trusted.settings = settings;
        if !same || !self.noted {
            let plugin: Arc<str> = Arc::from("sched");
            self.logs.extend(notes.into_iter().map(|message| LogRecord {
                plugin: plugin.clone(),
                level: 4,
                message,
            }));
        }
        self.noted = true;
        Ok(())
    }

    /// Moves what is to be logged to `out`.
    pub(crate) fn take_logs(&mut self, out: &mut Vec<LogRecord>) {
        out.append(&mut self.logs);
    }

    fn apply(&mut self, command: SchedCommand) {
        let trusted = &mut self.trusted;
        match command {
            SchedCommand::Define { r } => self.define(&r),
            SchedCommand::Up(ranks) => {
                trusted.pool.up(&ranks);
                self.changes |= Changes::RESOURCES;
            }
            SchedCommand::Down(ranks) => {
                trusted.pool.down(&ranks);
                self.changes |= Changes::RESOURCES;
            }
            SchedCommand::Shrink(ranks) => self.shrink(&ranks),
            SchedCommand::Expiration(time) => trusted.pool.set_expiration(time),
            SchedCommand::Adopt { id, r } => self.adopt(id, &r),
            SchedCommand::Submit(job) => self.submit(job),
            SchedCommand::Cancel { id } => {
                if trusted.forget(id) {
                    trusted.answers.push(SchedAnswer::Cancelled { id });
                    self.tell_removed(id);
                }
            }
            SchedCommand::Prioritize(jobs) => self.prioritize(jobs),
            SchedCommand::Free { id, ranks } => {
                trusted.pool.free(id, ranks.as_ref());
                self.changes |= Changes::RESOURCES;
            }
            SchedCommand::Extend { id, expiration } => {
                trusted.pool.set_job_expiration(id, expiration);
                self.changes |= Changes::RESOURCES;
            }
            SchedCommand::CheckFeasible { token, request } => {
                let result = trusted
                    .pool
                    .check_feasible(&request)
                    .map_err(|error| error.to_string());
                trusted.answers.push(SchedAnswer::Feasible { token, result });
            }
            SchedCommand::Status { token } => {
                let pool = &trusted.pool;
                let (all, down, allocated) = (pool.all_r(), pool.down_r(), pool.allocated_r());
                trusted.answers.push(SchedAnswer::Status {
                    token,
                    all,
                    down,
                    allocated,
                });
            }
        }
    }

    fn define(&mut self, r: &str) {
        let parsed = serde_json::from_str::<Value>(r).map_err(|error| error.to_string());
        let pool = parsed.and_then(|r| ResourcePool::from_r(&r).map_err(|error| error.to_string()));
        let answer = match pool {
            Ok(pool) => {
                self.trusted.pool = pool;
                let placement = self.trusted.settings.default_placement();
                self.trusted.pool.set_placement(placement);
                self.undefined = false;
                self.changes |= Changes::RESOURCES;
                self.deny_infeasible();
                Ok(())
            }
            Err(text) => Err(text),
        };
        self.trusted.answers.push(SchedAnswer::Defined(answer));
    }

    fn shrink(&mut self, ranks: &IdSet) {
        self.trusted.pool.shrink(ranks);
        self.changes |= Changes::RESOURCES;
        self.deny_infeasible();
    }

    /// Denies pending jobs that can never be met any more.
    fn deny_infeasible(&mut self) {
        let mut ids: Vec<u64> = self.trusted.pending.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let trusted = &mut *self.trusted;
            let infeasible = trusted
                .pending
                .get(&id)
                .and_then(|job| trusted.pool.check_feasible(&job.request).err());
            if let Some(error) = infeasible {
                trusted.forget(id);
                trusted.answers.push(SchedAnswer::Deny {
                    id,
                    note: error.to_string(),
                });
                self.tell_removed(id);
            }
        }
    }

    fn adopt(&mut self, id: u64, r: &str) {
        let parsed = serde_json::from_str::<Value>(r).map_err(|error| error.to_string());
        let result = parsed.and_then(|r| self.trusted.pool.adopt(id, &r).map_err(|error| error.to_string()));
        if let Err(note) = result {
            self.trusted.answers.push(SchedAnswer::AdoptFailed { id, note });
        }
    }

    fn submit(&mut self, job: Box<Submit>) {
        let trusted = &mut *self.trusted;
        let id = job.id;
        let problem = if trusted.pending.contains_key(&id) || trusted.pool.holds(id) {
            Some(format!("job {id} is known to the scheduler already"))
        } else if self.undefined {
            None
        } else {
            trusted
                .pool
                .check_feasible(&job.request)
                .err()
                .map(|error| error.to_string())
        };
        if let Some(note) = problem {
            trusted.answers.push(SchedAnswer::Deny { id, note });
            return;
        }
        let pending = scalars(trusted, &job);
        trusted.pending.insert(id, job);
        match self.news.last_mut() {
            Some(News::Submitted(jobs, false)) => jobs.push(pending),
            _ => self.news.push(News::Submitted(vec![pending], false)),
        }
        self.changes |= Changes::QUEUE;
    }

    fn prioritize(&mut self, mut jobs: Vec<(u64, u64)>) {
        jobs.retain(|(id, priority)| {
            let job = self.trusted.pending.get_mut(id);
            job.map(|job| job.priority = *priority).is_some()
        });
        if !jobs.is_empty() {
            self.news.push(News::Reprioritized(jobs));
            self.changes |= Changes::QUEUE;
        }
    }

    fn tell_removed(&mut self, id: u64) {
        match self.news.last_mut() {
            Some(News::Removed(ids)) => ids.push(id),
            _ => self.news.push(News::Removed(vec![id])),
        }
        self.changes |= Changes::QUEUE;
    }

    /// Lets the policy, or the built-in order, make some decisions; returns true when there may be more.
    fn step(&mut self) -> bool {
        let changes = std::mem::take(&mut self.changes);
        if self.undefined {
            self.changes = changes;
            return false;
        }
        if self.guest.is_none() {
            self.news.clear();
            return self.step_native();
        }
        if self.trusted.pending.is_empty() && self.guest.as_ref().is_some_and(Guest::is_resting) {
            // nothing to decide: the policy is woken by the first job
            self.news.clear();
            self.changes = changes;
            return false;
        }
        self.trusted.begin();
        match self.ask(changes) {
            Ok(again) => again && self.progress(),
            Err(error) => {
                self.log(3, &error);
                self.on_trap();
                true
            }
        }
    }

    /// Returns true when the last call decided or planned something. Plans alone are progress for some calls only: a policy that makes
    /// and drops them could go on for ever.
    fn progress(&mut self) -> bool {
        if self.trusted.decided > 0 {
            self.only_planned = 0;
            return true;
        }
        self.only_planned += 1;
        self.trusted.planned > 0 && self.only_planned < ONLY_PLANNED_MAX
    }

    /// Tells what users see of waiting jobs.
    fn annotate(&mut self) {
        let trusted = &mut *self.trusted;
        trusted
            .annotator
            .estimates(&trusted.pool, trusted.now, &mut trusted.answers);
        if trusted.settings.annotate_pending {
            trusted.annotator.places(&trusted.pending, &mut trusted.answers);
        }
    }

    /// Tells the policy the news and asks it to schedule.
    fn ask(&mut self, changes: Changes) -> Result<bool, PolicyError> {
        let (Some(guest), now) = (self.guest.as_mut(), self.trusted.now) else {
            return Ok(false);
        };
        if guest.is_lost() {
            self.news = vec![replay(&mut self.trusted)];
        }
        let trusted = &mut self.trusted;
        let mut result = Ok(());
        for news in std::mem::take(&mut self.news) {
            result = lend(guest, trusted, news.function(), now, |store, functions| {
                match (&functions.world, news) {
                    (Function::Schedule(to), News::Submitted(jobs, replay)) => {
                        to.submitted.call(store, (jobs, replay))
                    }
                    (Function::Schedule(to), News::Removed(ids)) => to.removed.call(store, (ids,)),
                    (Function::Schedule(to), News::Reprioritized(jobs)) => {
                        to.reprioritized.call(store, (jobs,))
                    }
                    _ => Ok(()),
                }
            });
            if result.is_err() {
                break;
            }
        }
        let again = result.and_then(|()| {
            lend(
                guest,
                trusted,
                "schedule",
                now,
                |store, functions| match &functions.world {
                    Function::Schedule(to) => to.schedule.call(store, (changes,)).map(|(again,)| again),
                    _ => Ok(false),
                },
            )
        });
        guest.take_logs(&mut self.logs);
        again
    }

    /// Prepares a new instance, or gives the policy up when this happens too often.
    fn on_trap(&mut self) {
        let now = self.trusted.now;
        self.trapped
            .retain(|&time| now - time < TRAP_WINDOW_SECS && now >= time);
        self.trapped.push(now);
        self.changes = Changes::QUEUE | Changes::RESOURCES;
        // the plans' handles went with the instance
        self.trusted.pool.clear_plans();
        if self.trapped.len() < TRAPS_MAX {
            return;
        }
        if let Some(guest) = self.guest.take() {
            let message = format!(
                "failed {} times within {TRAP_WINDOW_SECS} s: going on without it, in order of priority",
                self.trapped.len()
            );
            self.logs.push(LogRecord {
                plugin: guest.name().clone(),
                level: 2,
                message,
            });
        }
    }

    /// Tries jobs in order of priority, then id, until one must wait.
    fn step_native(&mut self) -> bool {
        let mut order: Vec<(Reverse<u64>, u64)> = self
            .trusted
            .pending
            .values()
            .map(|job| (Reverse(job.priority), job.id))
            .collect();
        order.sort_unstable();
        self.trusted.begin();
        for (_, id) in order {
            match self.trusted.allocate(id, None) {
                Err(Failure::Busy | Failure::Unavailable) => return false,
                Err(Failure::Budget) => return true,
                Ok(()) | Err(Failure::NotPending) if self.trusted.decided >= NATIVE_STEP => return true,
                Ok(()) | Err(Failure::NotPending) => {}
            }
        }
        false
    }

    fn log(&mut self, level: u8, error: &PolicyError) {
        if let Some(guest) = &self.guest {
            let message = error.report();
            self.logs.push(LogRecord {
                plugin: guest.name().clone(),
                level,
                message,
            });
        }
    }
}

impl News {
    fn function(&self) -> &'static str {
        match self {
            News::Submitted(..) => "submitted",
            News::Removed(_) => "removed",
            News::Reprioritized(_) => "reprioritized",
        }
    }
}

/// Calls the guest while it can reach the trusted side.
fn lend<R>(
    guest: &mut Guest,
    trusted: &mut Box<Trusted>,
    function: &'static str,
    now: f64,
    call: impl FnOnce(&mut wasmtime::Store<crate::guest::GuestState>, &Functions) -> wasmtime::Result<R>,
) -> Result<R, PolicyError> {
    guest.call(function, now, |store, functions| {
        let slot = &mut store.data_mut().sched;
        for plan in slot.dropped.drain(..) {
            trusted.pool.undo(plan);
        }
        slot.lent = Some(std::mem::take(trusted));
        let result = call(store, functions);
        if let Some(back) = store.data_mut().sched.lent.take() {
            *trusted = back;
        }
        result
    })
}

/// Returns all pending jobs, to be told to a new instance.
fn replay(trusted: &mut Trusted) -> News {
    let pending = std::mem::take(&mut trusted.pending);
    let mut jobs: Vec<Pending> = pending.values().map(|job| scalars(trusted, job)).collect();
    trusted.pending = pending;
    jobs.sort_unstable_by_key(|job| job.id);
    News::Submitted(jobs, true)
}

fn scalars(trusted: &mut Trusted, job: &Submit) -> Pending {
    let Request {
        nnodes,
        nslots,
        cores_per_slot,
        gpus_per_slot,
        exclusive,
        duration_secs,
        ..
    } = job.request;
    Pending {
        id: job.id,
        priority: job.priority,
        userid: job.userid,
        t_submit: job.t_submit,
        nnodes,
        nslots,
        cores_per_slot,
        gpus_per_slot,
        exclusive,
        duration: duration_secs,
        queue: trusted.queue_number(&job.queue),
        class: trusted.class_number(&job.request),
    }
}

impl fmt::Debug for SchedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedEngine")
            .field("policy", &self.guest)
            .field("pending", &self.trusted.pending.len())
            .finish_non_exhaustive()
    }
}
