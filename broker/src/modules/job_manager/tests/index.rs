//! A restart by the index of jobs finds what a walk through all of them finds.

use super::fakes::{Bench, Shared, finish};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::rc::Rc;

const STATEDIR: &[(&str, &str)] = &[("statedir", "/nonexistent")];
const VERSION: &str = "checkpoint.job-index.version";

fn begin() -> Bench {
    Bench::over_with(Shared::default(), STATEDIR)
}

/// Starts again over what a killed broker left.
fn restart(old: Bench) -> Bench {
    let world = old.world.clone();
    drop(old);
    {
        let mut world = world.borrow_mut();
        world.starts.clear();
        world.exceptions.clear();
        world.pending.clear();
        world.holding.clear();
        world.lookups.clear();
    }
    Bench::over_with(world, STATEDIR)
}

/// What a job manager says of its jobs.
fn picture(bench: &mut Bench) -> (Value, Value, Value) {
    let mut listed = bench.rpc("job-manager.list", &json!({"max_entries": 0})).unwrap();
    if let Some(jobs) = listed["jobs"].as_array_mut() {
        jobs.sort_by_key(|job| job["id"].as_u64());
    }
    let known = bench.known();
    let stats = bench.rpc("job-manager.stats-get", &json!({})).unwrap();
    let counts = json!([stats["active_jobs"], stats["inactive_jobs"], stats["max_jobid"]]);
    (listed, known, counts)
}

/// What a walk finds in a copy of the store.
fn walked(bench: &Bench) -> (Value, Value, Value) {
    let world = Shared::default();
    world.borrow_mut().map.clone_from(&bench.world.borrow().map);
    world
        .borrow_mut()
        .map
        .retain(|key, _| !key.starts_with("checkpoint.job-index"));
    picture(&mut Bench::over_with(world, &[]))
}

fn eventlogs_read(bench: &Bench) -> usize {
    let world = bench.world.borrow();
    let logs = world.lookups.iter().filter(|key| key.ends_with(".eventlog"));
    logs.collect::<std::collections::HashSet<_>>().len()
}

fn purge(bench: &mut Bench, count: usize) {
    let body = json!({"age_limit": -1.0, "num_limit": 0, "batch": count, "force": true});
    bench.rpc("job-manager.purge", &body).unwrap();
}

#[test]
fn only_active_jobs_are_replayed() {
    let mut bench = begin();
    bench.world.borrow_mut().auto = true;
    bench.world.borrow_mut().slots = 1;
    let mut ids: Vec<JobId> = (0..30).map(|_| bench.submit()).collect();
    bench.world.borrow_mut().slots = 0;
    ids.extend((0..10).map(|_| bench.submit()));
    let waiting = 10;
    let before = picture(&mut bench);
    let mut bench = restart(bench);
    assert_eq!(eventlogs_read(&bench), waiting);
    assert_eq!(picture(&mut bench).2, before.2);
    assert_eq!(walked(&bench), picture(&mut bench));
    purge(&mut bench, 20);
    let one = json!({"id": ids[25], "force": 1});
    bench.rpc("job-manager.purge-id", &one).unwrap();
    let mut bench = restart(bench);
    assert_eq!(picture(&mut bench).2, json!([10, 9, ids[39]]));
    assert_eq!(walked(&bench), picture(&mut bench));
}

#[test]
fn a_store_without_index_gets_one() {
    let mut bench = begin();
    for _ in 0..40 {
        let id = bench.submit();
        bench.cancel(id).unwrap();
    }
    bench.submit();
    bench
        .world
        .borrow_mut()
        .map
        .retain(|key, _| !key.starts_with("checkpoint.job-index"));
    let mut bench = restart(bench);
    assert_eq!(eventlogs_read(&bench), 41, "all are read once");
    let before = picture(&mut bench);
    let id = bench.submit();
    bench.cancel(id).unwrap();
    let mut bench = restart(bench);
    assert_eq!(eventlogs_read(&bench), 1);
    let (_, _, counts) = picture(&mut bench);
    assert_eq!((&counts[0], &counts[1]), (&before.2[0], &json!(41)));
}

#[test]
fn a_damaged_index_is_made_again() {
    let mut bench = begin();
    for _ in 0..20 {
        let id = bench.submit();
        bench.cancel(id).unwrap();
    }
    let before = picture(&mut bench);
    let key = "checkpoint.job-index.00000001";
    bench
        .world
        .borrow_mut()
        .map
        .insert(key.to_owned(), b"+12\nnonsense\n".to_vec());
    let mut bench = restart(bench);
    assert_eq!(eventlogs_read(&bench), 20);
    assert_eq!(picture(&mut bench), before);
    let log: Vec<_> = bench
        .hub
        .hub
        .core()
        .log
        .entries()
        .map(|entry| entry.line.clone())
        .collect();
    assert!(log.iter().any(|line| line.contains("nonsense")), "{log:?}");
    let mut bench = restart(bench);
    assert_eq!((eventlogs_read(&bench), picture(&mut bench)), (0, before));
}

#[test]
fn an_index_of_a_newer_version_ends_the_broker() {
    let bench = begin();
    bench
        .world
        .borrow_mut()
        .map
        .insert(VERSION.to_owned(), b"2\n".to_vec());
    let map = bench.world.borrow().map.clone();
    let mut bench = restart(bench);
    let log: Vec<_> = bench
        .hub
        .hub
        .core()
        .log
        .entries()
        .map(|entry| entry.line.clone())
        .collect();
    assert!(log.iter().any(|line| line.contains("newer")), "{log:?}");
    assert_eq!(bench.world.borrow().map, map, "nothing was written");
}

#[test]
fn without_a_state_directory_there_is_none() {
    let mut bench = Bench::new(1, true);
    bench.submit();
    let world = bench.world.borrow();
    assert!(
        !world
            .map
            .keys()
            .any(|key| key.starts_with("checkpoint.job-index"))
    );
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Submit,
    Cancel(usize),
    Finish(usize),
    Purge(usize),
    PurgeOne(usize),
    /// A submission while the store is full; the commit may be visible all the same.
    Refused(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Submit),
        3 => (0usize..5).prop_map(Step::Cancel),
        4 => (0usize..5).prop_map(Step::Finish),
        2 => (1usize..9).prop_map(Step::Purge),
        1 => (0usize..9).prop_map(Step::PurgeOne),
        1 => any::<bool>().prop_map(Step::Refused),
        1 => Just(Step::Restart),
    ]
}

fn active_ids(bench: &mut Bench) -> Vec<JobId> {
    let listed = bench.rpc("job-manager.list", &json!({"max_entries": 0})).unwrap();
    let jobs = listed["jobs"].as_array().unwrap().iter();
    let mut ids: Vec<JobId> = jobs.map(|job| JobId(job["id"].as_u64().unwrap())).collect();
    ids.sort_unstable();
    ids
}

fn take(bench: &mut Bench, step: Step) {
    let active = active_ids(bench);
    match step {
        Step::Submit => drop(bench.submit()),
        Step::Cancel(at) => {
            if let Some(id) = active.get(at) {
                // one that has resources stays in CLEANUP until its shells are gone
                let _answer = bench.cancel(*id);
            }
        }
        Step::Finish(at) => {
            let started = bench.world.borrow().starts.get(at).map(|start| start.id);
            if let Some(id) = started {
                bench.world.borrow_mut().starts.retain(|start| start.id != id);
                bench.with(move |cx| finish(cx, id, 0));
            }
        }
        Step::Purge(count) => purge(bench, count),
        Step::PurgeOne(at) => {
            let id = bench.known().get(at).cloned().unwrap_or(json!(1));
            let _answer = bench.rpc("job-manager.purge-id", &json!({"id": id, "force": 1}));
        }
        Step::Refused(visible) => {
            {
                let mut world = bench.world.borrow_mut();
                world.fail = Some(errno::ENOSPC);
                world.fail_visible = visible;
            }
            let job = bench.submission(16, 0);
            bench.submit_all(vec![job]);
            bench.world.borrow_mut().fail = None;
            // the broker is killed before it tries again
        }
        Step::Restart => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happened before the broker was killed, the index says what the eventlogs say.
    #[test]
    fn the_index_and_the_eventlogs_agree(steps in prop::collection::vec(step(), 1..60)) {
        let world = Shared::default();
        world.borrow_mut().slots = 3;
        let mut bench = Bench::over_with(Rc::clone(&world), STATEDIR);
        for step in steps {
            take(&mut bench, step);
            if matches!(step, Step::Restart | Step::Refused(_)) {
                let found = walked(&bench);
                bench = restart(bench);
                prop_assert_eq!(picture(&mut bench).1, found.1);
                prop_assert_eq!(picture(&mut bench).2, found.2);
            }
        }
        let found = walked(&bench);
        bench = restart(bench);
        prop_assert_eq!(picture(&mut bench).2, found.2);
    }
}
