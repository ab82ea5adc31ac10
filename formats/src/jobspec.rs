//! What does a job ask for? (RFC 25 jobspec V1.)
//!
//! A [`Jobspec`] keeps the JSON it was parsed from, so attributes that this version does not know survive, and
//! beside it the resource counts, computed once.

mod apart;
mod build;
mod parse;
mod path;

pub use apart::{Apart, Joined};
pub use build::{BuildError, PerResource, PerTask, ResourceType};
pub use path::PathError;

use serde_json::{Map, Value};

/// Why JSON is not a V1 jobspec; each names the place, e.g. `resources[0].with[0].count`.
#[derive(Debug, thiserror::Error)]
pub enum JobspecError {
    /// Not JSON.
    #[error("jobspec is not JSON")]
    Json(#[from] serde_json::Error),
    /// A required key is absent.
    #[error("jobspec: {path}: missing key")]
    Missing {
        /// Place.
        path: String,
    },
    /// A value has another type than the place needs.
    #[error("jobspec: {path}: expected {expected}")]
    Expected {
        /// Place.
        path: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A key does not belong there.
    #[error("jobspec: {path}: unknown key")]
    Unknown {
        /// Place.
        path: String,
    },
    /// The version is not 1.
    #[error("jobspec: version: only version 1 is supported")]
    Version,
    /// Counts multiply to more than 32 bits.
    #[error("jobspec: {path}: count is too large")]
    TooLarge {
        /// Place.
        path: String,
    },
}

/// How many tasks a slot runs (RFC 25 `tasks[0].count`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskCount {
    /// So many in each slot; V1 allows 1.
    PerSlot(u32),
    /// So many in all.
    Total(u32),
}

/// The resource request in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Requested nodes; 0 when the request leaves them open.
    pub nnodes: u32,
    /// Slots per node, or all slots when `nnodes` is 0.
    pub slots_per_node: u32,
    /// Slots in all.
    pub nslots: u32,
    /// Cores of each slot.
    pub cores_per_slot: u32,
    /// GPUs of each slot.
    pub gpus_per_slot: u32,
    /// Whole nodes are wanted.
    pub exclusive: bool,
}

impl Counts {
    /// Returns the cores of all slots.
    pub fn ncores(&self) -> u64 {
        u64::from(self.nslots) * u64::from(self.cores_per_slot)
    }

    /// Returns the GPUs of all slots.
    pub fn ngpus(&self) -> u64 {
        u64::from(self.nslots) * u64::from(self.gpus_per_slot)
    }
}

/// A dependency as submitted (RFC 26).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dependency<'a> {
    /// Scheme, e.g. `afterok`.
    pub scheme: &'a str,
    /// Value, e.g. a job id.
    pub value: &'a str,
    /// The whole object with further parameters.
    pub object: &'a Map<String, Value>,
}

/// A validated V1 jobspec.
#[derive(Clone, Debug, PartialEq)]
pub struct Jobspec {
    json: Value,
    counts: Counts,
    task_count: TaskCount,
}

impl Jobspec {
    /// Parses and validates JSON text.
    ///
    /// # Errors
    /// Any [`JobspecError`].
    pub fn parse(text: &[u8]) -> Result<Self, JobspecError> {
        Jobspec::from_value(serde_json::from_slice(text)?)
    }

    /// Validates JSON.
    ///
    /// # Errors
    /// Any [`JobspecError`] but `Json`.
    pub fn from_value(json: Value) -> Result<Self, JobspecError> {
        let (counts, task_count) = parse::validate(&json)?;
        Ok(Jobspec {
            json,
            counts,
            task_count,
        })
    }

    /// Returns the JSON.
    pub fn as_value(&self) -> &Value {
        &self.json
    }

    /// Returns the JSON.
    pub fn into_value(self) -> Value {
        self.json
    }

    /// Returns compact JSON text, keys in the order they came.
    pub fn encode(&self) -> String {
        self.json.to_string()
    }

    /// Returns the resource counts.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns how many tasks the request names.
    pub fn task_count(&self) -> TaskCount {
        self.task_count
    }

    /// Returns the number of tasks as job listings show it before resources are allocated.
    ///
    /// The shell option `per-resource` overrides: its count (default 1) for each requested node or core.
    pub fn ntasks(&self) -> u64 {
        self.ntasks_with(u64::from(self.counts.nnodes), self.counts.ncores())
    }

    /// Returns the number of tasks on an allocation of so many nodes and cores.
    pub fn ntasks_with(&self, nnodes: u64, ncores: u64) -> u64 {
        if let Some(per_resource) = self.shell_option("per-resource") {
            let count = per_resource.get("count").and_then(Value::as_u64).unwrap_or(1);
            match per_resource.get("type").and_then(Value::as_str) {
                Some("node") if nnodes > 0 => return nnodes.saturating_mul(count),
                Some("core") => return ncores.saturating_mul(count),
                _ => {}
            }
        }
        match self.task_count {
            TaskCount::PerSlot(count) => u64::from(self.counts.nslots) * u64::from(count),
            TaskCount::Total(total) => u64::from(total),
        }
    }

    /// Returns the command and its arguments.
    pub fn command(&self) -> Vec<&str> {
        match self.task().and_then(|task| task.get("command")) {
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(word)) => vec![word],
            _ => Vec::new(),
        }
    }

    fn task(&self) -> Option<&Value> {
        self.json.get("tasks")?.get(0)
    }

    /// Returns the value at a dotted path from the root, e.g. `attributes.system.duration`.
    pub fn get(&self, path: &str) -> Option<&Value> {
        path::get(&self.json, path)
    }

    /// Returns the value at a dotted path below `attributes.system`.
    pub fn system(&self, path: &str) -> Option<&Value> {
        path::get(self.json.get("attributes")?.get("system")?, path)
    }

    /// Returns the seconds the job may run; 0 is no limit of its own.
    pub fn duration(&self) -> f64 {
        self.system("duration").and_then(Value::as_f64).unwrap_or(0.0)
    }

    /// Returns the queue, `None` when the jobspec names none.
    pub fn queue(&self) -> Option<&str> {
        self.system("queue").and_then(Value::as_str)
    }

    /// Returns the bank.
    pub fn bank(&self) -> Option<&str> {
        self.system("bank").and_then(Value::as_str)
    }

    /// Returns the project.
    pub fn project(&self) -> Option<&str> {
        self.system("project").and_then(Value::as_str)
    }

    /// Returns the working directory.
    pub fn cwd(&self) -> Option<&str> {
        self.system("cwd").and_then(Value::as_str)
    }

    /// Returns the job's name: the attribute, or the base name of the command.
    pub fn name(&self) -> Option<&str> {
        let given = self.system("job.name").and_then(Value::as_str);
        given.or_else(|| {
            let command = match self.task()?.get("command")? {
                Value::Array(words) => words.first()?.as_str()?,
                other => other.as_str()?,
            };
            command.rsplit('/').next()
        })
    }

    /// Returns the environment; a `null` value asks for the variable's removal.
    pub fn environment(&self) -> Option<&Map<String, Value>> {
        self.system("environment").and_then(Value::as_object)
    }

    /// Returns a shell option by its dotted name, e.g. `output.stdout.type`.
    pub fn shell_option(&self, name: &str) -> Option<&Value> {
        path::get(self.system("shell.options")?, name)
    }

    /// Returns the constraints (RFC 31).
    pub fn constraints(&self) -> Option<&Value> {
        self.system("constraints")
    }

    /// Returns the dependencies (RFC 26); entries were checked when parsed.
    pub fn dependencies(&self) -> impl Iterator<Item = Dependency<'_>> {
        let list = self.system("dependencies").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|entry| {
            let object = entry.as_object()?;
            let scheme = object.get("scheme")?.as_str()?;
            let value = object.get("value")?.as_str()?;
            Some(Dependency {
                scheme,
                value,
                object,
            })
        })
    }

    /// Sets the value at a dotted path from the root, making objects on the way, and validates the result.
    ///
    /// # Errors
    /// [`PathError`] when the path crosses something that is not an object, or the result is no V1 jobspec;
    /// the jobspec is then unchanged.
    pub fn set(&mut self, path: &str, value: Value) -> Result<(), PathError> {
        if path.starts_with("attributes.") {
            return self.set_attribute(path, value);
        }
        let mut json = self.json.clone();
        path::set(&mut json, path, value)?;
        *self = Jobspec::from_value(json)?;
        Ok(())
    }

    /// Sets below `attributes`, where few values are fixed, without checking the whole again.
    fn set_attribute(&mut self, path: &str, value: Value) -> Result<(), PathError> {
        let before = path::get(&self.json, path).cloned();
        path::check(&self.json, path)?;
        path::set(&mut self.json, path, value)?;
        let Err(err) = parse::validate_attributes(&self.json) else {
            return Ok(());
        };
        match before {
            Some(before) => path::set(&mut self.json, path, before)?,
            None => path::remove(&mut self.json, path),
        }
        Err(err.into())
    }

    /// Sets the value at a dotted path below `attributes.system`.
    ///
    /// # Errors
    /// Like [`Jobspec::set`].
    pub fn set_system(&mut self, path: &str, value: impl Into<Value>) -> Result<(), PathError> {
        self.set(&format!("attributes.system.{path}"), value.into())
    }

    /// Sets a shell option by its dotted name.
    ///
    /// # Errors
    /// Like [`Jobspec::set`].
    pub fn set_shell_option(&mut self, name: &str, value: impl Into<Value>) -> Result<(), PathError> {
        self.set_system(&format!("shell.options.{name}"), value)
    }

    /// Sets the whole environment; names may hold dots.
    ///
    /// # Errors
    /// Like [`Jobspec::set`].
    pub fn set_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), PathError> {
        let map: Map<String, Value> = variables
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect();
        self.set_system("environment", map)
    }
}

#[cfg(test)]
mod tests;
