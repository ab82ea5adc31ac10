//! Which of the free cores and GPUs does a job get?

use super::bits::{Bits, Filter};
use super::feasible::{Need, size};
use super::index::{Index, Shape};
use super::placement::Order;
use super::planner::PlanId;
use super::request::Request;
use super::state::{Free, Held, ResourcePool};

/// A request before what is free for it.
#[derive(Debug)]
pub(super) struct Look<'a> {
    pub(super) pool: &'a ResourcePool,
    /// What is free beside plans.
    pub(super) index: &'a Index,
    /// Plans that keep something from this request.
    pub(super) hindering: &'a [PlanId],
    pub(super) allowed: Option<&'a Bits>,
    /// Whole nodes.
    pub(super) exclusive: bool,
    pub(super) order: Order,
    pub(super) request: &'a Request,
    pub(super) need: Need,
}

impl Look<'_> {
    /// Returns parts that meet the request in ascending order of rank, or none when it must wait.
    pub(super) fn choose(&self) -> Option<Vec<Held>> {
        let mut parts = if self.request.nnodes > 0 {
            self.choose_nodes()?
        } else {
            self.choose_slots()?
        };
        parts.sort_unstable_by_key(|part| part.position);
        Some(parts)
    }

    /// Nodes must be in all of these.
    fn filter(&self) -> Filter<'_> {
        [self.allowed, self.exclusive.then_some(&self.index.idle)]
    }

    /// Takes `nnodes` nodes that have room for their share of slots.
    fn choose_nodes(&self) -> Option<Vec<Held>> {
        let nnodes = size(self.request.nnodes);
        let roomy = || {
            self.index
                .with_cores(self.need.node.cores)
                .filter(|(shape, _)| self.need.fits(*shape))
        };
        let mut missing = nnodes;
        for (_, nodes) in roomy() {
            missing = missing.saturating_sub(nodes.count_common(self.filter()));
            if missing == 0 {
                break;
            }
        }
        if missing > 0 {
            return None;
        }
        let part = |position| self.take(position, self.need.node);
        Some(match self.order {
            Order::MostFree => roomy()
                .flat_map(|(_, nodes)| nodes.iter_common(self.filter()))
                .take(nnodes)
                .map(part)
                .collect(),
            Order::Ascending => together(roomy())
                .iter_common(self.filter())
                .take(nnodes)
                .map(part)
                .collect(),
            Order::Descending => together(roomy())
                .iter_common_rev(self.filter())
                .take(nnodes)
                .map(part)
                .collect(),
        })
    }

    /// Fills nodes with slots until there are enough.
    fn choose_slots(&self) -> Option<Vec<Held>> {
        let nslots = size(self.request.nslots);
        let roomy = || {
            self.index
                .with_cores(self.need.slot.cores)
                .filter(|(shape, _)| self.need.slots_in(*shape) > 0)
        };
        let mut missing = nslots;
        for (shape, nodes) in roomy() {
            let here = self
                .need
                .slots_in(shape)
                .saturating_mul(nodes.count_common(self.filter()));
            missing = missing.saturating_sub(here);
            if missing == 0 {
                break;
            }
        }
        if missing > 0 {
            return None;
        }
        match self.order {
            Order::MostFree => self.fill(
                roomy().flat_map(|(_, nodes)| nodes.iter_common(self.filter())),
                nslots,
            ),
            Order::Ascending => self.fill(together(roomy()).iter_common(self.filter()), nslots),
            Order::Descending => self.fill(together(roomy()).iter_common_rev(self.filter()), nslots),
        }
    }

    fn fill(&self, positions: impl Iterator<Item = usize>, nslots: usize) -> Option<Vec<Held>> {
        let mut left = nslots;
        let mut parts = Vec::new();
        for position in positions {
            let take = self.need.slots_in(self.index.shape(position)).min(left);
            left -= take;
            let share = Shape {
                cores: take * self.need.slot.cores,
                gpus: take * self.need.slot.gpus,
            };
            parts.push(self.take(position, share));
            if left == 0 {
                return Some(parts);
            }
        }
        None
    }

    /// Returns a share of a node: lowest ids, highest ids, or all there is.
    fn take(&self, position: usize, share: Shape) -> Held {
        let part = |free: &Free| {
            if self.exclusive {
                return free.clone();
            }
            if self.order == Order::Descending {
                return Free {
                    cores: free.cores.highest(share.cores),
                    gpus: free.gpus.highest(share.gpus),
                };
            }
            Free {
                cores: free.cores.lowest(share.cores),
                gpus: free.gpus.lowest(share.gpus),
            }
        };
        let planner = self
            .pool
            .planner
            .as_deref()
            .filter(|planner| !self.hindering.is_empty() && planner.is_planned(position));
        let Free { cores, gpus } = match planner {
            Some(planner) => part(&self.pool.free_beside(planner, self.hindering, position)),
            None => self.pool.free.get(position).map_or_else(Free::default, part),
        };
        Held {
            position,
            cores,
            gpus,
        }
    }
}

/// Returns the nodes of several buckets.
fn together<'a>(buckets: impl Iterator<Item = (Shape, &'a Bits)>) -> Bits {
    let mut all = Bits::default();
    for (_, nodes) in buckets {
        all.unite(nodes);
    }
    all
}
