//! `flux update`: jobs change while they wait or run.

use flux_tests::Instance;

#[test]
fn durations_and_queues() {
    let flux = Instance::builder(1)
        .config("[queues.a]\n[queues.b]\nrequires = [\"fast\"]\n[policy.jobspec.defaults.system]\nqueue = \"a\"\n")
        .boot();
    let id = flux
        .run(&["submit", "-t", "1h", "sleep", "1000"])
        .ok()
        .line()
        .to_owned();
    let shown = |format: &str| flux.run(&["jobs", "-no", format, &id]).ok().line().to_owned();
    assert_eq!(
        flux.run(&["update", "--dry-run", &id, "duration=+30m", "name=x", "user=1"])
            .ok()
            .json(),
        serde_json::json!({"attributes.system.duration": 5400.0, "attributes.system.job.name": "x",
            "attributes.system.user": 1})
    );
    flux.run(&["update", "--wait", "-v", &id, "duration=+30m"])
        .ok()
        .complains("updated attributes.system.duration to 5400");
    assert_eq!(shown("{duration!F}"), "1.5h");
    flux.run(&["update", &id, "duration=-2h"])
        .fails()
        .complains("cannot be reduced");
    flux.run(&["update", "--wait", &id, "duration=10m"]).ok();
    assert_eq!(shown("{duration!F}"), "10m");
    flux.run(&["update", "--wait", &id, "queue=b"]).ok();
    assert_eq!(shown("{queue}"), "b");
    let jobspec = flux.run(&["job", "info", &id, "jobspec"]).ok().json();
    assert_eq!(
        jobspec["attributes"]["system"]["constraints"]["properties"][0],
        "fast"
    );
    flux.run(&["update", &id, "queue=b"])
        .fails()
        .complains("already set to b");
    flux.run(&["queue", "disable", "-m", "full", "a"]).ok();
    flux.run(&["update", &id, "queue=a"])
        .fails()
        .complains("currently disabled");
    flux.run(&["queue", "enable", "a"]).ok();
    flux.run(&["update", &id, "queue=nosuch"])
        .fails()
        .complains("nosuch");
    flux.run(&["update", &id, "tasks.x=1"])
        .fails()
        .complains("invalid");
    flux.run(&["update", &id, "duration"])
        .fails()
        .complains("KEY=VALUE");
    flux.run(&["update", "ƒ1", "duration=1m"]).fails().complains("ƒ1");
    let unlimited = flux.run(&["submit", "sleep", "1000"]).ok().line().to_owned();
    flux.run(&["update", &unlimited, "duration=+1m"])
        .fails()
        .complains("is unlimited");
    flux.run(&["cancel", "--user=all"]).ok();
    flux.stop();
}

/// The limit of a running job moves, and the shell learns of it.
#[test]
fn a_running_job_lives_longer() {
    let flux = Instance::boot(1);
    let script =
        "trap 'echo warned' USR1; echo up; flux job timeleft; while ! test -e go; do sleep 0.05; done
        flux job timeleft; exit 0";
    let id = flux
        .run(&["submit", "-t", "1m", "--output=out.txt", "sh", "-c", script])
        .ok()
        .line()
        .to_owned();
    // both lines: the time that was left before
    flux.sh("until [ $(wc -l <out.txt) -ge 2 ]; do :; done").ok();
    flux.run(&["update", "--wait", &id, "duration=1h"]).ok();
    flux.sandbox().write("go", "");
    flux.run(&["job", "status", &id]).ok();
    let output = flux.sh("cat out.txt");
    let left: Vec<u32> = output.ok().lines()[1..]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    assert!(left[0] <= 60 && left[1] > 60, "{left:?}");
    flux.stop();
}
