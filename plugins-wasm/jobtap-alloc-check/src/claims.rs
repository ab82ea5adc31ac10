//! Which cores and GPUs are taken, as bits.

use std::collections::HashMap;

use serde_json::Value;

/// Kinds of children that are counted.
const KINDS: [&str; 2] = ["core", "gpu"];
/// Largest number of a core, GPU or rank; more is nonsense.
const NUMBER_MAX: usize = 1 << 24;

/// Cores and GPUs of a rank.
type Node = [Vec<u64>; 2];

/// What a job has.
#[derive(Debug)]
pub(crate) struct Resources {
    /// Ranks, and what it has on each of them.
    entries: Vec<(Vec<usize>, Node)>,
}

impl Resources {
    /// Reads R (RFC 20).
    pub(crate) fn parse(r: &str) -> Option<Resources> {
        let r: Value = serde_json::from_str(r).ok()?;
        let mut entries = Vec::new();
        for entry in r.pointer("/execution/R_lite")?.as_array()? {
            let ranks = numbers(entry.get("rank")?.as_str()?)?;
            let mut node = Node::default();
            for (kind, of_kind) in KINDS.iter().zip(&mut node) {
                if let Some(ids) = entry.get("children")?.get(kind) {
                    *of_kind = bits(ids.as_str()?)?;
                }
            }
            entries.push((ranks, node));
        }
        Some(Resources { entries })
    }

    fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.entries
            .iter()
            .flat_map(|(ranks, node)| ranks.iter().map(move |rank| (*rank, node)))
    }
}

/// Returns an idset as bits.
fn bits(idset: &str) -> Option<Vec<u64>> {
    let numbers = numbers(idset)?;
    let words = numbers.iter().max().map_or(0, |largest| largest / 64 + 1);
    let mut bits = vec![0; words];
    for number in numbers {
        *bits.get_mut(number / 64)? |= 1 << (number % 64);
    }
    Some(bits)
}

/// Returns the numbers of an idset such as `0-3,7` (RFC 22).
fn numbers(idset: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in idset.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > NUMBER_MAX {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// What all jobs together have.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    nodes: HashMap<usize, Node>,
}

impl Claims {
    /// Takes resources, all or none; returns false when some are taken already.
    pub(crate) fn add(&mut self, resources: &Resources) -> bool {
        let meets = |(rank, node): (usize, &Node)| {
            self.nodes.get(&rank).is_some_and(|taken| {
                let pairs = taken.iter().zip(node);
                pairs
                    .into_iter()
                    .any(|(a, b)| a.iter().zip(b).any(|(a, b)| a & b != 0))
            })
        };
        if resources.nodes().any(meets) {
            return false;
        }
        for (rank, node) in resources.nodes() {
            let taken = self.nodes.entry(rank).or_default();
            for (taken, bits) in taken.iter_mut().zip(node) {
                if taken.len() < bits.len() {
                    taken.resize(bits.len(), 0);
                }
                taken
                    .iter_mut()
                    .zip(bits)
                    .for_each(|(taken, bits)| *taken |= bits);
            }
        }
        true
    }

    /// Gives resources back.
    pub(crate) fn remove(&mut self, resources: &Resources) {
        for (rank, node) in resources.nodes() {
            for (taken, bits) in self.nodes.entry(rank).or_default().iter_mut().zip(node) {
                taken
                    .iter_mut()
                    .zip(bits)
                    .for_each(|(taken, bits)| *taken &= !bits);
            }
        }
    }
}
