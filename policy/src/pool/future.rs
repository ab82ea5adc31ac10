//! When can a request start, and with what? (The search of the planner, apart from its state.)

use std::sync::Arc;

use super::bits::Bits;
use super::by_id::ById;
use super::feasible::Need;
use super::gaps::Gaps;
use super::index::Shape;
use super::planner::{PlanError, PlanId, Planner, Tenant};
use super::request::Request;
use super::state::{Free, Held, ResourcePool};

/// A request with what the search needs of it.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) job: u64,
    pub(super) request: &'a Request,
    pub(super) need: Need,
    /// Whole nodes.
    pub(super) exclusive: bool,
    /// How long the resources are held, in seconds.
    pub(super) length: f64,
    /// Nodes, or slots when nodes do not matter.
    pub(super) count: usize,
    pub(super) allowed: Option<Arc<Bits>>,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) start: f64,
    pub(super) length: f64,
}

impl Window {
    pub(super) fn end(&self) -> f64 {
        self.start + self.length
    }
}

/// From a time on (or after it) a node is worth more or less to a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) at: f64,
    /// False: it still holds at `at`, but not after.
    pub(super) opens: bool,
    pub(super) by: isize,
}

impl Ask<'_> {
    /// Returns how many of the request's nodes or slots a node is good for that has `free` of `total`.
    pub(super) fn worth(&self, free: Shape, total: Shape) -> usize {
        if self.exclusive && free != total {
            return 0;
        }
        if self.request.nnodes > 0 {
            usize::from(self.need.fits(free))
        } else {
            self.need.slots_in(free)
        }
    }

    /// Returns what is taken of a node that has `free`, when `missing` nodes or slots are missing.
    fn share(&self, free: Shape, missing: usize) -> (Shape, usize) {
        if self.request.nnodes > 0 {
            return (self.need.node, 1);
        }
        let slots = self.need.slots_in(free).min(missing);
        let share = Shape {
            cores: slots * self.need.slot.cores,
            gpus: slots * self.need.slot.gpus,
        };
        (share, slots)
    }

    /// Returns the nodes that could be used, were everything on them free.
    fn nodes<'a>(&'a self, pool: &'a ResourcePool) -> impl Iterator<Item = (usize, Shape)> + 'a {
        pool.kinds.iter().flat_map(move |(kind, nodes)| {
            let total = kind.0;
            let fits = self.worth(total, total) > 0;
            let filter = [Some(&pool.up), self.allowed.as_deref()];
            fits.then(|| nodes.iter_common(filter).map(move |at| (at, total)))
                .into_iter()
                .flatten()
        })
    }
}

/// Returns the earliest start and how much work it was to find.
pub(super) fn earliest(
    pool: &ResourcePool,
    ask: &Ask<'_>,
    after: f64,
) -> (Result<Option<f64>, PlanError>, u64) {
    let Some(planner) = pool.planner.as_deref() else {
        return (Err(PlanError::Unavailable), 0);
    };
    let mut work = 0;
    let possible: usize = ask.nodes(pool).map(|(_, total)| ask.worth(total, total)).sum();
    if possible < ask.count {
        return (Err(PlanError::Unavailable), 1);
    }
    if ask.request.nnodes == 0
        && planner.plans.is_empty()
        && let Some(found) = by_ends(pool, planner, ask, after, &mut work)
    {
        return (Ok(found), work);
    }
    let mut steps = Vec::new();
    let mut closes = false;
    let others = planner.plans.values().any(|plan| plan.job != ask.job);
    for (position, total) in ask.nodes(pool) {
        let tenants = planner.tenants(position);
        work += 1 + u64::try_from(tenants.len() / 8).unwrap_or(0);
        if others && planner.is_planned(position) {
            work += 16;
            closes |= with_gaps(pool, planner, ask, position, |gaps| {
                gaps.steps(ask, total, after, &mut steps)
            });
        } else if ask.request.nnodes > 0 {
            let at = ready(ask, pool.index.shape(position), total, tenants, after);
            if at.is_finite() {
                steps.push(Step {
                    at,
                    opens: true,
                    by: 1,
                });
            }
        } else {
            releases(ask, pool.index.shape(position), total, tenants, after, &mut steps);
        }
    }
    let found = if closes {
        sweep(&mut steps, ask.count)
    } else {
        smallest(&mut steps, ask.count)
    };
    (Ok(found), work)
}

/// Calls with the gaps of a planned node: those that are kept, unless a plan of the same job must not count.
fn with_gaps<R>(
    pool: &ResourcePool,
    planner: &Planner,
    ask: &Ask<'_>,
    position: usize,
    call: impl FnOnce(&Gaps) -> R,
) -> R {
    let own = planner.on(position).any(|(_, plan)| plan.job == ask.job);
    match planner.gaps(position).filter(|_| !own) {
        Some(gaps) => call(gaps),
        None => call(&Gaps::of(pool, planner, position, Some(ask.job))),
    }
}

/// Returns from when on a node without plans is enough for one of the request's nodes; infinite when that depends on jobs without a limit.
fn ready(ask: &Ask<'_>, free: Shape, total: Shape, tenants: &[Tenant], after: f64) -> f64 {
    if ask.worth(free, total) > 0 {
        return after;
    }
    if ask.exclusive || ask.need.node.cores * 2 > total.cores {
        // most must have ended: look from the last on
        let mut have = total;
        for tenant in tenants.iter().rev() {
            have.cores = have.cores.saturating_sub(tenant.shape.cores);
            have.gpus = have.gpus.saturating_sub(tenant.shape.gpus);
            if ask.worth(have, total) == 0 {
                return tenant.end.max(after);
            }
        }
        return after;
    }
    let mut have = free;
    for tenant in tenants {
        have.cores += tenant.shape.cores;
        have.gpus += tenant.shape.gpus;
        if ask.worth(have, total) > 0 {
            return tenant.end.max(after);
        }
    }
    f64::INFINITY
}

/// Adds when the node is worth how much as its jobs end.
fn releases(ask: &Ask<'_>, free: Shape, total: Shape, tenants: &[Tenant], after: f64, steps: &mut Vec<Step>) {
    let full = ask.worth(total, total);
    let mut worth = ask.worth(free, total);
    let open = |at: f64, by: usize| Step {
        at,
        opens: true,
        by: signed(by),
    };
    if worth > 0 {
        steps.push(open(after, worth));
    }
    let mut free = free;
    for tenant in tenants {
        if worth >= full || tenant.end.is_infinite() {
            return;
        }
        free.cores += tenant.shape.cores;
        free.gpus += tenant.shape.gpus;
        let now = ask.worth(free, total);
        if now > worth {
            steps.push(open(tenant.end.max(after), now - worth));
            worth = now;
        }
    }
}

/// Follows running jobs in the order of their ends until there are enough slots: quick when little is missing. None gives up.
fn by_ends(
    pool: &ResourcePool,
    planner: &Planner,
    ask: &Ask<'_>,
    after: f64,
    work: &mut u64,
) -> Option<Option<f64>> {
    let filter = [Some(&pool.up), ask.allowed.as_deref()];
    let mut have: usize = pool
        .index
        .with_cores(ask.need.slot.cores)
        .filter(|_| !ask.exclusive)
        .map(|(shape, nodes)| ask.need.slots_in(shape) * nodes.count_common(filter))
        .sum();
    if ask.exclusive {
        have = pool
            .index
            .idle
            .iter_common(filter)
            .map(|at| ask.need.slots_in(pool.index.shape(at)))
            .sum();
    }
    if have >= ask.count {
        return Some(Some(after));
    }
    let mut shapes: ById<usize, Shape> = ById::default();
    let steps_max = pool.inventory.len().max(256);
    for (end, id) in planner.ends.iter().take(steps_max) {
        *work += 1;
        if end.0.is_infinite() {
            return Some(None);
        }
        for part in pool.held.get(id).map_or(&[][..], |holding| &holding.parts) {
            let at = part.position;
            if !pool.is_up(at) || ask.allowed.as_ref().is_some_and(|allowed| !allowed.contains(at)) {
                continue;
            }
            let total = pool.total(at);
            let shape = shapes.entry(at).or_insert_with(|| pool.index.shape(at));
            let before = ask.worth(*shape, total);
            shape.cores += part.cores.count();
            shape.gpus += part.gpus.count();
            have += ask.worth(*shape, total) - before;
        }
        if have >= ask.count {
            return Some(Some(end.0.max(after)));
        }
    }
    None
}

/// Returns when enough is worth something, when nothing ever becomes worth less.
fn smallest(steps: &mut [Step], count: usize) -> Option<f64> {
    let mut missing = signed(count);
    let total: isize = steps.iter().map(|step| step.by).sum();
    if total < missing {
        return None;
    }
    let (mut from, mut to) = (0, steps.len());
    while to - from > 1 {
        let middle = (to - from) / 2;
        let rest = steps.get_mut(from..to)?;
        let (low, pivot, _) = rest.select_nth_unstable_by(middle, |a, b| a.at.total_cmp(&b.at));
        let below: isize = low.iter().map(|step| step.by).sum();
        if below >= missing {
            to = from + middle;
        } else if below + pivot.by >= missing {
            return Some(pivot.at);
        } else {
            missing -= below + pivot.by;
            from += middle + 1;
        }
    }
    steps.get(from).map(|step| step.at)
}

/// Returns the first time at which enough is worth something.
fn sweep(steps: &mut [Step], count: usize) -> Option<f64> {
    steps.sort_unstable_by(|a, b| a.at.total_cmp(&b.at).then(b.opens.cmp(&a.opens)));
    let mut have = 0;
    for step in steps {
        have += step.by;
        if step.opens && have >= signed(count) {
            return Some(step.at);
        }
    }
    None
}

/// Returns parts that are free during `window`, those that become free last first; none when there are too few.
pub(super) fn choose(
    pool: &ResourcePool,
    ask: &Ask<'_>,
    window: Window,
    now: f64,
) -> (Option<Vec<Held>>, u64) {
    let Some(planner) = pool.planner.as_deref() else {
        return (None, 0);
    };
    let mut work = 0;
    let mut candidates = Vec::new();
    let mut have = 0;
    let others = planner.plans.values().any(|plan| plan.job != ask.job);
    for (position, total) in ask.nodes(pool) {
        work += 1;
        if ask.request.nnodes > 0 && window.start.is_finite() && !(others && planner.is_planned(position)) {
            let since = ready(
                ask,
                pool.index.shape(position),
                total,
                planner.tenants(position),
                now,
            );
            if since <= window.start {
                have += 1;
                candidates.push((since, position));
            }
            continue;
        }
        let (free, since) = if others && planner.is_planned(position) {
            work += 16;
            let free = if window.start.is_finite() {
                with_gaps(pool, planner, ask, position, |gaps| gaps.free_in(window))
            } else {
                free_in(pool, planner, ask.job, position, window).shape()
            };
            (free, now)
        } else {
            free_at(pool, planner, position, window.start, now)
        };
        let worth = ask.worth(free, total);
        if worth > 0 {
            have += worth;
            candidates.push((since, position));
        }
    }
    if have < ask.count {
        return (None, work);
    }
    let late_first = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if ask.count < candidates.len() {
        candidates.select_nth_unstable_by(ask.count, late_first);
        candidates.truncate(ask.count);
    }
    candidates.sort_unstable_by(late_first);
    let mut missing = ask.count;
    let mut parts = Vec::new();
    for (_, position) in candidates {
        if missing == 0 {
            break;
        }
        let free = free_in(pool, planner, ask.job, position, window);
        let (share, taken) = ask.share(free.shape(), missing);
        missing = missing.saturating_sub(taken);
        let Free { cores, gpus } = if ask.exclusive {
            free
        } else {
            Free {
                cores: free.cores.lowest(share.cores),
                gpus: free.gpus.lowest(share.gpus),
            }
        };
        parts.push(Held {
            position,
            cores,
            gpus,
        });
    }
    parts.sort_unstable_by_key(|part| part.position);
    ((missing == 0).then_some(parts), work)
}

/// Returns how much of a node without plans is free at a time, and when the last of it was released. At an infinite time, what jobs without a
/// time limit hold counts as released, last of all.
fn free_at(pool: &ResourcePool, planner: &Planner, position: usize, at: f64, now: f64) -> (Shape, f64) {
    let mut free = pool.index.shape(position);
    let mut since = now;
    for tenant in planner
        .tenants(position)
        .iter()
        .take_while(|tenant| tenant.end <= at)
    {
        free.cores += tenant.shape.cores;
        free.gpus += tenant.shape.gpus;
        since = tenant.end;
    }
    if at.is_infinite() && since.is_infinite() {
        // rather wait for jobs that are known to end
        since = f64::NEG_INFINITY;
    }
    (free, since)
}

/// Returns what is free on a node during a window.
fn free_in(pool: &ResourcePool, planner: &Planner, job: u64, position: usize, window: Window) -> Free {
    let mut free = pool
        .inventory
        .node(position)
        .map_or_else(Free::default, |node| Free {
            cores: node.cores.clone(),
            gpus: node.gpus.clone(),
        });
    let mut take = |part: &Held| {
        free.cores.subtract(&part.cores);
        free.gpus.subtract(&part.gpus);
    };
    let staying = planner
        .tenants(position)
        .iter()
        .rev()
        .take_while(|tenant| tenant.end > window.start);
    staying
        .filter_map(|tenant| part_of(pool, tenant.id, position))
        .for_each(&mut take);
    let plans = planner
        .on(position)
        .filter(|(_, plan): &(PlanId, _)| plan.job != job && plan.overlaps(window));
    plans
        .filter_map(|(_, plan)| plan.part(position))
        .for_each(&mut take);
    free
}

/// Returns what a job holds on a node.
pub(super) fn part_of(pool: &ResourcePool, id: u64, position: usize) -> Option<&Held> {
    let parts = &pool.held.get(&id)?.parts;
    let at = parts.binary_search_by_key(&position, |part| part.position).ok()?;
    parts.get(at)
}

pub(super) fn signed(count: usize) -> isize {
    isize::try_from(count).unwrap_or(isize::MAX)
}

impl ResourcePool {
    /// Returns what a node has in all.
    pub(super) fn total(&self, position: usize) -> Shape {
        self.inventory
            .node(position)
            .map_or_else(Shape::default, |node| Shape {
                cores: node.cores.count(),
                gpus: node.gpus.count(),
            })
    }
}
