//! How is a map made from what each node runs?

use super::{Block, TASKS_MAX, Taskmap, TaskmapError};
use crate::idset::IdSet;

impl Taskmap {
    /// Adds the next `count` tasks to a node, in the most compact blocks.
    ///
    /// # Errors
    /// [`TaskmapError::TooLarge`].
    pub fn push(&mut self, nodeid: u32, count: u32) -> Result<(), TaskmapError> {
        if count == 0 {
            return Ok(());
        }
        if nodeid >= TASKS_MAX || count > TASKS_MAX {
            return Err(TaskmapError::TooLarge);
        }
        match self.blocks.last_mut() {
            Some(last) if last.repeat == 1 && last.ppn == count && last.end_node() == u64::from(nodeid) => {
                last.nnodes += 1;
            }
            _ => self.blocks.push(Block {
                nodeid,
                nnodes: 1,
                ppn: count,
                repeat: 1,
            }),
        }
        if let [.., before, last] = self.blocks.as_mut_slice()
            && (before.nodeid, before.nnodes, before.ppn) == (last.nodeid, last.nnodes, last.ppn)
        {
            before.repeat = before.repeat.saturating_add(last.repeat);
            self.blocks.pop();
        }
        Ok(())
    }

    fn checked(self) -> Result<Self, TaskmapError> {
        Taskmap::from_blocks(self.blocks)
    }

    /// Returns the block distribution: all tasks of node 0, then those of node 1, and so on.
    ///
    /// `counts` are tasks per node; nodes with 0 get none.
    ///
    /// # Errors
    /// [`TaskmapError::TooLarge`].
    pub fn block(counts: &[u32]) -> Result<Self, TaskmapError> {
        let mut map = Taskmap::unknown();
        for (nodeid, &count) in (0u32..).zip(counts) {
            map.push(nodeid, count)?;
        }
        map.checked()
    }

    /// Returns the cyclic distribution: `stride` tasks to each node in turn, until each has its count.
    ///
    /// # Errors
    /// [`TaskmapError::TooLarge`]; [`TaskmapError::Form`] for a stride of 0.
    pub fn cyclic(counts: &[u32], stride: u32) -> Result<Self, TaskmapError> {
        if stride == 0 {
            return Err(TaskmapError::Form);
        }
        if counts.iter().map(|&count| u64::from(count)).sum::<u64>() > u64::from(TASKS_MAX) {
            return Err(TaskmapError::TooLarge);
        }
        let mut left: Vec<(u32, u32)> = (0u32..).zip(counts.iter().copied()).collect();
        let mut map = Taskmap::unknown();
        while !left.is_empty() {
            for (nodeid, left) in &mut left {
                let count = stride.min(*left);
                map.push(*nodeid, count)?;
                *left -= count;
            }
            left.retain(|&(_, left)| left > 0);
        }
        map.checked()
    }

    /// Returns the map that gives each node the tasks of its set.
    ///
    /// # Errors
    /// [`TaskmapError::Gap`] when the sets overlap or do not make up 0 to n-1; [`TaskmapError::TooLarge`].
    pub fn manual(nodes: &[IdSet]) -> Result<Self, TaskmapError> {
        let mut ranges: Vec<(u32, u32, u32)> = (0u32..)
            .zip(nodes)
            .flat_map(|(nodeid, tasks)| tasks.ranges().map(move |(lo, hi)| (lo, hi, nodeid)))
            .collect();
        ranges.sort_unstable();
        let mut map = Taskmap::unknown();
        let mut next = Some(0);
        for (lo, hi, nodeid) in ranges {
            if next != Some(lo) {
                return Err(TaskmapError::Gap);
            }
            if hi >= TASKS_MAX {
                return Err(TaskmapError::TooLarge);
            }
            map.push(nodeid, hi - lo + 1)?;
            next = hi.checked_add(1);
        }
        map.checked()
    }
}
