//! The scheduler module with a job manager, over the engine without a policy component.

use super::Sched;
use super::engine::Engine;
use crate::modules::job_manager::tests::fakes::{Bench, cpu_secs, end, finish};
use crate::modules::resource::api::AcquireUpdate;
use crate::service::testing::TestHub;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::resource_set::ResourceSet;
use flux_policy::{Answer, Command, SchedEngine};
use serde_json::{Value, json};

/// The engine in the caller's thread, without a component: for tests only.
struct Native {
    engine: SchedEngine,
    answers: Vec<Answer>,
}

impl std::fmt::Debug for Native {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Native").finish_non_exhaustive()
    }
}

impl Engine for Native {
    fn send(&mut self, cx: &mut Cx<'_>, commands: Vec<Command>) -> Result<(), RpcError> {
        let mut sched = Vec::new();
        for command in commands {
            if let Command::Sched(command) = command {
                sched.push(command);
            }
        }
        let mut answers = Vec::new();
        self.engine.run(1_795_240_138.5, sched, &mut answers);
        while self.engine.more(&mut answers) {}
        self.answers.extend(answers.into_iter().map(Answer::Sched));
        let me = cx.slot();
        cx.to_slot::<Sched>(me, |sched, cx| sched.on_answers(cx));
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<Answer>, RpcError> {
        Ok(std::mem::take(&mut self.answers))
    }
}

fn tell(cx: &mut Cx<'_>, update: AcquireUpdate) {
    cx.to::<Sched>("sched", |sched, cx| sched.on_resources(cx, update));
}

/// Two nodes of two cores each.
fn resources() -> ResourceSet {
    let r = json!({"version": 1, "execution": {"R_lite": [{"rank": "0-1", "children": {"core": "0-1"}}],
        "starttime": 0.0, "expiration": 0.0, "nodelist": ["vm[0-1]"]}});
    ResourceSet::from_value(&r).unwrap()
}

/// Loads the scheduler module without policy thread and tells it two nodes of two cores.
pub(crate) fn load_native(hub: &mut TestHub) {
    let make = |_: &mut Cx<'_>, _: &str| -> Result<Box<dyn Engine>, RpcError> {
        Ok(Box::new(Native {
            engine: SchedEngine::native(),
            answers: Vec::new(),
        }))
    };
    hub.load("sched-simple", Box::new(Sched::with_parts(make, |_| true)))
        .unwrap();
    hub.with_probe(|cx| {
        tell(
            cx,
            AcquireUpdate::Initial {
                r: resources(),
                up: IdSet::from_range(0, 1),
            },
        )
    });
}

fn load(bench: &mut Bench) {
    load_native(&mut bench.hub);
}

fn bench() -> Bench {
    let mut bench = Bench::with_local_scheduler(false, json!({}));
    load(&mut bench);
    bench
}

fn spec(cores: u32, slots: u32) -> Value {
    let core = json!([{"type": "core", "count": cores}]);
    json!({"resources": [{"type": "slot", "count": slots, "label": "t", "with": core}], "tasks": [],
        "attributes": {"system": {"duration": 60}}, "version": 1})
}

fn submit(bench: &mut Bench, jobspec: Value) -> JobId {
    let mut job = bench.submission(16, 0);
    job.jobspec = jobspec;
    bench.submit_all(vec![job]).remove(0).unwrap()
}

fn stored_r(bench: &Bench, id: JobId) -> Value {
    serde_json::from_slice(bench.world.borrow().map.get(&id.kvs_key("R")).unwrap()).unwrap()
}

#[test]
fn allocates_annotates_and_frees() {
    let mut bench = bench();
    let ids: Vec<JobId> = (0..2).map(|_| submit(&mut bench, spec(2, 1))).collect();
    let waits = submit(&mut bench, spec(1, 4));
    assert_eq!(
        bench.context(ids[0], "alloc"),
        json!({"annotations": {"sched": {"resource_summary": "rank0/core[0-1]"}}})
    );
    let r = stored_r(&bench, ids[0]);
    let keys: Vec<&String> = r["execution"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["R_lite", "starttime", "expiration", "nslots", "nodelist"]);
    assert_eq!(
        r["execution"]["expiration"].as_f64().unwrap() - r["execution"]["starttime"].as_f64().unwrap(),
        60.0
    );
    assert_eq!(bench.state(waits), 8);
    let status = bench.rpc("sched.resource-status", &json!({})).unwrap();
    assert_eq!(
        status["allocated"]["execution"]["R_lite"][0]["rank"],
        json!("0-1")
    );
    bench.with(move |cx| {
        finish(cx, ids[0], 0);
        finish(cx, ids[1], 0);
    });
    assert_eq!(
        bench.context(waits, "alloc"),
        json!({"annotations": {"sched": {"resource_summary": "rank[0-1]/core[0-1]"}}})
    );
    let stats = bench.rpc("sched.stats-get", &json!({})).unwrap();
    assert_eq!(
        stats,
        json!({"policy": "fcfs", "pending_jobs": 0, "allocated_jobs": 3})
    );
}

#[test]
fn unsatisfiable_requests() {
    let mut bench = bench();
    let text =
        "unsatisfiable request: need 99 slot(s) of 1 core(s), only 4 such slot(s) available (total cores: 4)";
    let err = bench
        .rpc("feasibility.check", &json!({"jobspec": spec(1, 99)}))
        .unwrap_err();
    assert_eq!((err.errnum, err.text.as_str()), (errno::EINVAL, text));
    let err = bench
        .rpc("feasibility.check", &json!({"jobspec": {}}))
        .unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::EINVAL, "cannot parse jobspec: jobspec has no resources")
    );
    assert_eq!(
        bench
            .rpc("feasibility.check", &json!({"jobspec": spec(1, 4)}))
            .unwrap(),
        Value::Null
    );
    let id = submit(&mut bench, spec(1, 99));
    assert_eq!(
        bench.context(id, "exception"),
        json!({"type": "alloc", "severity": 0, "note": text, "userid": 1000})
    );
    assert_eq!(bench.events(id).last().unwrap(), "clean");
    let bad = submit(&mut bench, json!({"attributes": {"system": {}}}));
    assert_eq!(
        bench.context(bad, "exception")["note"],
        json!("cannot parse jobspec: jobspec has no resources")
    );
}

#[test]
fn nodes_go_down_and_come_back() {
    let mut bench = bench();
    bench.with(|cx| tell(cx, AcquireUpdate::Down(IdSet::from_range(0, 1))));
    let id = submit(&mut bench, spec(1, 1));
    assert_eq!(bench.state(id), 8);
    bench.with(|cx| tell(cx, AcquireUpdate::Up(IdSet::from_range(1, 1))));
    assert_eq!(
        bench.context(id, "alloc")["annotations"]["sched"]["resource_summary"],
        json!("rank1/core0")
    );
    bench.cancel(id).unwrap();
    bench.with(move |cx| end(cx, id, 9));
    assert_eq!(bench.events(id).last().unwrap(), "clean");
}

#[test]
fn loaded_late_it_learns_what_jobs_hold() {
    let mut bench = Bench::with_local_scheduler(false, json!({}));
    let early = submit(&mut bench, spec(2, 2));
    assert_eq!(bench.state(early), 8);
    load(&mut bench);
    assert_eq!(bench.state(early), 16);
    let next = submit(&mut bench, spec(1, 1));
    assert_eq!(bench.state(next), 8);
    // resources are defined anew: what the job holds stays held
    bench.with(|cx| {
        tell(
            cx,
            AcquireUpdate::Initial {
                r: resources(),
                up: IdSet::from_range(0, 1),
            },
        )
    });
    assert_eq!(bench.state(next), 8);
    bench.with(move |cx| finish(cx, early, 0));
    assert_eq!(bench.state(next), 16);
}

/// Job manager and scheduler together; prints the figure.
#[test]
fn four_thousand_jobs() {
    const JOBS: usize = 4000;
    let mut bench = Bench::with_local_scheduler(true, json!({}));
    load(&mut bench);
    let jobs: Vec<_> = (0..JOBS)
        .map(|_| {
            let mut job = bench.submission(16, 0);
            job.jobspec = spec(1, 1);
            job
        })
        .collect();
    let start = cpu_secs();
    let results = bench.submit_all(jobs);
    let micros = (cpu_secs() - start) * 1e6 / JOBS as f64;
    assert_eq!(
        bench
            .events(results.last().unwrap().clone().unwrap())
            .last()
            .unwrap(),
        "clean"
    );
    println!(
        "{JOBS} jobs: {micros:.1} us CPU per job, {:.0} job/s",
        1e6 / micros
    );
    assert!(micros < 2000.0, "{micros} us per job");
}

/// The same through the policy thread and the component `sched-fcfs`, when it is built.
#[test]
fn the_component_on_the_policy_thread() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies");
    if !std::path::Path::new(dir).join("sched-fcfs.json").exists() {
        println!("skipped: policies are not built");
        return;
    }
    const JOBS: usize = 500;
    let mut bench = Bench::with_local_scheduler(true, json!({"policies": {"directory": dir}}));
    let sched = Sched::with_parts(
        |cx, policy| Ok(Box::new(super::engine::PolicyEngine::open(cx, policy)?)),
        |_| true,
    );
    bench.hub.load("sched-simple", Box::new(sched)).unwrap();
    bench.with(|cx| {
        tell(
            cx,
            AcquireUpdate::Initial {
                r: resources(),
                up: IdSet::from_range(0, 1),
            },
        )
    });
    let jobs: Vec<_> = (0..JOBS)
        .map(|_| {
            let mut job = bench.submission(16, 0);
            job.jobspec = spec(1, 1);
            job
        })
        .collect();
    let start = cpu_secs();
    let wall = std::time::Instant::now();
    let ids: Vec<JobId> = bench.submit_all(jobs).into_iter().map(Result::unwrap).collect();
    let (world, last) = (bench.world.clone(), ids.last().unwrap().kvs_key("eventlog"));
    bench.hub.run_until(|| {
        let log = world.borrow().map.get(&last).cloned().unwrap_or_default();
        String::from_utf8_lossy(&log).contains("\"clean\"")
    });
    let micros = (cpu_secs() - start) * 1e6 / JOBS as f64;
    println!(
        "{JOBS} jobs over the policy thread: {micros:.1} us CPU of the broker per job, {:.0} job/s",
        JOBS as f64 / wall.elapsed().as_secs_f64()
    );
    for id in ids {
        assert_eq!(bench.events(id).last().unwrap(), "clean");
    }
}
