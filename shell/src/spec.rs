//! What does the job's specification ask of the shell? (RFC 14, 25: the parts that a shell uses)

use serde::Deserialize;
use serde_json::{Map, Value};

/// The parts of a jobspec that the shell uses; others are skipped while parsing.
#[derive(Debug, Deserialize)]
pub(crate) struct Jobspec {
    pub(crate) resources: Vec<Vertex>,
    pub(crate) tasks: Vec<TaskSpec>,
    #[serde(default)]
    pub(crate) attributes: Attributes,
}

/// A vertex of the resource request.
#[derive(Debug, Deserialize)]
pub(crate) struct Vertex {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) count: Value,
    #[serde(default)]
    pub(crate) with: Vec<Vertex>,
}

/// The one task of jobspec V1.
#[derive(Debug, Deserialize)]
pub(crate) struct TaskSpec {
    pub(crate) command: Vec<String>,
    #[serde(default)]
    pub(crate) count: TaskCount,
}

/// How many tasks are wanted.
#[derive(Debug, Deserialize, Default)]
pub(crate) struct TaskCount {
    pub(crate) per_slot: Option<u32>,
    pub(crate) total: Option<u32>,
}

/// Attributes that the shell uses.
#[derive(Debug, Deserialize, Default)]
pub(crate) struct Attributes {
    #[serde(default)]
    pub(crate) system: System,
}

/// `attributes.system`.
#[derive(Debug, Deserialize, Default)]
pub(crate) struct System {
    pub(crate) cwd: Option<String>,
    #[serde(default)]
    pub(crate) environment: Map<String, Value>,
    #[serde(default)]
    pub(crate) shell: ShellAttributes,
    #[serde(default)]
    pub(crate) job: JobAttributes,
    pub(crate) batch: Option<Value>,
    pub(crate) files: Option<Value>,
}

/// `attributes.system.shell`.
#[derive(Debug, Deserialize, Default)]
pub(crate) struct ShellAttributes {
    #[serde(default)]
    pub(crate) options: Map<String, Value>,
}

/// `attributes.system.job`.
#[derive(Debug, Deserialize, Default)]
pub(crate) struct JobAttributes {
    pub(crate) name: Option<String>,
}

/// Why a jobspec cannot be run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SpecError {
    /// There is not exactly one task.
    #[error("jobspec must have exactly one task")]
    Tasks,
    /// The command is empty.
    #[error("jobspec has an empty command")]
    Command,
    /// No vertex is a slot.
    #[error("jobspec has no slot")]
    Slot,
    /// A slot asks for no core.
    #[error("jobspec slot has no core")]
    Core,
}

/// The shape of the request: slots, what is in one, and where nodes are asked for, how many slots on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Slots of the whole request; `None` when counts are ranges.
    pub(crate) slot_count: Option<u32>,
    /// Cores of one slot.
    pub(crate) cores_per_slot: u32,
    /// Slots of each node, when the request names nodes.
    pub(crate) slots_per_node: Option<u32>,
}

/// Returns a vertex's count when it is a plain number.
fn plain(count: &Value) -> Option<u32> {
    match count {
        Value::Number(number) => number.as_u64().and_then(|count| u32::try_from(count).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// Returns the least number that a count allows.
fn least(count: &Value) -> u32 {
    match count {
        Value::Object(range) => range.get("min").and_then(plain_value).unwrap_or(1),
        Value::String(text) => {
            let digits = text.trim_start_matches('[');
            let end = digits
                .find(|character: char| !character.is_ascii_digit())
                .unwrap_or(digits.len());
            digits
                .get(..end)
                .and_then(|number| number.parse().ok())
                .unwrap_or(1)
        }
        other => plain(other).unwrap_or(1),
    }
}

fn plain_value(value: &Value) -> Option<u32> {
    plain(value)
}

impl Jobspec {
    /// Returns the one task.
    ///
    /// # Errors
    /// [`SpecError::Tasks`], [`SpecError::Command`].
    pub(crate) fn task(&self) -> Result<&TaskSpec, SpecError> {
        let [task] = self.tasks.as_slice() else {
            return Err(SpecError::Tasks);
        };
        if task.command.is_empty() {
            Err(SpecError::Command)
        } else {
            Ok(task)
        }
    }

    /// Returns the shape of the request.
    ///
    /// # Errors
    /// [`SpecError::Slot`], [`SpecError::Core`].
    pub(crate) fn shape(&self) -> Result<Shape, SpecError> {
        let mut level = &self.resources;
        let mut above = Some(1_u32);
        let mut in_node = false;
        loop {
            let Some(vertex) = level
                .iter()
                .find(|vertex| vertex.kind == "slot")
                .or_else(|| level.first())
            else {
                return Err(SpecError::Slot);
            };
            let count = plain(&vertex.count);
            if vertex.kind == "slot" {
                let cores_per_slot = cores(&vertex.with)
                    .filter(|cores| *cores > 0)
                    .ok_or(SpecError::Core)?;
                let slot_count = above.zip(count).map(|(above, count)| above.saturating_mul(count));
                let slots_per_node = if in_node { count } else { None };
                return Ok(Shape {
                    slot_count,
                    cores_per_slot,
                    slots_per_node,
                });
            }
            in_node |= vertex.kind == "node";
            above = above.zip(count).map(|(above, count)| above.saturating_mul(count));
            level = &vertex.with;
        }
    }
}

fn cores(level: &[Vertex]) -> Option<u32> {
    level.iter().find_map(|vertex| {
        let below = if vertex.kind == "core" {
            1
        } else {
            cores(&vertex.with)?
        };
        Some(least(&vertex.count).saturating_mul(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(resources: &str) -> Result<Shape, SpecError> {
        let text =
            format!(r#"{{"resources":{resources},"tasks":[{{"command":["x"],"slot":"task"}}],"version":1}}"#);
        serde_json::from_str::<Jobspec>(&text).unwrap().shape()
    }

    #[test]
    fn shapes_of_rfc_25() {
        let slot = r#"[{"type":"slot","count":4,"label":"task","with":[{"type":"core","count":2}]}]"#;
        assert_eq!(
            shape(slot),
            Ok(Shape {
                slot_count: Some(4),
                cores_per_slot: 2,
                slots_per_node: None
            })
        );
        let node = r#"[{"type":"node","count":3,"exclusive":true,"with":[{"type":"slot","count":2,"label":"task",
            "with":[{"type":"core","count":1},{"type":"gpu","count":1}]}]}]"#;
        assert_eq!(
            shape(node),
            Ok(Shape {
                slot_count: Some(6),
                cores_per_slot: 1,
                slots_per_node: Some(2)
            })
        );
        let range = r#"[{"type":"slot","count":{"min":2,"max":4,"operator":"+","operand":1},"label":"task",
            "with":[{"type":"core","count":"3-5"}]}]"#;
        assert_eq!(
            shape(range),
            Ok(Shape {
                slot_count: None,
                cores_per_slot: 3,
                slots_per_node: None
            })
        );
        assert_eq!(shape("[]"), Err(SpecError::Slot));
        assert_eq!(
            shape(r#"[{"type":"slot","count":1,"with":[{"type":"gpu","count":1}]}]"#),
            Err(SpecError::Core)
        );
    }
}
