//! What is kept of a job for lists?

use flux_formats::jobid::JobId;
use flux_formats::jobstate::{JobResult, JobState};
use flux_formats::resource_set::{ResourceKind, ResourceSet};
use serde_json::Value;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

/// What a list shows of a jobspec; shared between equal jobs.
#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    pub(super) name: Box<str>,
    pub(super) cwd: Option<Box<str>>,
    pub(super) queue: Option<Box<str>>,
    pub(super) project: Option<Box<str>>,
    pub(super) bank: Option<Box<str>>,
    pub(super) ntasks: u32,
    /// Cores asked for; 0 when that depends on the nodes.
    pub(super) ncores: u32,
    /// Nodes asked for; 0 when none were named.
    pub(super) nnodes: u32,
    /// Tasks for each allocated node or core (shell option `per-resource`); 0 without.
    pub(super) tasks_per_node: u32,
    pub(super) tasks_per_core: u32,
    /// Seconds.
    pub(super) duration: f64,
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Spec {}

impl Hash for Spec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Spec {
    #[expect(clippy::type_complexity, reason = "used here only")]
    fn key(
        &self,
    ) -> (
        &str,
        Option<&str>,
        Option<&str>,
        Option<&str>,
        Option<&str>,
        [u32; 5],
        u64,
    ) {
        (
            &self.name,
            self.cwd.as_deref(),
            self.queue.as_deref(),
            self.project.as_deref(),
            self.bank.as_deref(),
            [
                self.ntasks,
                self.ncores,
                self.nnodes,
                self.tasks_per_node,
                self.tasks_per_core,
            ],
            self.duration.to_bits(),
        )
    }

    /// Reads what lists show from a jobspec; one that cannot be read gives an empty summary.
    pub(super) fn of(jobspec: &Value) -> Self {
        let Ok(spec) = flux_formats::jobspec::Jobspec::from_value(jobspec.clone()) else {
            return Spec::default();
        };
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let command = spec.command();
        let program = command.first().copied().unwrap_or_default();
        let base = program.rsplit('/').next().unwrap_or(program);
        let per_resource = spec.shell_option("per-resource");
        let per = |kind: &str| {
            let option = per_resource.filter(|o| o.get("type").and_then(Value::as_str) == Some(kind));
            option.map_or(0, |o| small(o.get("count").and_then(Value::as_u64).unwrap_or(1)))
        };
        Spec {
            name: spec.name().unwrap_or(base).into(),
            cwd: spec.cwd().map(Into::into),
            queue: spec.queue().map(Into::into),
            project: spec.project().map(Into::into),
            bank: spec.bank().map(Into::into),
            ntasks: small(spec.ntasks()),
            ncores: match spec.counts() {
                // whole nodes: their cores are known once they are allocated
                counts if counts.exclusive && counts.nnodes > 0 => 0,
                counts => small(counts.ncores()),
            },
            nnodes: spec.counts().nnodes,
            tasks_per_node: per("node"),
            tasks_per_core: per("core"),
            duration: spec.duration(),
        }
    }
}

/// What a list shows of an allocation; shared between jobs on the same ranks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Alloc {
    pub(super) nnodes: u32,
    pub(super) ncores: u32,
    pub(super) ranks: Box<str>,
    pub(super) nodelist: Box<str>,
}

impl Alloc {
    /// Reads what lists show from R.
    pub(super) fn of(r: &Value) -> Option<Self> {
        let r = ResourceSet::from_value(r).ok()?;
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Some(Alloc {
            nnodes: small(r.count(ResourceKind::Node)),
            ncores: small(r.count(ResourceKind::Core)),
            ranks: r.ranks().bracketed().into(),
            nodelist: r.nodelist().to_string().into(),
        })
    }
}

/// The gravest exception of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) severity: u8,
    pub(super) kind: Box<str>,
    pub(super) note: Box<str>,
}

/// One job. Times are seconds since the epoch, 0 for "not yet".
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) userid: u32,
    pub(super) urgency: u8,
    pub(super) state: JobState,
    /// -1 before the job has one.
    pub(super) priority: i64,
    pub(super) t_submit: f64,
    pub(super) t_depend: f64,
    pub(super) t_priority: f64,
    pub(super) t_sched: f64,
    pub(super) t_run: f64,
    pub(super) t_cleanup: f64,
    pub(super) t_inactive: f64,
    pub(super) expiration: f64,
    pub(super) waitstatus: Option<i32>,
    pub(super) spec: Rc<Spec>,
    pub(super) alloc: Option<Rc<Alloc>>,
    pub(super) fault: Option<Box<Fault>>,
    /// JSON object.
    pub(super) annotations: Option<Rc<str>>,
    pub(super) dependencies: Option<Vec<String>>,
}

impl Job {
    /// Returns a job that was just submitted.
    pub(super) fn new(id: JobId, userid: u32, urgency: u8, t_submit: f64, spec: Rc<Spec>) -> Self {
        Job {
            id,
            userid,
            urgency,
            state: JobState::New,
            priority: -1,
            t_submit,
            t_depend: 0.0,
            t_priority: 0.0,
            t_sched: 0.0,
            t_run: 0.0,
            t_cleanup: 0.0,
            t_inactive: 0.0,
            expiration: 0.0,
            waitstatus: None,
            spec,
            alloc: None,
            fault: None,
            annotations: None,
            dependencies: None,
        }
    }

    /// Returns true when the job is over.
    pub(super) fn is_inactive(&self) -> bool {
        self.state == JobState::Inactive
    }

    /// Returns the bits of the states that it is or was in.
    pub(super) fn seen(&self) -> u32 {
        let times = [
            (JobState::Depend, self.t_depend),
            (JobState::Priority, self.t_priority),
            (JobState::Sched, self.t_sched),
            (JobState::Run, self.t_run),
            (JobState::Cleanup, self.t_cleanup),
        ];
        let seen = times.into_iter().filter(|(_, time)| *time > 0.0);
        seen.fold(self.state.bit(), |mask, (state, _)| mask | state.bit())
    }

    /// Returns how the job ended.
    pub(super) fn result(&self) -> JobResult {
        let fatal = self
            .fault
            .as_ref()
            .filter(|fault| fault.severity == 0)
            .map(|fault| &*fault.kind);
        let status = if self.t_run > 0.0 { self.waitstatus } else { None };
        JobResult::of(status, fatal)
    }

    /// Returns the tasks, which may depend on what was allocated.
    pub(super) fn ntasks(&self) -> u32 {
        match &self.alloc {
            Some(alloc) if self.spec.tasks_per_node > 0 => {
                alloc.nnodes.saturating_mul(self.spec.tasks_per_node)
            }
            Some(alloc) if self.spec.tasks_per_core > 0 => {
                alloc.ncores.saturating_mul(self.spec.tasks_per_core)
            }
            _ => self.spec.ntasks,
        }
    }

    /// Returns the cores: those allocated, else those asked for.
    pub(super) fn ncores(&self) -> u32 {
        self.alloc.as_ref().map_or(self.spec.ncores, |alloc| alloc.ncores)
    }

    /// Returns the nodes: those allocated, else those asked for, else 0.
    pub(super) fn nnodes(&self) -> u32 {
        self.alloc.as_ref().map_or(self.spec.nnodes, |alloc| alloc.nnodes)
    }
}
