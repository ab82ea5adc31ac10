//! What do users see of a waiting job's future? (RFC 27 annotations: `sched.t_estimate`, `sched.reason_pending`, `sched.jobs_ahead`.)
//!
//! An annotation is an event for everyone who follows jobs: it is sent when it changes by more than a second, and twice within a second for one
//! job only when it changes by more than a minute.

use std::cmp::Reverse;

use serde_json::json;

use crate::pool::{ById, ResourcePool};

use super::message::{SchedAnswer, Submit};

/// In seconds: of the estimate, and between two annotations of a job.
const CHANGE_MIN_SECS: f64 = 1.0;
/// A change that is told at once.
const CHANGE_LARGE_SECS: f64 = 60.0;
/// Jobs whose place is told, when the site wants that.
const PLACES_MAX: usize = 1000;

/// What was said of which job.
#[derive(Debug, Default)]
pub(super) struct Annotator {
    estimates: ById<u64, Said>,
    places: ById<u64, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Said {
    estimate: f64,
    at: f64,
}

impl Annotator {
    /// Tells of plans that are new, moved or gone.
    pub(super) fn estimates(&mut self, pool: &ResourcePool, now: f64, answers: &mut Vec<SchedAnswer>) {
        let mut missing = self.estimates.len();
        if missing == 0 && pool.planned().next().is_none() {
            return;
        }
        for (id, start) in pool.planned() {
            let Some(start) = start else { continue };
            if let Some(said) = self.estimates.get_mut(&id) {
                missing -= 1;
                let moved = (said.estimate - start).abs();
                let just_said = (now - said.at).abs() < CHANGE_MIN_SECS;
                if moved < CHANGE_MIN_SECS || (just_said && moved < CHANGE_LARGE_SECS) {
                    continue;
                }
            }
            self.estimates.insert(
                id,
                Said {
                    estimate: start,
                    at: now,
                },
            );
            answers.push(annotate(id, &json!({ "t_estimate": start })));
        }
        if missing == 0 {
            return;
        }
        let planned: std::collections::HashSet<u64> = pool
            .planned()
            .filter(|(_, start)| start.is_some())
            .map(|(id, _)| id)
            .collect();
        let mut gone: Vec<u64> = self
            .estimates
            .keys()
            .copied()
            .filter(|id| !planned.contains(id))
            .collect();
        gone.sort_unstable();
        for id in gone {
            self.estimates.remove(&id);
            answers.push(annotate(id, &json!({ "t_estimate": null })));
        }
    }

    /// Tells the first jobs of the queue why they wait and where they are.
    pub(super) fn places(&mut self, pending: &ById<u64, Box<Submit>>, answers: &mut Vec<SchedAnswer>) {
        let mut order: Vec<_> = pending
            .values()
            .map(|job| (Reverse(job.priority), job.id))
            .collect();
        order.sort_unstable();
        for (ahead, (_, id)) in order.into_iter().take(PLACES_MAX).enumerate() {
            if self.places.insert(id, ahead) != Some(ahead) {
                let told = json!({"reason_pending": "insufficient resources", "jobs_ahead": ahead});
                answers.push(annotate(id, &told));
            }
        }
    }

    /// Forgets a job and returns the keys that were said of it.
    pub(super) fn forget(&mut self, id: u64) -> Vec<&'static str> {
        let mut said = Vec::new();
        if self.estimates.is_empty() && self.places.is_empty() {
            return said;
        }
        if self.estimates.remove(&id).is_some() {
            said.push("t_estimate");
        }
        if self.places.remove(&id).is_some() {
            said.extend(["reason_pending", "jobs_ahead"]);
        }
        said
    }
}

fn annotate(id: u64, sched: &serde_json::Value) -> SchedAnswer {
    SchedAnswer::Annotate {
        id,
        annotations: json!({ "sched": sched }).to_string(),
    }
}
