//! `[policy.limits]`, as the administrator's guide has it.

use flux_tests::Instance;

#[test]
fn limits_of_the_instance() {
    let config = "[policy.limits]\nduration = \"2h\"\njob-size.max.nnodes = 1\njob-size.max.ncores = 2\n";
    let flux = Instance::builder(2).config(config).boot();
    flux.run(&["run", "-t", "2h", "true"]).ok();
    flux.run(&["submit", "-t", "3h", "true"])
        .fails()
        .complains("requested duration (3h) exceeds policy limit of 2h");
    flux.run(&["submit", "true"])
        .fails()
        .complains("requested duration (unlimited) exceeds policy limit of 2h");
    flux.run(&["submit", "-t", "1h", "-N2", "true"])
        .fails()
        .complains("requested nnodes (2) exceeds policy limit of 1");
    flux.run(&["submit", "-t", "1h", "-n3", "true"])
        .fails()
        .complains("requested ncores (3) exceeds policy limit of 2");
    // changes are checked as well; the owner may pass over them
    let id = flux
        .run(&["submit", "--urgency=0", "-t", "1h", "true"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["update", "--wait", &id, "duration=3h"]).ok();
    flux.run(&["cancel", &id]).ok();
    // another configuration, at once; a bad one changes nothing
    let bad = flux.run_input(
        &["config", "load"],
        b"{\"policy\":{\"limits\":{\"duration\":\"2x\"}}}",
    );
    bad.fails()
        .complains("policy.limits.duration: FSD value is malformed");
    flux.run(&["submit", "-t", "3h", "true"]).fails();
    flux.run_input(&["config", "load"], b"{}").ok();
    flux.run(&["run", "-t", "3h", "true"]).ok();
    flux.stop();
}

#[test]
fn limits_of_queues() {
    let config = "[policy.limits]\nduration = \"1h\"\n\
                  [queues.debug]\npolicy.limits.duration = \"30m\"\npolicy.limits.job-size.max.nnodes = 1\n\
                  [queues.batch]\npolicy.limits.duration = \"8h\"\npolicy.limits.job-size.min.ncores = 2\n\
                  [policy.jobspec.defaults.system]\nqueue = \"debug\"\nduration = \"30m\"\n";
    let flux = Instance::builder(2).config(config).boot();
    flux.run(&["queue", "start", "--all"]).ok();
    // defaults are filled in before limits are checked
    flux.run(&["run", "true"]).ok();
    flux.run(&["submit", "-t", "45m", "true"])
        .fails()
        .complains("requested duration (45m) exceeds policy limit of 30m for queue debug");
    flux.run(&["submit", "-N2", "true"])
        .fails()
        .complains("requested nnodes (2) exceeds policy limit of 1 for queue debug");
    flux.run(&["run", "-q", "batch", "-n2", "-t", "8h", "true"]).ok();
    flux.run(&["submit", "-q", "batch", "-n1", "-t", "8h", "true"])
        .fails()
        .complains("requested ncores (1) is under policy limit of 2 for queue batch");
    // nobody gets around a queue's limits by moving there
    let held = flux.run(&["submit", "--urgency=0", "-q", "batch", "-n2", "-t", "8h", "true"]);
    flux.run(&["update", held.ok().line(), "queue=debug"])
        .fails()
        .complains("exceeds policy limit of 30m for queue debug");
    flux.run(&["update", held.ok().line(), "queue=debug", "duration=20m"])
        .ok();
    flux.run(&["cancel", held.ok().line()]).ok();
    flux.stop();
}
