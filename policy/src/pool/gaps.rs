//! When are the cores and GPUs of one node free, between jobs and plans?
//!
//! Kept for nodes that have plans, until something of the node changes: a policy that plans many jobs looks at each such node for each job.

use super::future::{Ask, Step, Window, part_of, signed};
use super::index::Shape;
use super::planner::Planner;
use super::state::{Held, ResourcePool};

/// A core or GPU is free from one time to another.
#[derive(Clone, Copy, Debug)]
struct Gap {
    from: f64,
    to: f64,
    is_gpu: bool,
}

/// The gaps of a node.
#[derive(Clone, Debug)]
pub(super) struct Gaps {
    /// Free always.
    always: Shape,
    /// Ascending by `from`.
    opens: Vec<Gap>,
    /// Those that end, ascending by `to`.
    closes: Vec<Gap>,
}

/// A core or GPU is held: GPU or core, its id, from, to.
type Busy = (bool, usize, f64, f64);

impl Gaps {
    /// Returns the gaps of a node; the plan of job `except` does not count.
    pub(super) fn of(pool: &ResourcePool, planner: &Planner, position: usize, except: Option<u64>) -> Gaps {
        let mut busy: Vec<Busy> = Vec::new();
        let mut add = |part: &Held, start: f64, end: f64| {
            busy.extend(part.cores.iter().map(|core| (false, core, start, end)));
            busy.extend(part.gpus.iter().map(|gpu| (true, gpu, start, end)));
        };
        for tenant in planner.tenants(position) {
            if let Some(part) = part_of(pool, tenant.id, position) {
                add(part, f64::NEG_INFINITY, tenant.end);
            }
        }
        for (_, plan) in planner.on(position).filter(|(_, plan)| Some(plan.job) != except) {
            if let Some(part) = plan.part(position) {
                match plan.start {
                    Some(start) => add(part, start, plan.end),
                    None => add(part, f64::NEG_INFINITY, f64::INFINITY),
                }
            }
        }
        busy.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)));
        Gaps::between(&busy, pool.total(position))
    }

    fn between(busy: &[Busy], total: Shape) -> Gaps {
        let mut gaps = Gaps {
            always: total,
            opens: Vec::new(),
            closes: Vec::new(),
        };
        for of_one in busy.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let is_gpu = of_one.first().is_some_and(|first| first.0);
            let always = if is_gpu {
                &mut gaps.always.gpus
            } else {
                &mut gaps.always.cores
            };
            *always = always.saturating_sub(1);
            let mut from = f64::NEG_INFINITY;
            for &(_, _, start, end) in of_one {
                if start > from {
                    let gap = Gap {
                        from,
                        to: start,
                        is_gpu,
                    };
                    gaps.opens.push(gap);
                    gaps.closes.push(gap);
                }
                from = from.max(end);
            }
            if from < f64::INFINITY {
                gaps.opens.push(Gap {
                    from,
                    to: f64::INFINITY,
                    is_gpu,
                });
            }
        }
        gaps.opens.sort_unstable_by(|a, b| a.from.total_cmp(&b.from));
        gaps.closes.sort_unstable_by(|a, b| a.to.total_cmp(&b.to));
        gaps
    }

    /// Returns how much is free during a window.
    pub(super) fn free_in(&self, window: Window) -> Shape {
        let mut free = self.always;
        let begun = self.opens.iter().take_while(|gap| gap.from <= window.start);
        for gap in begun.filter(|gap| gap.to >= window.end()) {
            *of(&mut free, gap.is_gpu) += 1;
        }
        free
    }

    /// Adds when the node is worth how much to a request; returns true when it becomes worth less at some time.
    pub(super) fn steps(&self, ask: &Ask<'_>, total: Shape, after: f64, steps: &mut Vec<Step>) -> bool {
        let fits = |gap: &&Gap| gap.to - gap.from.max(after) >= ask.length;
        let mut opens = self.opens.iter().filter(fits).peekable();
        let mut closes = self.closes.iter().filter(fits).peekable();
        let mut free = self.always;
        let mut worth = 0;
        let mut closing = false;
        let mut at = after;
        loop {
            // at one time, what opens counts before what closes
            while let Some(gap) = opens.next_if(|gap| gap.from.max(after) <= at) {
                *of(&mut free, gap.is_gpu) += 1;
            }
            step(ask.worth(free, total), &mut worth, (at, true), steps);
            let before = worth;
            while let Some(gap) = closes.next_if(|gap| gap.to - ask.length <= at) {
                let left = of(&mut free, gap.is_gpu);
                *left = left.saturating_sub(1);
            }
            step(ask.worth(free, total), &mut worth, (at, false), steps);
            closing |= worth < before;
            let next_open = opens.peek().map(|gap| gap.from.max(after));
            let next_close = closes.peek().map(|gap| gap.to - ask.length);
            at = match (next_open, next_close) {
                (None, None) => return closing,
                (Some(one), None) | (None, Some(one)) => one,
                (Some(open), Some(close)) => open.min(close),
            };
        }
    }
}

fn of(shape: &mut Shape, is_gpu: bool) -> &mut usize {
    if is_gpu { &mut shape.gpus } else { &mut shape.cores }
}

fn step(now: usize, worth: &mut usize, (at, opens): (f64, bool), steps: &mut Vec<Step>) {
    if now != *worth {
        steps.push(Step {
            at,
            opens,
            by: signed(now) - signed(*worth),
        });
        *worth = now;
    }
}
