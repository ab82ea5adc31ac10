//! `flux queue`: status, stop and start, enable and disable, drain and idle, named queues.

use std::time::Duration;

use flux_tests::Instance;

#[test]
fn the_anonymous_queue() {
    let flux = Instance::boot(1);
    // the scheduler's policy may still be loading
    flux.wait_until(&["queue", "status"], Duration::from_secs(20), |output| {
        output.lines() == ["Job submission is enabled", "Scheduling is started"]
    });
    flux.run(&["queue", "stop"]).ok();
    flux.run(&["queue", "status"]).ok().says("Scheduling is stopped");
    let id = flux.run(&["submit", "true"]).ok().line().to_owned();
    flux.run(&["queue", "disable", "--message=closed for the test"])
        .ok();
    flux.run(&["submit", "true"])
        .fails()
        .complains("closed for the test");
    flux.run(&["queue", "enable"]).ok();
    flux.run(&["queue", "drain", "--timeout=0.3s"]).fails();
    flux.run(&["queue", "start"]).ok();
    flux.run(&["queue", "drain", "--timeout=20s"]).ok();
    flux.run(&["queue", "idle", "--timeout=20s"]).ok();
    flux.run(&["job", "status", &id]).ok();
    flux.run(&["queue", "status", "-v"]).ok().says("0 running jobs");
    flux.stop();
}

#[test]
fn named_queues_need_a_name_and_start_stopped() {
    let flux = Instance::builder(2)
        .config("[queues.debug]\n[queues.batch]\n")
        .boot();
    flux.run(&["submit", "true"]).fails().complains("queue");
    flux.run(&["submit", "-q", "nosuch", "true"])
        .fails()
        .complains("nosuch");
    flux.run(&["queue", "status"])
        .ok()
        .says("debug: Scheduling is stopped");
    flux.run(&["queue", "start", "--all"])
        .ok()
        .says("debug: Scheduling is started");
    flux.run(&["run", "-q", "debug", "true"]).ok();
    flux.run(&["jobs", "-a", "-no", "{annotations.sched.queue}"])
        .ok()
        .says("debug");
    flux.run(&["queue", "disable", "--message=full", "batch"]).ok();
    flux.run(&["submit", "-q", "batch", "true"])
        .fails()
        .complains("full");
    let output = flux.run(&["queue", "list", "-n"]);
    assert_eq!(output.ok().lines().len(), 2, "{output}");
    flux.run(&["queue", "stop", "nosuch"]).fails().complains("nosuch");
    flux.stop();
}

#[test]
fn defaults_are_filled_in() {
    let config = "[policy.jobspec.defaults.system]\nduration = \"5m\"\nqueue = \"one\"\n[queues.one]\n";
    let flux = Instance::builder(2).config(config).boot();
    flux.run(&["queue", "start", "--all"]).ok();
    let id = flux.run(&["submit", "sleep", "0"]).ok().line().to_owned();
    flux.run(&["job", "wait-event", "-t", "20", &id, "clean"]).ok();
    let spec = flux.run(&["job", "info", &id, "jobspec"]).ok().json();
    assert_eq!(spec["attributes"]["system"]["queue"], "one");
    assert_eq!(spec["attributes"]["system"]["duration"].as_f64(), Some(300.0));
    flux.stop();
}

#[test]
#[ignore = "policy limits are not there yet"]
fn limits() {
    let config = "[policy.limits]\nduration = \"10m\"\njob-size.max.nnodes = 1\n";
    let flux = Instance::builder(2).config(config).boot();
    flux.run(&["submit", "-t", "20m", "true"])
        .fails()
        .complains("duration");
    flux.run(&["submit", "-N2", "true"]).fails().complains("nnodes");
    flux.stop();
}
