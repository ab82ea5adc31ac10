//! Which task runs on which node? (RFC 34 task map.)

mod create;
mod text;

pub use text::Form;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};
use serde_json::Value;

use crate::idset::IdSet;

/// Most tasks of a map (16 Mi); larger maps are refused.
pub const TASKS_MAX: u32 = 1 << 24;

/// Why something is not a task map.
#[derive(Debug, thiserror::Error)]
pub enum TaskmapError {
    /// Not JSON of the shape of RFC 34.
    #[error("invalid task map")]
    Json(#[from] serde_json::Error),
    /// A map block is not four integers that make sense.
    #[error("invalid task map block {0}")]
    Block(usize),
    /// The wrapping object has another version than 1.
    #[error("task map version is not 1")]
    Version,
    /// More than [`TASKS_MAX`] tasks, or node ids beyond that.
    #[error("task map is too large")]
    TooLarge,
    /// The raw form is not idsets between semicolons.
    #[error("invalid raw task map")]
    Raw(#[from] crate::idset::IdSetError),
    /// Task ids of the raw form repeat or leave a gap.
    #[error("task ids of raw task map repeat or leave a gap")]
    Gap,
    /// Not `(vector,(nodeid,nnodes,ppn),...)`.
    #[error("invalid PMI process mapping")]
    Pmi,
    /// The form cannot be written: the map is unknown or too large for it.
    #[error("task map cannot be written in this form")]
    Form,
}

/// Consecutive tasks on consecutive nodes, repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First node.
    pub nodeid: u32,
    /// Number of nodes.
    pub nnodes: u32,
    /// Tasks on each node, in each repetition.
    pub ppn: u32,
    /// Repetitions.
    pub repeat: u32,
}

impl Block {
    fn tasks_per_pass(&self) -> u64 {
        u64::from(self.nnodes) * u64::from(self.ppn)
    }

    fn ntasks(&self) -> u64 {
        self.tasks_per_pass().saturating_mul(u64::from(self.repeat))
    }

    fn end_node(&self) -> u64 {
        u64::from(self.nodeid) + u64::from(self.nnodes)
    }

    fn has_node(&self, nodeid: u32) -> bool {
        self.nodeid <= nodeid && u64::from(nodeid) < self.end_node()
    }
}

/// A task map; without blocks the mapping is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taskmap {
    blocks: Vec<Block>,
}

impl Taskmap {
    /// Returns the map that says nothing.
    pub const fn unknown() -> Self {
        Taskmap { blocks: Vec::new() }
    }

    /// Returns the blocks.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Returns true when the mapping is unknown.
    pub fn is_unknown(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Returns the number of tasks.
    pub fn ntasks(&self) -> u32 {
        let sum = self
            .blocks
            .iter()
            .fold(0u64, |sum, block| sum.saturating_add(block.ntasks()));
        u32::try_from(sum).unwrap_or(u32::MAX)
    }

    /// Returns the number of nodes: one more than the highest node id.
    pub fn nnodes(&self) -> u32 {
        let end = self.blocks.iter().map(Block::end_node).max().unwrap_or(0);
        u32::try_from(end).unwrap_or(u32::MAX)
    }

    /// Returns the node of a task.
    pub fn nodeid(&self, taskid: u32) -> Option<u32> {
        let mut left = u64::from(taskid);
        for block in &self.blocks {
            if left < block.ntasks() {
                let node = left % block.tasks_per_pass() / u64::from(block.ppn);
                return u32::try_from(u64::from(block.nodeid) + node).ok();
            }
            left -= block.ntasks();
        }
        None
    }

    /// Returns the number of tasks of a node.
    pub fn task_count(&self, nodeid: u32) -> u32 {
        let here = self.blocks.iter().filter(|block| block.has_node(nodeid));
        here.fold(0, |sum, block| {
            sum.saturating_add(block.ppn.saturating_mul(block.repeat))
        })
    }

    /// Returns the tasks of a node.
    pub fn task_ids(&self, nodeid: u32) -> IdSet {
        let mut ranges = Vec::new();
        let mut start = 0u64;
        for block in &self.blocks {
            if block.has_node(nodeid) {
                let offset = u64::from(nodeid - block.nodeid) * u64::from(block.ppn);
                ranges.extend((0..u64::from(block.repeat)).filter_map(|pass| {
                    let first = start + pass * block.tasks_per_pass() + offset;
                    let last = first + u64::from(block.ppn) - 1;
                    Some((u32::try_from(first).ok()?, u32::try_from(last).ok()?))
                }));
            }
            start += block.ntasks();
        }
        IdSet::from_ranges(ranges)
    }

    /// Returns the map of blocks, checked.
    ///
    /// # Errors
    /// [`TaskmapError::Block`], [`TaskmapError::TooLarge`].
    pub fn from_blocks(blocks: Vec<Block>) -> Result<Self, TaskmapError> {
        let mut ntasks = 0u64;
        for (index, block) in blocks.iter().enumerate() {
            if block.nnodes == 0 || block.ppn == 0 || block.repeat == 0 {
                return Err(TaskmapError::Block(index));
            }
            ntasks = ntasks.saturating_add(block.ntasks());
            if ntasks > u64::from(TASKS_MAX) || block.end_node() > u64::from(TASKS_MAX) {
                return Err(TaskmapError::TooLarge);
            }
        }
        Ok(Taskmap { blocks })
    }

    /// Returns the map of a JSON array of blocks, or of the object that wraps it.
    ///
    /// # Errors
    /// [`TaskmapError`] of JSON and blocks.
    pub fn from_value(json: &Value) -> Result<Self, TaskmapError> {
        let list = match json {
            Value::Object(wrapper) => {
                if wrapper.get("version").and_then(Value::as_u64) != Some(1) {
                    return Err(TaskmapError::Version);
                }
                wrapper.get("map").ok_or(TaskmapError::Block(0))?
            }
            list => list,
        };
        let list = list.as_array().ok_or(TaskmapError::Block(0))?;
        let mut blocks = Vec::with_capacity(list.len());
        for (index, block) in list.iter().enumerate() {
            let numbers = block.as_array().map(Vec::as_slice);
            let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
            let block = match numbers {
                Some([nodeid, nnodes, ppn, repeat]) => (|| {
                    let (nodeid, nnodes) = (number(nodeid)?, number(nnodes)?);
                    Some(Block {
                        nodeid,
                        nnodes,
                        ppn: number(ppn)?,
                        repeat: number(repeat)?,
                    })
                })(),
                _ => None,
            };
            blocks.push(block.ok_or(TaskmapError::Block(index))?);
        }
        Taskmap::from_blocks(blocks)
    }

    /// Returns the JSON array.
    pub fn to_value(&self) -> Value {
        let block = |b: &Block| Value::from(vec![b.nodeid, b.nnodes, b.ppn, b.repeat]);
        self.blocks.iter().map(block).collect()
    }

    /// Returns the JSON object that wraps the array, as the `shell.start` event carries it.
    pub fn to_wrapped_value(&self) -> Value {
        serde_json::json!({"version": 1, "map": self.to_value()})
    }
}

impl Serialize for Taskmap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.blocks.iter().map(|b| [b.nodeid, b.nnodes, b.ppn, b.repeat]))
    }
}

impl<'de> Deserialize<'de> for Taskmap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Taskmap::from_value(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
