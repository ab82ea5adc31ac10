//! Which cores and GPUs of which hosts? (RFC 20 resource set, R version 1.)
//!
//! Ranks with equal resources are held together, so a cluster of equal nodes is one [`Group`] and set algebra on it
//! costs the same for 10 nodes and 10000.

mod algebra;
mod json;

pub use algebra::RerankError;

use std::fmt;

use serde_json::{Map, Value};

use crate::hostlist::Hostlist;
use crate::idset::IdSet;

/// Why JSON is not an R, or two R do not combine.
#[derive(Debug, thiserror::Error)]
pub enum ResourceSetError {
    /// Not JSON, or a member is of the wrong type or not an idset or hostlist.
    #[error("invalid resource set")]
    Json(#[from] serde_json::Error),
    /// The version is not 1.
    #[error("resource set version {0} is not supported")]
    Version(i64),
    /// `nodelist` and the ranks differ in number.
    #[error("resource set has {hosts} hosts for {ranks} ranks")]
    Nodelist {
        /// Hosts in `nodelist`.
        hosts: u64,
        /// Ranks in `R_lite`.
        ranks: u64,
    },
    /// An entry of `R_lite` names no rank.
    #[error("resource set entry without rank")]
    NoRank,
    /// A property's name holds one of ``! & ' " ^ ` | ( )`` or is empty.
    #[error("invalid property name {0:?}")]
    PropertyName(String),
    /// A property is set on a rank that the set does not have.
    #[error("property {name:?} on ranks {ranks} outside the resource set")]
    PropertyRanks {
        /// Property.
        name: String,
        /// Ranks that are not in the set.
        ranks: IdSet,
    },
    /// The same core or GPU is in both sets.
    #[error("resource sets overlap")]
    Overlap,
}

/// The resources of one rank.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Children {
    /// Logical core ids.
    pub core: IdSet,
    /// Logical GPU ids.
    pub gpu: IdSet,
}

impl Children {
    /// Returns true without cores and GPUs.
    pub fn is_empty(&self) -> bool {
        self.core.is_empty() && self.gpu.is_empty()
    }
}

/// Ranks with equal resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Ranks (execution targets).
    pub ranks: IdSet,
    /// What each of them has.
    pub children: Children,
}

/// A kind of resource to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// Ranks.
    Node,
    /// Cores.
    Core,
    /// GPUs.
    Gpu,
}

/// A resource set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceSet {
    /// Disjoint in ranks, distinct in children, ascending by first rank.
    groups: Vec<Group>,
    /// Hosts in ascending order of rank; empty when unknown.
    nodelist: Hostlist,
    /// Property names and the ranks that have them, in the order they came.
    properties: Vec<(String, IdSet)>,
    /// Seconds since the epoch, 0 unset.
    pub starttime: f64,
    /// Seconds since the epoch, 0 unset.
    pub expiration: f64,
    /// Slots of an allocation, 0 unset.
    pub nslots: u32,
    /// Data of the scheduler, passed on as it is.
    pub scheduling: Option<Map<String, Value>>,
}

impl ResourceSet {
    /// Returns the empty set.
    pub fn new() -> Self {
        ResourceSet::default()
    }

    /// Returns a set of ranks with equal resources.
    ///
    /// # Errors
    /// [`ResourceSetError::Nodelist`] when `nodelist` is not empty and has another number of hosts.
    pub fn uniform(ranks: IdSet, nodelist: Hostlist, children: Children) -> Result<Self, ResourceSetError> {
        ResourceSet::from_groups(vec![Group { ranks, children }], nodelist)
    }

    /// Returns a set of groups, which may share ranks.
    ///
    /// # Errors
    /// Like [`ResourceSet::uniform`].
    pub fn from_groups(groups: Vec<Group>, nodelist: Hostlist) -> Result<Self, ResourceSetError> {
        let mut set = ResourceSet {
            groups: algebra::collect(groups),
            ..ResourceSet::default()
        };
        let (hosts, ranks) = (nodelist.count(), set.count(ResourceKind::Node));
        if hosts != 0 && hosts != ranks {
            return Err(ResourceSetError::Nodelist { hosts, ranks });
        }
        set.nodelist = nodelist;
        Ok(set)
    }

    /// Returns the groups, ascending by first rank.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Returns the hosts in ascending order of rank; empty when unknown.
    pub fn nodelist(&self) -> &Hostlist {
        &self.nodelist
    }

    /// Returns all ranks.
    pub fn ranks(&self) -> IdSet {
        algebra::all_ranks(&self.groups)
    }

    /// Returns true without ranks.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Returns the number of nodes, cores or GPUs.
    pub fn count(&self, kind: ResourceKind) -> u64 {
        let sum = |of: fn(&Children) -> u64| {
            self.groups.iter().fold(0u64, |sum, group| {
                sum.saturating_add(group.ranks.count().saturating_mul(of(&group.children)))
            })
        };
        match kind {
            ResourceKind::Node => sum(|_| 1),
            ResourceKind::Core => sum(|children| children.core.count()),
            ResourceKind::Gpu => sum(|children| children.gpu.count()),
        }
    }

    /// Returns the resources of a rank.
    pub fn children(&self, rank: u32) -> Option<&Children> {
        self.groups
            .iter()
            .find(|group| group.ranks.contains(rank))
            .map(|group| &group.children)
    }

    /// Returns the host of a rank.
    pub fn host(&self, rank: u32) -> Option<String> {
        let ranks = self.ranks();
        if !ranks.contains(rank) {
            return None;
        }
        self.nodelist.nth(ranks.rank_of(rank))
    }

    /// Returns the hosts of some ranks, in ascending order of rank.
    pub fn hosts_of(&self, ranks: &IdSet) -> Hostlist {
        algebra::hosts_of(&self.ranks(), &self.nodelist, ranks)
    }

    /// Returns the ranks of all nodes with a host name in `hosts`.
    ///
    /// # Errors
    /// [`crate::hostlist::HostlistError::TooManyHosts`] for sets of more than a million nodes.
    pub fn ranks_of_hosts(&self, hosts: &Hostlist) -> Result<IdSet, crate::hostlist::HostlistError> {
        let names = self.nodelist.expand()?;
        let ranks = self.ranks();
        Ok(ranks
            .iter()
            .zip(names)
            .filter(|(_, name)| hosts.contains(name))
            .map(|(rank, _)| rank)
            .collect())
    }

    /// Returns property names with the ranks that have them.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &IdSet)> {
        self.properties.iter().map(|(name, ranks)| (name.as_str(), ranks))
    }

    /// Returns the ranks with a property.
    pub fn property_ranks(&self, name: &str) -> Option<&IdSet> {
        self.properties
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, ranks)| ranks)
    }

    /// Returns true when a rank has a property.
    pub fn has_property(&self, rank: u32, name: &str) -> bool {
        self.property_ranks(name)
            .is_some_and(|ranks| ranks.contains(rank))
    }

    /// Sets a property on ranks, beside those that have it.
    ///
    /// # Errors
    /// [`ResourceSetError::PropertyName`], [`ResourceSetError::PropertyRanks`].
    pub fn add_property(&mut self, name: &str, ranks: &IdSet) -> Result<(), ResourceSetError> {
        if !valid_property(name) {
            return Err(ResourceSetError::PropertyName(name.to_owned()));
        }
        let outside = ranks.difference(&self.ranks());
        if !outside.is_empty() {
            return Err(ResourceSetError::PropertyRanks {
                name: name.to_owned(),
                ranks: outside,
            });
        }
        self.merge_property(name, ranks);
        Ok(())
    }

    fn merge_property(&mut self, name: &str, ranks: &IdSet) {
        match self.properties.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = known.union(ranks),
            None => self.properties.push((name.to_owned(), ranks.clone())),
        }
    }

    /// Takes a property from ranks.
    pub fn remove_property(&mut self, name: &str, ranks: &IdSet) {
        for (known, on) in &mut self.properties {
            if known == name {
                *on = on.difference(ranks);
            }
        }
        self.properties.retain(|(_, on)| !on.is_empty());
    }
}

/// Returns true for a property name that RFC 20 allows.
pub fn valid_property(name: &str) -> bool {
    !name.is_empty() && !name.contains(['!', '&', '\'', '"', '^', '`', '|', '(', ')'])
}

impl fmt::Display for ResourceSet {
    /// Writes the short form of listings and annotations: `rank[0-1]/core[0-3],gpu0`, groups separated by spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, group) in self.groups.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "rank{}/", group.ranks.bracketed())?;
            let Children { core, gpu } = &group.children;
            if !core.is_empty() {
                write!(f, "core{}", core.bracketed())?;
            }
            if !gpu.is_empty() {
                write!(
                    f,
                    "{}gpu{}",
                    if core.is_empty() { "" } else { "," },
                    gpu.bracketed()
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
