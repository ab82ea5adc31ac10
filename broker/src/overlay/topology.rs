//! Who is whose parent in the tree based overlay network?

/// Why a topology cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// The rank is not below the size, or the size is 0.
    #[error("rank {rank} is not below size {size}")]
    Rank {
        /// The rank asked for.
        rank: u32,
        /// The number of brokers.
        size: u32,
    },
    /// The URI is none of the known schemes.
    #[error("unknown topology '{0}': use kary:K, binomial, mincrit[:K], flat or custom")]
    Scheme(String),
    /// The parent table has a loop, or names a rank that does not exist.
    #[error("rank {0} has no way to rank 0 in the custom topology")]
    Custom(u32),
}

/// The tree seen from one rank. Parents of all ranks are held in one table of 4 bytes a rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    rank: u32,
    /// `parents[r]` is the parent of rank r; rank 0 has itself.
    parents: Vec<u32>,
    children: Vec<u32>,
    uri: String,
}

fn index(rank: u32) -> usize {
    usize::try_from(rank).unwrap_or(usize::MAX)
}

impl Topology {
    fn build(uri: String, rank: u32, parents: Vec<u32>) -> Result<Self, TopologyError> {
        let size = u32::try_from(parents.len()).unwrap_or(u32::MAX);
        if rank >= size {
            return Err(TopologyError::Rank { rank, size });
        }
        for start in 1..size {
            let mut at = start;
            let mut steps = 0;
            while at != 0 {
                at = *parents.get(index(at)).ok_or(TopologyError::Custom(start))?;
                steps += 1;
                if steps > size {
                    return Err(TopologyError::Custom(start));
                }
            }
        }
        let children = (1..size)
            .filter(|r| parents.get(index(*r)) == Some(&rank))
            .collect();
        Ok(Topology {
            rank,
            parents,
            children,
            uri,
        })
    }

    /// Returns a tree in which each rank has up to `k` children; `k` = 0 means that all are children of rank 0.
    ///
    /// # Errors
    /// [`TopologyError::Rank`].
    pub fn kary(k: u32, rank: u32, size: u32) -> Result<Self, TopologyError> {
        let parents = (0..size)
            .map(|r| if r == 0 || k == 0 { 0 } else { (r - 1) / k })
            .collect();
        Self::build(format!("kary:{k}"), rank, parents)
    }

    /// Returns a tree from a table of parents: `parents[r]` for each rank, 0 for rank 0.
    ///
    /// # Errors
    /// [`TopologyError::Rank`] or [`TopologyError::Custom`].
    pub fn custom(rank: u32, parents: Vec<u32>) -> Result<Self, TopologyError> {
        Self::build("custom".to_owned(), rank, parents)
    }

    /// Returns the topology that a `tbon.topo` value names: `kary:K`, `flat`, `binomial`, `mincrit[:K]`.
    ///
    /// # Errors
    /// Any [`TopologyError`].
    pub fn from_uri(uri: &str, rank: u32, size: u32) -> Result<Self, TopologyError> {
        let bad = || TopologyError::Scheme(uri.to_owned());
        let (scheme, argument) = uri.split_once(':').unwrap_or((uri, ""));
        let mut topology = match scheme {
            "kary" => Self::kary(argument.parse().map_err(|_| bad())?, rank, size)?,
            "flat" | "custom" => Self::kary(0, rank, size)?,
            "binomial" => {
                // the parent of r is r without its highest set bit
                let parents = (0..size)
                    .map(|r: u32| if r == 0 { 0 } else { r & !(1 << r.ilog2()) })
                    .collect();
                Self::build(String::new(), rank, parents)?
            }
            "mincrit" => {
                let k = if argument.is_empty() {
                    0
                } else {
                    argument.parse().map_err(|_| bad())?
                };
                Self::mincrit(k, rank, size)?
            }
            _ => return Err(bad()),
        };
        topology.uri = uri.to_owned();
        Ok(topology)
    }

    /// A tree of height 2 with `k` routers below rank 0 (0 = about the square root of the size).
    fn mincrit(k: u32, rank: u32, size: u32) -> Result<Self, TopologyError> {
        let others = size.saturating_sub(1);
        let routers = if k == 0 { others.isqrt() } else { k };
        if routers == 0 || routers >= others {
            return Self::kary(0, rank, size);
        }
        let parents = (0..size)
            .map(|r| {
                if r <= routers {
                    0
                } else {
                    1 + (r - routers - 1) % routers
                }
            })
            .collect();
        Self::build(String::new(), rank, parents)
    }

    /// Returns the `tbon.topo` value.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Returns this broker's rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Returns the number of brokers.
    pub fn size(&self) -> u32 {
        u32::try_from(self.parents.len()).unwrap_or(u32::MAX)
    }

    /// Returns the parent of `rank`, `None` for rank 0 and ranks outside the instance.
    pub fn parent_of(&self, rank: u32) -> Option<u32> {
        if rank == 0 {
            None
        } else {
            self.parents.get(index(rank)).copied()
        }
    }

    /// Returns the parent of this rank.
    pub fn parent(&self) -> Option<u32> {
        self.parent_of(self.rank)
    }

    /// Returns the children of this rank, ascending.
    pub fn children(&self) -> &[u32] {
        &self.children
    }

    /// Returns the children of any rank, ascending.
    pub fn children_of(&self, rank: u32) -> Vec<u32> {
        (1..self.size())
            .filter(|r| self.parent_of(*r) == Some(rank))
            .collect()
    }

    /// Returns the child of this rank whose subtree holds `rank`.
    pub fn child_toward(&self, rank: u32) -> Option<u32> {
        let mut at = rank;
        loop {
            let parent = self.parent_of(at)?;
            if parent == self.rank {
                return Some(at);
            }
            at = parent;
        }
    }

    /// Returns the distance of a rank from rank 0.
    pub fn level_of(&self, rank: u32) -> u32 {
        let mut level = 0;
        let mut at = rank;
        while let Some(parent) = self.parent_of(at) {
            level += 1;
            at = parent;
        }
        level
    }

    /// Returns the greatest level in the tree.
    pub fn max_level(&self) -> u32 {
        (0..self.size()).map(|r| self.level_of(r)).max().unwrap_or(0)
    }

    /// Returns how many ranks are below `rank`.
    pub fn descendants_of(&self, rank: u32) -> u32 {
        let mut count = 0;
        for start in 1..self.size() {
            let mut at = start;
            while let Some(parent) = self.parent_of(at) {
                if parent == rank {
                    count += 1;
                    break;
                }
                at = parent;
            }
        }
        count
    }

    /// Returns every rank of the subtree at `rank`, `rank` first.
    pub fn subtree(&self, rank: u32) -> Vec<u32> {
        let mut all = vec![rank];
        let mut next = 0;
        while let Some(at) = all.get(next).copied() {
            all.extend(self.children_of(at));
            next += 1;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kary_relations() {
        let t = Topology::kary(2, 1, 7).unwrap();
        assert_eq!(t.parent(), Some(0));
        assert_eq!(t.children(), [3, 4]);
        assert_eq!(t.child_toward(4), Some(4));
        assert_eq!(t.child_toward(5), None);
        assert_eq!(
            (
                t.level_of(6),
                t.max_level(),
                t.descendants_of(0),
                t.descendants_of(2)
            ),
            (2, 2, 6, 2)
        );
        assert_eq!(t.subtree(1), [1, 3, 4]);
    }

    #[test]
    fn every_scheme_reaches_rank_0_from_everywhere() {
        for uri in [
            "kary:1",
            "kary:32",
            "kary:0",
            "flat",
            "binomial",
            "mincrit",
            "mincrit:3",
        ] {
            for size in [1, 2, 3, 9, 64, 100] {
                let t = Topology::from_uri(uri, 0, size).unwrap();
                assert_eq!(t.descendants_of(0), size - 1, "{uri} {size}");
                assert_eq!(t.uri(), uri);
            }
        }
        assert!(Topology::from_uri("star", 0, 2).is_err());
    }

    #[test]
    fn custom_loops_are_refused() {
        assert!(Topology::custom(0, vec![0, 0, 1]).is_ok());
        assert_eq!(Topology::custom(0, vec![0, 2, 1]), Err(TopologyError::Custom(1)));
        assert_eq!(Topology::custom(0, vec![0, 9]), Err(TopologyError::Custom(1)));
        assert_eq!(
            Topology::kary(2, 3, 3),
            Err(TopologyError::Rank { rank: 3, size: 3 })
        );
    }
}
