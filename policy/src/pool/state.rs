//! What is free, up and held at this moment?

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use flux_formats::idset::IdSet;
use serde_json::Value;

use super::bits::Bits;
use super::by_id::ById;
use super::index::{Index, Shape};
use super::inventory::{Inventory, ResourceError, rank_resources};
use super::placement::Placement;
use super::planner::Planner;
use super::rset::{self, Part, Times};
use super::time::Time;

/// Most constraints whose nodes are remembered; beyond it the memory starts anew. Queues make few, users may make many.
const CONSTRAINTS_MAX: usize = 256;

/// How much there is, for logs and for policies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Nodes that are up.
    pub nodes_up: usize,
    /// Cores that are up and free.
    pub cores_free: usize,
    /// GPUs that are up and free.
    pub gpus_free: usize,
}

/// Resources of an instance and the jobs that hold them.
#[derive(Debug, Default)]
pub struct ResourcePool {
    pub(super) inventory: Inventory,
    pub(super) free: Vec<Free>,
    /// Nodes by what is free on them now.
    pub(super) index: Index,
    /// All nodes by what they have in all, most first: what could ever be met.
    pub(super) kinds: BTreeMap<Reverse<Shape>, Bits>,
    pub(super) held: ById<u64, Holding>,
    pub(super) selected: HashMap<String, std::sync::Arc<Bits>>,
    pub(super) up: Bits,
    /// What is known of the future; made when first asked for.
    pub(super) planner: Option<Box<Planner>>,
    pub(super) placement: Placement,
    counts: Counts,
    expiration: f64,
}

/// Free cores and GPUs of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Free {
    pub(super) cores: Bits,
    pub(super) gpus: Bits,
}

/// What a job holds, and until when.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    /// Ascending by position.
    pub(super) parts: Vec<Held>,
    /// Seconds since the epoch; infinite without a limit.
    pub(super) end: f64,
}

/// What a job holds on one node.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) position: usize,
    pub(super) cores: Bits,
    pub(super) gpus: Bits,
}

impl ResourcePool {
    /// Returns the pool of an R object, everything up and free.
    ///
    /// # Errors
    /// When the object is not an R of version 1 (RFC 20), or has repeated ranks.
    pub fn from_r(r: &Value) -> Result<ResourcePool, ResourceError> {
        let inventory = Inventory::from_r(r)?;
        let mut pool = ResourcePool {
            inventory,
            ..ResourcePool::default()
        };
        pool.expiration = r
            .pointer("/execution/expiration")
            .and_then(Value::as_f64)
            .unwrap_or(0.0);
        pool.free = pool
            .inventory
            .nodes()
            .map(|(_, node)| Free {
                cores: node.cores.clone(),
                gpus: node.gpus.clone(),
            })
            .collect();
        for (position, node) in pool.inventory.nodes() {
            let shape = Shape {
                cores: node.cores.count(),
                gpus: node.gpus.count(),
            };
            pool.kinds.entry(Reverse(shape)).or_default().insert(position);
        }
        for position in 0..pool.inventory.len() {
            pool.up.insert(position);
            pool.counts.nodes_up += 1;
            pool.refresh(position);
        }
        Ok(pool)
    }

    /// Marks ranks up. Ranks that do not exist or were removed are ignored.
    pub fn up(&mut self, ranks: &IdSet) {
        for position in self.known(ranks) {
            if self.up.insert(position) {
                self.counts.nodes_up += 1;
                self.refresh(position);
            }
        }
    }

    /// Marks ranks down (offline, drained or excluded): they get no new jobs; those that run keep what they hold.
    pub fn down(&mut self, ranks: &IdSet) {
        for position in self.known(ranks) {
            if self.up.remove(position) {
                self.counts.nodes_up -= 1;
                self.refresh(position);
            }
        }
    }

    /// Takes ranks away for good (RFC 28 `shrink`): what asks for them becomes unsatisfiable.
    pub fn shrink(&mut self, ranks: &IdSet) {
        self.down(ranks);
        for position in self.known(ranks) {
            self.inventory.remove(position);
            for nodes in self.kinds.values_mut() {
                nodes.remove(position);
            }
        }
        self.kinds.retain(|_, nodes| nodes.count() > 0);
        self.selected.clear();
    }

    /// Sets when the instance ends, in seconds since the epoch; 0 is never. It bounds jobs without a time limit.
    pub fn set_expiration(&mut self, expiration: f64) {
        self.expiration = expiration;
    }

    /// Returns when the instance ends, in seconds since the epoch; 0 is never.
    pub fn expiration(&self) -> f64 {
        self.expiration
    }

    /// Books what a running job holds, from its R, as after a restart; down nodes included.
    ///
    /// # Errors
    /// When R names what the pool does not have or another job holds; nothing is booked then.
    pub fn adopt(&mut self, id: u64, r: &Value) -> Result<(), ResourceError> {
        if self.held.contains_key(&id) {
            return Err(ResourceError::HasResources(id));
        }
        let mut parts = Vec::new();
        for entry in rank_resources(r)? {
            let position = self
                .inventory
                .position(entry.rank)
                .ok_or(ResourceError::NotInPool(entry.rank))?;
            let node = self
                .inventory
                .node(position)
                .ok_or(ResourceError::NotInPool(entry.rank))?;
            if !entry.cores.is_subset(&node.cores) || !entry.gpus.is_subset(&node.gpus) {
                return Err(ResourceError::NotInPool(entry.rank));
            }
            parts.push(Held {
                position,
                cores: entry.cores,
                gpus: entry.gpus,
            });
        }
        parts.sort_by_key(|part| part.position);
        if let Some(part) = parts.iter().find(|part| !self.is_free(part)) {
            return Err(ResourceError::DoubleBooked(self.rank(part.position)));
        }
        if let Some([twice, _]) = parts.array_windows().find(|[a, b]| a.position == b.position) {
            return Err(ResourceError::DoubleBooked(self.rank(twice.position)));
        }
        let expiration = r.pointer("/execution/expiration").and_then(Value::as_f64);
        self.book(id, parts, end_of(expiration.unwrap_or(0.0)));
        Ok(())
    }

    /// Changes when a job that holds resources must end, in seconds since the epoch; 0 is never. Unknown jobs are ignored.
    pub fn set_job_expiration(&mut self, id: u64, expiration: f64) {
        let end = end_of(expiration);
        if let Some(holding) = self.held.get_mut(&id) {
            if let Some(planner) = &mut self.planner {
                planner.on_release(id, holding.end, &holding.parts);
                planner.on_book(id, end, &holding.parts);
            }
            holding.end = end;
        }
    }

    /// Releases what a job holds, on `ranks` or everywhere; returns true when the job holds nothing any more.
    pub fn free(&mut self, id: u64, ranks: Option<&IdSet>) -> bool {
        let Some(holding) = self.held.remove(&id) else {
            return true;
        };
        let end = holding.end;
        let (freed, kept): (Vec<_>, Vec<_>) = match ranks {
            None => (holding.parts, Vec::new()),
            Some(ranks) => holding
                .parts
                .into_iter()
                .partition(|part| ranks.contains(self.rank(part.position))),
        };
        if let Some(planner) = &mut self.planner {
            planner.on_release(id, end, &freed);
            if !kept.is_empty() {
                planner.ends.insert((Time(end), id));
            }
        }
        for part in freed {
            if let Some(free) = self.free.get_mut(part.position) {
                free.cores.unite(&part.cores);
                free.gpus.unite(&part.gpus);
            }
            self.refresh(part.position);
        }
        let done = kept.is_empty();
        if !done {
            self.held.insert(id, Holding { parts: kept, end });
        }
        done
    }

    /// Returns true when the job holds resources.
    pub fn holds(&self, id: u64) -> bool {
        self.held.contains_key(&id)
    }

    /// Returns how much is up and free.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns how much is up and free on the nodes that a constraint allows.
    pub fn counts_of(&mut self, constraint: &super::Constraint) -> Counts {
        let allowed = self.select(constraint);
        let mut counts = Counts {
            nodes_up: self.up.count_common([Some(&allowed), None]),
            ..Counts::default()
        };
        for (shape, nodes) in self.index.with_cores(0) {
            let count = nodes.count_common([Some(&allowed), None]);
            counts.cores_free += shape.cores * count;
            counts.gpus_free += shape.gpus * count;
        }
        counts
    }

    /// Returns all resources as R.
    pub fn all_r(&self) -> String {
        let parts: Vec<_> = self
            .inventory
            .nodes()
            .map(|(at, node)| Self::whole(at, node))
            .collect();
        rset::to_r(
            &self.inventory,
            &parts,
            Times {
                expiration: self.expiration,
                ..Times::default()
            },
            true,
        )
    }

    /// Returns the resources of nodes that are down as R.
    pub fn down_r(&self) -> String {
        let down = self.inventory.nodes().filter(|(at, _)| !self.up.contains(*at));
        let parts: Vec<_> = down.map(|(at, node)| Self::whole(at, node)).collect();
        rset::to_r(
            &self.inventory,
            &parts,
            Times {
                expiration: self.expiration,
                ..Times::default()
            },
            true,
        )
    }

    /// Returns what jobs hold as R.
    pub fn allocated_r(&self) -> String {
        let mut held: BTreeMap<usize, Free> = BTreeMap::new();
        for part in self.held.values().flat_map(|holding| &holding.parts) {
            let sum = held.entry(part.position).or_default();
            sum.cores.unite(&part.cores);
            sum.gpus.unite(&part.gpus);
        }
        let parts: Vec<_> = held
            .iter()
            .filter_map(|(&at, sum)| self.part(at, &sum.cores, &sum.gpus))
            .collect();
        rset::to_r(
            &self.inventory,
            &parts,
            Times {
                expiration: self.expiration,
                ..Times::default()
            },
            true,
        )
    }

    /// Returns true when the node is up.
    pub(super) fn is_up(&self, position: usize) -> bool {
        self.up.contains(position)
    }

    /// Returns true when all of `part` is free, be its node up or down.
    pub(super) fn is_free(&self, part: &Held) -> bool {
        self.free
            .get(part.position)
            .is_some_and(|free| part.cores.is_subset(&free.cores) && part.gpus.is_subset(&free.gpus))
    }

    /// Books free parts for a job until `end`.
    pub(super) fn book(&mut self, id: u64, parts: Vec<Held>, end: f64) {
        for part in &parts {
            if let Some(free) = self.free.get_mut(part.position) {
                free.cores.subtract(&part.cores);
                free.gpus.subtract(&part.gpus);
            }
            self.refresh(part.position);
        }
        if let Some(planner) = &mut self.planner {
            planner.on_book(id, end, &parts);
        }
        self.held.insert(id, Holding { parts, end });
    }

    /// Returns some cores and GPUs of the node at `position`, to be written as R.
    pub(super) fn part<'a>(&'a self, position: usize, cores: &'a Bits, gpus: &'a Bits) -> Option<Part<'a>> {
        Some(Part {
            node: self.inventory.node(position)?,
            position,
            cores,
            gpus,
        })
    }

    fn whole(position: usize, node: &super::inventory::Node) -> Part<'_> {
        Part {
            node,
            position,
            cores: &node.cores,
            gpus: &node.gpus,
        }
    }

    /// Returns the nodes that a constraint allows; remembered by its text.
    pub(super) fn select(&mut self, constraint: &super::Constraint) -> std::sync::Arc<Bits> {
        if let Some(known) = self.selected.get(constraint.text()) {
            return known.clone();
        }
        if self.selected.len() >= CONSTRAINTS_MAX {
            self.selected.clear();
        }
        let nodes = std::sync::Arc::new(constraint.select(&self.inventory));
        self.selected.insert(constraint.text().to_owned(), nodes.clone());
        nodes
    }

    fn rank(&self, position: usize) -> u32 {
        self.inventory.node(position).map_or(0, |node| node.rank)
    }

    /// Returns the positions of ranks that exist and were not removed.
    fn known(&self, ranks: &IdSet) -> Vec<usize> {
        let removed = |at: &usize| self.inventory.is_removed(*at);
        self.inventory
            .positions(ranks)
            .filter(|at| !removed(at))
            .collect()
    }

    /// Lists a node anew after what it has free or whether it is up has changed.
    fn refresh(&mut self, position: usize) {
        let (Some(free), Some(node)) = (self.free.get(position), self.inventory.node(position)) else {
            return;
        };
        let shape = if self.up.contains(position) {
            free.shape()
        } else {
            Shape::default()
        };
        let whole = shape.cores == node.cores.count() && shape.gpus == node.gpus.count();
        let old = self.index.set(position, shape, whole);
        self.counts.cores_free = self.counts.cores_free + shape.cores - old.cores;
        self.counts.gpus_free = self.counts.gpus_free + shape.gpus - old.gpus;
        if let Some(planner) = &mut self.planner {
            planner.touch(position);
        }
    }
}

impl Free {
    /// Returns how much it is.
    pub(super) fn shape(&self) -> Shape {
        Shape {
            cores: self.cores.count(),
            gpus: self.gpus.count(),
        }
    }
}

/// Returns the time of an expiration; 0 is never.
pub(super) fn end_of(expiration: f64) -> f64 {
    if expiration > 0.0 {
        expiration
    } else {
        f64::INFINITY
    }
}
