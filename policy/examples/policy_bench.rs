//! How much does a policy cost? Prints one line per measurement; run with `--release`, after `cargo xtask wasm`.
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a measuring tool")]

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use flux_formats::idset::IdSet;
use flux_policy::pool::{Request, ResourcePool};
use flux_policy::{
    Answer, Command, HostConfig, IngestJob, PluginSpec, PolicyHost, STANDARD_TAP, SchedAnswer, SchedCommand,
    Submit, TapCall, TapCommand, TapJob, World, own_grants,
};
use serde_json::{Value, json};

fn main() {
    let dir = std::env::var_os("FLUX_POLICY_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies")),
        PathBuf::from,
    );
    load(&dir);
    let only_validator = ingest_config(&dir, &[]);
    let full = ingest_config(&dir, &["frobnicator-defaults", "frobnicator-constraints"]);
    inline(&only_validator, "validator");
    inline(&full, "2 frobnicators + validator, no queues");
    let queues = r#"{"policy":{"jobspec":{"defaults":{"system":{"duration":"1h","queue":"batch"}}}},"queues":{"batch":{"requires":["batch"]}}}"#;
    inline(
        &HostConfig {
            config: Arc::from(queues),
            ..full.clone()
        },
        "2 frobnicators + validator, queues",
    );
    for batch in [1, 4, 16, 64] {
        threaded(&full, batch);
    }
    jobtap(&dir, true, 1);
    for batch in [1, 4, 16, 64] {
        jobtap(&dir, false, batch);
    }
    scheduler(&dir, Some("sched-fcfs"));
    pool(1000, 48);
    pool(16_384, 48);
}

fn ingest_config(dir: &std::path::Path, frobnicators: &[&str]) -> HostConfig {
    HostConfig {
        dir: dir.to_owned(),
        frobnicators: frobnicators
            .iter()
            .map(|name| PluginSpec::new(*name, World::Frobnicator))
            .collect(),
        validators: vec![PluginSpec::new("validator-jobspec", World::Validator)],
        ..HostConfig::default()
    }
}

fn jobspec() -> Arc<str> {
    let environment: serde_json::Map<String, Value> = (0..25)
        .map(|n| {
            (
                format!("VARIABLE_{n}"),
                json!("/usr/local/bin:/usr/bin:/bin:/some/longer/path"),
            )
        })
        .collect();
    let jobspec = json!({
        "resources": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}], "label": "task"}],
        "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": {"duration": 0, "environment": environment, "cwd": "/home/user",
            "shell": {"options": {"rlimit": {"cpu": -1, "core": 0}}}}},
        "version": 1});
    Arc::from(jobspec.to_string())
}

fn batch(size: u64, jobspec: &Arc<str>) -> Vec<Command> {
    let job = || IngestJob {
        userid: 1000,
        rolemask: 2,
        urgency: 16,
        flags: 0,
        novalidate: false,
        jobspec: jobspec.clone(),
    };
    (0..size)
        .map(|token| Command::Ingest {
            token,
            job: Box::new(job()),
        })
        .collect()
}

/// Returns microseconds of each of `count` in the best of several runs.
fn best(count: u32, mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let begun = Instant::now();
        run();
        best = best.min(begun.elapsed().as_secs_f64() * 1e6 / f64::from(count));
    }
    best
}

fn load(dir: &std::path::Path) {
    let cold = Instant::now();
    drop(PolicyHost::inline(ingest_config(dir, &[])).expect("load"));
    let cold = cold.elapsed();
    let warm = best(1, || {
        drop(PolicyHost::inline(ingest_config(dir, &[])).expect("load"))
    });
    println!(
        "load one component: first {:.2} ms, then {:.2} ms",
        cold.as_secs_f64() * 1e3,
        warm / 1e3
    );
}

/// The standard jobtap stack, per submitted job.
fn jobtap(dir: &std::path::Path, inline: bool, size: u64) {
    let config = HostConfig {
        dir: dir.to_owned(),
        ..HostConfig::default()
    };
    let (wake, woken) = mpsc::channel();
    let mut host = if inline {
        PolicyHost::inline(config).expect("load")
    } else {
        PolicyHost::spawn(
            config,
            Box::new(move || {
                let _receiver_gone = wake.send(());
            }),
        )
        .expect("load")
    };
    let mut answers = Vec::new();
    let mut wait = |host: &mut PolicyHost, count: usize| {
        answers.clear();
        loop {
            host.receive(&mut answers);
            let taps = answers
                .iter()
                .filter(|answer| matches!(answer, Answer::Tap(_)))
                .count();
            if taps >= count || woken.recv().is_err() {
                return;
            }
        }
    };
    let load = STANDARD_TAP.map(|name| {
        let mut spec = PluginSpec::new(format!("jobtap-{name}"), World::Jobtap);
        spec.grants = own_grants(&spec.name).to_vec();
        Command::Tap(TapCommand::Load {
            token: 0,
            spec: Box::new(spec),
            name: Arc::from(name),
            values: std::collections::BTreeMap::new(),
        })
    });
    host.send(1.0, load.into()).expect("send");
    wait(&mut host, STANDARD_TAP.len());
    let jobspec = jobspec();
    let admit = |token: u64| {
        Command::Tap(TapCommand::Call {
            token,
            job: Arc::new(TapJob {
                id: token,
                urgency: 16,
                state: 1,
                jobspec: Arc::from(&*jobspec),
                ..TapJob::default()
            }),
            call: TapCall::Admit {
                dependencies: Vec::new(),
            },
            only: None,
        })
    };
    let us = best(2048, || {
        for _ in 0..2048 / size {
            host.send(1.0, (0..size).map(admit).collect()).expect("send");
            wait(&mut host, usize::try_from(size).unwrap_or(1));
        }
    });
    let place = if inline { "in place" } else { "on the thread" };
    println!("standard jobtap stack, {place}, batches of {size}: {us:.2} us a job");
}

fn inline(config: &HostConfig, name: &str) {
    let mut host = PolicyHost::inline(config.clone()).expect("load");
    let jobspec = jobspec();
    let mut answers = Vec::new();
    let us = best(2000, || {
        for _ in 0..2000 {
            host.send(1.0, batch(1, &jobspec)).expect("send");
            answers.clear();
            host.receive(&mut answers);
        }
    });
    println!(
        "ingest inline, {name}, {} byte jobspec: {us:.2} us/job",
        jobspec.len()
    );
}

fn threaded(config: &HostConfig, size: u32) {
    let (wake, woken) = mpsc::channel();
    let mut host =
        PolicyHost::spawn(config.clone(), Box::new(move || wake.send(()).unwrap_or(()))).expect("start");
    let jobspec = jobspec();
    let mut answers = Vec::new();
    let us = best(400 * size, || {
        for _ in 0..400 {
            host.send(1.0, batch(size.into(), &jobspec)).expect("send");
            let mut missing = size;
            while missing > 0 {
                woken.recv().expect("thread");
                answers.clear();
                host.receive(&mut answers);
                let ends = answers
                    .iter()
                    .filter(|answer| matches!(answer, Answer::Ingest { .. }))
                    .count();
                missing = missing.saturating_sub(u32::try_from(ends).unwrap_or(u32::MAX));
            }
        }
    });
    println!(
        "ingest on the policy thread, batches of {size}: {us:.2} us/job ({:.1} us/round trip)",
        us * f64::from(size)
    );
}

fn r(ranks: u32, cores: u32) -> Value {
    json!({"version": 1, "execution": {"R_lite": [
        {"rank": IdSet::first_n(ranks).to_string(), "children": {"core": IdSet::first_n(cores).to_string()}}],
        "starttime": 0.0, "expiration": 0.0, "nodelist": [format!("node[0-{}]", ranks - 1)]}})
}

/// Keeps 1000 nodes full with jobs of one core while 1000 more wait.
fn scheduler(dir: &std::path::Path, name: Option<&str>) {
    let scheduler = name.map(|name| PluginSpec::new(name, World::Scheduler));
    let mut host = PolicyHost::inline(HostConfig {
        dir: dir.to_owned(),
        scheduler,
        ..HostConfig::default()
    })
    .expect("load");
    let mut answers = Vec::new();
    let submit = |id| {
        let request = Request {
            nslots: 1,
            cores_per_slot: 1,
            ..Request::default()
        };
        Command::Sched(SchedCommand::Submit(Box::new(Submit {
            id,
            priority: 16,
            userid: 1,
            t_submit: 0.0,
            queue: "".into(),
            request,
        })))
    };
    let mut first: Vec<Command> = (0..49_000).map(submit).collect();
    first.insert(
        0,
        Command::Sched(SchedCommand::Define {
            r: r(1000, 48).to_string().into(),
        }),
    );
    host.send(1.0, first).expect("send");
    let (mut next, mut done) = (49_000_u64, 0_u64);
    let us = best(6400, || {
        for _ in 0..100 {
            let mut commands: Vec<Command> = (next..next + 64).map(submit).collect();
            commands
                .extend((done..done + 64).map(|id| Command::Sched(SchedCommand::Free { id, ranks: None })));
            next += 64;
            done += 64;
            host.send(2.0, commands).expect("send");
            answers.clear();
            host.receive(&mut answers);
            let count = answers
                .iter()
                .filter(|a| matches!(a, Answer::Sched(SchedAnswer::Alloc { .. })))
                .count();
            assert!(count >= 64, "{count}");
        }
    });
    println!(
        "scheduler {name:?}, 1000 x 48, 1000 pending, batches of 64: {us:.2} us per submit, free and allocation"
    );
}

/// Fills a pool with jobs of one core and measures one allocation and release in it.
fn pool(ranks: u32, cores: u32) {
    let begun = Instant::now();
    let mut pool = ResourcePool::from_r(&r(ranks, cores)).expect("R");
    let made = begun.elapsed();
    let one = Request {
        nslots: 1,
        cores_per_slot: 1,
        ..Request::default()
    };
    let total = u64::from(ranks) * u64::from(cores);
    for id in 0..total {
        pool.allocate(id, &one, 1.0).expect("room");
    }
    let mut at = 0;
    let full = best(1000, || {
        for _ in 0..1000 {
            at = (at * 7 + 12_345) % total;
            pool.free(at, None);
            pool.allocate(at, &one, 1.0).expect("room");
        }
    });
    let busy = best(1000, || {
        for _ in 0..1000 {
            pool.allocate(total, &one, 1.0).expect_err("no room");
        }
    });
    for id in 0..total {
        pool.free(id, None);
    }
    let nodes = Request {
        nnodes: ranks / 2,
        nslots: ranks / 2,
        cores_per_slot: 1,
        ..Request::default()
    };
    let half = best(1, || {
        pool.allocate(0, &nodes, 1.0).expect("room");
        pool.free(0, None);
    });
    println!(
        "pool {ranks} x {cores}: made in {:.1} ms; nearly full: one core {full:.2} us, busy {busy:.2} us; empty: half of all nodes {half:.0} us",
        made.as_secs_f64() * 1e3
    );
}
