//! Which jobspec do the counts on a command line make?

use serde_json::{Value, json};

use super::{Jobspec, JobspecError};

/// Why counts on a command line do not make a jobspec; the texts are those of flux-core.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No command.
    #[error("command is missing")]
    Command,
    /// A count of 0.
    #[error("{0} must be greater than zero")]
    Zero(&'static str),
    /// More nodes than tasks.
    #[error("node count must not be greater than task count")]
    NodesExceedTasks,
    /// Fewer cores than nodes.
    #[error("number of cores cannot be less than nnodes")]
    CoresBelowNodes,
    /// Cores do not divide evenly.
    #[error("number of cores must be evenly divisible by node count")]
    CoresUneven,
    /// GPUs per node without nodes.
    #[error("gpus_per_node must be specified with a node count")]
    GpusWithoutNodes,
    /// The result is no V1 jobspec.
    #[error("invalid jobspec")]
    Invalid(#[from] JobspecError),
}

/// A request by tasks: `-n`, `-c`, `-g`, `-N`, `-x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerTask {
    /// Tasks; `None` is one, or one per node.
    pub ntasks: Option<u32>,
    /// Cores of each task; `None` is 1.
    pub cores_per_task: Option<u32>,
    /// GPUs of each task; `None` is 0.
    pub gpus_per_task: Option<u32>,
    /// Nodes.
    pub nnodes: Option<u32>,
    /// Whole nodes. Implied by `nnodes` without `ntasks`.
    pub exclusive: bool,
}

/// A request by resources: `--cores`, `-N`, `--tasks-per-node`, `--tasks-per-core`, `--gpus-per-node`, `-x`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerResource {
    /// Cores in all.
    pub ncores: Option<u32>,
    /// Nodes; without `ncores` they are exclusive.
    pub nnodes: Option<u32>,
    /// GPUs of each node; needs `nnodes`.
    pub gpus_per_node: Option<u32>,
    /// Tasks on each node or core.
    pub per_resource: Option<(ResourceType, u32)>,
    /// Whole nodes.
    pub exclusive: bool,
}

/// What tasks are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceType {
    /// `--tasks-per-node`.
    Node,
    /// `--tasks-per-core`.
    Core,
}

impl PerTask {
    /// Returns the jobspec with no attribute but a duration of 0.
    ///
    /// # Errors
    /// Any [`BuildError`].
    pub fn build<S: AsRef<str>>(&self, command: &[S]) -> Result<Jobspec, BuildError> {
        let exclusive = self.exclusive || (self.nnodes.is_some() && self.ntasks.is_none());
        let ntasks = self.ntasks.or(self.nnodes).unwrap_or(1);
        Shape {
            ntasks,
            cores_per_slot: self.cores_per_task.unwrap_or(1),
            gpus_per_slot: self.gpus_per_task.unwrap_or(0),
            nnodes: self.nnodes,
            exclusive,
        }
        .build(command, None)
    }
}

impl PerResource {
    /// Returns the jobspec with no attribute but a duration of 0 and the shell option `per-resource`.
    ///
    /// # Errors
    /// Any [`BuildError`].
    pub fn build<S: AsRef<str>>(&self, command: &[S]) -> Result<Jobspec, BuildError> {
        let shape = match (self.nnodes, self.ncores) {
            (Some(0), _) => return Err(BuildError::Zero("nnodes")),
            (_, Some(0)) => return Err(BuildError::Zero("ncores")),
            (Some(nnodes), Some(ncores)) if ncores < nnodes => return Err(BuildError::CoresBelowNodes),
            (Some(nnodes), Some(ncores)) if !ncores.is_multiple_of(nnodes) => {
                return Err(BuildError::CoresUneven);
            }
            (Some(nnodes), ncores) => Shape {
                ntasks: nnodes,
                cores_per_slot: ncores.map_or(1, |ncores| ncores / nnodes),
                gpus_per_slot: self.gpus_per_node.unwrap_or(0),
                nnodes: Some(nnodes),
                exclusive: self.exclusive || ncores.is_none(),
            },
            (None, _) if self.gpus_per_node.is_some() => return Err(BuildError::GpusWithoutNodes),
            (None, ncores) => Shape {
                ntasks: ncores.unwrap_or(1),
                cores_per_slot: 1,
                gpus_per_slot: 0,
                nnodes: None,
                exclusive: self.exclusive,
            },
        };
        shape.build(command, self.per_resource)
    }
}

/// What both kinds of request come down to.
struct Shape {
    ntasks: u32,
    cores_per_slot: u32,
    gpus_per_slot: u32,
    nnodes: Option<u32>,
    exclusive: bool,
}

impl Shape {
    fn build<S: AsRef<str>>(
        &self,
        command: &[S],
        per_resource: Option<(ResourceType, u32)>,
    ) -> Result<Jobspec, BuildError> {
        let command: Vec<Value> = command.iter().map(|word| word.as_ref().into()).collect();
        if command.is_empty() {
            return Err(BuildError::Command);
        }
        for (name, count) in [
            ("task count", self.ntasks),
            ("cores per task", self.cores_per_slot),
            ("nnodes", self.nnodes.unwrap_or(1)),
        ] {
            if count == 0 {
                return Err(BuildError::Zero(name));
            }
        }
        let mut children = vec![json!({"type": "core", "count": self.cores_per_slot})];
        if self.gpus_per_slot > 0 {
            children.push(json!({"type": "gpu", "count": self.gpus_per_slot}));
        }
        let slot = |count: u32| json!({"type": "slot", "count": count, "with": children, "label": "task"});
        let mut task_count = json!({"per_slot": 1});
        let resource = match self.nnodes {
            None if self.exclusive => {
                json!({"type": "slot", "count": self.ntasks, "exclusive": true, "with": children, "label": "task"})
            }
            None => slot(self.ntasks),
            Some(nnodes) => {
                if nnodes > self.ntasks {
                    return Err(BuildError::NodesExceedTasks);
                }
                if !self.ntasks.is_multiple_of(nnodes) {
                    task_count = json!({"total": self.ntasks});
                }
                let with = [slot(self.ntasks.div_ceil(nnodes))];
                if self.exclusive {
                    json!({"type": "node", "count": nnodes, "exclusive": true, "with": with})
                } else {
                    json!({"type": "node", "count": nnodes, "with": with})
                }
            }
        };
        let mut system = json!({"duration": 0});
        if let Some((kind, count)) = per_resource {
            let kind = match kind {
                ResourceType::Node => "node",
                ResourceType::Core => "core",
            };
            let options = json!({"options": {"per-resource": {"type": kind, "count": count}}});
            if let Value::Object(system) = &mut system {
                system.insert("shell".to_owned(), options);
            }
        }
        Ok(Jobspec::from_value(json!({
            "resources": [resource],
            "tasks": [{"command": command, "slot": "task", "count": task_count}],
            "attributes": {"system": system},
            "version": 1,
        }))?)
    }
}
