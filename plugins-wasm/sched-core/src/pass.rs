//! Who starts now, who gets a plan, and when must all be tried anew?
//!
//! A *pass* tries the jobs of all queues in one order. After it every job was tried or stands behind a limit; until resources or the order
//! change only new jobs need to be tried. A pass that reaches the broker's limit for one call goes on where it stopped.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use flux_policy_sdk::{AllocFailure, Changes, Host, Pending, Plan, Pool, Refusal};

use crate::by_id::ById;
use crate::queue::{Place, Waiting};
use crate::settings::{Kind, Rules, Settings};

/// Jobs of a queue that are looked up at once.
const AHEAD: usize = 64;

/// The scheduler.
#[derive(Debug)]
pub struct Backfill {
    kind: Kind,
    settings: Settings,
    waiting: Waiting,
    plans: ById<u64, Plan>,
    /// The last place that has a plan: whoever comes before it changes all that follows.
    last_planned: Option<Place>,
    lines: BTreeMap<u32, Line>,
    /// Jobs that came since they were last tried, in no order.
    fresh: Vec<(Place, u32)>,
    /// All must be tried anew.
    anew: bool,
    /// A pass is under way.
    running: bool,
}

/// How far a queue was tried.
#[derive(Debug)]
struct Line {
    rules: Rules,
    /// Tried to here.
    tried: Option<Place>,
    /// The next to try, first ones last.
    ahead: Vec<Place>,
    /// The shortest time limit with which a job of each class was busy in this pass: resources only get fewer in one.
    busy: ById<u32, f64>,
    /// Waiting jobs that were tried.
    considered: usize,
    plans: usize,
    /// The first job that must wait.
    blocked: Option<Place>,
    /// A class that had jobs to try when it was last looked for.
    open_class: u32,
    /// Nothing of the rest can start or gets a plan in this pass.
    rest_waits: bool,
}

impl Line {
    fn new(rules: Rules) -> Line {
        Line {
            rules,
            tried: None,
            ahead: Vec::new(),
            busy: ById::default(),
            considered: 0,
            plans: 0,
            blocked: None,
            open_class: 0,
            rest_waits: false,
        }
    }

    /// Ends the pass over a queue when all of its other jobs are like one that was busy and nobody else gets a plan: they count as tried.
    fn skip_rest(&mut self, waiting: &mut Waiting, queue: u32) -> bool {
        if self.plans < self.rules.plans_max() || self.busy.is_empty() {
            return false;
        }
        match waiting.open_class(queue, &self.busy, self.open_class) {
            Some(class) => self.open_class = class,
            None => {
                // those that were tried and started do not wait any more
                self.considered = waiting.count(queue).min(self.rules.depth());
                self.rest_waits = true;
            }
        }
        self.rest_waits
    }

    /// Returns true when no further job of the queue may be tried.
    fn is_closed(&self) -> bool {
        self.considered >= self.rules.depth() || (self.rules.is_strict() && self.blocked.is_some())
    }
}

/// What became of one job.
enum Tried {
    Gone,
    Waits,
    Later,
}

impl Backfill {
    /// Makes a scheduler with empty queues.
    ///
    /// # Errors
    /// When the configuration has a value that cannot be used.
    pub fn configure(host: &dyn Host, kind: Kind) -> Result<Backfill, Refusal> {
        Ok(Backfill {
            kind,
            settings: Settings::read(host, kind)?,
            waiting: Waiting::default(),
            plans: ById::default(),
            last_planned: None,
            lines: BTreeMap::new(),
            fresh: Vec::new(),
            anew: true,
            running: false,
        })
    }

    /// Takes a changed configuration.
    ///
    /// # Errors
    /// When it has a value that cannot be used.
    pub fn reconfigure(&mut self, host: &dyn Host) -> Result<(), Refusal> {
        self.settings = Settings::read(host, self.kind)?;
        self.lines.clear();
        self.anew = true;
        Ok(())
    }

    /// Adds jobs.
    pub fn submitted(&mut self, jobs: &[Pending]) {
        for job in jobs {
            let place = self.waiting.insert(job);
            let line = self.lines.get(&job.queue);
            let passes = line.is_some_and(|line| line.blocked.is_some_and(|blocked| place < blocked));
            if passes || self.last_planned.is_some_and(|last| place < last) {
                self.anew = true;
            } else if !self.anew {
                self.fresh.push((place, job.queue));
            }
        }
    }

    /// Removes jobs.
    pub fn removed(&mut self, ids: &[u64]) {
        for &id in ids {
            if self.waiting.remove(id).is_some() {
                // others may have waited for it, or stood beyond the depth because of it
                self.anew = true;
            }
        }
    }

    /// Changes priorities.
    pub fn reprioritized(&mut self, jobs: &[(u64, u64)]) {
        for &(id, priority) in jobs {
            self.anew |= self.waiting.move_to(id, priority);
        }
    }

    /// Starts what can be started; returns true when there is more to do.
    pub fn schedule(&mut self, pool: &dyn Pool, changes: Changes) -> bool {
        if changes.resources || self.anew {
            self.begin();
        }
        if self.running {
            if self.pass(pool) {
                return true;
            }
            self.running = false;
        }
        self.try_fresh(pool)
    }

    /// Starts a pass over all queues.
    fn begin(&mut self) {
        self.anew = false;
        self.running = true;
        // the plan of the very first job hinders only those behind it: it may stay until it is renewed
        let first = self.waiting.first();
        self.plans.retain(|id, _| Some(*id) == first);
        self.last_planned = None;
        self.fresh.clear();
        for line in self.lines.values_mut() {
            *line = Line::new(line.rules);
        }
    }

    /// Tries jobs in order until every queue is closed or at its end; returns true when the broker wants it to go on in another call.
    fn pass(&mut self, pool: &dyn Pool) -> bool {
        let queues: Vec<u32> = self.waiting.queues().collect();
        for &queue in &queues {
            self.line(pool, queue);
        }
        while let Some((place, queue)) = self.next(&queues) {
            match self.attempt(pool, place, queue) {
                Tried::Later => return true,
                Tried::Gone => {
                    self.waiting.remove(place.1);
                    self.plans.remove(&place.1);
                }
                Tried::Waits => {}
            }
            if let Some(line) = self.lines.get_mut(&queue) {
                line.tried = Some(place);
                line.ahead.pop();
            }
        }
        false
    }

    /// Returns the next job of all queues.
    fn next(&mut self, queues: &[u32]) -> Option<(Place, u32)> {
        let mut best: Option<(Place, u32)> = None;
        for queue in queues {
            let Some(line) = self.lines.get_mut(queue) else {
                continue;
            };
            if line.rest_waits || line.is_closed() {
                continue;
            }
            if line.ahead.is_empty() {
                if line.skip_rest(&mut self.waiting, *queue) {
                    continue;
                }
                let room = line.rules.depth() - line.considered;
                self.waiting
                    .next(*queue, line.tried, room.min(AHEAD), &mut line.ahead);
            }
            if let Some(place) = line.ahead.last() {
                let this = (*place, *queue);
                best = Some(best.map_or(this, |best| best.min(this)));
            }
        }
        best
    }

    /// Tries jobs that came since the last pass, behind all that was tried then.
    fn try_fresh(&mut self, pool: &dyn Pool) -> bool {
        // the first ones last
        self.fresh.sort_unstable_by_key(|fresh| Reverse(*fresh));
        self.fresh.dedup();
        while let Some((place, queue)) = self.fresh.pop() {
            if self.line(pool, queue).is_closed() {
                continue;
            }
            match self.attempt(pool, place, queue) {
                Tried::Later => {
                    self.fresh.push((place, queue));
                    return true;
                }
                Tried::Gone => {
                    self.waiting.remove(place.1);
                    self.plans.remove(&place.1);
                }
                Tried::Waits => {}
            }
        }
        false
    }

    fn line(&mut self, pool: &dyn Pool, queue: u32) -> &mut Line {
        let settings = &self.settings;
        self.lines
            .entry(queue)
            .or_insert_with(|| Line::new(settings.rules(&pool.queue_name(queue))))
    }

    /// Tries to start a job, or to plan it.
    fn attempt(&mut self, pool: &dyn Pool, place: Place, queue: u32) -> Tried {
        let id = place.1;
        let (class, limit) = self.waiting.kind_of(id);
        let Some(line) = self.lines.get_mut(&queue) else {
            return Tried::Waits;
        };
        if class == 0 || line.busy.get(&class).is_none_or(|shortest| limit < *shortest) {
            match pool.allocate(id) {
                Ok(()) | Err(AllocFailure::NotPending) => return Tried::Gone,
                Err(AllocFailure::Budget) => return Tried::Later,
                Err(AllocFailure::Busy | AllocFailure::Unavailable) => {}
            }
            line.busy.insert(class, limit);
        }
        if line.plans < line.rules.plans_max() {
            let planned = match self.plans.remove(&id) {
                Some(mut plan) => plan.renew().map(|_| plan),
                None => pool.reserve(id, None),
            };
            match planned {
                Ok(plan) => {
                    line.plans += 1;
                    self.plans.insert(id, plan);
                    self.last_planned = self.last_planned.max(Some(place));
                }
                Err(AllocFailure::Budget) => return Tried::Later,
                Err(AllocFailure::NotPending) => return Tried::Gone,
                // nodes that are down: nobody behind it can delay it
                Err(AllocFailure::Busy | AllocFailure::Unavailable) => {}
            }
        }
        line.considered += 1;
        line.blocked = line.blocked.or(Some(place));
        Tried::Waits
    }
}
