//! Tests of the actor, fed with events as the journal brings them.

use super::JobList;
use super::apply::tests::{event, life};
use crate::modules::job_manager::tests::fakes::Bench;
use crate::service::testing::{OWNER, TestHub, request};
use flux_formats::errno;
use flux_formats::msg::{Message, role};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

fn hub() -> TestHub {
    let mut hub = TestHub::new(&[]);
    hub.load("job-list", Box::<JobList>::default()).unwrap();
    hub
}

/// A hub whose job list has a place for a file that goes with the broker.
fn hub_with_file() -> (TestHub, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = TestHub::new(&[("rundir", dir.path().to_str().unwrap())]);
    hub.load("job-list", Box::<JobList>::default()).unwrap();
    (hub, dir)
}

/// Brings a job through the first `steps` events of its life.
fn feed(hub: &mut TestHub, id: u64, priority: u32, steps: usize) {
    let submit = json!({"userid": 7, "urgency": 16, "flags": 0, "version": 1});
    let start = f64::from(u32::try_from(id).unwrap());
    let mut events = vec![event(id, "submit", start, &submit)];
    for (at, (name, context)) in life().into_iter().take(steps).enumerate() {
        let context = if name == "priority" {
            json!({ "priority": priority })
        } else {
            context
        };
        events.push(event(
            id,
            name,
            start + 0.01 * f64::from(u32::try_from(at + 1).unwrap()),
            &context,
        ));
    }
    hub.with_probe(move |cx| {
        cx.to::<JobList>("job-list", move |list, cx| list.on_journal(cx, &events));
    });
}

fn list(hub: &mut TestHub, constraint: Value, max: u32) -> Vec<u64> {
    list_of(
        hub,
        &json!({"max_entries": max, "attrs": [], "constraint": constraint}),
    )
}

fn list_of(hub: &mut TestHub, body: &Value) -> Vec<u64> {
    let (answers, _) = hub.stream(request("job-list.list", body));
    let seen = answers.clone();
    hub.run_until(move || seen.borrow().last().is_some_and(Result::is_err));
    let answers = answers.borrow();
    assert_eq!(
        answers.last().unwrap().as_ref().unwrap_err().errnum,
        errno::ENODATA
    );
    assert_eq!(answers[0].as_ref().unwrap()["version"], 1);
    let jobs = answers
        .iter()
        .flatten()
        .flat_map(|a| a["jobs"].as_array().unwrap());
    jobs.map(|job| job["id"].as_u64().unwrap()).collect()
}

fn filled() -> TestHub {
    let mut hub = hub();
    feed(&mut hub, 1, 16, 9);
    feed(&mut hub, 2, 16, 9);
    feed(&mut hub, 3, 16, 5);
    feed(&mut hub, 4, 16, 5);
    feed(&mut hub, 5, 16, 3);
    feed(&mut hub, 6, 20, 3);
    feed(&mut hub, 7, 16, 3);
    hub
}

#[test]
fn order_of_the_original() {
    let mut hub = filled();
    assert_eq!(list(&mut hub, json!({}), 0), [6, 5, 7, 4, 3, 2, 1]);
    assert_eq!(list(&mut hub, json!({}), 4), [6, 5, 7, 4]);
    assert_eq!(list(&mut hub, json!({"states": ["inactive"]}), 1), [2]);
    assert_eq!(list(&mut hub, json!({"states": ["running"]}), 0), [4, 3]);
    assert_eq!(list(&mut hub, json!({"userid": [8]}), 0), [0; 0]);
}

#[test]
fn one_answer_without_streaming() {
    let mut hub = filled();
    let body = hub
        .json(
            "job-list.list",
            &json!({"max_entries": 2, "attrs": ["name"], "states": 64}),
        )
        .unwrap();
    assert_eq!(
        body,
        json!({"jobs": [{"id": 2, "name": "sleep"}, {"id": 1, "name": "sleep"}]})
    );
    let err = hub
        .json("job-list.list", &json!({"max_entries": 2, "attrs": ["nope"]}))
        .unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::EINVAL, "nope is not a valid attribute")
    );
    let err = hub
        .json(
            "job-list.list",
            &json!({"max_entries": 2, "attrs": [], "constraint": {"x": []}}),
        )
        .unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (
            errno::EPROTO,
            "invalid payload: constraint object invalid: unknown constraint operator: x"
        )
    );
}

#[test]
fn long_lists_come_in_parts() {
    let (mut hub, dir) = hub_with_file();
    for id in 1..5001 {
        feed(&mut hub, id, 16, 9);
    }
    feed(&mut hub, 6000, 16, 3);
    let mut all: Vec<u64> = (1..5001).rev().collect();
    all.insert(0, 6000);
    assert_eq!(list(&mut hub, json!({}), 0), all);
    assert_eq!(list(&mut hub, json!({}), 4500), all[..4500]);
    assert!(dir.path().join("job-list.sqlite").exists());
    let since = json!({"max_entries": 0, "attrs": [], "since": 4000.5});
    assert_eq!(list_of(&mut hub, &since), all[..1001]);
    let some = json!({"and": [{"states": ["inactive"]}, {"t_submit": ["<=10"]}]});
    assert_eq!(list(&mut hub, some, 3), [10, 9, 8]);
    let body = json!({"max_entries": 0, "attrs": ["state"], "constraint": {"t_run": ["<3"]}});
    let body = hub.json("job-list.list", &body).unwrap();
    assert_eq!(
        body,
        json!({"jobs": [{"id": 2, "state": 64}, {"id": 1, "state": 64}]})
    );
    for id in [17, 5000] {
        let job = hub.json("job-list.list-id", &json!({"id": id, "attrs": ["result"]}));
        assert_eq!(job.unwrap(), json!({"job": {"id": id, "result": 1}}));
    }
    hub.remove("job-list");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "the file goes with the broker"
    );
}

/// Jobs that end while a list is under way are in it once: as active jobs.
#[test]
fn a_list_shows_one_moment() {
    let (mut hub, _dir) = hub_with_file();
    for id in 1..2001 {
        feed(&mut hub, id, 16, 9);
    }
    for id in 2001..3001 {
        feed(&mut hub, id, 16, 5);
    }
    let (answers, _) = hub.stream(request(
        "job-list.list",
        &json!({"max_entries": 0, "attrs": ["state"]}),
    ));
    let ends: Vec<_> = (2001..3001)
        .flat_map(|id| {
            let finish = event(id, "finish", 9000.0, &json!({"status": 0}));
            [finish, event(id, "clean", 9001.0, &json!({}))]
        })
        .collect();
    hub.with_probe(move |cx| {
        cx.to::<JobList>("job-list", move |list, cx| list.on_journal(cx, &ends));
    });
    let seen = answers.clone();
    hub.run_until(move || seen.borrow().last().is_some_and(Result::is_err));
    let answers = answers.borrow();
    let jobs: Vec<(u64, u64)> = answers
        .iter()
        .flatten()
        .flat_map(|a| a["jobs"].as_array().unwrap())
        .map(|job| (job["id"].as_u64().unwrap(), job["state"].as_u64().unwrap()))
        .collect();
    let running = (2001..3001).rev().map(|id| (id, 16));
    let expected: Vec<(u64, u64)> = running.chain((1..2001).rev().map(|id| (id, 64))).collect();
    assert_eq!(jobs, expected);
}

/// Clients that leave cost nothing more, and others get their lists meanwhile.
#[test]
fn many_lists_at_once() {
    let (mut hub, _dir) = hub_with_file();
    for id in 1..3001 {
        feed(&mut hub, id, 16, 9);
    }
    let body = json!({"max_entries": 0, "attrs": ["all"]});
    let all: Vec<_> = (0..8)
        .map(|_| hub.stream(request("job-list.list", &body)).0)
        .collect();
    assert_eq!(list(&mut hub, json!({"name": ["nobody"]}), 0), [0; 0]);
    let seen = all.clone();
    hub.run_until(move || {
        seen.iter()
            .all(|one| one.borrow().last().is_some_and(Result::is_err))
    });
    assert!(all.iter().all(|one| one.borrow().len() == 3001));
}

#[test]
fn one_job_now_or_when_it_gets_there() {
    let mut hub = filled();
    let job = hub
        .json("job-list.list-id", &json!({"id": 3, "attrs": ["state"]}))
        .unwrap();
    assert_eq!(job, json!({"job": {"id": 3, "state": 16}}));
    assert_eq!(
        hub.json("job-list.list-id", &json!({"id": 99, "attrs": []}))
            .unwrap_err()
            .errnum,
        errno::ENOENT
    );
    let (answers, _) = hub.stream(request(
        "job-list.list-id",
        &json!({"id": 5, "attrs": ["state"], "state": 16}),
    ));
    assert!(answers.borrow().is_empty());
    let alloc = event(5, "alloc", 9.0, &json!({}));
    hub.with_probe(move |cx| {
        cx.to::<JobList>("job-list", move |list, cx| list.on_journal(cx, &[alloc]));
    });
    assert_eq!(answers.borrow()[0], Ok(json!({"job": {"id": 5, "state": 16}})));
    // RUN or CLEANUP; a job that skips both is shown when it is over
    let (answers, _) = hub.stream(request(
        "job-list.list-id",
        &json!({"id": 6, "attrs": ["state"], "state": 48}),
    ));
    assert!(answers.borrow().is_empty());
    let end = vec![
        event(6, "exception", 9.0, &json!({"type": "cancel", "severity": 0})),
        event(6, "clean", 9.5, &json!({})),
    ];
    hub.with_probe(move |cx| {
        cx.to::<JobList>("job-list", move |list, cx| list.on_journal(cx, &end));
    });
    assert_eq!(answers.borrow()[0], Ok(json!({"job": {"id": 6, "state": 32}})));
    let bad = json!({"id": 6, "attrs": [], "state": 128});
    assert_eq!(
        hub.json("job-list.list-id", &bad).unwrap_err().errnum,
        errno::EPROTO
    );
}

/// Waits until the statistics say that this many jobs are inactive.
fn wait_for_inactive(hub: &mut TestHub, count: u64) -> Value {
    for _ in 0..400 {
        let stats = hub.json("job-list.job-stats", &json!({})).unwrap();
        if stats["job_states"]["inactive"] == count {
            return stats;
        }
        hub.run_idle();
    }
    panic!("there are never {count} inactive jobs");
}

#[test]
fn statistics_and_purge() {
    let mut hub = filled();
    let stats = hub.json("job-list.job-stats", &json!({})).unwrap();
    assert_eq!(
        stats["job_states"],
        json!({"depend": 0, "priority": 0, "sched": 3, "run": 2, "cleanup": 0, "inactive": 2, "total": 7})
    );
    assert_eq!((&stats["successful"], &stats["queues"]), (&json!(2), &json!([])));
    hub.with_probe(|cx| cx.publish("job-purge-inactive", &json!({"jobs": [1]})));
    assert_eq!(list(&mut hub, json!({"states": [64]}), 0), [2]);
    let stats = hub.json("job-list.job-stats", &json!({})).unwrap();
    assert_eq!(
        (&stats["inactive_purged"], &stats["job_states"]["inactive"]),
        (&json!(1), &json!(1))
    );
    let counts = hub.json("job-list.stats-get", &json!({})).unwrap();
    assert_eq!(counts["jobs"], json!({"pending": 3, "running": 2, "inactive": 1}));
}

#[test]
fn purged_jobs_leave_memory_and_file() {
    let (mut hub, _dir) = hub_with_file();
    for id in 1..1003 {
        feed(&mut hub, id, 16, 9);
    }
    let ids: Vec<u64> = (1..1001).collect();
    hub.with_probe(move |cx| cx.publish("job-purge-inactive", &json!({"jobs": ids})));
    // hidden at once, whether the file has forgotten them or not
    assert_eq!(list(&mut hub, json!({}), 0), [1002, 1001]);
    let gone = hub.json("job-list.list-id", &json!({"id": 5, "attrs": []}));
    assert_eq!(gone.unwrap_err().errnum, errno::ENOENT);
    let stats = wait_for_inactive(&mut hub, 2);
    assert_eq!(
        (&stats["inactive_purged"], &stats["successful"]),
        (&json!(1000), &json!(2))
    );
    assert_eq!(list(&mut hub, json!({}), 0), [1002, 1001]);
}

// ---- with a job manager and a statedir ------------------------------------------------------------------------

/// A job manager over what another left, with a job list whose file is in `dir`.
fn bench_in(dir: &Path, world: Option<Bench>) -> Bench {
    let mut bench = match world {
        Some(old) => Bench::over(old.world.clone()),
        None => Bench::new(8, true),
    };
    let statedir = dir.to_str().unwrap();
    bench.hub.hub.core().attrs.set_internal("statedir", statedir);
    bench.hub.load("job-list", Box::<JobList>::default()).unwrap();
    bench
}

fn run_jobs(bench: &mut Bench, count: usize) -> Vec<u64> {
    (0..count).map(|_| bench.submit().0).collect()
}

fn listed(bench: &mut Bench) -> Vec<Value> {
    let reply = bench.send("job-list.list", &json!({"max_entries": 0, "attrs": ["all"]}));
    let seen = reply.clone();
    bench.hub.run_until(move || seen.borrow().is_some());
    let body = reply.take().unwrap().unwrap();
    body["jobs"].as_array().unwrap().clone()
}

fn ids_of(jobs: &[Value]) -> Vec<u64> {
    let mut ids: Vec<u64> = jobs.iter().map(|job| job["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

fn log_of(bench: &mut Bench) -> String {
    let entries = bench.hub.hub.core().log.entries();
    entries
        .map(|entry| entry.name_and_text().1.to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn jobs_are_listed_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench_in(dir.path(), None);
    let ids = run_jobs(&mut bench, 30);
    let before = listed(&mut bench);
    assert_eq!(ids_of(&before), ids);
    bench.hub.remove("job-list");
    let mut bench = bench_in(dir.path(), Some(bench));
    assert_eq!(listed(&mut bench), before);
    wait_for_inactive(&mut bench.hub, 30);
    assert!(!log_of(&mut bench).contains("missing"), "{}", log_of(&mut bench));
    // killed: what was not written is read from the KVS, and what was purged meanwhile is not listed
    run_jobs(&mut bench, 3);
    let all = listed(&mut bench);
    bench.world.borrow_mut().map.retain(|key, _| {
        let path = flux_formats::jobid::JobId(ids[4]).kvs_path();
        !key.starts_with(&path)
    });
    let mut bench = bench_in(dir.path(), Some(bench));
    let rest: Vec<Value> = all.into_iter().filter(|job| job["id"] != ids[4]).collect();
    assert_eq!(listed(&mut bench), rest);
    wait_for_inactive(&mut bench.hub, 32);
    assert!(
        log_of(&mut bench).contains("removed 1 jobs"),
        "{}",
        log_of(&mut bench)
    );
}

#[test]
fn a_lost_or_damaged_file_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = bench_in(dir.path(), None);
    run_jobs(&mut bench, 20);
    let before = listed(&mut bench);
    bench.hub.remove("job-list");
    let file = dir.path().join("job-list.sqlite");
    std::fs::remove_file(&file).unwrap();
    let mut bench = bench_in(dir.path(), Some(bench));
    assert_eq!(listed(&mut bench), before);
    assert!(log_of(&mut bench).contains("20 inactive jobs are missing"));
    bench.hub.remove("job-list");
    std::fs::write(&file, vec![b'x'; 20_000]).unwrap();
    let mut bench = bench_in(dir.path(), Some(bench));
    assert_eq!(listed(&mut bench), before);
    let log = log_of(&mut bench);
    assert!(log.contains("job-list.sqlite") && log.contains("anew"), "{log}");
    bench.hub.remove("job-list");
    // the header is well, a page is not
    let mut bytes = std::fs::read(&file).unwrap();
    let page = 4096;
    for at in (1..bytes.len() / page).map(|page_number| page_number * page) {
        bytes[at..at + 64].fill(0xee);
    }
    std::fs::write(&file, bytes).unwrap();
    let mut bench = bench_in(dir.path(), Some(bench));
    assert_eq!(listed(&mut bench), before);
    assert!(
        log_of(&mut bench).contains("read from the KVS again"),
        "{}",
        log_of(&mut bench)
    );
    run_jobs(&mut bench, 5);
    assert_eq!(listed(&mut bench).len(), 25);
}

#[test]
fn a_file_of_a_newer_version_is_refused_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("job-list.sqlite");
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute_batch("PRAGMA user_version = 99; CREATE TABLE t(x)")
        .unwrap();
    let before = std::fs::read(&file).unwrap();
    let mut bench = Bench::new(1, true);
    let statedir = dir.path().to_str().unwrap();
    bench.hub.hub.core().attrs.set_internal("statedir", statedir);
    let err = bench.hub.load("job-list", Box::<JobList>::default()).unwrap_err();
    assert!(err.text.contains("newer"), "{err}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn guests_see_their_own_jobs_in_private_mode() {
    let mut hub = filled();
    hub.hub.core().config = std::rc::Rc::new(json!({"access": {"private-mode": true}}));
    let as_guest = |userid: u32| {
        let req = request("job-list.list", &json!({"max_entries": 0, "attrs": []}));
        Message {
            userid,
            rolemask: role::USER,
            ..req
        }
    };
    let count = |msg: Message| {
        msg.payload_json::<Value>().unwrap()["jobs"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count(hub.rpc(as_guest(7)).unwrap()), 7);
    assert_eq!(count(hub.rpc(as_guest(OWNER + 1)).unwrap()), 0);
}
