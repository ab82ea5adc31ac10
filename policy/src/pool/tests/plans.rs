//! Placements and plans.

use super::super::state::Held;
use super::*;

fn for_secs(request: Request, secs: f64) -> Request {
    Request {
        duration_secs: secs,
        ..request
    }
}

#[test]
fn each_match_policy_has_its_order() {
    let give = |placement: &str| {
        let mut pool = pool(4, 4, 2);
        pool.set_placement(placement.parse().unwrap());
        // node 0 is used a little, so that most free and lowest differ
        pool.allocate_placed(1, &slots(1, 1, 0), 0.0, Placement::Lonode)
            .unwrap();
        let summaries = [slots(3, 1, 1), nodes(1, 1)].map(|request| {
            let id = 2 + u64::from(request.nnodes);
            pool.allocate(id, &request, 0.0).unwrap().summary
        });
        summaries.join(" | ")
    };
    assert_eq!(
        give("worstfit"),
        "rank1/core[0-1],gpu[0-1] rank2/core0,gpu0 | rank3/core0"
    );
    assert_eq!(
        give("lonode"),
        "rank0/core[1-2],gpu[0-1] rank1/core0,gpu0 | rank0/core3"
    );
    assert_eq!(give("first"), give("low"));
    assert_eq!(
        give("hinode"),
        "rank2/core3,gpu1 rank3/core[2-3],gpu[0-1] | rank3/core1"
    );
    assert_eq!(give("high"), give("hinode"));
    assert_eq!(
        give("lonodex"),
        "rank[1-2]/core[0-3],gpu[0-1] | rank3/core[0-3],gpu[0-1]"
    );
    assert_eq!(give("firstnodex"), give("lonodex"));
    assert_eq!(
        give("hinodex"),
        "rank[2-3]/core[0-3],gpu[0-1] | rank1/core[0-3],gpu[0-1]"
    );
}

#[test]
fn names_of_match_policies() {
    let error = "best".parse::<Placement>().unwrap_err().to_string();
    assert!(
        error.starts_with("unknown match policy 'best'; known are worstfit, first,"),
        "{error}"
    );
    assert_eq!(Placement::Hinodex.to_string(), "hinodex");
}

#[test]
fn a_plan_is_made_kept_and_undone() {
    let mut pool = pool(2, 2, 0);
    pool.allocate(1, &for_secs(slots(2, 1, 0), 50.0), 0.0).unwrap();
    pool.allocate(2, &for_secs(slots(1, 1, 0), 70.0), 0.0).unwrap();
    let all = for_secs(nodes(2, 2), 10.0);
    assert_eq!(pool.earliest(3, &all, 0.0), Ok(Some(70.0)));
    assert_eq!(
        pool.earliest(3, &for_secs(slots(3, 1, 0), 1.0), 0.0),
        Ok(Some(50.0))
    );
    assert_eq!(
        pool.earliest(3, &for_secs(slots(1, 1, 0), 1.0), 5.0),
        Ok(Some(5.0))
    );
    let plan = pool.reserve(3, &all, None, 0.0).unwrap();
    assert_eq!(plan.start, Some(70.0));
    let one = |secs| for_secs(slots(1, 1, 0), secs);
    assert_eq!(pool.allocate(4, &one(71.0), 0.0), Err(AllocError::Busy));
    // the gap before the plan, and what comes after it
    assert_eq!(pool.earliest(4, &one(20.0), 0.0), Ok(Some(0.0)));
    assert_eq!(pool.earliest(4, &one(71.0), 0.0), Ok(Some(80.0)));
    assert_eq!(
        pool.earliest(4, &for_secs(slots(2, 1, 0), 20.0), 0.0),
        Ok(Some(50.0))
    );
    assert_eq!(
        pool.reserve(4, &one(71.0), Some(60.0), 0.0),
        Err(PlanError::InUse)
    );
    assert_eq!(
        pool.reserve(4, &one(20.0), Some(50.0), 0.0)
            .map(|plan| plan.start),
        Ok(Some(50.0))
    );
    pool.undo_plans_of(4);
    pool.allocate(4, &one(70.0), 0.0).unwrap();
    pool.undo(plan.plan);
    assert_eq!(pool.start_of(plan.plan), None);
    pool.free(4, None);
    pool.allocate(5, &one(1000.0), 0.0).unwrap();
    assert_eq!(pool.earliest(3, &all, 0.0), Ok(Some(1000.0)));
}

#[test]
fn what_depends_on_endless_jobs_or_nodes_that_are_down() {
    let mut pool = pool(3, 2, 0);
    pool.allocate(1, &slots(2, 1, 0), 0.0).unwrap();
    pool.allocate(2, &for_secs(slots(2, 1, 0), 9.0), 0.0).unwrap();
    assert_eq!(pool.earliest(3, &nodes(2, 2), 0.0), Ok(Some(9.0)));
    assert_eq!(pool.earliest(3, &nodes(3, 2), 0.0), Ok(None));
    assert_eq!(pool.reserve(3, &nodes(3, 2), None, 0.0).unwrap().start, None);
    assert_eq!(
        pool.allocate(4, &for_secs(slots(1, 1, 0), 1.0), 0.0),
        Err(AllocError::Busy)
    );
    pool.down(&ids("2"));
    assert_eq!(pool.earliest(4, &nodes(3, 1), 0.0), Err(PlanError::Unavailable));
    assert_eq!(
        pool.reserve(3, &nodes(3, 2), None, 0.0),
        Err(PlanError::Unavailable)
    );
    assert_eq!(pool.planned().count(), 0, "the plan was replaced by none");
    pool.set_job_expiration(1, 30.0);
    assert_eq!(pool.earliest(3, &nodes(2, 2), 0.0), Ok(Some(30.0)));
    // an overdue job still holds its cores: as soon as it ends
    assert_eq!(pool.earliest(3, &nodes(2, 2), 40.0), Ok(Some(40.0)));
}

/// A request, a stretch of time and what is free in it, by looking at every core.
fn fits(busy: &[(usize, f64, f64)], request: &Request, start: f64) -> bool {
    let end = start + request.duration_secs;
    let free = |core: &usize| {
        busy.iter()
            .all(|(held, from, to)| held != core || *from >= end || *to <= start)
    };
    let of_node = |node: usize| (node * 4..node * 4 + 4).filter(free).count();
    let worth = (0..4usize).map(of_node);
    if request.nnodes > 0 {
        worth
            .filter(|cores| *cores >= request.slots_per_node() as usize)
            .count()
            >= request.nnodes as usize
    } else {
        worth.sum::<usize>() >= request.nslots as usize
    }
}

fn cores_of(pool: &ResourcePool, from: impl Fn(&ResourcePool) -> Vec<Held>) -> Vec<usize> {
    let parts = from(pool);
    parts
        .iter()
        .flat_map(|part| part.cores.iter().map(|core| part.position * 4 + core))
        .collect()
}

proptest! {
    /// The planner's time is the first at which every core says so, and its plan uses cores that are free then.
    #[test]
    fn earliest_is_the_earliest(jobs in prop::collection::vec((1..9u32, 0..3u32, 1..40u32, prop::bool::weighted(0.4)), 1..25)) {
        let mut pool = pool(4, 4, 0);
        let mut busy: Vec<(usize, f64, f64)> = Vec::new();
        for (id, (count, per_node, secs, now)) in jobs.into_iter().enumerate() {
            let id = id as u64;
            let request = if per_node > 0 { nodes(count.min(4), per_node) } else { slots(count, 1, 0) };
            let request = for_secs(request, f64::from(secs));
            let mut times: Vec<f64> = busy.iter().map(|job| job.2).collect();
            times.push(0.0);
            times.sort_by(f64::total_cmp);
            let expected = times.into_iter().find(|time| fits(&busy, &request, *time)).unwrap();
            prop_assert_eq!(pool.earliest(id, &request, 0.0), Ok(Some(expected)));
            let start = if now && expected == 0.0 {
                pool.allocate(id, &request, 0.0).unwrap();
                0.0
            } else {
                pool.reserve(id, &request, None, 0.0).unwrap().start.unwrap()
            };
            prop_assert_eq!(start, expected);
            let cores = cores_of(&pool, |pool| match pool.held.get(&id) {
                Some(holding) => holding.parts.clone(),
                None => pool.planner.as_ref().unwrap().plans.values().find(|plan| plan.job == id).unwrap().parts.clone(),
            });
            let end = start + request.duration_secs;
            for core in cores {
                prop_assert!(busy.iter().all(|(held, from, to)| *held != core || *from >= end || *to <= start));
                busy.push((core, start, end));
            }
        }
    }
}
