//! Which task runs on which node? (RFC 34 task map, and the distribution that the shell computes)

use std::fmt::Write as _;

use flux_formats::idset::IdSet;
use serde_json::Value;

/// One run of RFC 34: from `nodeid` on, `nnodes` nodes get `ppn` tasks each; the whole `repeat` times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) nodeid: u32,
    pub(crate) nnodes: u32,
    pub(crate) ppn: u32,
    pub(crate) repeat: u32,
}

/// The assignment of task ranks to nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout(Vec<Block>);

/// Why tasks cannot be mapped as asked.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum LayoutError {
    /// The request needs more than R holds.
    #[error("cannot distribute {ntasks} tasks with {cores} cores each over the resources of the job")]
    Resources {
        /// Tasks wanted.
        ntasks: u32,
        /// Cores per slot wanted.
        cores: u32,
    },
    /// The scheme is not known.
    #[error("taskmap: unknown scheme '{0}'")]
    Scheme(String),
    /// The value does not fit the scheme.
    #[error("taskmap: invalid value '{0}'")]
    Value(String),
    /// A manual map has another number of tasks or nodes than the job.
    #[error("taskmap: map has {map} {what}, the job {job}")]
    Size {
        /// "tasks" or "nodes".
        what: &'static str,
        /// In the map.
        map: u64,
        /// In the job.
        job: u64,
    },
}

/// Distributes `ntasks` over nodes with these numbers of cores: always to the node with most free slots, of equal
/// ones to the first.
///
/// # Errors
/// [`LayoutError::Resources`] when there are fewer slots than tasks.
pub(crate) fn distribute(cores: &[u32], ntasks: u32, cores_per_slot: u32) -> Result<Vec<u32>, LayoutError> {
    let slots: Vec<u32> = cores.iter().map(|cores| cores.checked_div(cores_per_slot).unwrap_or(0)).collect();
    let total: u64 = slots.iter().map(|slots| u64::from(*slots)).sum();
    if total < u64::from(ntasks) {
        return Err(LayoutError::Resources { ntasks, cores: cores_per_slot });
    }
    // Taking slots from the fullest first means levelling from the top: find the level that is left.
    let taken = |level: u32| slots.iter().map(|slots| u64::from(slots.saturating_sub(level))).sum::<u64>();
    let (mut low, mut high) = (0, slots.iter().copied().max().unwrap_or(0));
    while low < high {
        let middle = low + (high - low) / 2;
        if taken(middle) <= u64::from(ntasks) { high = middle } else { low = middle + 1 }
    }
    let level = low;
    let mut rest = u64::from(ntasks) - taken(level);
    let counts = slots.iter().map(|slots| {
        let mut count = slots.saturating_sub(level);
        if rest > 0 && *slots >= level && level > 0 {
            rest -= 1;
            count += 1;
        }
        count
    });
    Ok(counts.collect())
}

impl Layout {
    /// Returns the map that fills one node after the other.
    pub(crate) fn block(counts: &[u32]) -> Self {
        let mut layout = Layout(Vec::new());
        for (nodeid, count) in (0..).zip(counts) {
            layout.push(Block { nodeid, nnodes: 1, ppn: *count, repeat: 1 });
        }
        layout
    }

    /// Returns the map that deals `stride` tasks to each node in turn.
    pub(crate) fn cyclic(counts: &[u32], stride: u32) -> Self {
        let mut layout = Layout(Vec::new());
        let mut left = counts.to_vec();
        while left.iter().any(|count| *count > 0) {
            // Rounds that deal the same are told together.
            let rounds = left.iter().filter(|count| **count > 0).map(|count| count / stride).min().unwrap_or(0);
            let rounds = rounds.max(1);
            let mut round = Layout(Vec::new());
            for (nodeid, count) in (0..).zip(&mut left) {
                let ppn = (*count).min(stride);
                *count = count.saturating_sub(ppn.saturating_mul(rounds));
                round.push(Block { nodeid, nnodes: 1, ppn, repeat: 1 });
            }
            match round.0.as_mut_slice() {
                [only] => {
                    only.repeat = rounds;
                    layout.push_repeated(*only);
                }
                blocks => (0..rounds).for_each(|_| layout.0.extend_from_slice(blocks)),
            }
        }
        layout
    }

    /// Appends a run, joining it with the last one when that reaches just before it.
    fn push(&mut self, block: Block) {
        if block.ppn == 0 {
            return;
        }
        match self.0.last_mut() {
            Some(last)
                if last.repeat == 1 && last.ppn == block.ppn && last.nodeid + last.nnodes == block.nodeid =>
            {
                last.nnodes += block.nnodes;
            }
            _ => self.0.push(block),
        }
    }

    fn push_repeated(&mut self, block: Block) {
        match self.0.last_mut() {
            Some(last) if (last.nodeid, last.nnodes, last.ppn) == (block.nodeid, block.nnodes, block.ppn) => {
                last.repeat += block.repeat;
            }
            _ => self.0.push(block),
        }
    }

    /// Parses a map: RFC 34 JSON, wrapped or not, or the raw form `0-3;4-7`.
    ///
    /// # Errors
    /// [`LayoutError::Value`].
    pub(crate) fn parse(text: &str) -> Result<Self, LayoutError> {
        let bad = || LayoutError::Value(text.to_owned());
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(wrapped)) => Self::from_json(wrapped.get("map").ok_or_else(bad)?).ok_or_else(bad),
            Ok(array @ Value::Array(_)) => Self::from_json(&array).ok_or_else(bad),
            _ => Self::from_raw(text).ok_or_else(bad),
        }
    }

    fn from_json(map: &Value) -> Option<Self> {
        let mut layout = Layout(Vec::new());
        for block in map.as_array()? {
            let numbers: Option<Vec<u32>> =
                block.as_array()?.iter().map(|number| number.as_u64().and_then(|n| u32::try_from(n).ok())).collect();
            let [nodeid, nnodes, ppn, repeat] = *numbers?.as_slice() else { return None };
            nodeid.checked_add(nnodes)?;
            if nnodes == 0 || ppn == 0 || repeat == 0 {
                return None;
            }
            layout.0.push(Block { nodeid, nnodes, ppn, repeat });
        }
        // More tasks than a rank can count are refused here, so that sums cannot overflow later.
        (layout.task_count_wide() <= u64::from(u32::MAX)).then_some(layout)
    }

    /// The raw form lists the tasks of each node; tasks are told in ascending order.
    fn from_raw(text: &str) -> Option<Self> {
        let sets: Option<Vec<IdSet>> = text.split(';').map(|set| set.parse().ok()).collect();
        let mut owners: Vec<(u32, u32)> = Vec::new();
        for (node, set) in (0..).zip(&sets?) {
            owners.extend(set.iter().map(|task| (task, node)));
        }
        owners.sort_unstable();
        if owners.is_empty() || owners.iter().zip(0..).any(|((task, _), expected)| *task != expected) {
            return None;
        }
        let mut runs: Vec<Block> = Vec::new();
        for (_, nodeid) in owners {
            match runs.last_mut() {
                Some(last) if last.nodeid == nodeid => last.ppn += 1,
                _ => runs.push(Block { nodeid, nnodes: 1, ppn: 1, repeat: 1 }),
            }
        }
        let mut layout = Layout(Vec::new());
        runs.into_iter().for_each(|run| layout.push(run));
        Some(layout)
    }

    fn task_count_wide(&self) -> u64 {
        let sizes = self.0.iter().map(|block| {
            u64::from(block.nnodes).saturating_mul(u64::from(block.ppn)).saturating_mul(u64::from(block.repeat))
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// Returns the number of tasks.
    pub(crate) fn task_count(&self) -> u32 {
        u32::try_from(self.task_count_wide()).unwrap_or(u32::MAX)
    }

    /// Returns one more than the highest node.
    pub(crate) fn node_count(&self) -> u32 {
        self.0.iter().map(|block| block.nodeid + block.nnodes).max().unwrap_or(0)
    }

    /// Returns the task ranks of a node, ascending.
    pub(crate) fn tasks_of(&self, node: u32) -> Vec<u32> {
        let mut tasks = Vec::new();
        let mut base = 0;
        for block in &self.0 {
            let round = block.nnodes * block.ppn;
            if let Some(index) = node.checked_sub(block.nodeid).filter(|index| *index < block.nnodes) {
                for turn in 0..block.repeat {
                    let first = base + turn * round + index * block.ppn;
                    tasks.extend(first..first + block.ppn);
                }
            }
            base += round * block.repeat;
        }
        tasks
    }

    /// Returns the RFC 34 JSON: `[[nodeid,nnodes,ppn,repeat],...]`.
    pub(crate) fn to_json(&self) -> Value {
        self.0.iter().map(|block| Value::from(vec![block.nodeid, block.nnodes, block.ppn, block.repeat])).collect()
    }

    /// Returns the wrapped RFC 34 JSON.
    pub(crate) fn to_wrapped_json(&self) -> Value {
        serde_json::json!({"version": 1, "map": self.to_json()})
    }

    /// Returns `(vector,(nodeid,nnodes,ppn),...)` for `PMI_process_mapping`, or `None` when it exceeds `max` bytes.
    pub(crate) fn to_pmi_vector(&self, max: usize) -> Option<String> {
        let mut text = "(vector".to_owned();
        for block in &self.0 {
            for _ in 0..block.repeat {
                write!(text, ",({},{},{})", block.nodeid, block.nnodes, block.ppn).ok()?;
                if text.len() >= max {
                    return None;
                }
            }
        }
        text.push(')');
        Some(text)
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
