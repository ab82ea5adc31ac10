//! What is a plugin to the site: its name, world, limits, and what happens when it fails?

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The versions of `flux:policy` that this host speaks, oldest first.
pub const WIT_VERSIONS: &[&str] = &["0.1.0"];

/// What a component exports, and so when it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// Says yes or no to a submission.
    Validator,
    /// May change a jobspec at submission.
    Frobnicator,
    /// Orders pending jobs.
    Scheduler,
    /// Follows jobs through the job manager.
    Jobtap,
}

/// An interface beyond those of its world that the site lets a plugin use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    /// Programs as the instance owner.
    Exec,
    /// Resources without the scheduler.
    Bypass,
    /// Methods of the job manager's service.
    Service,
}

impl Grant {
    /// Returns the grant of a name.
    pub fn parse(name: &str) -> Option<Grant> {
        match name {
            "exec" => Some(Grant::Exec),
            "bypass" => Some(Grant::Bypass),
            "service" => Some(Grant::Service),
            _ => None,
        }
    }

    /// Returns its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Grant::Exec => "exec",
            Grant::Bypass => "bypass",
            Grant::Service => "service",
        }
    }
}

impl World {
    /// Returns the name of the world in `wit/`.
    pub fn name(self) -> &'static str {
        match self {
            World::Validator => "validator",
            World::Frobnicator => "frobnicator",
            World::Scheduler => "scheduler",
            World::Jobtap => "jobtap",
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to a submission when a plugin traps or misses its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The submission fails with EIO and a text that names the plugin.
    #[default]
    Closed,
    /// The submission goes on as if the plugin had nothing to say.
    Open,
}

/// Bounds on one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory and tables of the instance together, in bytes.
    pub memory_bytes_max: usize,
    /// CPU time of one call.
    pub deadline: Duration,
    /// Longest text that a call may answer, in bytes.
    pub answer_bytes_max: usize,
    /// Log messages per second; what exceeds it is counted.
    pub log_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes_max: 64 << 20,
            deadline: Duration::from_millis(200),
            answer_bytes_max: 16 << 20,
            log_rate: 100,
        }
    }
}

/// A plugin as the site's configuration names it.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginSpec {
    /// File name below the policy directory without extension, for example `validator-jobspec`; also the name in logs.
    pub name: String,
    /// Its directory, when it is not that of the others. It is verified in the same way.
    pub dir: Option<PathBuf>,
    /// The world it must implement.
    pub world: World,
    /// Arguments, given to the plugin as they are.
    pub args: serde_json::Value,
    /// Bounds.
    pub limits: Limits,
    /// What a failure means.
    pub on_failure: OnFailure,
    /// Interfaces granted beyond those of the world.
    pub grants: Vec<Grant>,
    /// SHA-256 that the `.wasm` must have, in hexadecimal; none takes any.
    pub sha256: Option<String>,
}

impl PluginSpec {
    /// Returns a plugin with default limits, no arguments, fail-closed.
    pub fn new(name: impl Into<String>, world: World) -> PluginSpec {
        PluginSpec {
            name: name.into(),
            dir: None,
            world,
            args: serde_json::Value::Object(serde_json::Map::new()),
            limits: Limits::default(),
            on_failure: OnFailure::default(),
            grants: Vec::new(),
            sha256: None,
        }
    }
}
