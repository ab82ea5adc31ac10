//! Which job starts when, under the schedulers and match policies that a site may choose?

use flux_tests::{Instance, wait_for};
use serde_json::Value;
use std::time::Duration;

/// Four nodes of four cores that only the scheduler believes in.
fn fake(config: &str) -> Instance {
    Instance::builder(4)
        .config(&format!(
            "[resource]\nnoverify = true\n[[resource.config]]\nhosts = \"vm[0-3]\"\ncores = \"0-3\"\n{config}"
        ))
        .option("--test-hosts=vm[0-3]")
        .boot()
}

fn annotation(flux: &Instance, id: &str, key: &str) -> String {
    let format = format!("--format={{annotations.sched.{key}}}");
    flux.run(&["jobs", "-n", "-a", &format, id])
        .ok()
        .line()
        .to_owned()
}

fn submit(flux: &Instance, words: &[&str]) -> String {
    let words = [&["submit"], words].concat();
    flux.run(&words).ok().line().to_owned()
}

#[test]
fn easy_lets_short_jobs_pass_and_shows_when_the_first_will_start() {
    let flux = fake("[sched-fluxion-qmanager]\nqueue-policy = \"easy\"\n");
    let busy = submit(&flux, &["-N3", "-x", "-t60m", "sleep", "inf"]);
    let first = submit(&flux, &["-N4", "-x", "-t10m", "true"]);
    let late = submit(&flux, &["-N1", "-t2h", "true"]);
    let endless = submit(&flux, &["-N1", "true"]);
    let short = submit(&flux, &["-N1", "-t1m", "true"]);
    flux.run(&["job", "wait-event", "--timeout=20s", &short, "finish"])
        .ok();
    assert_eq!(annotation(&flux, &short, "backfill"), first);
    let estimate: f64 = wait_for("an estimate", Duration::from_secs(20), || {
        annotation(&flux, &first, "t_estimate").parse().ok()
    });
    let started: Value = flux.run(&["jobs", "--json", &busy]).ok().json();
    let end = started["t_run"].as_f64().unwrap() + 3600.0;
    assert!((estimate - end).abs() < 60.0, "{estimate} is not about {end}");
    flux.run(&["jobs", "-n", "--format={contextual_info}", &first])
        .ok()
        .says("eta:");
    for waits in [&late, &endless] {
        flux.run(&["jobs", "-n", "--format={state}", waits])
            .ok()
            .says("SCHED");
    }
    flux.run(&["cancel", &busy]).ok();
    for id in [&first, &late, &endless] {
        flux.run(&["job", "wait-event", "--timeout=20s", id, "clean"])
            .ok();
    }
    assert_eq!(annotation(&flux, &first, "t_estimate"), "");
    flux.stop();
}

#[test]
fn a_shorter_time_limit_of_a_running_job_moves_the_estimate() {
    let flux = fake("[sched-simple]\npolicy = \"easy\"\n");
    let busy = submit(&flux, &["-N4", "-x", "-t2h", "sleep", "inf"]);
    let first = submit(&flux, &["-N4", "-x", "-t10m", "true"]);
    let estimate = || annotation(&flux, &first, "t_estimate").parse::<f64>().ok();
    let before = wait_for("an estimate", Duration::from_secs(20), estimate);
    flux.run(&["update", &busy, "duration=1h"]).ok();
    wait_for("another estimate", Duration::from_secs(20), || {
        estimate().filter(|now| before - now > 3000.0)
    });
    flux.run(&["cancel", "--all"]).ok();
    flux.stop();
}

#[test]
fn match_policies_of_fluxion() {
    let flux = fake("[sched-fluxion-resource]\nmatch-policy = \"hinodex\"\nmatch-format = \"rv1\"\n");
    let id = submit(&flux, &["-n1", "-t1m", "true"]);
    flux.run(&["job", "wait-event", "--timeout=20s", &id, "clean"])
        .ok();
    assert_eq!(annotation(&flux, &id, "resource_summary"), "rank3/core[0-3]");
    flux.run(&["dmesg"])
        .ok()
        .says("match-format = \"rv1\" is not supported: R is written as rv1_nosched");
    flux.stop();
}

#[test]
fn a_wrong_setting_is_named() {
    let flux = fake("[sched-simple]\npolicy = \"easy\"\nqueue-depth = \"deep\"\n");
    flux.run(&["dmesg"])
        .ok()
        .says("sched-simple.queue-depth must be a positive whole number, not \"deep\"");
    flux.stop();
}

#[test]
fn feasibility_is_answered_by_the_scheduler() {
    let flux = fake("[sched-simple]\npolicy = \"hybrid\"\n");
    let check = |cores: u32| {
        let jobspec = serde_json::json!({"version": 1, "tasks": [], "attributes": {"system": {"duration": 0}}, "resources":
            [{"type": "slot", "count": 1, "label": "task", "with": [{"type": "core", "count": cores}]}]});
        let mut handle = flux.handle(0);
        handle.call::<Value>(
            "feasibility.check",
            flux_formats::msg::NODEID_ANY,
            &serde_json::json!({"jobspec": jobspec}),
        )
    };
    assert!(check(4).is_ok());
    let refused = format!("{:?}", check(5).unwrap_err());
    assert!(refused.contains("unsatisfiable request"), "{refused}");
    flux.stop();
}

#[test]
fn another_policy_after_a_reload() {
    let flux = fake("[sched-simple]\npolicy = \"fcfs\"\n");
    let file = flux.sandbox().workdir().join("config/test.toml");
    let choose = |policy: &str| {
        let old = std::fs::read_to_string(&file).unwrap();
        let (rest, _) = old.split_once("policy = ").unwrap();
        std::fs::write(&file, format!("{rest}policy = \"{policy}\"\n")).unwrap();
        flux.run(&["config", "reload"])
    };
    let busy = submit(&flux, &["-N3", "-x", "-t60m", "sleep", "inf"]);
    let first = submit(&flux, &["-N4", "-x", "-t10m", "true"]);
    let short = submit(&flux, &["-N1", "-t1m", "true"]);
    flux.run(&["job", "wait-event", "--timeout=20s", &busy, "start"])
        .ok();
    let state = |id: &str| {
        flux.run(&["jobs", "-n", "--format={state}", id])
            .ok()
            .line()
            .to_owned()
    };
    assert_eq!(state(&short), "SCHED");
    choose("nosuch")
        .fails()
        .complains("there is no scheduler policy \"nosuch\"");
    choose("easy").ok();
    // what runs goes on, and the short job passes
    flux.run(&["job", "wait-event", "--timeout=20s", &short, "clean"])
        .ok();
    assert_eq!((state(&busy), state(&first)), ("RUN".into(), "SCHED".into()));
    flux.run(&["module", "stats", "sched-simple"]).ok().says("easy");
    choose("fcfs").ok();
    let again = submit(&flux, &["-N1", "-t1m", "true"]);
    flux.run(&["job", "wait-event", "--timeout=20s", &again, "priority"])
        .ok();
    assert_eq!(state(&again), "SCHED");
    flux.run(&["cancel", "--all"]).ok();
    flux.stop();
}
