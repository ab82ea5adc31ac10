//! Which cores and GPUs does a job get?

use smallvec::SmallVec;

use super::feasible::{Infeasible, Need, size};
use super::look::Look;
use super::placement::Placement;
use super::planner::View;
use super::request::Request;
use super::rset::{self, Part, Times};
use super::state::{Held, ResourcePool, end_of};

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
    /// Gives a job what it asks for, by the pool's [`Placement`], starting at `now` (seconds since the epoch). What plans of other jobs need
    /// before it ends is left alone; its own plan ends with success.
    ///
    /// # Errors
    /// [`AllocError::Busy`] when it must wait, [`AllocError::Infeasible`] when it can never be met; nothing changes then.
    pub fn allocate(&mut self, id: u64, request: &Request, now: f64) -> Result<Grant, AllocError> {
        self.allocate_placed(id, request, now, self.placement)
    }

    /// As [`allocate`](Self::allocate), by another placement than the pool's own.
    ///
    /// # Errors
    /// As of `allocate`.
    pub fn allocate_placed(
        &mut self,
        id: u64,
        request: &Request,
        now: f64,
        placement: Placement,
    ) -> Result<Grant, AllocError> {
        if self.held.contains_key(&id) {
            return Err(AllocError::HasResources(id));
        }
        let expiration = match request.duration_secs {
            secs if secs > 0.0 => now + secs,
            _ => self.expiration(),
        };
        let end = end_of(expiration);
        let allowed = request
            .constraint
            .as_ref()
            .map(|constraint| self.select(constraint));
        let need = Need::of(request);
        let view = self.view(id, end);
        let look = Look {
            pool: self,
            index: view.as_ref().map_or(&self.index, |view| &view.index),
            hindering: view.as_ref().map_or(&[], View::hindering),
            allowed: allowed.as_deref(),
            exclusive: request.exclusive || placement.is_exclusive(),
            order: placement.order(),
            request,
            need,
        };
        let parts = look.choose();
        let exclusive = look.exclusive;
        let sound = parts.as_ref().is_none_or(|parts| {
            self.is_sound(request, need, exclusive, parts) && !self.hinders_plans(id, end, parts)
        });
        self.keep_view(view);
        let Some(parts) = parts else {
            self.check_feasible(request)?;
            return Err(AllocError::Busy);
        };
        if !sound {
            return Err(AllocError::Unsound(id));
        }
        let times = Times {
            start: now,
            expiration,
            nslots: request.nslots,
        };
        let (r, summary) = {
            let parts: SmallVec<[Part<'_>; 1]> = parts
                .iter()
                .filter_map(|part| self.part(part.position, &part.cores, &part.gpus))
                .collect();
            rset::to_r_and_summary(&self.inventory, &parts, times)
        };
        self.undo_of(id);
        self.book(id, parts, end);
        Ok(Grant {
            r,
            summary,
            expiration,
        })
    }

    /// Sets where jobs are placed.
    pub fn set_placement(&mut self, placement: Placement) {
        self.placement = placement;
    }

    /// Returns true when parts that are held until `end` are needed by another job's plan before.
    fn hinders_plans(&self, id: u64, end: f64, parts: &[Held]) -> bool {
        let Some(planner) = self
            .planner
            .as_deref()
            .filter(|planner| !planner.plans.is_empty())
        else {
            return false;
        };
        parts.iter().any(|part| {
            planner
                .on(part.position)
                .filter(|(_, plan)| plan.job != id && plan.hinders(end))
                .filter_map(|(_, plan)| plan.part(part.position))
                .any(|kept| kept.cores.intersects(&part.cores) || kept.gpus.intersects(&part.gpus))
        })
    }

    /// Checks a choice apart from how it was made: free, up, no node twice, and enough for the request.
    fn is_sound(&self, request: &Request, need: Need, exclusive: bool, parts: &[Held]) -> bool {
        let ascending = parts.array_windows().all(|[a, b]| a.position < b.position);
        let free = parts
            .iter()
            .all(|part| self.is_free(part) && self.is_up(part.position));
        let shapes = || parts.iter().map(Held::shape);
        let slots = || shapes().map(|shape| need.slots_in(shape)).sum::<usize>();
        let enough = if request.nnodes > 0 {
            parts.len() == size(request.nnodes) && shapes().all(|shape| need.fits(shape))
        } else if exclusive {
            slots() >= size(request.nslots)
        } else {
            slots() == size(request.nslots)
        };
        let whole = !exclusive || parts.iter().all(|part| part.shape() == self.total(part.position));
        ascending && free && enough && whole
    }
}
