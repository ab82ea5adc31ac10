//! What does the future hold? When jobs end, and which resources are kept for pending jobs from when on (plans).
//!
//! A node's free resources at a later time are what it has, less what jobs hold beyond that time, less what plans keep. Jobs only ever
//! release, so without plans a node has one time from which on it is ready; with plans it has intervals.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use super::by_id::ById;
use super::feasible::{Need, size};
use super::future::{self, Window};
use super::gaps::Gaps;
use super::index::{Index, Shape};
use super::request::Request;
use super::state::{Held, ResourcePool};
use super::time::Time;

/// Views that are kept: one for each set of plans that hinders a request of the moment.
const VIEWS_MAX: usize = 4;

/// Names a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanId(pub u32);

/// What was reserved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reservation {
    /// The plan, to undo it.
    pub plan: PlanId,
    /// When the job can start, in seconds since the epoch; none when that depends on jobs without a time limit. Then what the plan keeps is
    /// kept from now on.
    pub start: Option<f64>,
}

/// Why nothing can be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nodes that are down would be needed.
    #[error("nodes that are down or drained are needed")]
    Unavailable,
    /// At the time asked for, something is still in use.
    #[error("the resources are in use at that time")]
    InUse,
}

/// A job on a node, ascending by end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tenant {
    pub(super) end: f64,
    pub(super) id: u64,
    pub(super) shape: Shape,
}

/// Resources that are kept for a pending job.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) job: u64,
    pub(super) start: Option<f64>,
    pub(super) end: f64,
    /// Ascending by position.
    pub(super) parts: Vec<Held>,
}

impl Plan {
    /// Returns true when it keeps its resources from a job that would hold them from now until `end`.
    pub(super) fn hinders(&self, end: f64) -> bool {
        self.start.is_none_or(|start| start < end)
    }

    /// Returns true when it needs its resources in a later window.
    pub(super) fn overlaps(&self, window: Window) -> bool {
        match self.start {
            None => true,
            Some(start) => start < window.end() && self.end > window.start,
        }
    }
}

/// The future of a pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Planner {
    /// By position. A node often has one, and all nodes are gone through to plan for a large job.
    tenants: Vec<SmallVec<[Tenant; 1]>>,
    /// All jobs that hold something by their end.
    pub(super) ends: BTreeSet<(Time, u64)>,
    pub(super) plans: BTreeMap<PlanId, Plan>,
    /// Plans by position.
    planned: ById<usize, Vec<PlanId>>,
    /// Gaps of nodes with plans, until something of the node changes.
    gaps: ById<usize, Gaps>,
    next: u32,
    views: Vec<View>,
    /// Positions that changed, for the views.
    touched: Vec<usize>,
    /// Steps that planning took, to bound it.
    pub(super) work: u64,
}

/// The pool less what some plans keep.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// Ascending.
    hindering: Vec<PlanId>,
    pub(super) index: Index,
    seen: usize,
}

impl View {
    pub(super) fn hindering(&self) -> &[PlanId] {
        &self.hindering
    }
}

impl Planner {
    fn of(pool: &ResourcePool) -> Planner {
        let mut planner = Planner {
            tenants: vec![SmallVec::new(); pool.inventory.len()],
            ..Planner::default()
        };
        for (&id, holding) in &pool.held {
            planner.on_book(id, holding.end, &holding.parts);
        }
        planner
    }

    pub(super) fn tenants(&self, position: usize) -> &[Tenant] {
        self.tenants.get(position).map_or(&[], SmallVec::as_slice)
    }

    /// Returns the plans on a node.
    pub(super) fn on(&self, position: usize) -> impl Iterator<Item = (PlanId, &Plan)> {
        let ids = self.planned.get(&position).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| Some((*id, self.plans.get(id)?)))
    }

    /// Returns the gaps of a node with plans, when they are known.
    pub(super) fn gaps(&self, position: usize) -> Option<&Gaps> {
        self.gaps.get(&position)
    }

    pub(super) fn is_planned(&self, position: usize) -> bool {
        self.planned.contains_key(&position)
    }

    /// A job got resources.
    pub(super) fn on_book(&mut self, id: u64, end: f64, parts: &[Held]) {
        self.ends.insert((Time(end), id));
        self.forget_gaps(parts);
        for part in parts {
            if let Some(tenants) = self.tenants.get_mut(part.position) {
                let at = tenants.partition_point(|other| other.end <= end);
                let shape = part.shape();
                tenants.insert(at, Tenant { end, id, shape });
            }
        }
    }

    /// A job gave some of its resources back.
    pub(super) fn on_release(&mut self, id: u64, end: f64, parts: &[Held]) {
        self.ends.remove(&(Time(end), id));
        self.forget_gaps(parts);
        for part in parts {
            if let Some(tenants) = self.tenants.get_mut(part.position) {
                let from = tenants.partition_point(|other| other.end < end);
                let found = tenants
                    .get(from..)
                    .and_then(|rest| rest.iter().position(|other| other.id == id));
                if let Some(offset) = found {
                    tenants.remove(from + offset);
                }
            }
        }
    }

    /// What is free on a node, or whether it is up, has changed.
    pub(super) fn touch(&mut self, position: usize) {
        if self.views.is_empty() {
            return;
        }
        self.touched.push(position);
        if self.touched.len() > self.tenants.len().max(1024) * 4 {
            self.views.clear();
            self.touched.clear();
        }
    }

    fn forget_gaps(&mut self, parts: &[Held]) {
        if !self.gaps.is_empty() {
            for part in parts {
                self.gaps.remove(&part.position);
            }
        }
    }

    fn add(&mut self, plan: Plan) -> PlanId {
        let id = PlanId(self.next);
        self.next = self.next.wrapping_add(1);
        self.insert(id, plan);
        id
    }

    fn insert(&mut self, id: PlanId, plan: Plan) {
        self.forget_gaps(&plan.parts);
        for part in &plan.parts {
            self.planned.entry(part.position).or_default().push(id);
        }
        self.plans.insert(id, plan);
    }

    fn remove(&mut self, id: PlanId) {
        let Some(plan) = self.plans.remove(&id) else {
            return;
        };
        self.forget_gaps(&plan.parts);
        for part in &plan.parts {
            if let Some(ids) = self.planned.get_mut(&part.position) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.planned.remove(&part.position);
                }
            }
        }
        self.views.retain(|view| !view.hindering.contains(&id));
        if self.views.is_empty() {
            self.touched.clear();
        }
    }

    /// Returns the plans that hinder `job` from holding resources until `end`.
    fn hindering(&self, job: u64, end: f64) -> Vec<PlanId> {
        self.plans
            .iter()
            .filter(|(_, plan)| plan.job != job && plan.hinders(end))
            .map(|(id, _)| *id)
            .collect()
    }
}

impl Held {
    pub(super) fn shape(&self) -> Shape {
        Shape {
            cores: self.cores.count(),
            gpus: self.gpus.count(),
        }
    }
}

impl ResourcePool {
    /// Returns the earliest time from `after` on at which a request could start; none when that depends on jobs without a time limit.
    /// Plans of others are respected, that of `job` is not.
    ///
    /// # Errors
    /// [`PlanError::Unavailable`] when nodes that are down are needed.
    pub fn earliest(&mut self, job: u64, request: &Request, after: f64) -> Result<Option<f64>, PlanError> {
        self.prepare(job);
        let ask = self.ask(job, request);
        let (result, work) = future::earliest(self, &ask, after);
        self.count_work(work);
        result
    }

    /// Keeps resources for a pending job from `at` on, or as early as possible from `now` on. A plan that the job has is replaced.
    ///
    /// # Errors
    /// When that is not possible; a plan that the job had is gone then.
    pub fn reserve(
        &mut self,
        job: u64,
        request: &Request,
        at: Option<f64>,
        now: f64,
    ) -> Result<Reservation, PlanError> {
        self.prepare(job);
        self.undo_of(job);
        let start = match at {
            Some(at) => Some(at.max(now)),
            None => self.earliest(job, request, now)?,
        };
        let ask = self.ask(job, request);
        let window = Window {
            start: start.unwrap_or(f64::INFINITY),
            length: self.length(request, start.unwrap_or(now)),
        };
        let (parts, work) = future::choose(self, &ask, window, now);
        self.count_work(work);
        let parts = parts.ok_or(if at.is_some() {
            PlanError::InUse
        } else {
            PlanError::Unavailable
        })?;
        let end = window.end();
        let plan = Plan {
            job,
            start,
            end,
            parts,
        };
        let planner = self.planner.get_or_insert_default();
        Ok(Reservation {
            plan: planner.add(plan),
            start,
        })
    }

    /// Plans a job anew, as early as possible from `now` on; the plan keeps its name, and its resources when nothing better is there.
    ///
    /// # Errors
    /// As of [`reserve`](Self::reserve); the plan is gone then.
    pub fn renew(&mut self, id: PlanId, request: &Request, now: f64) -> Result<Reservation, PlanError> {
        let old = self.planner.as_ref().and_then(|planner| planner.plans.get(&id));
        let Some((job, old_start)) = old.map(|plan| (plan.job, plan.start)) else {
            return Err(PlanError::Unavailable);
        };
        let start = match self.earliest(job, request, now) {
            Ok(start) => start,
            Err(error) => {
                self.undo(id);
                return Err(error);
            }
        };
        let is_up = |plan: &Plan| plan.parts.iter().all(|part| self.is_up(part.position));
        let plan = self.planner.as_ref().and_then(|planner| planner.plans.get(&id));
        if start.is_some() && start == old_start && plan.is_some_and(is_up) {
            return Ok(Reservation { plan: id, start });
        }
        let reservation = self.reserve(job, request, None, now)?;
        if let Some(planner) = &mut self.planner
            && let Some(plan) = planner.plans.get(&reservation.plan).cloned()
        {
            planner.remove(reservation.plan);
            planner.insert(id, plan);
        }
        Ok(Reservation {
            plan: id,
            ..reservation
        })
    }

    /// Gives up a plan; unknown ones are ignored.
    pub fn undo(&mut self, plan: PlanId) {
        if let Some(planner) = &mut self.planner {
            planner.remove(plan);
        }
    }

    /// Gives up all plans.
    pub fn clear_plans(&mut self) {
        if let Some(planner) = &mut self.planner {
            planner.plans.clear();
            planner.planned.clear();
            planner.gaps.clear();
            planner.views.clear();
            planner.touched.clear();
        }
    }

    /// Returns jobs with a plan and when they can start, in the order in which they were planned.
    pub fn planned(&self) -> impl Iterator<Item = (u64, Option<f64>)> {
        let plans = self.planner.iter().flat_map(|planner| planner.plans.values());
        plans.map(|plan| (plan.job, plan.start))
    }

    /// Returns when a plan starts; none for unknown ones as well.
    pub fn start_of(&self, plan: PlanId) -> Option<f64> {
        self.planner.as_ref()?.plans.get(&plan)?.start
    }

    /// Returns the job that a plan is for.
    pub fn job_of(&self, plan: PlanId) -> Option<u64> {
        Some(self.planner.as_ref()?.plans.get(&plan)?.job)
    }

    /// Gives up the plans of a job that does not wait any more.
    pub fn undo_plans_of(&mut self, job: u64) {
        self.undo_of(job);
    }

    /// Returns how many steps planning has taken since it was asked last.
    pub fn take_planning_work(&mut self) -> u64 {
        self.planner
            .as_mut()
            .map_or(0, |planner| std::mem::take(&mut planner.work))
    }

    fn count_work(&mut self, work: u64) {
        if let Some(planner) = &mut self.planner {
            planner.work += work;
        }
    }

    /// Gives up the plans of a job.
    pub(super) fn undo_of(&mut self, job: u64) {
        let Some(planner) = &mut self.planner else {
            return;
        };
        let mine: Vec<PlanId> = planner
            .plans
            .iter()
            .filter(|(_, plan)| plan.job == job)
            .map(|(id, _)| *id)
            .collect();
        mine.into_iter().for_each(|id| planner.remove(id));
    }

    /// Makes the planner when there is none, and the gaps that it lacks.
    fn prepare(&mut self, job: u64) {
        let mut planner = self.planner.take().unwrap_or_else(|| Box::new(Planner::of(self)));
        if planner.plans.values().all(|plan| plan.job == job) {
            self.planner = Some(planner);
            return;
        }
        let missing: Vec<usize> = planner
            .planned
            .keys()
            .copied()
            .filter(|position| !planner.gaps.contains_key(position))
            .collect();
        for position in missing {
            let gaps = Gaps::of(self, &planner, position, None);
            planner.gaps.insert(position, gaps);
        }
        self.planner = Some(planner);
    }

    fn ask<'a>(&mut self, job: u64, request: &'a Request) -> future::Ask<'a> {
        let allowed = request
            .constraint
            .as_ref()
            .map(|constraint| self.select(constraint));
        future::Ask {
            job,
            need: Need::of(request),
            exclusive: request.exclusive || self.placement.is_exclusive(),
            length: self.length(request, 0.0),
            count: size(if request.nnodes > 0 {
                request.nnodes
            } else {
                request.nslots
            }),
            request,
            allowed,
        }
    }

    /// Returns how long a job that starts at `start` holds its resources.
    pub(super) fn length(&self, request: &Request, start: f64) -> f64 {
        if request.duration_secs > 0.0 {
            request.duration_secs
        } else if self.expiration() > 0.0 && start > 0.0 {
            (self.expiration() - start).max(0.0)
        } else {
            f64::INFINITY
        }
    }

    /// Returns the pool as a job sees it that would hold resources until `end`; none when no plan hinders it.
    pub(super) fn view(&mut self, job: u64, end: f64) -> Option<View> {
        let mut planner = self.planner.take()?;
        let view = self.view_in(&mut planner, job, end);
        self.planner = Some(planner);
        view
    }

    /// Keeps a view for the next request like this.
    pub(super) fn keep_view(&mut self, view: Option<View>) {
        let (Some(mut view), Some(planner)) = (view, &mut self.planner) else {
            return;
        };
        if planner.views.is_empty() {
            planner.touched.clear();
        }
        // nothing changes between taking a view and keeping it
        view.seen = planner.touched.len();
        if planner.views.len() >= VIEWS_MAX {
            planner.views.remove(0);
        }
        planner.views.push(view);
    }

    fn view_in(&self, planner: &mut Planner, job: u64, end: f64) -> Option<View> {
        if planner.plans.is_empty() {
            return None;
        }
        let hindering = planner.hindering(job, end);
        if hindering.is_empty() {
            return None;
        }
        let known = planner.views.iter().position(|view| view.hindering == hindering);
        let (mut view, stale) = match known {
            Some(at) => {
                let view = planner.views.remove(at);
                let stale = planner.touched.get(view.seen..).unwrap_or(&[]).to_vec();
                (view, stale)
            }
            None => {
                let mut positions: Vec<usize> = hindering
                    .iter()
                    .filter_map(|id| planner.plans.get(id))
                    .flat_map(|plan| plan.parts.iter().map(|part| part.position))
                    .collect();
                positions.sort_unstable();
                positions.dedup();
                let view = View {
                    hindering,
                    index: self.index.clone(),
                    seen: 0,
                };
                (view, positions)
            }
        };
        view.seen = planner.touched.len();
        for position in stale {
            self.refresh_in(planner, &mut view, position);
        }
        Some(view)
    }

    fn refresh_in(&self, planner: &Planner, view: &mut View, position: usize) {
        let Some(node) = self.inventory.node(position) else {
            return;
        };
        let shape = if !self.is_up(position) {
            Shape::default()
        } else if planner.is_planned(position) {
            self.free_beside(planner, view.hindering(), position).shape()
        } else {
            self.index.shape(position)
        };
        let whole = shape.cores == node.cores.count() && shape.gpus == node.gpus.count();
        view.index.set(position, shape, whole);
    }

    /// Returns what is free on a node beside what plans keep.
    pub(super) fn free_beside(
        &self,
        planner: &Planner,
        hindering: &[PlanId],
        position: usize,
    ) -> super::state::Free {
        let mut free = self.free.get(position).cloned().unwrap_or_default();
        for (id, plan) in planner.on(position) {
            if hindering.binary_search(&id).is_ok()
                && let Some(part) = plan.part(position)
            {
                free.cores.subtract(&part.cores);
                free.gpus.subtract(&part.gpus);
            }
        }
        free
    }
}

impl Plan {
    pub(super) fn part(&self, position: usize) -> Option<&Held> {
        let at = self
            .parts
            .binary_search_by_key(&position, |part| part.position)
            .ok()?;
        self.parts.get(at)
    }
}
