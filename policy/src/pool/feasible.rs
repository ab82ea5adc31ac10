//! Could a request ever be met? (Against all resources, whatever is up or held now.)
//!
//! The texts are those of flux-core's `sched-simple`; they reach the user in the job's `alloc` exception or from `feasibility.check`.

use std::cmp::Reverse;

use super::bits::{Bits, Filter};
use super::index::Shape;
use super::request::Request;
use super::state::ResourcePool;

/// Why a request can never be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Infeasible {
    /// Too few nodes that could be given whole.
    #[error("unsatisfiable request: need {need} exclusive node(s), only {eligible} eligible")]
    ExclusiveNodes {
        /// Nodes asked for.
        need: u32,
        /// Nodes that are large enough and allowed.
        eligible: usize,
    },
    /// Too few nodes with enough cores and GPUs.
    #[error("unsatisfiable request: need {need} node(s) with {cores} cores{} each, only {eligible} eligible", and_gpus(.gpus))]
    Nodes {
        /// Nodes asked for.
        need: u32,
        /// Cores on each.
        cores: usize,
        /// GPUs on each.
        gpus: usize,
        /// Nodes that are large enough and allowed.
        eligible: usize,
    },
    /// Too few slots by their cores.
    #[error(
        "unsatisfiable request: need {need} slot(s) of {cores} core(s), only {available} such slot(s) available (total cores: {total})"
    )]
    Slots {
        /// Slots asked for.
        need: u32,
        /// Cores of each.
        cores: u32,
        /// Slots that all allowed nodes hold together.
        available: usize,
        /// Cores of all allowed nodes.
        total: usize,
    },
    /// Too few slots by their GPUs.
    #[error(
        "unsatisfiable request: need {need} slot(s) with {gpus} GPU(s) each, only {available} available (total GPUs: {total})"
    )]
    GpuSlots {
        /// Slots asked for.
        need: u32,
        /// GPUs of each.
        gpus: u32,
        /// Slots that all allowed nodes hold together.
        available: usize,
        /// GPUs of all allowed nodes.
        total: usize,
    },
}

fn and_gpus(gpus: &usize) -> String {
    if *gpus > 0 {
        format!(" and {gpus} GPUs")
    } else {
        String::new()
    }
}

/// Converts a count of the wire; `usize` has at least 32 bits wherever we run.
pub(super) fn size(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// What one node must have for a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    /// Cores and GPUs of one slot.
    pub(super) slot: Shape,
    /// Cores and GPUs on each node, when nodes were asked for; else those of one slot.
    pub(super) node: Shape,
}

impl Need {
    pub(super) fn of(request: &Request) -> Need {
        let slot = Shape {
            cores: size(request.cores_per_slot).max(1),
            gpus: size(request.gpus_per_slot),
        };
        let slots = size(request.slots_per_node()).max(1);
        Need {
            slot,
            node: Shape {
                cores: slot.cores.saturating_mul(slots),
                gpus: slot.gpus.saturating_mul(slots),
            },
        }
    }

    /// Returns how many slots fit on a node that has `shape`.
    pub(super) fn slots_in(&self, shape: Shape) -> usize {
        let by_gpus = shape.gpus.checked_div(self.slot.gpus).unwrap_or(usize::MAX);
        (shape.cores / self.slot.cores).min(by_gpus)
    }

    /// Returns true when a node that has `shape` is enough.
    pub(super) fn fits(&self, shape: Shape) -> bool {
        shape.cores >= self.node.cores && shape.gpus >= self.node.gpus
    }
}

impl ResourcePool {
    /// Tells whether a request could be met if everything were up and free.
    ///
    /// # Errors
    /// [`Infeasible`] with the text for the user.
    pub fn check_feasible(&mut self, request: &Request) -> Result<(), Infeasible> {
        let allowed = request
            .constraint
            .as_ref()
            .map(|constraint| self.select(constraint));
        let filter: Filter<'_> = [allowed.as_deref(), None];
        let need = Need::of(request);
        if request.nnodes > 0 {
            return self.enough_nodes(request, need, filter);
        }
        let kinds = || {
            self.kinds
                .iter()
                .map(|(Reverse(shape), nodes)| (*shape, nodes.count_common(filter)))
        };
        let sum =
            |of: &dyn Fn(Shape) -> usize| kinds().map(|(shape, count)| of(shape) * count).sum::<usize>();
        let available = sum(&|shape| shape.cores / need.slot.cores);
        if available < size(request.nslots) {
            return Err(Infeasible::Slots {
                need: request.nslots,
                cores: request.cores_per_slot,
                available,
                total: sum(&|shape| shape.cores),
            });
        }
        let available = sum(&|shape| need.slots_in(shape));
        if available < size(request.nslots) {
            return Err(Infeasible::GpuSlots {
                need: request.nslots,
                gpus: request.gpus_per_slot,
                available,
                total: sum(&|shape| shape.gpus),
            });
        }
        Ok(())
    }

    fn enough_nodes(&self, request: &Request, need: Need, filter: Filter<'_>) -> Result<(), Infeasible> {
        let eligible = self.kinds.iter().filter(|(Reverse(shape), _)| need.fits(*shape));
        let eligible = eligible
            .map(|(_, nodes): (_, &Bits)| nodes.count_common(filter))
            .sum();
        if eligible >= size(request.nnodes) {
            return Ok(());
        }
        let nodes = request.nnodes;
        Err(if request.exclusive {
            Infeasible::ExclusiveNodes {
                need: nodes,
                eligible,
            }
        } else {
            Infeasible::Nodes {
                need: nodes,
                cores: need.node.cores,
                gpus: need.node.gpus,
                eligible,
            }
        })
    }
}
