//! `flux submit`, `bulksubmit`, `jobs`, `cancel`: many jobs at once.

use flux_tests::{Instance, scaled};

#[test]
fn ids_and_waiting() {
    let flux = Instance::boot(1);
    let id = flux.run(&["submit", "true"]).ok().line().to_owned();
    assert!(id.starts_with('ƒ'), "{id}");
    let output = flux.run(&["submit", "--cc=1-10", "--wait", "sh", "-c", "echo $FLUX_JOB_CC"]);
    assert_eq!(output.ok().lines().len(), 10);
    let output = flux.run(&[
        "submit",
        "--cc=1-3",
        "--watch",
        "--quiet",
        "sh",
        "-c",
        "echo task $FLUX_JOB_CC",
    ]);
    assert_eq!(output.ok().sorted(), ["task 1", "task 2", "task 3"]);
    flux.run(&["submit", "--wait", "--quiet", "false"]).code(1);
    let output = flux.run(&["jobs", "-a", "-no", "{status_abbrev}"]);
    assert_eq!(
        output.ok().lines().iter().filter(|state| **state == "CD").count(),
        14,
        "{output}"
    );
    flux.stop();
}

#[test]
fn bulksubmit_replaces_inputs() {
    let flux = Instance::boot(1);
    let output = flux.run(&["bulksubmit", "--dry-run", "echo", "{}", ":::", "1", "2"]);
    assert_eq!(
        output.ok().lines(),
        ["bulksubmit: submit echo 1", "bulksubmit: submit echo 2"]
    );
    let output = flux.run(&["bulksubmit", "--watch", "--quiet", "echo", "{}", ":::", "a", "b"]);
    assert_eq!(output.ok().sorted(), ["a", "b"]);
    flux.stop();
}

#[test]
fn a_thousand_jobs() {
    let count = scaled(1000, 100);
    let flux = Instance::boot(1);
    flux.run(&["submit", &format!("--cc=1-{count}"), "--wait", "--quiet", "true"])
        .ok();
    let output = flux.run(&["jobs", "-a", "-c0", "-no", "{result}"]);
    assert_eq!(output.ok().lines(), vec!["COMPLETED"; count]);
    flux.stop();
}

#[test]
fn cancel_and_states() {
    let flux = Instance::boot(1);
    flux.run(&["queue", "stop"]).ok();
    let ids = flux.run(&["submit", "--cc=1-3", "true"]).ok().stdout.clone();
    let output = flux.run(&["jobs", "-no", "{state}"]);
    assert_eq!(output.ok().lines(), ["SCHED"; 3]);
    flux.run(&["cancel", "--user=all", "--dry-run"])
        .ok()
        .complains("Would cancel 3 jobs");
    flux.run(&["cancel", "--user=all"])
        .ok()
        .complains("Canceled 3 jobs (0 errors)");
    for id in ids.lines() {
        flux.run(&["job", "wait-event", "-t", "20", id, "clean"]).ok();
        flux.run(&["job", "status", id]).fails();
    }
    flux.run(&["cancel", "ƒ1"]).fails();
    flux.stop();
}

#[test]
fn jobs_formats() {
    let flux = Instance::boot(1);
    flux.run(&["run", "--job-name=named", "true"]).ok();
    let format = "{id.f58:>12} {name:<10.10} {urgency:<3} {priority:<12} {state:<8.8} {dependencies}";
    let output = flux.run(&["jobs", "-a", &format!("--format={format}")]);
    let header: Vec<_> = output.ok().lines()[0].split_whitespace().collect();
    assert_eq!(header, ["JOBID", "NAME", "URG", "PRI", "STATE", "DEPENDENCIES"]);
    output.says("named").says("INACTIVE");
    let job = flux.run(&["jobs", "-a", "--json"]).ok().json();
    let job = job["jobs"].as_array().map_or(job.clone(), |jobs| jobs[0].clone());
    assert_eq!(job["name"], "named");
    flux.run(&["jobs", "--format={nosuch}"])
        .fails()
        .complains("nosuch");
    let lines = flux.run(&["jobs", "-a"]);
    assert_eq!(lines.ok().lines().len(), 2, "{lines}");
    flux.stop();
}

#[test]
fn urgency_and_order() {
    let flux = Instance::boot(1);
    flux.run(&["queue", "stop"]).ok();
    let low = flux
        .run(&["submit", "--urgency=1", "true"])
        .ok()
        .line()
        .to_owned();
    let high = flux
        .run(&["submit", "--urgency=20", "true"])
        .ok()
        .line()
        .to_owned();
    let held = flux
        .run(&["submit", "--urgency=hold", "true"])
        .ok()
        .line()
        .to_owned();
    let output = flux.run(&["jobs", "-no", "{id} {urgency}"]);
    assert_eq!(
        output.ok().lines(),
        [format!("{high} 20"), format!("{low} 1"), format!("{held} 0")]
    );
    flux.run(&["job", "urgency", &low, "EXPEDITE"]).ok();
    flux.run(&["job", "urgency", &low, "99"]).fails();
    assert!(flux.run(&["jobs", "-no", "{id}"]).ok().lines()[0] == low);
    flux.run(&["queue", "start"]).ok();
    flux.run(&["job", "wait-event", "-t", "20", &high, "clean"]).ok();
    flux.run(&["job", "urgency", &held, "16"]).ok();
    flux.run(&["job", "wait-event", "-t", "20", &held, "clean"]).ok();
    flux.stop();
}
