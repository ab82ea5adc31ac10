use std::collections::HashMap;

use flux_formats::idset::IdSet;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod plans;

fn ids(text: &str) -> IdSet {
    text.parse().unwrap()
}

fn r(ranks: u32, cores: u32, gpus: u32) -> Value {
    let mut children = json!({"core": IdSet::first_n(cores).to_string()});
    if gpus > 0 {
        children["gpu"] = json!(IdSet::first_n(gpus).to_string());
    }
    json!({"version": 1, "execution": {
        "R_lite": [{"rank": IdSet::first_n(ranks).to_string(), "children": children}],
        "starttime": 0.0, "expiration": 0.0,
        "nodelist": [if ranks == 1 { "n0".to_owned() } else { format!("n[0-{}]", ranks - 1) }]}})
}

fn pool(ranks: u32, cores: u32, gpus: u32) -> ResourcePool {
    ResourcePool::from_r(&r(ranks, cores, gpus)).unwrap()
}

fn slots(nslots: u32, cores: u32, gpus: u32) -> Request {
    Request {
        nslots,
        cores_per_slot: cores,
        gpus_per_slot: gpus,
        ..Request::default()
    }
}

fn nodes(nnodes: u32, slots_per_node: u32) -> Request {
    Request {
        nnodes,
        ..slots(nnodes * slots_per_node, 1, 0)
    }
}

fn exclusive(nnodes: u32) -> Request {
    Request {
        exclusive: true,
        ..nodes(nnodes, 1)
    }
}

fn only(request: Request, constraint: Value) -> Request {
    Request {
        constraint: Some(Constraint::from_json(&constraint).unwrap()),
        ..request
    }
}

/// The allocations that flux-core 0.88 made on four nodes of two cores (shared golden data: jobs 1 to 8, 10).
#[test]
fn same_choices_as_sched_simple() {
    let mut pool = pool(4, 2, 0);
    let grant = pool.allocate(1, &slots(4, 1, 0), 1795240138.5116405).unwrap();
    assert_eq!(grant.summary, "rank[0-1]/core[0-1]");
    assert_eq!(
        grant.r,
        r#"{"version":1,"execution":{"R_lite":[{"rank":"0-1","children":{"core":"0-1"}}],"starttime":1795240138.5116405,"expiration":0.0,"nslots":4,"nodelist":["n[0-1]"]}}"#
    );
    assert!(pool.free(1, None));
    assert_eq!(
        pool.allocate(2, &slots(1, 1, 0), 1.0).unwrap().summary,
        "rank0/core0"
    );
    assert!(pool.free(2, None));
    assert_eq!(
        pool.allocate(3, &slots(1, 1, 0), 1.0).unwrap().summary,
        "rank0/core0"
    );
    assert_eq!(
        pool.allocate(4, &slots(1, 1, 0), 1.0).unwrap().summary,
        "rank1/core0"
    );
    assert!(pool.free(4, None) && pool.free(3, None));
    let limited = Request {
        duration_secs: 0.5,
        ..slots(1, 1, 0)
    };
    assert_eq!(pool.allocate(5, &limited, 1000.0).unwrap().expiration, 1000.5);
    assert_eq!(
        pool.allocate(6, &slots(2, 1, 0), 1.0).unwrap().summary,
        "rank1/core[0-1]"
    );
    assert!(pool.free(5, None) && pool.free(6, None));
    assert_eq!(
        pool.allocate(7, &exclusive(4), 1.0).unwrap().summary,
        "rank[0-3]/core[0-1]"
    );
    assert!(pool.free(7, None));
    assert_eq!(
        pool.allocate(8, &nodes(2, 2), 1.0).unwrap().summary,
        "rank[0-1]/core[0-1]"
    );
    assert_eq!(
        pool.counts(),
        Counts {
            nodes_up: 4,
            cores_free: 4,
            gpus_free: 0
        }
    );
    assert_eq!(pool.allocate(10, &slots(8, 1, 0), 1.0), Err(AllocError::Busy));
}

#[test]
fn texts_of_what_can_never_be_met() {
    let mut pool = pool(4, 2, 1);
    for (request, text) in [
        (exclusive(5), "need 5 exclusive node(s), only 4 eligible"),
        (nodes(2, 3), "need 2 node(s) with 3 cores each, only 0 eligible"),
        (nodes(9, 1), "need 9 node(s) with 1 cores each, only 4 eligible"),
        (
            Request {
                nnodes: 1,
                ..slots(1, 1, 2)
            },
            "need 1 node(s) with 1 cores and 2 GPUs each, only 0 eligible",
        ),
        (
            slots(9, 1, 0),
            "need 9 slot(s) of 1 core(s), only 8 such slot(s) available (total cores: 8)",
        ),
        (
            slots(2, 3, 0),
            "need 2 slot(s) of 3 core(s), only 0 such slot(s) available (total cores: 8)",
        ),
        (
            slots(5, 1, 1),
            "need 5 slot(s) with 1 GPU(s) each, only 4 available (total GPUs: 4)",
        ),
        (
            only(slots(1, 1, 0), json!({"properties": ["x"]})),
            "need 1 slot(s) of 1 core(s), only 0 such slot(s) available (total cores: 0)",
        ),
    ] {
        let error = pool.check_feasible(&request).unwrap_err();
        assert_eq!(error.to_string(), format!("unsatisfiable request: {text}"));
        assert_eq!(
            pool.allocate(1, &request, 0.0),
            Err(AllocError::Infeasible(error))
        );
    }
}

#[test]
fn down_waits_and_shrink_denies() {
    let mut pool = pool(3, 2, 0);
    pool.down(&ids("1-2,9"));
    assert_eq!(
        pool.counts(),
        Counts {
            nodes_up: 1,
            cores_free: 2,
            gpus_free: 0
        }
    );
    assert_eq!(pool.allocate(1, &nodes(2, 1), 0.0), Err(AllocError::Busy));
    pool.up(&ids("2"));
    assert_eq!(
        pool.allocate(1, &nodes(2, 1), 0.0).unwrap().summary,
        "rank[0,2]/core0"
    );
    // a node that goes down keeps its job, and frees into nothing
    pool.down(&ids("2"));
    assert!(pool.holds(1) && pool.free(1, None));
    assert_eq!(pool.counts().cores_free, 2);
    assert!(
        pool.down_r()
            .contains(r#"{"rank":"1-2","children":{"core":"0-1"}}"#)
    );
    pool.shrink(&ids("1"));
    pool.up(&ids("0-2"));
    assert_eq!(pool.counts().cores_free, 4);
    let error = pool.check_feasible(&nodes(3, 1)).unwrap_err();
    assert!(error.to_string().ends_with("only 2 eligible"));
    assert!(!pool.all_r().contains("n1"));
}

#[test]
fn exclusive_needs_idle_nodes() {
    let mut pool = pool(2, 4, 2);
    pool.allocate(1, &slots(1, 1, 0), 0.0).unwrap();
    assert_eq!(pool.allocate(2, &exclusive(2), 0.0), Err(AllocError::Busy));
    assert_eq!(
        pool.allocate(2, &exclusive(1), 0.0).unwrap().summary,
        "rank1/core[0-3],gpu[0-1]"
    );
    // whole nodes without a node count: one for each slot
    let jobspec = json!({"resources": [{"type": "slot", "count": 2, "exclusive": true, "label": "x",
        "with": [{"type": "core", "count": 1}]}], "attributes": {"system": {"duration": 0}}});
    assert_eq!(Request::from_jobspec(&jobspec).unwrap().nnodes, 2);
}

#[test]
fn partial_release_and_adoption() {
    let mut pool = pool(3, 2, 0);
    let grant = pool.allocate(1, &nodes(3, 2), 5.0).unwrap();
    let whole: Value = serde_json::from_str(&grant.r).unwrap();
    assert_eq!(ranks_of(&whole).unwrap(), ids("0-2"));
    assert!(!pool.free(1, Some(&ids("1"))));
    assert_eq!(pool.counts().cores_free, 2);
    assert!(pool.free(1, Some(&ids("0,2"))));
    assert!(pool.free(1, None), "freeing twice is harmless");
    pool.adopt(1, &whole).unwrap();
    assert_eq!(pool.adopt(1, &whole), Err(ResourceError::HasResources(1)));
    assert_eq!(pool.adopt(2, &r(1, 1, 0)), Err(ResourceError::DoubleBooked(0)));
    assert_eq!(pool.adopt(2, &r(4, 1, 0)), Err(ResourceError::NotInPool(3)));
    assert_eq!(pool.adopt(2, &r(1, 3, 0)), Err(ResourceError::NotInPool(0)));
    let twice = json!({"version": 1, "execution": {"R_lite": [
        {"rank": "0", "children": {"core": "0"}}, {"rank": "0", "children": {"core": "1"}}]}});
    assert!(pool.free(1, None));
    assert_eq!(pool.adopt(2, &twice), Err(ResourceError::DoubleBooked(0)));
    assert_eq!(
        pool.allocated_r(),
        r#"{"version":1,"execution":{"R_lite":[],"starttime":0.0,"expiration":0.0,"nodelist":[]}}"#
    );
}

#[test]
fn instance_expiration_bounds_jobs_without_limit() {
    let mut pool = pool(1, 2, 0);
    pool.set_expiration(500.0);
    assert_eq!(pool.allocate(1, &slots(1, 1, 0), 10.0).unwrap().expiration, 500.0);
}

#[test]
fn constraints_of_rfc_31() {
    let mut r = r(4, 1, 0);
    r["execution"]["properties"] = json!({"big": "0-1", "fast": "1-2", "+local": "0-3"});
    let mut pool = ResourcePool::from_r(&r).unwrap();
    for (constraint, ranks) in [
        (json!({}), "0-3"),
        (json!({"properties": ["big"]}), "0-1"),
        (json!({"properties": ["big", "fast"]}), "1"),
        (json!({"properties": ["big", "^fast"]}), "0"),
        (json!({"properties": ["^none"]}), "0-3"),
        (json!({"hostlist": ["n[1-2]", "n9"]}), "1-2"),
        (json!({"ranks": ["0,3-90"]}), "0,3"),
        (json!({"or": [{"properties": ["fast"]}, {"ranks": ["3"]}]}), "1-3"),
        (
            json!({"and": [{"properties": ["fast"]}, {"not": [{"ranks": ["1"]}]}]}),
            "2",
        ),
        (json!({"and": []}), "0-3"),
        (json!({"or": []}), "0-3"),
        (json!({"not": []}), ""),
        (json!({"properties": ["big"], "ranks": ["1"]}), "1"),
    ] {
        let mut found = IdSet::new();
        for id in 0..4 {
            if let Ok(grant) = pool.allocate(id, &only(slots(1, 1, 0), constraint.clone()), 0.0) {
                found = found.union(&ranks_of(&serde_json::from_str(&grant.r).unwrap()).unwrap());
            }
        }
        assert_eq!(found, ids(ranks), "{constraint}");
        (0..4).for_each(|id| assert!(pool.free(id, None)));
    }
    let grant = pool.allocate(9, &nodes(4, 1), 0.0).unwrap();
    assert!(
        grant
            .r
            .ends_with(r#""nodelist":["n[0-3]"],"properties":{"big":"0-1","fast":"1-2"}}}"#),
        "{}",
        grant.r
    );
    for bad in [
        json!([]),
        json!({"x": []}),
        json!({"and": {}}),
        json!({"properties": [1]}),
        json!({"ranks": ["a"]}),
        json!({"hostlist": ["a[1"]}),
    ] {
        assert!(Constraint::from_json(&bad).is_err(), "{bad}");
    }
    let deep = (0..100).fold(json!({}), |inner, _| json!({"not": [inner]}));
    assert_eq!(
        Constraint::from_json(&deep).unwrap_err(),
        ConstraintError::TooDeep
    );
}

#[test]
fn requests_of_jobspecs() {
    let read = |resources: Value| {
        let jobspec =
            json!({"resources": resources, "attributes": {"system": {"duration": 1.5}}, "version": 1});
        Request::from_jobspec(&jobspec)
            .map(|r| (r.nnodes, r.nslots, r.cores_per_slot, r.gpus_per_slot, r.exclusive))
    };
    let core = json!({"type": "core", "count": 2});
    let slot = |with: Value| json!({"type": "slot", "count": 3, "label": "t", "with": with});
    assert_eq!(read(json!([slot(json!([core]))])), Ok((0, 3, 2, 0, false)));
    let gpu = json!({"type": "gpu", "count": 1});
    let node = json!({"type": "node", "count": 2, "exclusive": true, "with": [slot(json!([core, gpu]))]});
    assert_eq!(read(json!([node])), Ok((2, 6, 2, 1, true)));
    assert_eq!(read(json!([])), Err(RequestError::NoResources));
    assert_eq!(read(json!([core])), Err(RequestError::NoSlot));
    assert_eq!(read(json!([slot(json!([]))])), Err(RequestError::NoCore));
    assert_eq!(read(json!([7])), Err(RequestError::NotObject));
    let ranged = json!([{"type": "slot", "count": {"min": 1}, "with": [core]}]);
    assert_eq!(read(ranged), Err(RequestError::CountNotInteger("slot".into())));
    for count in [json!(-1), json!(4294967296_u64), json!(0)] {
        let bad = json!([{"type": "slot", "count": count, "with": [core]}]);
        assert_eq!(read(bad), Err(RequestError::CountRange("slot".into())));
    }
    let overflow = json!([{"type": "node", "count": 100_000, "with": [{"type": "slot", "count": 100_000, "with": [core]}]}]);
    assert!(read(overflow).is_err());
    let no_system = json!({"resources": [slot(json!([core]))], "attributes": {}});
    assert_eq!(
        Request::from_jobspec(&no_system).unwrap_err(),
        RequestError::NoSystem
    );
    let bad = json!({"resources": [slot(json!([core]))], "attributes": {"system": {"duration": -1}}});
    assert_eq!(
        Request::from_jobspec(&bad).unwrap_err(),
        RequestError::BadDuration
    );
}

#[test]
fn malformed_r_is_refused() {
    for bad in [
        json!({}),
        json!({"version": 2, "execution": {"R_lite": []}}),
        json!({"version": 1, "execution": {"R_lite": [{"rank": "0-4294967295", "children": {}}]}}),
        json!({"version": 1, "execution": {"R_lite": [{"rank": "0", "children": {"core": "0-4294967295"}}]}}),
        json!({"version": 1, "execution": {"R_lite": [{"rank": "0", "children": {}}, {"rank": "0", "children": {}}]}}),
        json!({"version": 1, "execution": {"R_lite": [{"rank": "0", "children": {}}], "nodelist": ["a,b"]}}),
    ] {
        assert!(ResourcePool::from_r(&bad).is_err(), "{bad}");
    }
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    Allocate {
        nnodes: u32,
        nslots: u32,
        cores: u32,
        gpus: u32,
        exclusive: bool,
    },
    Free(usize, Option<u32>),
    Up(u32),
    Down(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let allocate = (0..4u32, 1..5u32, 1..4u32, 0..3u32, prop::bool::weighted(0.2)).prop_map(
        |(nnodes, nslots, cores, gpus, exclusive)| Step::Allocate {
            nnodes: if exclusive { nnodes.max(1) } else { nnodes },
            nslots,
            cores,
            gpus,
            exclusive,
        },
    );
    let free = (0..20usize, prop::option::of(0..6u32)).prop_map(|(at, rank)| Step::Free(at, rank));
    prop::collection::vec(
        prop_oneof![4 => allocate, 3 => free, 1 => (0..6u32).prop_map(Step::Up), 1 => (0..6u32).prop_map(Step::Down)],
        0..80,
    )
}

fn small(count: usize) -> u32 {
    count.try_into().unwrap()
}

/// Cores and GPUs of an R as (rank, kind, id).
fn atoms(r: &str) -> Vec<(u32, bool, u32)> {
    let r: Value = serde_json::from_str(r).unwrap();
    let mut atoms = Vec::new();
    for entry in r["execution"]["R_lite"].as_array().unwrap() {
        for rank in &ids(entry["rank"].as_str().unwrap()) {
            for (kind, gpu) in [("core", false), ("gpu", true)] {
                let list = entry["children"].get(kind).and_then(Value::as_str).unwrap_or("");
                atoms.extend(ids(list).iter().map(|id| (rank, gpu, id)));
            }
        }
    }
    atoms
}

proptest! {
    /// Nothing is ever held twice or given on a node that is down; busy is said only when a plain search agrees.
    #[test]
    fn never_books_twice(steps in steps()) {
        let mut pool = pool(6, 4, 2);
        let mut held: HashMap<(u32, bool, u32), u64> = HashMap::new();
        let mut up = IdSet::first_n(6);
        for (id, step) in (0u64..).zip(steps) {
            match step {
                Step::Allocate { nnodes, nslots, cores, gpus, exclusive } => {
                    let total = if nnodes > 0 { nnodes * nslots } else { nslots };
                    let request = Request { nnodes, exclusive, ..slots(total, cores, gpus) };
                    let feasible = pool.check_feasible(&request).is_ok();
                    let result = pool.allocate(id, &request, 1.0);
                    prop_assert_eq!(matches!(result, Err(AllocError::Infeasible(_))), !feasible);
                    let free = |rank: u32, gpu: bool, all: u32| small((0..all).filter(|&c| !held.contains_key(&(rank, gpu, c))).count());
                    let room = |rank: u32| {
                        let (c, g) = (free(rank, false, 4), free(rank, true, 2));
                        if !up.contains(rank) || (exclusive && (c, g) != (4, 2)) { return 0; }
                        (c / cores).min(g.checked_div(gpus).unwrap_or(u32::MAX))
                    };
                    let fits = if nnodes > 0 {
                        small((0..6).filter(|&rank| room(rank) >= nslots).count()) >= nnodes
                    } else {
                        (0..6).map(room).sum::<u32>() >= nslots
                    };
                    prop_assert_eq!(result.is_ok(), fits, "{:?} {:?}", result, request);
                    let Ok(grant) = result else { continue };
                    let atoms = atoms(&grant.r);
                    let count = |gpu: bool| small(atoms.iter().filter(|atom| atom.1 == gpu).count());
                    if exclusive {
                        prop_assert_eq!((count(false), count(true)), (nnodes * 4, nnodes * 2));
                    } else {
                        prop_assert_eq!((count(false), count(true)), (total * cores, total * gpus));
                    }
                    for atom in atoms {
                        prop_assert!(up.contains(atom.0));
                        prop_assert_eq!(held.insert(atom, id), None);
                    }
                }
                Step::Free(at, rank) => {
                    let mut jobs: Vec<u64> = held.values().copied().collect();
                    jobs.sort_unstable();
                    jobs.dedup();
                    if let Some(&job) = jobs.get(at) {
                        let ranks = rank.map(IdSet::from);
                        let done = pool.free(job, ranks.as_ref());
                        held.retain(|atom, id| *id != job || rank.is_some_and(|rank| atom.0 != rank));
                        prop_assert_eq!(done, !held.values().any(|id| *id == job));
                    }
                }
                Step::Up(rank) => { pool.up(&IdSet::from(rank)); up.insert(rank); }
                Step::Down(rank) => { pool.down(&IdSet::from(rank)); up.remove(rank); }
            }
            let mut booked = atoms(&pool.allocated_r());
            booked.sort_unstable();
            let mut expected: Vec<_> = held.keys().copied().collect();
            expected.sort_unstable();
            prop_assert_eq!(booked, expected);
            let free_cores = up.iter().map(|rank| 4 - held.keys().filter(|a| a.0 == rank && !a.1).count()).sum::<usize>();
            prop_assert_eq!(pool.counts().cores_free, free_cores);
        }
    }
}
