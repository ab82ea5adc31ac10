//! What does a job ask for? (The resource request of a jobspec, RFC 14 and 25.)

use serde_json::Value;

use super::constraint::{Constraint, ConstraintError};

/// Deepest nesting of `with` that is read; real jobspecs nest three levels.
const DEPTH_MAX: usize = 64;

/// Why a jobspec yields no request. The scheduler answers `cannot parse jobspec: ` and this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// `resources` is missing, empty or not an array.
    #[error("jobspec has no resources")]
    NoResources,
    /// A resource is not an object.
    #[error("resource must be an object")]
    NotObject,
    /// Resources are nested too deeply.
    #[error("jobspec resource nesting exceeds maximum depth {DEPTH_MAX}")]
    TooDeep,
    /// A count is not an integer: this scheduler allocates fixed counts only.
    #[error("count of resource '{0}' must be an integer, ranges are not supported")]
    CountNotInteger(String),
    /// A count is negative, zero where it may not be, or a product exceeds 4294967295.
    #[error("count of resource '{0}' is out of range")]
    CountRange(String),
    /// No slot among the resources.
    #[error("Unable to determine slot count")]
    NoSlot,
    /// No core below the slot.
    #[error("Unable to determine slot size")]
    NoCore,
    /// `attributes.system` is missing.
    #[error("getting duration: Object item not found: system")]
    NoSystem,
    /// `attributes.system.duration` is missing.
    #[error("getting duration: Object item not found: duration")]
    NoDuration,
    /// The duration is no finite number of seconds from 0.
    #[error("duration must be a finite number, 0 or more")]
    BadDuration,
    /// The constraints cannot be read.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
}

/// What a job asks the scheduler for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Nodes; 0 when slots may be placed on any nodes.
    pub nnodes: u32,
    /// Slots in all; a multiple of `nnodes` unless that is 0.
    pub nslots: u32,
    /// Cores of each slot; at least 1.
    pub cores_per_slot: u32,
    /// GPUs of each slot.
    pub gpus_per_slot: u32,
    /// Whole nodes.
    pub exclusive: bool,
    /// Time limit in seconds; 0 is none.
    pub duration_secs: f64,
    /// Nodes allowed.
    pub constraint: Option<Constraint>,
}

impl Request {
    /// Reads the request of a jobspec, as flux-core's scheduler does: resource types it does not know are passed through.
    ///
    /// # Errors
    /// When the jobspec has no slot, no core, no duration, or a count or constraint that cannot be read.
    pub fn from_jobspec(jobspec: &Value) -> Result<Request, RequestError> {
        let resources = jobspec.get("resources").and_then(Value::as_array);
        let resources = resources
            .filter(|list| !list.is_empty())
            .ok_or(RequestError::NoResources)?;
        let mut walk = Walk::default();
        walk.descend(resources, 1, 0)?;
        let system = jobspec
            .pointer("/attributes/system")
            .ok_or(RequestError::NoSystem)?;
        let duration = match system.get("duration") {
            None | Some(Value::Null) => return Err(RequestError::NoDuration),
            Some(value) => value.as_f64().filter(|secs| secs.is_finite() && *secs >= 0.0),
        };
        let slots = walk.slots.ok_or(RequestError::NoSlot)?;
        let cores_per_slot = walk.cores.filter(|&n| n > 0).ok_or(RequestError::NoCore)?;
        let range = || RequestError::CountRange("slot".to_owned());
        let (nnodes, nslots) = match walk.nodes {
            Some(nodes) => (nodes, nodes.checked_mul(slots).ok_or_else(range)?),
            // whole nodes without a node count: each slot takes one
            None if walk.exclusive => (slots, slots),
            None => (0, slots),
        };
        let constraint = system
            .get("constraints")
            .filter(|value| value.as_object().is_none_or(|map| !map.is_empty()));
        nslots.checked_mul(cores_per_slot).ok_or_else(range)?;
        nslots.checked_mul(walk.gpus.max(1)).ok_or_else(range)?;
        Ok(Request {
            nnodes,
            nslots,
            cores_per_slot,
            gpus_per_slot: walk.gpus,
            exclusive: walk.exclusive,
            duration_secs: duration.ok_or(RequestError::BadDuration)?,
            constraint: constraint.map(Constraint::from_json).transpose()?,
        })
    }

    /// Returns the slots on each node; 0 when no nodes were asked for.
    pub fn slots_per_node(&self) -> u32 {
        self.nslots.checked_div(self.nnodes).unwrap_or(0)
    }
}

/// What the walk over the resources has found; the last of a kind wins.
#[derive(Default)]
struct Walk {
    nodes: Option<u32>,
    slots: Option<u32>,
    cores: Option<u32>,
    gpus: u32,
    exclusive: bool,
}

impl Walk {
    /// Visits resources below `factor` copies of whatever encloses a node.
    fn descend(&mut self, resources: &[Value], factor: u32, depth: usize) -> Result<(), RequestError> {
        if depth > DEPTH_MAX {
            return Err(RequestError::TooDeep);
        }
        for vertex in resources {
            let vertex = vertex.as_object().ok_or(RequestError::NotObject)?;
            let kind = vertex.get("type").and_then(Value::as_str).unwrap_or("");
            let count = count(kind, vertex.get("count"))?;
            let range = || RequestError::CountRange(kind.to_owned());
            let exclusive = vertex.get("exclusive").and_then(Value::as_bool).unwrap_or(false);
            let mut below = factor;
            match kind {
                "node" => {
                    self.nodes = Some(count.checked_mul(factor).filter(|&n| n > 0).ok_or_else(range)?);
                    self.exclusive |= exclusive;
                }
                "slot" => {
                    self.slots = Some(count).filter(|&n| n > 0);
                    self.slots.ok_or_else(range)?;
                    self.exclusive |= exclusive;
                }
                "core" => self.cores = Some(count),
                "gpu" => self.gpus = count,
                _ => {}
            }
            if kind != "node" {
                below = factor.checked_mul(count.max(1)).ok_or_else(range)?;
            }
            if let Some(children) = vertex.get("with").and_then(Value::as_array) {
                self.descend(children, below, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Returns a fixed count; a missing one is 1.
fn count(kind: &str, value: Option<&Value>) -> Result<u32, RequestError> {
    let Some(value) = value else {
        return Ok(1);
    };
    if !value.is_i64() && !value.is_u64() {
        return Err(RequestError::CountNotInteger(kind.to_owned()));
    }
    let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
    count.ok_or_else(|| RequestError::CountRange(kind.to_owned()))
}
