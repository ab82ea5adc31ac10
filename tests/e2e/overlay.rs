//! `flux overlay`: the tree, its health, and taking parts of it away.

use std::time::Duration;

use flux_tests::{Instance, full_scale};

#[test]
fn status_draws_the_tree() {
    let flux = Instance::builder(4).attr("tbon.topo", "kary:2").boot();
    let output = flux.run(&["overlay", "status"]);
    let lines = output.ok().lines();
    assert_eq!(lines.len(), 4, "{output}");
    assert!(
        lines[0].starts_with("0 ") && lines[0].contains("full"),
        "{output}"
    );
    assert!(lines[1].starts_with("├─ 1 "), "{output}");
    assert!(lines[2].starts_with("│  └─ 3 "), "{output}");
    assert!(lines[3].starts_with("└─ 2 "), "{output}");
    assert!(
        flux.run(&["overlay", "status", "--summary"])
            .ok()
            .line()
            .contains("full")
    );
    flux.run(&["overlay", "status", "--wait=full", "--timeout=10s"])
        .ok();
    assert_eq!(flux.run(&["overlay", "parentof", "3"]).ok().line(), "1");
    assert!(!flux.run(&["overlay", "lookup", "1"]).ok().line().is_empty());
    assert_eq!(flux.run(&["overlay", "errors"]).ok().stdout, "");
    flux.stop();
}

#[test]
fn disconnect_takes_a_subtree_off() {
    let flux = Instance::builder(4)
        .attr("tbon.topo", "kary:2")
        .option("--test-exit-mode=leader")
        .boot();
    flux.run(&["overlay", "disconnect", "1"]).ok();
    flux.wait_until(
        &["overlay", "status", "--summary"],
        Duration::from_secs(20),
        |output| output.stdout.contains("degraded") || output.stdout.contains("partial"),
    );
    flux.run(&["ping", "-c1", "3"])
        .fails()
        .complains("No route to host");
    let errors = flux.run(&["overlay", "errors"]);
    assert!(!errors.ok().stdout.is_empty(), "{errors}");
    flux.run(&["overlay", "parentof", "9"]).fails();
}

/// Acceptance 3, with 16 brokers unless the full scale is asked for.
#[test]
fn a_large_tree_answers() {
    let size = if full_scale() { 64 } else { 16 };
    let flux = Instance::boot(size);
    assert_eq!(
        flux.run(&["overlay", "status"]).ok().lines().len(),
        usize::try_from(size).unwrap()
    );
    flux.run(&["exec", "-r", "all", "true"]).ok();
    let last = (size - 1).to_string();
    flux.run(&["ping", "--count=3", "--interval=0.01", &last])
        .ok()
        .says("seq=2");
    flux.stop();
}

#[test]
fn trace_shows_what_crosses() {
    let flux = Instance::boot(2);
    let output = flux.sh(
        "flux overlay trace >trace & pid=$!
         n=0; until grep -q broker.ping trace; do flux ping -c1 -i0 1 >/dev/null; n=$((n+1)); test $n -lt 200 || break; done
         kill $pid; cat trace",
    );
    assert!(output.stdout.contains("broker.ping"), "{output}");
    flux.stop();
}

#[test]
fn topologies() {
    for (topo, levels) in [("flat", "1"), ("kary:1", "4"), ("kary:2", "2"), ("binomial", "2")] {
        let flux = Instance::builder(5).attr("tbon.topo", topo).boot();
        let level = flux.run(&["getattr", "tbon.maxlevel"]);
        assert_eq!(level.ok().line(), levels, "{topo}");
        flux.run(&["ping", "-c1", "4"]).ok();
        flux.stop();
    }
}
