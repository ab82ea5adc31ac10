//! How are resource sets combined, without looking at each rank?

use std::collections::HashMap;

use super::{Children, Group, ResourceKind, ResourceSet, ResourceSetError};
use crate::hostlist::{Hostlist, HostlistError};
use crate::idset::IdSet;

/// Why ranks cannot be assigned by host names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RerankError {
    /// The list has another number of hosts than the set.
    #[error("number of hosts ({hosts}) does not match node count ({nodes})")]
    Count {
        /// Hosts in the list.
        hosts: u64,
        /// Nodes in the set.
        nodes: u64,
    },
    /// A host of the list is not in the set, or appears more often there.
    #[error("host not found in resource set")]
    Unknown,
    /// The list cannot be expanded.
    #[error("invalid hostlist")]
    Hostlist(#[from] HostlistError),
}

/// Returns the ranks of all groups.
pub(super) fn all_ranks(groups: &[Group]) -> IdSet {
    match groups {
        [group] => group.ranks.clone(),
        _ => IdSet::from_ranges(groups.iter().flat_map(|group| group.ranks.ranges())),
    }
}

/// Returns the hosts of `wanted`, given the hosts of `ranks`.
pub(super) fn hosts_of(ranks: &IdSet, nodelist: &Hostlist, wanted: &IdSet) -> Hostlist {
    if nodelist.is_empty() || ranks == wanted {
        return nodelist.clone();
    }
    let index = |rank: u32| u32::try_from(ranks.rank_of(rank)).unwrap_or(u32::MAX);
    let common = ranks.intersection(wanted);
    nodelist.select(&IdSet::from_ranges(
        common.ranges().map(|(lo, hi)| (index(lo), index(hi))),
    ))
}

/// Makes groups canonical: merges shared ranks, drops empty ones, joins equal children, sorts.
pub(super) fn collect(groups: Vec<Group>) -> Vec<Group> {
    let mut ranges: Vec<(u32, u32)> = groups.iter().flat_map(|group| group.ranks.ranges()).collect();
    ranges.sort_unstable();
    let disjoint = ranges.windows(2).all(|pair| matches!(pair, [a, b] if a.1 < b.0));
    if disjoint {
        return join_equal(groups);
    }
    groups
        .into_iter()
        .fold(Vec::new(), |all, group| combine(&all, &[group], union_children))
}

/// Joins groups of equal children and sorts by first rank.
fn join_equal(groups: Vec<Group>) -> Vec<Group> {
    let mut by_children: HashMap<Children, Vec<IdSet>> = HashMap::with_capacity(groups.len());
    for group in groups {
        if !group.ranks.is_empty() {
            by_children.entry(group.children).or_default().push(group.ranks);
        }
    }
    let mut joined: Vec<Group> = by_children
        .into_iter()
        .map(|(children, mut parts)| {
            let ranks = match (parts.pop(), parts.is_empty()) {
                (Some(only), true) => only,
                (last, _) => IdSet::from_ranges(parts.iter().chain(&last).flat_map(IdSet::ranges)),
            };
            Group { ranks, children }
        })
        .collect();
    joined.sort_unstable_by_key(|group| group.ranks.first());
    joined
}

/// Combines two lists of groups rank by rank; `merge` gives the children of a rank, `None` leaves it out.
fn combine(
    a: &[Group],
    b: &[Group],
    merge: impl Fn(Option<&Children>, Option<&Children>) -> Option<Children>,
) -> Vec<Group> {
    let mut out = Vec::with_capacity(a.len() + b.len());
    let mut add = |ranks: IdSet, children: Option<Children>| {
        if let (Some(children), false) = (children, ranks.is_empty()) {
            out.push(Group { ranks, children });
        }
    };
    let (a_ranks, b_ranks) = (all_ranks(a), all_ranks(b));
    for left in a {
        add(left.ranks.difference(&b_ranks), merge(Some(&left.children), None));
        if !left.ranks.intersects(&b_ranks) {
            continue;
        }
        for right in b {
            let common = left.ranks.intersection(&right.ranks);
            if !common.is_empty() {
                add(common, merge(Some(&left.children), Some(&right.children)));
            }
        }
    }
    for right in b {
        add(
            right.ranks.difference(&a_ranks),
            merge(None, Some(&right.children)),
        );
    }
    join_equal(out)
}

fn union_children(a: Option<&Children>, b: Option<&Children>) -> Option<Children> {
    match (a, b) {
        (Some(a), Some(b)) => Some(Children {
            core: a.core.union(&b.core),
            gpu: a.gpu.union(&b.gpu),
        }),
        (one, other) => one.or(other).cloned(),
    }
}

fn difference_children(a: Option<&Children>, b: Option<&Children>) -> Option<Children> {
    let a = a?;
    let left = b.map_or_else(
        || a.clone(),
        |b| Children {
            core: a.core.difference(&b.core),
            gpu: a.gpu.difference(&b.gpu),
        },
    );
    (!left.is_empty()).then_some(left)
}

fn intersection_children(a: Option<&Children>, b: Option<&Children>) -> Option<Children> {
    let (a, b) = (a?, b?);
    let both = Children {
        core: a.core.intersection(&b.core),
        gpu: a.gpu.intersection(&b.gpu),
    };
    (!both.is_empty()).then_some(both)
}

impl ResourceSet {
    /// Returns this set's times, properties and hosts with other groups, whose ranks this set has.
    fn with_groups(&self, groups: Vec<Group>) -> ResourceSet {
        let ranks = all_ranks(&groups);
        let properties = self
            .properties
            .iter()
            .map(|(name, on)| (name.clone(), on.intersection(&ranks)));
        ResourceSet {
            nodelist: hosts_of(&self.ranks(), &self.nodelist, &ranks),
            properties: properties.filter(|(_, on)| !on.is_empty()).collect(),
            groups,
            starttime: self.starttime,
            expiration: self.expiration,
            nslots: 0,
            scheduling: None,
        }
    }

    /// Returns the resources of either set; host, times and property order come from this set first.
    #[must_use]
    pub fn union(&self, other: &ResourceSet) -> ResourceSet {
        let groups = combine(&self.groups, &other.groups, union_children);
        let mut out = ResourceSet {
            groups,
            ..self.clone()
        };
        out.nodelist = self.union_hosts(other);
        for (name, on) in &other.properties {
            out.merge_property(name, on);
        }
        if out.scheduling.is_none() {
            out.scheduling.clone_from(&other.scheduling);
        }
        if out.starttime == 0.0 {
            out.starttime = other.starttime;
        }
        if out.expiration == 0.0 {
            out.expiration = other.expiration;
        }
        out
    }

    /// Returns the hosts of both sets in ascending order of rank.
    fn union_hosts(&self, other: &ResourceSet) -> Hostlist {
        let (mine, theirs) = (self.ranks(), other.ranks());
        let added = theirs.difference(&mine);
        if added.is_empty() {
            return self.nodelist.clone();
        }
        if mine.is_empty() {
            return other.nodelist.clone();
        }
        let mut hosts = Hostlist::new();
        let mut pieces: Vec<((u32, u32), bool)> = mine
            .ranges()
            .map(|range| (range, true))
            .chain(added.ranges().map(|range| (range, false)))
            .collect();
        pieces.sort_unstable();
        for ((lo, hi), is_mine) in pieces {
            let (ranks, nodelist) = if is_mine {
                (&mine, &self.nodelist)
            } else {
                (&theirs, &other.nodelist)
            };
            hosts.append_list(&hosts_of(ranks, nodelist, &IdSet::from_range(lo, hi)));
        }
        hosts
    }

    /// Adds the resources of `other`, which must not share a core or GPU with this set.
    ///
    /// # Errors
    /// [`ResourceSetError::Overlap`]; the set is then unchanged.
    pub fn append(&mut self, other: &ResourceSet) -> Result<(), ResourceSetError> {
        if !combine(&self.groups, &other.groups, intersection_children).is_empty() {
            return Err(ResourceSetError::Overlap);
        }
        *self = self.union(other);
        Ok(())
    }

    /// Returns the resources that `other` does not have; ranks without any left are gone.
    #[must_use]
    pub fn difference(&self, other: &ResourceSet) -> ResourceSet {
        self.with_groups(combine(&self.groups, &other.groups, difference_children))
    }

    /// Returns the resources that both sets have.
    #[must_use]
    pub fn intersection(&self, other: &ResourceSet) -> ResourceSet {
        self.with_groups(combine(&self.groups, &other.groups, intersection_children))
    }

    /// Returns true when every core and GPU of this set is in `other`.
    pub fn is_subset(&self, other: &ResourceSet) -> bool {
        combine(&self.groups, &other.groups, difference_children).is_empty()
    }

    /// Returns the resources of some ranks.
    #[must_use]
    pub fn copy_ranks(&self, ranks: &IdSet) -> ResourceSet {
        let groups = self.groups.iter().map(|group| Group {
            ranks: group.ranks.intersection(ranks),
            children: group.children.clone(),
        });
        let mut out = self.with_groups(groups.filter(|group| !group.ranks.is_empty()).collect());
        out.groups.sort_unstable_by_key(|group| group.ranks.first());
        out.scheduling.clone_from(&self.scheduling);
        out
    }

    /// Returns the set with ranks numbered from 0 in their order, as a sub-instance without a host order does.
    #[must_use]
    pub fn compact_ranks(&self) -> ResourceSet {
        let all = self.ranks();
        let index = |rank: u32| u32::try_from(all.rank_of(rank)).unwrap_or(u32::MAX);
        let map = |ranks: &IdSet| {
            let mut out = Vec::new();
            for (lo, hi) in ranks.ranges() {
                // a range of one group is whole in `all`, so it stays a range
                out.push((index(lo), index(hi)));
            }
            IdSet::from_ranges(out)
        };
        let mut out = self.clone();
        out.groups
            .iter_mut()
            .for_each(|group| group.ranks = map(&group.ranks));
        out.properties
            .iter_mut()
            .for_each(|(_, on)| *on = map(&on.intersection(&all)));
        out
    }

    /// Returns the set with ranks, cores and GPUs all numbered from 0 (`flux R remap`).
    #[must_use]
    pub fn remap(&self) -> ResourceSet {
        let mut out = self.compact_ranks();
        let compact = |ids: &IdSet| u32::try_from(ids.count()).map_or_else(|_| ids.clone(), IdSet::first_n);
        for group in &mut out.groups {
            group.children = Children {
                core: compact(&group.children.core),
                gpu: compact(&group.children.gpu),
            };
        }
        out.groups = join_equal(out.groups);
        out
    }

    /// Returns the set with the rank of each node being the index of its host in `hosts`.
    ///
    /// Hosts that appear more than once are taken in their order.
    ///
    /// # Errors
    /// Any [`RerankError`].
    pub fn rerank(&self, hosts: &Hostlist) -> Result<ResourceSet, RerankError> {
        let nodes = self.count(ResourceKind::Node);
        if hosts.count() != nodes {
            return Err(RerankError::Count {
                hosts: hosts.count(),
                nodes,
            });
        }
        let mut index = hosts.index()?;
        index.values_mut().for_each(|positions| positions.reverse());
        let mut new_rank = HashMap::new();
        for (rank, host) in self.ranks().iter().zip(self.nodelist.expand()?) {
            let position = index
                .get_mut(&host)
                .and_then(Vec::pop)
                .ok_or(RerankError::Unknown)?;
            new_rank.insert(rank, position);
        }
        let map = |ranks: &IdSet| {
            IdSet::from_ranges(
                ranks
                    .iter()
                    .filter_map(|rank| new_rank.get(&rank).map(|&new| (new, new))),
            )
        };
        let mut out = self.clone();
        out.groups
            .iter_mut()
            .for_each(|group| group.ranks = map(&group.ranks));
        out.groups.sort_unstable_by_key(|group| group.ranks.first());
        out.properties.iter_mut().for_each(|(_, on)| *on = map(on));
        out.nodelist = hosts.clone();
        Ok(out)
    }
}
