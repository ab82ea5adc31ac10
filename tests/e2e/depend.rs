//! Dependencies: jobs wait for others, for their name's turn, for a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flux_tests::Instance;

fn submit(flux: &Instance, args: &[&str]) -> String {
    let mut all = vec!["submit"];
    all.extend(args);
    flux.run(&all).ok().line().to_owned()
}

fn state(flux: &Instance, id: &str) -> String {
    flux.run(&["jobs", "-no", "{state}", id]).ok().line().to_owned()
}

fn events(flux: &Instance, id: &str) -> Vec<String> {
    let output = flux.run(&["job", "eventlog", "--format=json", id]);
    let lines = output.ok().lines();
    let event = |line: &&str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    lines
        .iter()
        .map(event)
        .map(|event| event["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn after_start_ok_notok_any() {
    let flux = Instance::boot(1);
    flux.run(&["queue", "stop"]).ok();
    let first = submit(&flux, &["false"]);
    let on = |scheme: &str| submit(&flux, &[&format!("--dependency={scheme}:{first}"), "true"]);
    let (start, ok, notok, any) = (on("afterstart"), on("afterok"), on("afternotok"), on("afterany"));
    for id in [&start, &ok, &notok, &any] {
        assert_eq!(state(&flux, id), "DEPEND");
    }
    let shown = flux
        .run(&["jobs", "-no", "{dependencies}", &ok])
        .ok()
        .line()
        .to_owned();
    assert_eq!(shown, format!("after-success={first}"));
    flux.run(&["queue", "start"]).ok();
    for id in [&start, &notok, &any] {
        flux.run(&["job", "wait-event", "--timeout=30", id, "clean"]).ok();
        assert_eq!(
            events(&flux, id)[..6],
            [
                "submit",
                "dependency-add",
                "validate",
                "dependency-remove",
                "depend",
                "priority"
            ],
            "{id}"
        );
    }
    flux.run(&["job", "wait-event", "--timeout=30", &ok, "exception"])
        .ok()
        .says(&format!(
            "dependency after-success={first} can never be satisfied"
        ));
    // of inactive jobs, too
    flux.run(&["run", &format!("--dependency=afternotok:{first}"), "true"])
        .ok();
    flux.run(&["submit", &format!("--dependency=afterok:{first}"), "true"])
        .fails()
        .complains(&format!(
            "dependency: afterok: job {first} failed or was canceled"
        ));
    flux.run(&["submit", "--dependency=afterok:ƒ1", "true"])
        .fails()
        .complains("dependency: afterok: id ƒ1: job not found");
    flux.run(&["submit", "--dependency=nosuch:1", "true"])
        .fails()
        .complains("dependency scheme \"nosuch\" not supported");
    flux.stop();
}

#[test]
fn singletons_and_begin_time() {
    let flux = Instance::boot(1);
    let first = submit(&flux, &["--job-name=one", "sleep", "1000"]);
    let second = submit(&flux, &["--job-name=one", "--dependency=singleton", "true"]);
    let third = submit(&flux, &["--job-name=one", "--dependency=singleton", "true"]);
    let other = submit(&flux, &["--job-name=two", "--dependency=singleton", "true"]);
    flux.run(&["job", "wait-event", "--timeout=30", &other, "clean"])
        .ok();
    assert_eq!(state(&flux, &second), "DEPEND");
    assert_eq!(state(&flux, &third), "DEPEND");
    flux.run(&["jobtap", "query", ".dependency-singleton"])
        .ok()
        .says("\"count\":3");
    flux.run(&["submit", "--dependency=singleton", "true"])
        .fails()
        .complains("singleton jobs require a job name");
    flux.run(&["cancel", &first]).ok();
    for id in [&second, &third] {
        flux.run(&["job", "wait-event", "--timeout=30", id, "clean"]).ok();
    }
    // a time that is near enough to wait for, and one that is not
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let soon = (now + Duration::from_millis(300)).as_secs_f64();
    let near = submit(&flux, &[&format!("--dependency=begin-time:{soon}"), "true"]);
    let far = submit(&flux, &["--begin-time=+1h", "true"]);
    flux.run(&["job", "wait-event", "--timeout=30", &near, "clean"])
        .ok();
    assert!(events(&flux, &near).contains(&"dependency-remove".to_owned()));
    assert_eq!(state(&flux, &far), "DEPEND");
    flux.run(&["cancel", &far]).ok();
    flux.run(&["job", "wait-event", "--timeout=30", &far, "clean"])
        .ok();
    flux.stop();
}

/// What waits still waits after a crash, and goes on as it should.
#[test]
fn dependencies_survive_a_crash() {
    let mut flux = Instance::builder(1).persistent().boot();
    let first = submit(&flux, &["--job-name=x", "--urgency=0", "true"]);
    let after = submit(&flux, &[&format!("--dependency=afterok:{first}"), "true"]);
    let single = submit(&flux, &["--job-name=x", "--dependency=singleton", "true"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let soon = (now + Duration::from_secs(1)).as_secs_f64();
    let timed = submit(&flux, &[&format!("--dependency=begin-time:{soon}"), "true"]);
    flux.crash();
    flux.boot_again();
    for id in [&after, &single] {
        assert_eq!(state(&flux, id), "DEPEND");
    }
    flux.run(&["job", "wait-event", "--timeout=30", &timed, "clean"])
        .ok();
    flux.run(&["job", "urgency", &first, "16"]).ok();
    for id in [&first, &after, &single] {
        flux.run(&["job", "wait-event", "--timeout=30", id, "clean"]).ok();
        flux.run(&["job", "status", id]).ok();
    }
    flux.stop();
}
