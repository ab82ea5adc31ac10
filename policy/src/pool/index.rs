//! Which nodes have how much free? (Nodes in buckets by free cores and GPUs, so that nothing has to be searched or sorted.)

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::bits::Bits;

/// Counts of cores and GPUs of a node, ordered by cores, then GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) cores: usize,
    pub(super) gpus: usize,
}

/// Nodes by what is free on them: of the pool as it is, or with what plans keep taken away.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// By position; nothing for nodes that are down.
    shapes: Vec<Shape>,
    /// Nodes with at least one free core by free cores and GPUs, most first.
    pub(super) buckets: BTreeMap<Reverse<Shape>, Bits>,
    /// Those of which nothing is held.
    pub(super) idle: Bits,
}

impl Index {
    /// Returns what is free at `position`.
    pub(super) fn shape(&self, position: usize) -> Shape {
        self.shapes.get(position).copied().unwrap_or_default()
    }

    /// Moves a node to the bucket of `shape`; `whole` when that is all it has. Returns what it had.
    pub(super) fn set(&mut self, position: usize, shape: Shape, whole: bool) -> Shape {
        if position >= self.shapes.len() {
            self.shapes.resize(position + 1, Shape::default());
        }
        let Some(slot) = self.shapes.get_mut(position) else {
            return Shape::default();
        };
        let old = std::mem::replace(slot, shape);
        if whole && shape.cores > 0 {
            self.idle.insert(position);
        } else {
            self.idle.remove(position);
        }
        if old == shape {
            return old;
        }
        if old.cores > 0
            && let Some(bucket) = self.buckets.get_mut(&Reverse(old))
        {
            bucket.remove(position);
            if bucket.count() == 0 {
                self.buckets.remove(&Reverse(old));
            }
        }
        if shape.cores > 0 {
            self.buckets.entry(Reverse(shape)).or_default().insert(position);
        }
        old
    }

    /// Returns the buckets whose nodes have at least `cores` free, most free first.
    pub(super) fn with_cores(&self, cores: usize) -> impl Iterator<Item = (Shape, &Bits)> {
        let last = Reverse(Shape { cores, gpus: 0 });
        self.buckets
            .range(..=last)
            .map(|(Reverse(shape), nodes)| (*shape, nodes))
    }
}
