//! A jobtap plugin that misbehaves on purpose: other people's jobs end, the log names it, requests are answered as fast as ever.

use std::time::{Duration, Instant};

use flux_tests::Instance;

const HOSTILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../target/policies-test/jobtap-hostile.cwasm"
);
const OPEN: &str =
    "[policies.jobtap-hostile]\non-failure = \"open\"\ndeadline = \"100ms\"\nmemory-mib = 16\n";

fn ordered(flux: &Instance, order: &str) -> String {
    let option = format!("--setattr=system.hostile={order}");
    flux.run(&["submit", &option, "true"]).ok().line().to_owned()
}

fn load(flux: &Instance) {
    flux.run(&["jobtap", "load", "--remove=jobtap-hostile", HOSTILE])
        .ok();
}

#[test]
fn each_deed_costs_its_own_job_at_most() {
    let flux = Instance::builder(1).config(OPEN).boot();
    for deed in [
        "loop",
        "bomb",
        "trap",
        "recurse",
        "huge-refusal",
        "flood",
        "many-wishes",
        "huge-state",
        "lie",
        "timers",
    ] {
        load(&flux);
        flux.run(&["run", "true"]).ok();
        for callback in ["validate", "state.run", "state.inactive"] {
            let id = ordered(&flux, &format!("{callback} {deed}"));
            flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
                .ok();
        }
    }
    let log = flux.run(&["dmesg"]);
    log.ok()
        .says("failed in validate: exceeded its deadline of 100 ms")
        .says("failed in state: panic or abort")
        .says("jobtap-hostile.err");
    let lines = log
        .ok()
        .lines()
        .iter()
        .filter(|line| line.contains(": line "))
        .count();
    assert!((1..=700).contains(&lines), "{lines} lines of floods");
    flux.stop();
}

#[test]
fn quarantine_and_reload() {
    let flux = Instance::boot(1);
    load(&flux);
    for _ in 0..5 {
        flux.run(&["submit", "--setattr=system.hostile=validate trap", "true"])
            .fails()
            .complains("panic or abort");
    }
    flux.run(&["jobtap", "list", "-v"]).ok().says("quarantined");
    flux.run(&["submit", "--setattr=system.hostile=x y", "true"])
        .fails()
        .complains("quarantine");
    // it never asked to see this one
    flux.run(&["run", "true"]).ok();
    load(&flux);
    flux.run(&["run", "--setattr=system.hostile=x y", "true"]).ok();
    // a successor that cannot be loaded leaves it in place
    flux.run(&[
        "jobtap",
        "load",
        "-r",
        "jobtap-hostile",
        HOSTILE,
        "topics=job.fly",
    ])
    .fails()
    .complains("no callback of the world jobtap");
    flux.run(&["jobtap", "list"]).ok().says("jobtap-hostile");
    flux.stop();
}

/// Returns the time that all but one in a hundred of 300 requests do not exceed.
fn p99(flux: &Instance) -> Duration {
    let mut handle = flux.handle(0);
    let mut times: Vec<Duration> = (0..300)
        .map(|_| {
            let begun = Instant::now();
            let request = serde_json::json!({});
            let answer: serde_json::Value = handle
                .call("job-manager.getinfo", flux_client::NODEID_ANY, &request)
                .unwrap();
            assert!(answer["max_jobid"].is_u64());
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[296]
}

#[test]
fn requests_are_answered_while_a_plugin_loops() {
    let config = "[policies.jobtap-hostile]\non-failure = \"open\"\ndeadline = \"500ms\"\n";
    let flux = Instance::builder(1).config(config).boot();
    load(&flux);
    let quiet = p99(&flux);
    for _ in 0..3 {
        flux.run(&["submit", "--setattr=system.hostile=state.cleanup loop", "true"])
            .ok();
    }
    let busy = p99(&flux);
    println!("p99 of a request: {quiet:?} without, {busy:?} with a plugin that loops");
    // other programs of a busy machine must not fail the test; a broker that waits for the plugin takes half a second
    assert!(busy < quiet * 2 + Duration::from_millis(50), "{quiet:?} {busy:?}");
    flux.stop();
}

/// A plugin's state says after any crash what the jobs' eventlogs say.
#[test]
fn state_matches_the_eventlogs_after_crashes() {
    let mut flux = Instance::builder(1).persistent().boot();
    for round in 0..3 {
        load(&flux);
        for number in 0..4 {
            ordered(&flux, &format!("new remember {round}.{number}"));
        }
        let jobs = flux.run(&["jobs", "-ano", "{id}"]).ok().lines().len();
        flux.crash();
        flux.boot_again();
        load(&flux);
        let query = flux.run(&["jobtap", "query", "jobtap-hostile"]).ok().json();
        assert_eq!(
            query["count"].as_str(),
            Some(jobs.to_string().as_str()),
            "{query}"
        );
        assert_eq!(query["last"].as_str(), Some(format!("{round}.3").as_str()));
    }
    flux.stop();
}
