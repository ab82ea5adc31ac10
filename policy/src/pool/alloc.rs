//! Which cores and GPUs does a job get?

use std::cmp::Reverse;

use super::bits::{Bits, Filter};
use super::feasible::{Infeasible, Need, size};
use super::request::Request;
use super::rset::{self, Times};
use super::state::{Held, ResourcePool, Shape};

/// Why a job gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// What it asks for is held by others or down.
    #[error("insufficient resources")]
    Busy,
    /// It can never be met.
    #[error(transparent)]
    Infeasible(#[from] Infeasible),
    /// The job holds resources already.
    #[error("job {0} has resources already")]
    HasResources(u64),
    /// The choice failed the check that follows every choice; a defect, reported instead of performed.
    #[error("allocation of job {0} does not fit its request")]
    Unsound(u64),
}

/// What a job was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// R as compact JSON, with `starttime`, `expiration` and `nslots`.
    pub r: String,
    /// The summary for the `sched.resource_summary` annotation.
    pub summary: String,
    /// When the job must end, in seconds since the epoch; 0 is never.
    pub expiration: f64,
}

impl ResourcePool {
    /// Gives a job what it asks for, worst fit, starting at `now` (seconds since the epoch).
    ///
    /// # Errors
    /// [`AllocError::Busy`] when it must wait, [`AllocError::Infeasible`] when it can never be met; nothing changes then.
    pub fn allocate(&mut self, id: u64, request: &Request, now: f64) -> Result<Grant, AllocError> {
        if self.held.contains_key(&id) {
            return Err(AllocError::HasResources(id));
        }
        let allowed = request
            .constraint
            .as_ref()
            .map(|constraint| self.select(constraint));
        let filter: Filter<'_> = [allowed.as_deref(), request.exclusive.then_some(&self.idle)];
        let need = Need::of(request);
        let Some(parts) = self.choose(request, need, filter) else {
            self.check_feasible(request)?;
            return Err(AllocError::Busy);
        };
        if !self.is_sound(request, need, &parts) {
            return Err(AllocError::Unsound(id));
        }
        let expiration = match request.duration_secs {
            secs if secs > 0.0 => now + secs,
            _ => self.expiration(),
        };
        let times = Times {
            start: now,
            expiration,
            nslots: request.nslots,
        };
        let (r, summary) = {
            let parts: Vec<_> = parts
                .iter()
                .filter_map(|part| self.part(part.position, &part.cores, &part.gpus))
                .collect();
            (
                rset::to_r(&self.inventory, &parts, times, false),
                rset::summary(&parts),
            )
        };
        self.book(id, parts);
        Ok(Grant {
            r,
            summary,
            expiration,
        })
    }

    /// Returns parts that meet the request in ascending order of rank, or none when it must wait.
    fn choose(&self, request: &Request, need: Need, filter: Filter<'_>) -> Option<Vec<Held>> {
        let mut parts = if request.nnodes > 0 {
            self.choose_nodes(request, need, filter)?
        } else {
            self.choose_slots(request, need, filter)?
        };
        parts.sort_unstable_by_key(|part| part.position);
        Some(parts)
    }

    /// Takes the first `nnodes` nodes that have room for their share of slots.
    fn choose_nodes(&self, request: &Request, need: Need, filter: Filter<'_>) -> Option<Vec<Held>> {
        let nnodes = size(request.nnodes);
        let roomy = || {
            self.with_cores(need.node.cores)
                .filter(move |(shape, _)| need.fits(*shape))
        };
        let mut missing = nnodes;
        for (_, nodes) in roomy() {
            missing = missing.saturating_sub(nodes.count_common(filter));
            if missing == 0 {
                break;
            }
        }
        if missing > 0 {
            return None;
        }
        let positions = roomy()
            .flat_map(|(_, nodes)| nodes.iter_common(filter))
            .take(nnodes);
        let part = |position| {
            let free = self.free.get(position)?;
            if request.exclusive {
                return Some(Held {
                    position,
                    cores: free.cores.clone(),
                    gpus: free.gpus.clone(),
                });
            }
            Some(self.lowest(position, need.node))
        };
        positions.map(part).collect()
    }

    /// Fills nodes with slots until there are enough.
    fn choose_slots(&self, request: &Request, need: Need, filter: Filter<'_>) -> Option<Vec<Held>> {
        let nslots = size(request.nslots);
        let mut missing = nslots;
        for (shape, nodes) in self.with_cores(need.slot.cores) {
            missing = missing.saturating_sub(need.slots_in(shape).saturating_mul(nodes.count_common(filter)));
            if missing == 0 {
                break;
            }
        }
        if missing > 0 {
            return None;
        }
        let mut left = nslots;
        let mut parts = Vec::new();
        for (shape, nodes) in self.with_cores(need.slot.cores) {
            let fit = need.slots_in(shape);
            if fit == 0 {
                continue;
            }
            for position in nodes.iter_common(filter) {
                let take = fit.min(left);
                left -= take;
                let share = Shape {
                    cores: take * need.slot.cores,
                    gpus: take * need.slot.gpus,
                };
                parts.push(self.lowest(position, share));
                if left == 0 {
                    return Some(parts);
                }
            }
        }
        None
    }

    /// Returns the buckets whose nodes have at least `cores` free, most free first.
    fn with_cores(&self, cores: usize) -> impl Iterator<Item = (Shape, &Bits)> {
        let last = Reverse(Shape { cores, gpus: 0 });
        self.buckets
            .range(..=last)
            .map(|(Reverse(shape), nodes)| (*shape, nodes))
    }

    /// Returns the free cores and GPUs with the lowest ids.
    fn lowest(&self, position: usize, share: Shape) -> Held {
        let (cores, gpus) = self.free.get(position).map_or_else(Default::default, |free| {
            (free.cores.lowest(share.cores), free.gpus.lowest(share.gpus))
        });
        Held {
            position,
            cores,
            gpus,
        }
    }

    /// Checks a choice apart from how it was made: free, up, no node twice, and enough for the request.
    fn is_sound(&self, request: &Request, need: Need, parts: &[Held]) -> bool {
        let ascending = parts.array_windows().all(|[a, b]| a.position < b.position);
        let free = parts
            .iter()
            .all(|part| self.is_free(part) && self.is_up(part.position));
        let shapes = || {
            parts.iter().map(|part| Shape {
                cores: part.cores.count(),
                gpus: part.gpus.count(),
            })
        };
        let enough = if request.nnodes > 0 {
            parts.len() == size(request.nnodes) && shapes().all(|shape| need.fits(shape))
        } else {
            shapes().map(|shape| need.slots_in(shape)).sum::<usize>() == size(request.nslots)
        };
        ascending && free && enough
    }
}
