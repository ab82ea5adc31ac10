//! What does the job manager know of one active job, and what must happen next? Pure: no clock, no I/O.
//!
//! [`Job::apply`] takes an event, [`Job::next_step`] says what is to be done now; the driver performs it and asks
//! again. Both are used for live events and for the replay of eventlogs, so a restart comes to the same state.

use super::annotate;
use super::api::JobEvent;
use super::event::{Event, Exception};
use super::state::{self, IllegalEvent, State};
use super::submit::Secrets;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::rpc::job_ingest::flags;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Urgency that holds a job (RFC 30).
pub(super) const URGENCY_HOLD: u8 = 0;
/// Default urgency, and the highest for guests.
pub(super) const URGENCY_DEFAULT: u8 = 16;
/// Urgency that puts a job before all others.
pub(super) const URGENCY_EXPEDITE: u8 = 31;
/// Priority of an expedited job (RFC 30).
pub(super) const PRIORITY_MAX: u64 = 4_294_967_295;

/// Where a job stands with the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alloc {
    /// Not asked for.
    None,
    /// Ready to be sent, in the queue with this priority.
    Queued(u64),
    /// With the scheduler, at this priority.
    Pending(u64),
    /// With the scheduler, which was asked to give it back.
    Cancelling,
}

/// Where a job stands with the execution service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exec {
    /// Not started.
    Idle,
    /// Will be started when the intent (its `alloc` event) is in the KVS.
    Intended,
    /// Started; the last `release` has not come.
    Requested,
    /// Over.
    Done,
}

/// What is known of the priority that plugins give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    /// They were not asked.
    #[default]
    No,
    /// They are being asked.
    Now,
    /// They said this.
    Got(flux_policy::Priority),
}

/// Where a job stands with the jobtap plugins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TapMarks {
    /// Answers without which it takes no step.
    pub(super) waiting: u16,
    /// Bits of states of which plugins know already.
    pub(super) skip: u32,
    /// Its priority in PRIORITY.
    pub(super) priority: Asked,
    /// Events that plugins have posted on it.
    pub(super) posts: u16,
}

/// How a job ended: the first fatal exception or the finish status.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// A fatal exception.
    Exception { kind: String, note: String },
    /// A wait status.
    Finish { status: i32 },
}

/// What is to be done for a job.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Post this event.
    Post(Event),
    /// Put it into the queue for the scheduler.
    Enqueue,
    /// Take it out of that queue.
    Dequeue,
    /// Ask plugins for its priority.
    AskPriority,
    /// Tell the scheduler its new priority.
    Prioritize,
    /// Ask the scheduler to give the request back and wait for that.
    Cancel,
    /// Ask the scheduler to drop the request and go on.
    CancelAndForget,
    /// Start it once its events so far are in the KVS.
    Start,
    /// Forget it once its events so far are in the KVS.
    Retire,
}

/// What a job's next step depends on besides the job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings {
    /// Its queue is started.
    pub(super) queue_started: bool,
    /// The execution service is there.
    pub(super) exec_ready: bool,
    /// Plugins have something to say about its priority.
    pub(super) asks_priority: bool,
}

/// Flags that events set (RFC 21 `set-flags`) and the steps that were taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    /// An owner changed a guest's jobspec without validation: the guest may not change it any more.
    pub(super) immutable: bool,
    /// `start` was seen.
    pub(super) started: bool,
    /// `finish` was seen.
    pub(super) finished: bool,
    /// R is booked with the scheduler.
    pub(super) has_resources: bool,
    /// Shells may exist since before a restart.
    pub(super) reattach: bool,
    /// The request that the scheduler holds is out of date.
    pub(super) request_stale: bool,
    /// A [`Step::Retire`] is under way.
    pub(super) retiring: bool,
    /// The scheduler does not know of its resources.
    pub(super) bypass: bool,
}

/// An active job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) userid: u32,
    pub(super) urgency: u8,
    pub(super) flags: u32,
    /// `None` until a priority event.
    pub(super) priority: Option<u64>,
    pub(super) t_submit: f64,
    pub(super) t_clean: f64,
    pub(super) state: State,
    pub(super) marks: Marks,
    pub(super) alloc: Alloc,
    pub(super) exec: Exec,
    pub(super) tap: TapMarks,
    /// Prologs or epilogs that run.
    pub(super) perilogs: u32,
    /// Queue named in the jobspec.
    pub(super) queue: Option<Rc<str>>,
    /// Without environment.
    pub(super) jobspec: Rc<Value>,
    /// Without `scheduling`.
    pub(super) r: Option<Rc<Value>>,
    /// Kept for the start while there is room.
    pub(super) secrets: Option<Box<Secrets>>,
    pub(super) annotations: Map<String, Value>,
    pub(super) dependencies: BTreeSet<String>,
    /// Ranks released so far.
    pub(super) released: IdSet,
    /// Ranks that the scheduler has got back before the end.
    pub(super) given_back: IdSet,
    pub(super) end: Option<End>,
    /// Its events so far.
    pub(super) events: Vec<JobEvent>,
}

impl Job {
    /// Returns a job before its first event.
    pub(super) fn new(id: JobId, jobspec: Rc<Value>) -> Self {
        let queue = jobspec
            .pointer("/attributes/system/queue")
            .and_then(Value::as_str)
            .map(Rc::from);
        Job {
            id,
            userid: 0,
            urgency: URGENCY_DEFAULT,
            flags: 0,
            priority: None,
            t_submit: 0.0,
            t_clean: 0.0,
            state: State::New,
            marks: Marks::default(),
            alloc: Alloc::None,
            exec: Exec::Idle,
            tap: TapMarks::default(),
            perilogs: 0,
            queue,
            jobspec,
            r: None,
            secrets: None,
            annotations: Map::new(),
            dependencies: BTreeSet::new(),
            released: IdSet::default(),
            given_back: IdSet::default(),
            end: None,
            events: Vec::new(),
        }
    }

    /// Returns true when it was submitted with the flag.
    pub(super) fn has_flag(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Takes an event.
    ///
    /// # Errors
    /// [`IllegalEvent`]; the job is as before.
    pub(super) fn apply(&mut self, event: &Event, timestamp: f64) -> Result<(), IllegalEvent> {
        let before = self.state;
        let after = state::next(before, event.kind())?;
        match event {
            Event::Submit {
                userid,
                urgency,
                flags,
            } => {
                (self.userid, self.urgency, self.flags) = (*userid, *urgency, *flags);
                self.t_submit = timestamp;
            }
            Event::DependencyAdd { description } => {
                self.dependencies.insert(description.clone());
            }
            Event::DependencyRemove { description } => {
                self.dependencies.remove(description);
            }
            Event::Priority { priority } => self.priority = Some(*priority),
            Event::Urgency { urgency, .. } => {
                self.urgency = *urgency;
                self.tap.priority = Asked::No;
            }
            Event::Alloc { annotations, bypass } => {
                self.marks.has_resources = true;
                self.marks.bypass = *bypass;
                if let Some(annotations) = annotations {
                    self.annotations.clone_from(annotations);
                }
            }
            Event::Start => self.marks.started = true,
            Event::Finish { status } => {
                self.marks.finished = true;
                self.end.get_or_insert(End::Finish { status: *status });
            }
            Event::Release { last: true, .. } => self.exec = Exec::Done,
            Event::Free => {
                self.marks.has_resources = false;
                self.exec = Exec::Done;
            }
            Event::Clean => self.t_clean = timestamp,
            Event::PrologStart { .. } | Event::EpilogStart { .. } => self.perilogs += 1,
            Event::PrologFinish { .. } | Event::EpilogFinish { .. } => {
                self.perilogs = self.perilogs.saturating_sub(1);
            }
            Event::Exception(exception) => self.on_exception(exception),
            Event::Memo { values } => annotate::merge_at(&mut self.annotations, "user", values),
            Event::SetFlags { flags } => self.set_flags(flags),
            Event::JobspecUpdate { updates } => {
                self.update_jobspec(updates);
                self.marks.request_stale |= matches!(self.alloc, Alloc::Pending(_));
            }
            Event::ResourceUpdate { expiration } => self.update_expiration(*expiration),
            _ => {}
        }
        self.state = after;
        if after == State::Cleanup && self.exec == Exec::Intended {
            self.exec = Exec::Idle;
        }
        Ok(())
    }

    fn on_exception(&mut self, exception: &Exception) {
        if exception.severity != 0 {
            return;
        }
        // the scheduler could not book the resources again
        if exception.kind == "scheduler-restart" {
            self.marks.has_resources = false;
        }
        self.end.get_or_insert_with(|| End::Exception {
            kind: exception.kind.clone(),
            note: exception.note.clone(),
        });
    }

    fn set_flags(&mut self, names: &[String]) {
        for name in names {
            match name.as_str() {
                "debug" => self.flags |= flags::DEBUG,
                "immutable" => self.marks.immutable = true,
                _ => {}
            }
        }
    }

    fn update_jobspec(&mut self, updates: &Map<String, Value>) {
        let jobspec = Rc::make_mut(&mut self.jobspec);
        for (key, value) in updates {
            set_path(jobspec, key, value);
        }
        self.queue = jobspec
            .pointer("/attributes/system/queue")
            .and_then(Value::as_str)
            .map(Rc::from);
    }

    fn update_expiration(&mut self, expiration: f64) {
        let Some(r) = &mut self.r else { return };
        if let Some(Value::Object(execution)) = Rc::make_mut(r).get_mut("execution") {
            execution.insert("expiration".into(), expiration.into());
        }
    }

    /// Returns the priority that its urgency gives (RFC 30; flux-core `.priority-default`).
    pub(super) fn priority_of_urgency(&self) -> u64 {
        match self.urgency {
            URGENCY_HOLD => 0,
            URGENCY_EXPEDITE => PRIORITY_MAX,
            urgency => urgency.into(),
        }
    }

    /// Returns what must be done now, if anything.
    pub(super) fn next_step(&self, around: Surroundings) -> Option<Step> {
        match self.state {
            State::New => None,
            State::Depend => self.dependencies.is_empty().then_some(Step::Post(Event::Depend)),
            State::Priority => self.priority_step(around),
            State::Sched => self.sched_step(around),
            State::Run => {
                let ready = self.exec == Exec::Idle
                    && self.marks.has_resources
                    && self.perilogs == 0
                    && around.exec_ready;
                ready.then_some(Step::Start)
            }
            State::Cleanup => self.cleanup_step(around),
            State::Inactive => (!self.marks.retiring).then_some(Step::Retire),
        }
    }

    fn priority_step(&self, around: Surroundings) -> Option<Step> {
        let priority = match self.tap.priority {
            Asked::No if around.asks_priority => return Some(Step::AskPriority),
            Asked::Got(flux_policy::Priority::Value(priority)) if !self.has_fixed_priority() => {
                priority.min(PRIORITY_MAX)
            }
            Asked::Got(flux_policy::Priority::Unavailable) | Asked::Now if !self.has_fixed_priority() => {
                return None;
            }
            _ => self.priority_of_urgency(),
        };
        Some(Step::Post(Event::Priority { priority }))
    }

    fn has_fixed_priority(&self) -> bool {
        matches!(self.urgency, URGENCY_HOLD | URGENCY_EXPEDITE)
    }

    fn sched_step(&self, around: Surroundings) -> Option<Step> {
        let priority = self.priority.unwrap_or(0);
        let eligible = priority > 0 && around.queue_started;
        match self.alloc {
            Alloc::None => eligible.then_some(Step::Enqueue),
            Alloc::Queued(known) if !eligible || known != priority => Some(Step::Dequeue),
            Alloc::Pending(_) if !eligible || self.marks.request_stale => Some(Step::Cancel),
            Alloc::Pending(known) if known != priority => Some(Step::Prioritize),
            _ => None,
        }
    }

    fn cleanup_step(&self, around: Surroundings) -> Option<Step> {
        match self.alloc {
            Alloc::Queued(_) => return Some(Step::Dequeue),
            Alloc::Pending(_) | Alloc::Cancelling => return Some(Step::CancelAndForget),
            Alloc::None => {}
        }
        if self.perilogs > 0 || matches!(self.exec, Exec::Requested | Exec::Intended) {
            return None;
        }
        if self.marks.reattach && self.marks.has_resources && self.exec == Exec::Idle {
            // shells of before the restart may use the resources: only who finds them can say that they are gone
            return around.exec_ready.then_some(Step::Start);
        }
        Some(Step::Post(if self.marks.has_resources {
            Event::Free
        } else {
            Event::Clean
        }))
    }

    /// Returns the description of released ranks for the `release` event: `all` when everything goes at once.
    pub(super) fn released_ranks(&mut self, ranks: &IdSet, last: bool) -> String {
        let whole = last && self.released.is_empty();
        self.released = self.released.union(ranks);
        if whole {
            "all".to_owned()
        } else {
            ranks.to_string()
        }
    }
}

/// Sets the value at a dotted path, making objects on the way; null removes.
pub(super) fn set_path(root: &mut Value, path: &str, value: &Value) {
    let mut at = root;
    let mut keys = path.split('.').peekable();
    while let Some(key) = keys.next() {
        let Value::Object(map) = at else { return };
        if keys.peek().is_none() {
            if value.is_null() {
                map.shift_remove(key);
            } else {
                map.insert(key.to_owned(), value.clone());
            }
            return;
        }
        at = map
            .entry(key.to_owned())
            .or_insert_with(|| Value::Object(Map::new()));
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
