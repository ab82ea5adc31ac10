//! How does a scheduler treat a trace? (The broker's own engine and pool, with the trace's events for a clock.)

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use flux_formats::idset::IdSet;
use flux_policy::pool::Request;
use flux_policy::{
    Answer, Command, HostConfig, PluginSpec, PolicyHost, SchedAnswer, SchedCommand, Submit, World,
};
use serde_json::json;

use super::check::{Found, Watch};
use super::trace::{Trace, TraceJob};

/// The machine of a simulation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) nodes: u32,
    /// Of each node.
    pub(crate) cores: u32,
    /// Jobs get whole nodes.
    pub(crate) whole_nodes: bool,
}

/// What became of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// None when it was refused: larger than the machine.
    pub(crate) start: Option<f64>,
    pub(crate) end: f64,
    /// It started while one before it waited.
    pub(crate) passed: bool,
}

/// A simulated trace.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) policy: String,
    pub(crate) outcomes: Vec<Outcome>,
    /// Time, cores in use, jobs that wait.
    pub(crate) course: Vec<(f64, u64, usize)>,
    pub(crate) found: Found,
    pub(crate) wall_secs: f64,
    /// What the policy said, warnings and worse.
    pub(crate) said: Vec<String>,
}

/// Simulates; `config` is the broker's configuration as JSON.
///
/// # Errors
/// When the policy cannot be loaded or gives up, or decides what is impossible.
pub(crate) fn run(dir: &Path, policy: &str, config: &str, machine: Machine, trace: &Trace) -> Result<Run> {
    let name = if policy.starts_with("sched-") {
        policy.to_owned()
    } else {
        format!("sched-{policy}")
    };
    let mut host = PolicyHost::inline(HostConfig {
        dir: dir.to_owned(),
        scheduler: Some(PluginSpec::new(name, World::Scheduler)),
        config: config.into(),
        ..HostConfig::default()
    })
    .with_context(|| format!("cannot load policy '{policy}' from {}", dir.display()))?;
    let units = trace.jobs.iter().map(|job| machine.units(job)).collect();
    let mut sim = Simulation {
        trace,
        machine,
        ends: BinaryHeap::new(),
        outcomes: vec![
            Outcome {
                start: None,
                end: 0.0,
                passed: false
            };
            trace.jobs.len()
        ],
        watch: Watch::new(machine.units_all(), units),
        in_use: 0,
        waiting: 0,
        lowest_waiting: 0,
        course: Vec::new(),
        said: Vec::new(),
        done: vec![false; trace.jobs.len()],
    };
    let started = Instant::now();
    sim.all(&mut host)?;
    Ok(Run {
        policy: policy.to_owned(),
        outcomes: sim.outcomes,
        course: sim.course,
        found: sim.watch.found,
        wall_secs: started.elapsed().as_secs_f64(),
        said: sim.said,
    })
}

impl Machine {
    /// Returns how many nodes, or cores, a job takes.
    fn units(&self, job: &TraceJob) -> u64 {
        u64::from(if self.whole_nodes {
            job.cores.div_ceil(self.cores)
        } else {
            job.cores
        })
    }

    fn units_all(&self) -> u64 {
        if self.whole_nodes {
            self.nodes.into()
        } else {
            self.cores_all()
        }
    }

    pub(crate) fn cores_all(&self) -> u64 {
        u64::from(self.nodes) * u64::from(self.cores)
    }

    /// Returns how many cores a job occupies.
    pub(crate) fn cores_of(&self, job: &TraceJob) -> u64 {
        self.units(job)
            * if self.whole_nodes {
                u64::from(self.cores)
            } else {
                1
            }
    }

    fn request(&self, job: &TraceJob) -> Request {
        let base = Request {
            cores_per_slot: 1,
            duration_secs: job.limit,
            nslots: job.cores,
            ..Request::default()
        };
        if !self.whole_nodes {
            return base;
        }
        let nodes = job.cores.div_ceil(self.cores);
        Request {
            nnodes: nodes,
            nslots: nodes,
            cores_per_slot: self.cores,
            exclusive: true,
            ..base
        }
    }

    fn r(&self) -> String {
        json!({"version": 1, "execution": {
            "R_lite": [{"rank": IdSet::first_n(self.nodes).to_string(), "children": {"core": IdSet::first_n(self.cores).to_string()}}],
            "starttime": 0.0, "expiration": 0.0}})
        .to_string()
    }
}

struct Simulation<'a> {
    trace: &'a Trace,
    machine: Machine,
    ends: BinaryHeap<Reverse<(u64, usize)>>,
    outcomes: Vec<Outcome>,
    watch: Watch,
    in_use: u64,
    waiting: usize,
    /// No job before this one waits.
    lowest_waiting: usize,
    course: Vec<(f64, u64, usize)>,
    said: Vec<String>,
    /// Started or refused.
    done: Vec<bool>,
}

/// Job ids begin at 1: 0 is no job.
fn id_of(job: usize) -> u64 {
    u64::try_from(job).unwrap_or(u64::MAX).saturating_add(1)
}

impl Simulation<'_> {
    fn all(&mut self, host: &mut PolicyHost) -> Result<()> {
        let mut first = Some(SchedCommand::Define {
            r: self.machine.r().into(),
        });
        let mut next = 0;
        loop {
            let submit = self.trace.jobs.get(next).map(|job| job.submit);
            let end = self.ends.peek().map(|Reverse((bits, _))| f64::from_bits(*bits));
            let now = match (submit, end) {
                (None, None) => break,
                (Some(submit), None) => submit,
                (None, Some(end)) => end,
                (Some(submit), Some(end)) => submit.min(end),
            };
            let mut batch: Vec<_> = first.take().into_iter().collect();
            self.end_jobs(now, &mut batch);
            while let Some(job) = self.trace.jobs.get(next).filter(|job| job.submit <= now) {
                batch.push(SchedCommand::Submit(Box::new(Submit {
                    id: id_of(next),
                    priority: 16,
                    userid: job.user,
                    t_submit: job.submit,
                    queue: "".into(),
                    request: self.machine.request(job),
                })));
                self.watch.on_submit(next);
                self.waiting += 1;
                next += 1;
            }
            self.ask(host, now, batch)?;
            self.course.push((now, self.in_use, self.waiting));
        }
        ensure!(
            self.waiting == 0,
            "the policy left {} jobs waiting although nothing runs any more",
            self.waiting
        );
        Ok(())
    }

    fn end_jobs(&mut self, now: f64, batch: &mut Vec<SchedCommand>) {
        while let Some(&Reverse((bits, job))) = self.ends.peek() {
            if f64::from_bits(bits) > now {
                return;
            }
            self.ends.pop();
            batch.push(SchedCommand::Free {
                id: id_of(job),
                ranks: None,
            });
            if let (Some(of), Some(outcome)) = (self.trace.jobs.get(job), self.outcomes.get(job)) {
                self.in_use -= self.machine.cores_of(of);
                self.watch
                    .on_end(job, promised_end(of, outcome.start.unwrap_or(0.0)));
            }
        }
    }

    fn ask(&mut self, host: &mut PolicyHost, now: f64, batch: Vec<SchedCommand>) -> Result<()> {
        let batch = batch.into_iter().map(Command::Sched).collect();
        host.send(now, batch)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut answers = Vec::new();
        host.receive(&mut answers);
        let mut starts = Vec::new();
        for answer in answers {
            match answer {
                Answer::Sched(SchedAnswer::Alloc { id, .. }) => {
                    let job = self.waiting_job(id)?;
                    starts.push(self.start(job, now)?);
                }
                Answer::Sched(SchedAnswer::Deny { id, .. }) => {
                    let job = self.waiting_job(id)?;
                    self.settle(job);
                    self.watch.on_reject(job);
                }
                Answer::Sched(SchedAnswer::Defined(Err(text))) => bail!("the machine cannot be made: {text}"),
                Answer::Log(log) if log.level <= 4 => {
                    if log.message.contains("going on without it") {
                        bail!("policy {} {}", log.plugin, log.message);
                    }
                    self.said.push(format!("{}: {}", log.plugin, log.message));
                }
                _ => {}
            }
        }
        self.watch.on_starts(now, &starts);
        Ok(())
    }

    fn waiting_job(&self, id: u64) -> Result<usize> {
        let job = id.checked_sub(1).and_then(|job| usize::try_from(job).ok());
        job.filter(|job| self.done.get(*job) == Some(&false))
            .with_context(|| format!("the policy decided about job {id}, which does not wait"))
    }

    fn settle(&mut self, job: usize) {
        if let Some(done) = self.done.get_mut(job) {
            *done = true;
        }
        self.waiting -= 1;
        while self.done.get(self.lowest_waiting) == Some(&true) {
            self.lowest_waiting += 1;
        }
    }

    fn start(&mut self, job: usize, now: f64) -> Result<(usize, f64)> {
        let of = self.trace.jobs.get(job).context("a job of the trace")?;
        let passed = self.lowest_waiting < job;
        self.settle(job);
        self.in_use += self.machine.cores_of(of);
        ensure!(
            self.in_use <= self.machine.cores_all(),
            "more cores are in use than there are"
        );
        let run = if of.limit > 0.0 {
            of.run.min(of.limit)
        } else {
            of.run
        };
        let end = now + run;
        self.ends.push(Reverse((end.to_bits(), job)));
        if let Some(outcome) = self.outcomes.get_mut(job) {
            *outcome = Outcome {
                start: Some(now),
                end,
                passed,
            };
        }
        Ok((job, promised_end(of, now)))
    }
}

/// Returns when a job must end.
fn promised_end(job: &TraceJob, start: f64) -> f64 {
    if job.limit > 0.0 {
        start + job.limit
    } else {
        f64::INFINITY
    }
}
