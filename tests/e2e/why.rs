//! `flux why`: what keeps a job from running.

use flux_tests::Instance;

#[test]
fn dependencies_queues_and_resources() {
    let flux = Instance::boot(1);
    let submit = |args: &[&str]| {
        let mut all = vec!["submit"];
        all.extend(args);
        flux.run(&all).ok().line().to_owned()
    };
    let running = submit(&["--exclusive", "-N1", "sleep", "1000"]);
    flux.run(&["job", "wait-event", "--timeout=30", &running, "start"])
        .ok();
    flux.run(&["why", &running]).ok().says("it runs");
    let after = submit(&[&format!("--dependency=afterok:{running}"), "true"]);
    flux.run(&["why", &after])
        .ok()
        .says("state DEPEND")
        .says(&format!("job {running} has not succeeded"));
    let (first, second) = (submit(&["true"]), submit(&["true"]));
    flux.run(&["why", &first])
        .ok()
        .says("it waits for resources")
        .says("missing: 1 core")
        .says("place: first of those that wait");
    flux.run(&["why", &second]).ok().says("place: 1 job is before it");
    let json = flux.run(&["why", "--json", &second]).ok().json();
    assert_eq!((&json["ahead"], &json["free"]["ncores"]), (&1.into(), &0.into()));
    let held = submit(&["--urgency=hold", "true"]);
    flux.run(&["why", &held]).ok().says("it is held");
    flux.run(&["queue", "stop", "--message=at night"]).ok();
    flux.run(&["why", &second])
        .ok()
        .says("the queue is stopped: at night");
    flux.run(&["why", "ƒ1"]).fails().complains("unknown job id");
    flux.stop();
}
