//! Random histories against every scheduler component, with traps at random calls: an independent model says whether a decision is allowed.
//!
//! No core is held twice, allocations fit their requests and are up; under fcfs the head never waits while it fits; no planning scheduler
//! delays the head. `FLUX_PROPERTY_EVENTS` sets how many events each scheduler gets, `FLUX_PROPERTY_SEED` repeats a run.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "helpers of tests may fail the test"
)]

mod common;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use common::policies;
use common::sched::{free, send, submit_request};
use flux_formats::idset::IdSet;
use flux_policy::pool::{Constraint, Request};
use flux_policy::{HostConfig, PluginSpec, PolicyHost, SchedAnswer, SchedCommand, World};
use serde_json::{Value, json};

const NODES: u32 = 6;
const CORES: u32 = 4;
/// Events of one history; then everything starts anew with another configuration.
const HISTORY: usize = 400;

/// A small generator, good enough for choices.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.next(of.len() as u64)).unwrap()]
    }
}

#[derive(Clone)]
struct Job {
    priority: u64,
    request: Request,
    /// Nodes that its constraint allows.
    allowed: Vec<u32>,
}

/// Job, R, place in the order.
type Granted = (u64, String, Option<(Reverse<u64>, u64)>);

#[derive(Clone)]
struct Running {
    end: f64,
    cores: Vec<(u32, u32)>,
}

/// What is true, kept apart from the pool.
#[derive(Clone, Default)]
struct Model {
    pending: BTreeMap<u64, Job>,
    running: BTreeMap<u64, Running>,
    down: BTreeSet<u32>,
    /// Nodes are given whole, by the placement.
    whole: bool,
}

impl Model {
    /// Returns the free cores of nodes that are up when all jobs have ended that end by `time`.
    fn free_at(&self, time: f64) -> BTreeMap<u32, u32> {
        let mut free: BTreeMap<u32, u32> = (0..NODES)
            .filter(|node| !self.down.contains(node))
            .map(|node| (node, CORES))
            .collect();
        for running in self.running.values().filter(|running| running.end > time) {
            for (node, _) in &running.cores {
                if let Some(left) = free.get_mut(node) {
                    *left -= 1;
                }
            }
        }
        free
    }

    fn fits_at(&self, job: &Job, time: f64) -> bool {
        let free = self.free_at(time);
        let exclusive = job.request.exclusive || self.whole;
        let usable = job
            .allowed
            .iter()
            .filter_map(|node| free.get(node))
            .filter(|left| !exclusive || **left == CORES);
        let slot = job.request.cores_per_slot;
        if job.request.nnodes > 0 {
            let each = slot * job.request.slots_per_node();
            usable.filter(|left| **left >= each).count() >= job.request.nnodes as usize
        } else {
            usable.map(|left| left / slot).sum::<u32>() >= job.request.nslots
        }
    }

    /// Returns when a job could start if nobody else started; none when that is never.
    fn shadow(&self, job: &Job, now: f64) -> Option<f64> {
        let mut times: Vec<f64> = self
            .running
            .values()
            .map(|running| running.end.max(now))
            .filter(|end| end.is_finite())
            .collect();
        times.push(now);
        times.sort_by(f64::total_cmp);
        // a job that is overdue holds its cores still
        let mut model = self.clone();
        model
            .running
            .values_mut()
            .for_each(|running| running.end = running.end.max(now));
        times.into_iter().find(|time| model.fits_at(job, *time))
    }

    fn head(&self) -> Option<(u64, &Job)> {
        self.pending
            .iter()
            .min_by_key(|(id, job)| (Reverse(job.priority), **id))
            .map(|(id, job)| (*id, job))
    }

    /// Books an allocation after checking it.
    fn allocate(&mut self, id: u64, r: &str, now: f64) {
        let job = self.pending.remove(&id).expect("only pending jobs get resources");
        let r: Value = serde_json::from_str(r).unwrap();
        let mut cores = Vec::new();
        let mut slots = 0;
        let mut nodes = 0;
        for entry in r["execution"]["R_lite"].as_array().unwrap() {
            let of: IdSet = entry["children"]["core"].as_str().unwrap().parse().unwrap();
            for node in &entry["rank"].as_str().unwrap().parse::<IdSet>().unwrap() {
                assert!(
                    !self.down.contains(&node),
                    "job {id} got node {node}, which is down"
                );
                assert!(
                    job.allowed.contains(&node),
                    "job {id} got node {node}, which its constraint excludes"
                );
                nodes += 1;
                slots += u32::try_from(of.count()).unwrap() / job.request.cores_per_slot;
                cores.extend(of.iter().map(|core| (node, core)));
                if job.request.exclusive || self.whole {
                    assert_eq!(of.count(), u64::from(CORES), "job {id} shares node {node}");
                }
            }
        }
        assert!(slots >= job.request.nslots, "job {id} got {slots} slots: {r}");
        assert!(
            job.request.nnodes == 0 || nodes == job.request.nnodes,
            "job {id} got {nodes} nodes"
        );
        for (holder, running) in &self.running {
            let twice = running.cores.iter().find(|core| cores.contains(core));
            assert!(
                twice.is_none(),
                "core {twice:?} of job {holder} was given to job {id}"
            );
        }
        let end = if job.request.duration_secs > 0.0 {
            now + job.request.duration_secs
        } else {
            f64::INFINITY
        };
        self.running.insert(id, Running { end, cores });
    }
}

fn random_job(random: &mut Random) -> Job {
    let cores_per_slot = u32::try_from(1 + random.next(2)).unwrap();
    let nnodes = u32::try_from(random.next(2) * random.next(5)).unwrap();
    let nslots = if nnodes > 0 {
        nnodes * u32::try_from(1 + random.next(2)).unwrap()
    } else {
        u32::try_from(1 + random.next(10)).unwrap()
    };
    let ranks = random.pick(&["", "", "", "0-2", "3-5"]);
    let allowed = if ranks.is_empty() {
        (0..NODES).collect()
    } else {
        ranks.parse::<IdSet>().unwrap().iter().collect()
    };
    let constraint = (!ranks.is_empty()).then(|| Constraint::from_json(&json!({"ranks": [ranks]})).unwrap());
    let request = Request {
        nnodes,
        nslots,
        cores_per_slot,
        exclusive: nnodes > 0 && random.next(4) == 0,
        duration_secs: random.pick(&[10.0, 25.0, 60.0, 60.5, 200.0, 1000.0, 0.0]),
        constraint,
        ..Request::default()
    };
    Job {
        priority: 14 + random.next(4),
        request,
        allowed,
    }
}

/// One history of one scheduler.
struct History {
    host: PolicyHost,
    model: Model,
    random: Random,
    policy: &'static str,
    /// All jobs in one queue: then there is one head.
    one_queue: bool,
    now: f64,
    next_id: u64,
    given_up: bool,
    note: String,
    /// In this step.
    cancelled: BTreeSet<u64>,
}

impl History {
    fn new(policy: &'static str, random: Random) -> History {
        let mut random = random;
        let placement = random.pick(&["worstfit", "first", "low", "high", "lonodex", "hinodex"]);
        let trapping = random.next(2) == 0;
        let config = json!({"trapping": {"policy": policy}, "sched-simple": {"match-policy": placement, "reservation-depth": 3,
            "queue-depth": 8, "annotate-pending": random.next(2) == 0}});
        let name = if trapping {
            "sched-trapping".to_owned()
        } else {
            format!("sched-{policy}")
        };
        let host = PolicyHost::inline(HostConfig {
            dir: policies(trapping),
            scheduler: Some(PluginSpec::new(name, World::Scheduler)),
            config: config.to_string().into(),
            ..HostConfig::default()
        })
        .unwrap();
        let whole = placement.ends_with('x');
        let one_queue = random.next(3) > 0;
        History {
            host,
            model: Model {
                whole,
                ..Model::default()
            },
            random,
            policy,
            one_queue,
            now: 0.0,
            next_id: 1,
            given_up: false,
            note: String::new(),
            cancelled: BTreeSet::new(),
        }
    }

    fn some(&mut self, ids: Vec<u64>) -> Option<u64> {
        (!ids.is_empty()).then(|| self.random.pick(&ids))
    }

    /// Makes one event, in the model and as a command.
    fn event(&mut self) -> Option<SchedCommand> {
        match self.random.next(16) {
            0..=5 => {
                let job = random_job(&mut self.random);
                let id = self.next_id;
                self.next_id += 1;
                let queue = if self.one_queue {
                    ""
                } else {
                    self.random.pick(&["a", "b"])
                };
                let command = submit_request(id, job.priority, queue, job.request.clone());
                self.model.pending.insert(id, job);
                Some(command)
            }
            6..=10 => {
                let overdue = self
                    .model
                    .running
                    .iter()
                    .filter(|(_, running)| running.end <= self.now)
                    .map(|(id, _)| *id)
                    .collect();
                let any = self.model.running.keys().copied().collect();
                let id = match self.some(overdue) {
                    Some(id) => id,
                    None => self.some(any)?,
                };
                self.model.running.remove(&id);
                Some(free(id))
            }
            11 => {
                let id = self.some(self.model.pending.keys().copied().collect())?;
                self.model.pending.remove(&id);
                self.cancelled.insert(id);
                Some(SchedCommand::Cancel { id })
            }
            12 => {
                let id = self.some(self.model.pending.keys().copied().collect())?;
                let priority = 14 + self.random.next(6);
                self.model.pending.get_mut(&id).unwrap().priority = priority;
                Some(SchedCommand::Prioritize(vec![(id, priority)]))
            }
            13 => {
                let node = u32::try_from(self.random.next(u64::from(NODES))).unwrap();
                self.model.down.insert(node);
                Some(SchedCommand::Down(IdSet::from(node)))
            }
            _ => {
                let node = u32::try_from(self.random.next(u64::from(NODES))).unwrap();
                self.model.down.remove(&node);
                Some(SchedCommand::Up(IdSet::from(node)))
            }
        }
    }

    fn step(&mut self) -> usize {
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let pause = self.random.next(300) as f64 / 10.0;
        self.now += pause;
        self.cancelled.clear();
        let count = 1 + self.random.next(5);
        let commands: Vec<_> = (0..count).filter_map(|_| self.event()).collect();
        let events = commands.len();
        let (answers, logs) = send(&mut self.host, self.now, commands);
        self.note = format!("{events} events, logs {logs:?}");
        self.given_up |= logs.iter().any(|log| log.message.contains("going on without it"));
        let before = self.model.clone();
        let mut granted = Vec::new();
        for answer in answers {
            match answer {
                SchedAnswer::Alloc { id, r, .. } => {
                    granted.push((
                        id,
                        r.clone(),
                        self.model.pending.get(&id).map(|job| (Reverse(job.priority), id)),
                    ));
                    self.model.allocate(id, &r, self.now);
                }
                SchedAnswer::Deny { id, .. } => {
                    // it may have been cancelled in the same breath
                    let known = self.model.pending.remove(&id).is_some() || self.cancelled.contains(&id);
                    assert!(known, "job {id} was answered twice");
                }
                SchedAnswer::Cancelled { .. } | SchedAnswer::Annotate { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if self.one_queue {
            self.check_head(before, granted);
        }
        events
    }

    fn check_head(&self, mut without: Model, granted: Vec<Granted>) {
        let Some((id, head)) = self.model.head() else {
            return;
        };
        let place = Some((Reverse(head.priority), id));
        if self.policy == "fcfs" || self.given_up {
            assert!(
                !self.model.fits_at(head, f64::NEG_INFINITY),
                "job {id} waits although it fits: {:?} of {:?}, {}",
                head.request,
                self.model.free_at(f64::NEG_INFINITY),
                self.note
            );
        }
        if self.policy == "fcfs" {
            assert!(
                granted.iter().all(|(_, _, other)| *other < place),
                "somebody passed job {id}"
            );
        }
        for (other, r, _) in granted.iter().filter(|(_, _, other)| *other < place) {
            without.allocate(*other, r, self.now);
        }
        let promised = without.shadow(head, self.now);
        let real = self.model.shadow(head, self.now);
        assert!(
            promised.is_none_or(|promised| real.is_some_and(|real| real <= promised)),
            "job {id} is first, could start at {promised:?} and was delayed to {real:?} at {}",
            self.now
        );
    }
}

fn define_all() -> SchedCommand {
    common::sched::define(NODES, CORES)
}

fn run(policy: &'static str) {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let events_max = usize::try_from(number("FLUX_PROPERTY_EVENTS", 6_000)).unwrap();
    let seed = number("FLUX_PROPERTY_SEED", u64::from(std::process::id()) * 7919 + 1);
    eprintln!("{policy}: FLUX_PROPERTY_SEED={seed}");
    let mut random = Random(seed | 1);
    let mut events = 0;
    while events < events_max {
        let mut history = History::new(policy, Random(random.next(u64::MAX) | 1));
        send(&mut history.host, 0.0, vec![define_all()]);
        let mut of_this = 0;
        while of_this < HISTORY {
            of_this += history.step();
        }
        events += of_this;
    }
    eprintln!("{policy}: {events} events");
}

#[test]
fn fcfs_keeps_its_promises() {
    run("fcfs");
}

#[test]
fn easy_keeps_its_promises() {
    run("easy");
}

#[test]
fn conservative_keeps_its_promises() {
    run("conservative");
}

#[test]
fn hybrid_keeps_its_promises() {
    run("hybrid");
}
