//! Which nodes, cores, GPUs and properties does the instance have? (Read from R, RFC 20.)

use std::collections::HashMap;
use std::str::FromStr;

use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use serde_json::Value;

use super::bits::Bits;

/// Highest core or GPU id that is accepted; bounds what a hostile R can make us allocate.
const CHILD_ID_MAX: u32 = 65_535;
/// Most nodes that are accepted.
const NODES_MAX: u64 = 1 << 22;

/// Why an R cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// The text is not JSON.
    #[error("R is not JSON")]
    Json,
    /// `version` is not 1.
    #[error("R version is not 1")]
    Version,
    /// A key is missing or of the wrong type.
    #[error("R key '{0}' is missing or malformed")]
    Key(&'static str),
    /// Hosts and ranks differ in number.
    #[error("R has {ranks} ranks but {hosts} hosts")]
    HostCount {
        /// Ranks in R_lite.
        ranks: u64,
        /// Hosts in nodelist.
        hosts: u64,
    },
    /// A rank occurs twice, or there are too many of them.
    #[error("R has a repeated rank or too many ranks")]
    Ranks,
    /// R names a rank, core or GPU that the pool does not have.
    #[error("rank {0} of R is not in the pool or lacks a core or GPU of R")]
    NotInPool(u32),
    /// R books something that a job holds already.
    #[error("rank {0} of R has a core or GPU that another job holds")]
    DoubleBooked(u32),
    /// The job has resources already.
    #[error("job {0} has resources already")]
    HasResources(u64),
}

/// One entry of R: what is on a rank.
#[derive(Clone, Debug)]
pub(super) struct RankResources {
    pub(super) rank: u32,
    pub(super) cores: Bits,
    pub(super) gpus: Bits,
}

/// A node as R describes it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) rank: u32,
    pub(super) host: Box<str>,
    pub(super) cores: Bits,
    pub(super) gpus: Bits,
}

/// All nodes in ascending order of rank; a node's *position* is its index.
#[derive(Clone, Debug, Default)]
pub(super) struct Inventory {
    nodes: Vec<Node>,
    /// Positions by host; several brokers may run on one host.
    hosts: HashMap<Box<str>, Vec<usize>>,
    /// Property names in R's order with their positions.
    properties: Vec<(String, Bits)>,
    /// Nodes taken away for good keep their position and lose their resources.
    removed: Bits,
}

impl Inventory {
    /// Reads an R object.
    pub(super) fn from_r(r: &Value) -> Result<Inventory, ResourceError> {
        let mut ranks = rank_resources(r)?;
        ranks.sort_by_key(|entry| entry.rank);
        if ranks
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.rank == b.rank))
        {
            return Err(ResourceError::Ranks);
        }
        let names = hosts(r, ranks.len())?;
        let mut inventory = Inventory::default();
        for (position, (entry, host)) in ranks.into_iter().zip(names).enumerate() {
            let host: Box<str> = host.into();
            inventory.hosts.entry(host.clone()).or_default().push(position);
            inventory.nodes.push(Node {
                rank: entry.rank,
                host,
                cores: entry.cores,
                gpus: entry.gpus,
            });
        }
        if let Some(properties) = r.pointer("/execution/properties").and_then(Value::as_object) {
            for (name, ids) in properties {
                let ids = ids.as_str().and_then(|text| IdSet::from_str(text).ok());
                let ids = ids.ok_or(ResourceError::Key("properties"))?;
                let positions = inventory.positions(&ids).collect();
                inventory.properties.push((name.clone(), positions));
            }
        }
        Ok(inventory)
    }

    /// Returns how many nodes there are, removed ones included.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the node at `position`.
    pub(super) fn node(&self, position: usize) -> Option<&Node> {
        self.nodes.get(position)
    }

    /// Returns all nodes with their positions, but for removed ones.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .filter(|(position, _)| !self.removed.contains(*position))
    }

    /// Returns the position of a rank.
    pub(super) fn position(&self, rank: u32) -> Option<usize> {
        let guess = usize::try_from(rank).ok()?;
        if self.nodes.get(guess).is_some_and(|node| node.rank == rank) {
            return Some(guess);
        }
        self.nodes.binary_search_by_key(&rank, |node| node.rank).ok()
    }

    /// Returns the positions of those ranks that exist; costs no more than the ranks that exist.
    pub(super) fn positions<'a>(&'a self, ranks: &'a IdSet) -> impl Iterator<Item = usize> + 'a {
        ranks.ranges().flat_map(|(first, last)| {
            let start = self.nodes.partition_point(|node| node.rank < first);
            let end = self.nodes.partition_point(|node| node.rank <= last);
            start..end
        })
    }

    /// Returns the positions of the nodes on a host.
    pub(super) fn on_host(&self, host: &str) -> impl Iterator<Item = usize> + '_ {
        self.hosts.get(host).into_iter().flatten().copied()
    }

    /// Returns the positions of the nodes with a property.
    pub(super) fn with_property(&self, name: &str) -> Option<&Bits> {
        self.properties
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, positions)| positions)
    }

    /// Returns all properties with the positions that have them.
    pub(super) fn properties(&self) -> &[(String, Bits)] {
        &self.properties
    }

    /// Returns true when the node was taken away.
    pub(super) fn is_removed(&self, position: usize) -> bool {
        self.removed.contains(position)
    }

    /// Takes a node away for good.
    pub(super) fn remove(&mut self, position: usize) {
        if position < self.nodes.len() {
            self.removed.insert(position);
        }
    }
}

/// Reads R_lite.
pub(super) fn rank_resources(r: &Value) -> Result<Vec<RankResources>, ResourceError> {
    if r.get("version").and_then(Value::as_u64) != Some(1) {
        return Err(ResourceError::Version);
    }
    let lite = r
        .pointer("/execution/R_lite")
        .and_then(Value::as_array)
        .ok_or(ResourceError::Key("R_lite"))?;
    let mut all = Vec::new();
    let mut total = 0;
    for entry in lite {
        let ranks = idset(entry.get("rank")).ok_or(ResourceError::Key("rank"))?;
        total += ranks.count();
        if total > NODES_MAX {
            return Err(ResourceError::Ranks);
        }
        let children = entry
            .get("children")
            .and_then(Value::as_object)
            .ok_or(ResourceError::Key("children"))?;
        let child = |name: &'static str| match children.get(name) {
            None => Ok(Bits::default()),
            some => match idset(some).filter(|ids| ids.last().unwrap_or(0) <= CHILD_ID_MAX) {
                Some(ids) => Ok(ids
                    .iter()
                    .filter_map(|id| usize::try_from(id).ok())
                    .collect::<Bits>()),
                None => Err(ResourceError::Key(name)),
            },
        };
        let (cores, gpus) = (child("core")?, child("gpu")?);
        all.extend(ranks.iter().map(|rank| RankResources {
            rank,
            cores: cores.clone(),
            gpus: gpus.clone(),
        }));
    }
    Ok(all)
}

/// Returns the ranks of an R, which is what a scheduler needs to know of a partial release.
///
/// # Errors
/// When R_lite is missing or malformed.
pub fn ranks_of(r: &Value) -> Result<IdSet, ResourceError> {
    let lite = r
        .pointer("/execution/R_lite")
        .and_then(Value::as_array)
        .ok_or(ResourceError::Key("R_lite"))?;
    lite.iter().try_fold(IdSet::new(), |ranks, entry| {
        Ok(ranks.union(&idset(entry.get("rank")).ok_or(ResourceError::Key("rank"))?))
    })
}

fn idset(value: Option<&Value>) -> Option<IdSet> {
    value?.as_str()?.parse().ok()
}

/// Returns the host of each of `count` ranks; empty names when R has no nodelist.
fn hosts(r: &Value, count: usize) -> Result<Vec<String>, ResourceError> {
    let bad = || ResourceError::Key("nodelist");
    let Some(nodelist) = r.pointer("/execution/nodelist") else {
        return Ok(vec![String::new(); count]);
    };
    let mut list = Hostlist::default();
    for text in nodelist.as_array().ok_or_else(bad)? {
        list.append(text.as_str().ok_or_else(bad)?).map_err(|_| bad())?;
    }
    let ranks = u64::try_from(count).unwrap_or(u64::MAX);
    if list.count() != ranks {
        return Err(ResourceError::HostCount {
            ranks,
            hosts: list.count(),
        });
    }
    Ok(list.iter().collect())
}
