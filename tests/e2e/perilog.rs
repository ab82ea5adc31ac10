//! Prolog and epilog of the instance.

use flux_tests::Instance;

fn events(flux: &Instance, id: &str) -> Vec<String> {
    let output = flux.run(&["job", "eventlog", "--format=json", id]);
    let event = |line: &&str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let name = |event: serde_json::Value| event["name"].as_str().unwrap_or_default().to_owned();
    output.ok().lines().iter().map(event).map(name).collect()
}

#[test]
fn before_and_after_each_job() {
    let config = "[[job-manager.plugins]]\nload = \"perilog.so\"\n\
                  [job-manager.prolog]\nper-rank = true\n\
                  command = [\"sh\", \"-c\", \"echo noise; echo prolog of $FLUX_JOB_ID for $FLUX_JOB_USERID\"]\n\
                  [job-manager.epilog]\ncommand = [\"sh\", \"-c\", \"echo epilog >&2; exit 3\"]\n\
                  [job-manager.perilog]\nlog-ignore = [\"^noise\"]\n";
    let flux = Instance::builder(2).config(config).boot();
    flux.run(&["run", "-N2", "true"]).ok();
    let id = flux.run(&["job", "last"]).ok().line().to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
        .ok();
    let names = events(&flux, &id);
    let at = |name: &str| {
        names
            .iter()
            .position(|known| known == name)
            .unwrap_or_else(|| panic!("{name}: {names:?}"))
    };
    assert!(
        at("alloc") < at("prolog-start") && at("prolog-finish") < at("start"),
        "{names:?}"
    );
    assert!(
        at("finish") < at("epilog-start") && at("epilog-finish") < at("free"),
        "{names:?}"
    );
    flux.run(&["job", "eventlog", &id])
        .ok()
        .says("prolog-start description=\"job-manager.prolog\"")
        .says("prolog-finish description=\"job-manager.prolog\" status=0")
        .says("epilog exited with code=3")
        .says("epilog-finish description=\"job-manager.epilog\" status=768");
    // an epilog that fails does not make the job fail
    flux.run(&["job", "status", &id]).ok();
    let log = flux.run(&["dmesg"]);
    log.ok()
        .says("(rank 0): stdout: prolog of")
        .says("(rank 1): stdout: prolog of")
        .says("stderr: epilog");
    assert!(
        !log.ok().lines().iter().any(|line| line.contains("noise")),
        "{log}"
    );
    flux.run(&["jobtap", "query", "perilog.so"])
        .ok()
        .says("\"per-rank\":true");
    flux.stop();
}

#[test]
fn a_prolog_that_fails_or_hangs() {
    let config = "[[job-manager.plugins]]\nload = \"perilog.so\"\n\
                  [job-manager.prolog]\ncommand = [\"sh\", \"-c\", \"exec sleep 1000\"]\n";
    let flux = Instance::builder(1).config(config).boot();
    let id = flux.run(&["submit", "true"]).ok().line().to_owned();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "prolog-start"])
        .ok();
    flux.run(&["why", &id]).ok().says("prologs or epilogs run");
    flux.run(&["cancel", &id]).ok();
    flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
        .ok();
    let names = events(&flux, &id);
    assert!(
        names.contains(&"prolog-finish".to_owned()) && !names.contains(&"start".to_owned()),
        "{names:?}"
    );
    let bad = "{\"job-manager\":{\"prolog\":{\"command\":[\"sh\",\"-c\",\"exit 7\"]}}}";
    flux.run_input(&["config", "load"], bad.as_bytes()).ok();
    flux.run(&["run", "true"])
        .fails()
        .complains("prolog exited with code=7 on");
    flux.stop();
}
