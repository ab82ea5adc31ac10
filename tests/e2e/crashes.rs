//! `kill -9` of the broker at random points: each plugin's state says after the restart what the jobs' eventlogs say.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use flux_client::NODEID_ANY;
use flux_tests::{Instance, Random};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::hostile_tap::HOSTILE;

/// Crashes without `FLUX_TEST_KILLS`.
const KILLS: usize = 10;
/// Jobs of each round; all plugins take notes of each, at one of the callbacks.
const JOBS: usize = 12;
const CALLBACKS: [&str; 3] = ["new", "state.run", "state.cleanup"];
const PLUGINS: [&str; 3] = ["noter-a", "noter-b", "noter-c"];

/// Puts copies of the plugin under other names into the sandbox.
fn copy(flux: &Instance) -> Vec<String> {
    let dir = flux.sandbox().workdir().join("policies");
    std::fs::create_dir(&dir).unwrap();
    let of = |name: &str, kind: &str| dir.join(format!("{name}.{kind}"));
    for name in PLUGINS {
        for kind in ["json", "cwasm"] {
            let from = HOSTILE.replace("cwasm", kind);
            std::fs::copy(from, of(name, kind)).unwrap();
        }
    }
    let path = |name: &str| of(name, "cwasm").display().to_string();
    PLUGINS.iter().map(|name| path(name)).collect()
}

/// Submits jobs and kills the broker after so many of their events.
fn submit_and_kill(flux: &mut Instance, round: usize, events: usize) {
    let mut handle = flux.handle(0);
    let journal = handle
        .stream("job-manager.events-journal", NODEID_ANY, &json!({"full": false}))
        .unwrap();
    let script = (0..JOBS)
        .map(|number| {
            let callback = CALLBACKS[number % CALLBACKS.len()];
            let order = format!("{callback} remember {round}.{number}");
            format!("flux submit --quiet --setattr=system.hostile='{order}' --setattr=system.exec.test.run_duration=1ms true\n")
        })
        .collect::<String>();
    let mut submit = flux.command("sh");
    submit.args(["-c", &script]).stderr(Stdio::null());
    let mut child = submit.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut seen = 0;
    while seen < events {
        match handle.next_until(&journal, Some(deadline)) {
            Ok(Some(message)) => {
                let said: Value = message.payload_json().unwrap();
                seen += said["events"].as_array().map_or(0, Vec::len);
            }
            other => panic!("after {seen} events: {other:?}"),
        }
    }
    flux.signal(0, Signal::SIGKILL);
    flux.wait_end(Duration::from_secs(30));
    // the rest of its submissions fail
    child.wait().unwrap();
}

/// Returns the numbers that each plugin has posted on jobs, in order.
fn noted(flux: &Instance) -> BTreeMap<String, Vec<u64>> {
    let script = "for id in $(flux jobs -ac0 -no '{id}'); do flux job eventlog --format=json $id; done";
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in flux.sh(script).ok().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        if event["name"] == "remembered" {
            let by = event["context"]["by"].as_str().unwrap().to_owned();
            let number = event["context"]["number"].as_u64().unwrap();
            numbers.entry(by).or_default().push(number);
        }
    }
    numbers.values_mut().for_each(|list| list.sort_unstable());
    numbers
}

#[test]
fn plugins_state_matches_the_eventlogs_after_kills_at_random_points() {
    let kills = std::env::var("FLUX_TEST_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let mut random = Random::from_env();
    let mut flux = Instance::builder(1)
        .persistent()
        .deadline(Duration::from_secs(120))
        .boot();
    let plugins = copy(&flux);
    let mut counts = Vec::new();
    for round in 0..=kills {
        for (plugin, name) in plugins.iter().zip(PLUGINS) {
            flux.run(&["jobtap", "load", plugin, &format!("tag={name}")]).ok();
        }
        flux.run(&["queue", "idle"]).ok();
        counts.clear();
        let noted = noted(&flux);
        for name in PLUGINS {
            let said = flux.run(&["jobtap", "query", name]).ok().json();
            let count: u64 = said["count"].as_str().unwrap().parse().unwrap_or(0);
            let expected: Vec<u64> = (1..=count).collect();
            let numbers = noted.get(name).cloned().unwrap_or_default();
            assert_eq!(numbers, expected, "{name} after crash {round}: {said}");
            counts.push(count);
        }
        if round < kills {
            let events = 1 + random.below(JOBS * 9);
            submit_and_kill(&mut flux, round, events);
            flux.boot_again();
        }
    }
    println!("{kills} crashes; the plugins took {counts:?} notes");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    flux.stop();
}
