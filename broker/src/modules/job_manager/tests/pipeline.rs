//! The real modules from ingest to the KVS, with mock execution: events, restart, figures.

use super::fakes::cpu_secs;
use crate::modules::content::Content;
use crate::modules::content_sqlite::ContentSqlite;
use crate::modules::job_exec::JobExec;
use crate::modules::job_ingest::JobIngest;
use crate::modules::job_manager::JobManager;
use crate::modules::kvs::{self, Kvs};
use crate::modules::sched::tests::load_native;
use crate::service::RpcError;
use crate::service::testing::{Probe, TestHub, body, request};
use flux_formats::jobid::JobId;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

fn hub(statedir: Option<&std::path::Path>) -> TestHub {
    let attrs: Vec<(&str, &str)> = statedir
        .iter()
        .map(|dir| ("statedir", dir.to_str().unwrap()))
        .collect();
    let mut hub = TestHub::new(&attrs);
    if statedir.is_some() {
        hub.load("content", Box::new(Content::default())).unwrap();
        hub.load("content-sqlite", Box::new(ContentSqlite::new(&[])))
            .unwrap();
    }
    hub.load("kvs", Box::new(Kvs::default())).unwrap();
    hub.load("job-manager", Box::new(JobManager::default())).unwrap();
    hub.load(
        "job-ingest",
        Box::new(JobIngest::new(&["disable-validator".to_owned()])),
    )
    .unwrap();
    hub.load("job-exec", Box::new(JobExec::default())).unwrap();
    load_native(&mut hub);
    hub
}

fn mock_job() -> Value {
    let jobspec = json!({
        "resources": [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": 1}]}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0, "cwd": "/", "exec": {"test": {"run_duration": "0s"}},
            "environment": {"PATH": "/bin:/usr/bin", "HOME": "/root", "LANG": "C.UTF-8"}}},
        "version": 1,
    });
    let j = flux_sign::wrap(
        jobspec.to_string().as_bytes(),
        "none",
        crate::service::testing::OWNER,
    )
    .unwrap();
    json!({"J": j, "urgency": 16, "flags": 0})
}

/// Submits jobs and waits until all are over; returns their ids.
fn run(hub: &mut TestHub, count: usize) -> Vec<JobId> {
    let ids: Rc<RefCell<Vec<Result<JobId, RpcError>>>> = Rc::default();
    let sink = ids.clone();
    hub.with_probe(move |cx| {
        for _ in 0..count {
            let sink = sink.clone();
            let mut req = request("job-ingest.submit", &mock_job());
            req.userid = crate::service::testing::OWNER;
            req.rolemask = flux_formats::msg::role::OWNER;
            cx.rpc(req, move |_: &mut Probe, _, result| {
                let id = result.map(|msg| serde_json::from_value(body(&msg)["id"].clone()).unwrap());
                sink.borrow_mut().push(id);
            });
        }
    });
    hub.run_until(|| ids.borrow().len() == count);
    hub.json("job-manager.drain", &json!({})).unwrap();
    ids.take().into_iter().map(Result::unwrap).collect()
}

fn eventlog(hub: &mut TestHub, id: JobId) -> Vec<String> {
    let log = hub
        .wait(move |cx, done| {
            kvs::lookup(
                cx,
                "primary",
                &id.kvs_key("eventlog"),
                move |probe: &mut Probe, cx, result| done(probe, cx, result),
            );
        })
        .unwrap();
    let log = flux_formats::eventlog::decode_log(std::str::from_utf8(&log).unwrap()).unwrap();
    log.into_iter().map(|event| event.name).collect()
}

const GOLDEN: [&str; 10] = [
    "submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free", "clean",
];

#[test]
fn a_mock_job_from_ingest_to_clean() {
    let mut hub = hub(None);
    let id = run(&mut hub, 1)[0];
    assert_eq!(eventlog(&mut hub, id), GOLDEN);
}

#[test]
fn jobs_survive_a_kill_with_statedir() {
    let dir = tempfile::tempdir().unwrap();
    let mut old = hub(Some(dir.path()));
    let done = run(&mut old, 3);
    let stop = json!({"start": false, "all": true, "reason": "x"});
    old.json("job-manager.queue-start", &stop).unwrap();
    let answered: Rc<Cell<usize>> = Rc::default();
    let counter = answered.clone();
    old.with_probe(move |cx| {
        for _ in 0..20 {
            let counter = counter.clone();
            let mut req = request("job-ingest.submit", &mock_job());
            req.userid = crate::service::testing::OWNER;
            req.rolemask = flux_formats::msg::role::OWNER;
            cx.rpc(req, move |_: &mut Probe, _, result| {
                result.unwrap();
                counter.set(counter.get() + 1);
            });
        }
    });
    old.run_until(|| answered.get() == 20);
    drop(old); // no stop, no checkpoint: as good as killed
    let mut new = hub(Some(dir.path()));
    // answered once all jobs are restored
    new.json("job-manager.getinfo", &json!({})).unwrap();
    let stats = new.json("job-manager.stats-get", &json!({})).unwrap();
    assert_eq!(
        (&stats["active_jobs"], &stats["inactive_jobs"]),
        (&json!(20), &json!(3))
    );
    let status = new.json("job-manager.queue-status", &json!({})).unwrap();
    assert_eq!(
        status,
        json!({"enable": true, "start": false, "stop_reason": "x"})
    );
    new.json("job-manager.queue-start", &json!({"start": true, "all": true}))
        .unwrap();
    new.json("job-manager.drain", &json!({})).unwrap();
    let later = run(&mut new, 1);
    assert!(later > done);
}

/// Pushes mock jobs through all modules, 4 at a time; prints the figures.
#[test]
fn four_thousand_mock_jobs() {
    const JOBS: usize = 4000;
    let mut hub = hub(None);
    let (wall, cpu) = (std::time::Instant::now(), cpu_secs());
    let ids = run(&mut hub, JOBS);
    let micros = (cpu_secs() - cpu) * 1e6 / JOBS as f64;
    let rate = JOBS as f64 / wall.elapsed().as_secs_f64();
    println!("{JOBS} mock jobs, ingest to clean: {micros:.1} us CPU per job, {rate:.0} job/s by the clock");
    for id in ids.into_iter().step_by(500) {
        assert_eq!(eventlog(&mut hub, id), GOLDEN);
    }
}
