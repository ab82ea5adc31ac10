//! Stop and start with a `statedir`: jobs, queues, drains and the largest job id come back.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use flux_tests::{Instance, Random, Sandbox};
use nix::sys::signal::Signal;

#[test]
fn a_clean_restart_restores_everything() {
    let sandbox = Sandbox::new();
    let dir = sandbox.workdir().join("state");
    std::fs::create_dir(&dir).unwrap();
    let option = format!("-Sstatedir={}", dir.display());
    let first =
        "flux run --job-name=done true; flux queue stop --quiet; flux submit --quiet --job-name=waiting true;
                 flux resource drain 1 'bad disk'; flux kvs put keep=1; flux jobs -ano '{id} {name}'";
    let before = sandbox.start(&["-s", "2", &option, first]);
    assert_eq!(before.ok().lines().len(), 2, "{before}");
    let second = "flux job last '[:]' >last; flux jobs -ano '{id} {name}'; flux queue status; flux resource drain -no '{ranks} {reason}'; flux kvs get keep;
                  flux queue start; flux queue drain; flux jobs -ano '{name} {result}'; flux submit true";
    let after = sandbox.start(&["-s", "2", &option, second]);
    for line in before.lines() {
        assert!(after.ok().lines().contains(&line), "{line} is missing: {after}");
    }
    after
        .says("Scheduling is stopped")
        .says("1 bad disk")
        .says("waiting COMPLETED");
    let ids: Vec<&str> = before
        .lines()
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    // the history knows the jobs of the former run
    let last = std::fs::read_to_string(sandbox.workdir().join("last")).unwrap();
    assert_eq!(last.lines().count(), ids.len(), "{last}");
    assert!(ids.iter().all(|id| last.contains(id)), "{last}");
    let new = after.lines().last().copied().unwrap();
    let number = |id: &str| -> u64 {
        sandbox
            .run("flux", &["job", "id", "--to=dec", id])
            .ok()
            .line()
            .parse()
            .unwrap()
    };
    assert!(ids.iter().all(|id| number(id) < number(new)), "job ids grow");
    sandbox.start(&["-s", "1", &option, "flux startlog"]).ok();
}

/// Promise P4: an acknowledged job survives `kill -9` of everything, at once.
#[test]
fn acknowledged_jobs_survive_a_kill() {
    let builder = Instance::builder(1).option("--test-exit-mode=leader");
    let dir = builder.sandbox().workdir().join("state");
    std::fs::create_dir(&dir).unwrap();
    let option = format!("-Sstatedir={}", dir.display());
    let mut flux = builder.option(&option).boot();
    flux.run(&["queue", "stop"]).ok();
    let ids = flux.run(&["submit", "--cc=1-200", "true"]).ok().stdout.clone();
    flux.signal(0, Signal::SIGKILL);
    flux.wait_end(flux_tests::DEADLINE);
    flux.sandbox().kill_all();
    let script = "flux jobs -c0 -no '{id} {state}'; flux queue status; flux queue start; flux queue drain; flux jobs -ac0 -no 'end {result}'";
    let output = flux.sandbox().run("flux", &["start", "-s", "1", &option, script]);
    for id in ids.lines() {
        // plugins may still be looking at it: then its state is PRIORITY
        let listed = ["SCHED", "PRIORITY"].map(|state| format!("{id} {state}"));
        assert!(
            listed.iter().any(|line| output.lines().contains(&line.as_str())),
            "{id} is lost: {output}"
        );
    }
    output.says("Scheduling is stopped");
    assert_eq!(output.stdout.matches("end COMPLETED").count(), 200, "{output}");
}

/// F171, F267: what 0.88 does after a crash. It says so, and stops the queues when the configuration wants that.
#[test]
fn a_crash_is_told_and_queues_may_stop() {
    let mut flux = Instance::builder(1).persistent().boot();
    flux.run(&["startlog", "--check", "--quiet"]).ok();
    assert!(
        !flux
            .run(&["dmesg"])
            .ok()
            .stdout
            .contains("not shut down properly")
    );
    flux.crash();
    flux.boot_again();
    flux.run(&["dmesg"]).ok().says("Flux was not shut down properly.");
    flux.run(&["startlog"]).ok().says("crashed");
    flux.run(&["startlog", "--check", "--quiet"]).fails();
    flux.run(&["run", "true"]).ok();
    flux.end_program();
    flux.wait_end(flux_tests::DEADLINE);
    flux.boot_again();
    assert!(
        !flux
            .run(&["dmesg"])
            .ok()
            .stdout
            .contains("not shut down properly")
    );
    flux.run(&["startlog", "--check", "--quiet"]).ok();
    flux.stop();
    let mut flux = Instance::builder(1)
        .persistent()
        .config("[job-manager]\nstop-queues-on-restart = true\n")
        .boot();
    flux.run(&["run", "true"]).ok();
    flux.crash();
    flux.boot_again();
    flux.run(&["queue", "status"])
        .ok()
        .says("Scheduling is stopped: Automatically stopped due to restart");
    flux.stop();
}

/// A spill stores what has gathered in steps, while commits go on: a crash between any of them loses nothing.
#[test]
fn a_kill_within_a_spill_loses_nothing() {
    const KEYS: usize = 3000;
    let mut random = Random::from_env();
    let mut flux = Instance::builder(1).persistent().boot();
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..4 {
        let keys: Vec<String> = (0..KEYS).map(|n| format!("d.{round}.{n}={n:0>300}")).collect();
        let put: Vec<&str> = ["kvs", "put"]
            .into_iter()
            .chain(keys.iter().map(String::as_str))
            .collect();
        flux.run(&put).ok();
        // a SYNC commit stores everything
        let script = format!(
            "flux kvs put --sync sync.{round}=1 & for i in 1 2 3 4 5 6 7 8 9; do flux submit --urgency=hold true || exit; done"
        );
        let mut child = flux
            .command("sh")
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let few = 1 + random.below(6);
        acknowledged.extend(lines.by_ref().take(few).map(Result::unwrap));
        flux.crash();
        acknowledged.extend(lines.map(Result::unwrap));
        child.wait().unwrap();
        flux.boot_again();
        let listed = flux.run(&["jobs", "-c0", "-no", "{id}"]);
        for id in &acknowledged {
            assert!(
                listed.ok().lines().contains(&id.as_str()),
                "{id} is lost: {listed}"
            );
        }
        for earlier in 0..=round {
            let dir = format!("d.{earlier}");
            assert_eq!(flux.run(&["kvs", "ls", "-1", &dir]).ok().lines().len(), KEYS);
            let key = format!("{dir}.{}", random.below(KEYS));
            assert_eq!(flux.run(&["kvs", "get", &key]).ok().line().len(), 300);
        }
    }
    flux.stop();
}
