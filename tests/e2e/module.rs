//! `flux module`: list, load, remove, stats, trace.

use std::time::Duration;

use flux_tests::Instance;

#[test]
fn the_standard_modules_are_there() {
    let flux = Instance::boot(2);
    let output = flux.run(&["module", "list"]);
    let header: Vec<_> = output.ok().lines()[0].split_whitespace().collect();
    assert_eq!(header, ["Module", "Idle", "S", "Sendq", "Recvq", "Service"]);
    let names: Vec<_> = output.lines()[1..]
        .iter()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let expected = [
        "config",
        "connector-local",
        "content",
        "content-sqlite",
        "groups",
        "heartbeat",
        "job-exec",
        "job-info",
        "job-ingest",
        "job-list",
        "job-manager",
        "kvs",
        "kvs-watch",
        "overlay",
        "resource",
        "rexec",
    ];
    for name in expected {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    assert!(names.iter().any(|name| name.starts_with("sched-")), "{names:?}");
    flux.on(1, &["module", "list"]).ok().says("overlay");
    flux.stop();
}

#[test]
fn remove_and_load_again() {
    let flux = Instance::boot(1);
    flux.run(&["module", "remove", "heartbeat"]).ok();
    assert!(!flux.run(&["module", "list"]).ok().stdout.contains("heartbeat"));
    flux.run(&["ping", "-c1", "heartbeat"])
        .fails()
        .complains("heartbeat.ping");
    flux.run(&["module", "load", "heartbeat"]).ok();
    flux.run(&["module", "load", "heartbeat"])
        .fails()
        .complains("heartbeat");
    flux.run(&["ping", "-c1", "heartbeat"]).ok();
    flux.run(&["module", "reload", "heartbeat"]).ok();
    flux.run(&["module", "load", "nosuch"])
        .fails()
        .complains("nosuch");
    flux.run(&["module", "remove", "nosuch"])
        .fails()
        .complains("nosuch");
    // foreign shared objects do not run in this broker
    flux.run(&["module", "load", "/tmp/other.so"])
        .fails()
        .complains("other.so");
    flux.stop();
}

#[test]
fn stats_count_messages() {
    let flux = Instance::boot(1);
    flux.run(&["ping", "-c3", "-i0", "heartbeat"]).ok();
    let stats = flux.run(&["module", "stats", "groups"]).ok().json();
    assert!(stats.is_object(), "{stats}");
    let usage = flux
        .run(&["module", "stats", "--rusage", "heartbeat"])
        .ok()
        .json();
    assert!(usage["maxrss"].as_u64().unwrap() > 0, "{usage}");
    flux.run(&["module", "stats", "--clear", "heartbeat"]).ok();
    flux.stop();
}

#[test]
fn trace_shows_requests() {
    let flux = Instance::boot(1);
    let output = flux.sh(
        "flux module trace --type=request heartbeat >trace & pid=$!
         n=0; until grep -q heartbeat.ping trace; do flux ping -c1 -i0 heartbeat >/dev/null; n=$((n+1)); test $n -lt 200 || break; done
         kill $pid; cat trace",
    );
    assert!(output.stdout.contains("heartbeat.ping"), "{output}");
    assert!(output.elapsed < Duration::from_secs(30));
    flux.stop();
}
