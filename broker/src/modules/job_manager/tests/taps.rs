//! Jobtap plugins over fakes of everything else: what they say becomes events; what they must not say, a line in the log.

use super::super::api::Submission;
use super::fakes::{Bench, finish};
use flux_formats::jobid::JobId;
use serde_json::{Value, json};

/// Returns a submission with these values of `attributes.system`.
fn with_system(bench: &mut Bench, system: Value) -> Submission {
    let mut job = bench.submission(16, 0);
    job.jobspec["attributes"]["system"] = system;
    job.jobspec_text = job.jobspec.to_string().into_bytes();
    job
}

fn submit(bench: &mut Bench, system: Value) -> Result<JobId, String> {
    let job = with_system(bench, system);
    bench.submit_all(vec![job]).remove(0).map_err(|err| err.text)
}

fn depends(scheme: &str, value: &str) -> Value {
    json!({"duration": 0, "dependencies": [{"scheme": scheme, "value": value}]})
}

fn hostile(bench: &mut Bench) {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/policies-test/jobtap-hostile.cwasm"
    );
    bench.rpc("job-manager.jobtap", &json!({ "load": path })).unwrap();
}

/// The events of a plain job are the same with all standard plugins as with none.
#[test]
fn a_plain_job_does_not_notice() {
    let Some(mut bench) = Bench::with_plugins(1, false, json!({})) else {
        return;
    };
    let id = bench.submit();
    bench.with(move |cx| finish(cx, id, 0));
    assert_eq!(
        bench.events(id),
        [
            "submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free",
            "clean"
        ]
    );
    assert_eq!(bench.context(id, "priority"), json!({"priority": 16}));
    let jobs: Vec<_> = (0..50).map(|_| bench.submission(16, 0)).collect();
    let before = bench.world.borrow().commits;
    assert!(bench.submit_all(jobs).iter().all(Result::is_ok));
    assert!(
        bench.world.borrow().commits - before <= 4,
        "jobs of one turn share commits"
    );
}

#[test]
fn refusals_and_dependencies() {
    let Some(mut bench) = Bench::with_plugins(1, false, json!({"policy": {"limits": {"duration": "1h"}}}))
    else {
        return;
    };
    assert_eq!(
        submit(&mut bench, json!({"duration": 7200})).unwrap_err(),
        "requested duration (2h) exceeds policy limit of 1h"
    );
    let short = json!({"duration": 60});
    let running = submit(&mut bench, short.clone()).unwrap();
    let mut jobs = Vec::new();
    for scheme in ["afterstart", "afterok", "afternotok", "afterany"] {
        let mut system = depends(scheme, &running.to_string());
        system["duration"] = 60.into();
        jobs.push(submit(&mut bench, system).unwrap());
    }
    assert_eq!(
        bench.events(jobs[1]),
        ["submit", "dependency-add", "validate"],
        "dependencies come before validate"
    );
    bench.with(move |cx| finish(cx, running, 0));
    assert_eq!(bench.events(jobs[0])[3..5], ["dependency-remove", "depend"]);
    assert_eq!(bench.events(jobs[1])[3..5], ["dependency-remove", "depend"]);
    assert_eq!(bench.events(jobs[2])[3..], ["exception", "clean"]);
    assert_eq!(
        bench.context(jobs[2], "exception")["note"],
        json!(format!(
            "dependency after-failure={running} can never be satisfied"
        ))
    );
    assert_eq!(bench.events(jobs[3])[3..5], ["dependency-remove", "depend"]);
    let mut late = depends("afternotok", &running.to_string());
    late["duration"] = 60.into();
    assert_eq!(
        submit(&mut bench, late).unwrap_err(),
        format!("dependency: afternotok: job {running} succeeded")
    );
    assert_eq!(
        submit(&mut bench, depends("x", "y")).unwrap_err(),
        "dependency scheme \"x\" not supported"
    );
    assert_eq!(
        submit(&mut bench, json!({"dependencies": [{}]})).unwrap_err(),
        "dependency[0] missing string scheme"
    );
    assert_eq!(
        submit(&mut bench, json!({"dependencies": {}})).unwrap_err(),
        "dependencies object must be an array"
    );
}

/// What plugins knew they know again, and nothing is posted twice.
#[test]
fn a_restart_tells_plugins_of_all_jobs() {
    let Some(mut old) = Bench::with_plugins(0, false, json!({})) else {
        return;
    };
    let first = old.submit();
    let waiting = submit(&mut old, depends("afterany", &first.to_string())).unwrap();
    let named = json!({"duration": 0, "job": {"name": "x"}});
    let mut single = named.clone();
    single["dependencies"] = json!([{"scheme": "singleton", "value": ""}]);
    let before = submit(&mut old, named).unwrap();
    let single = submit(&mut old, single).unwrap();
    let world = old.world.clone();
    drop(old);
    let mut new = Bench::plugins_over(world, json!({})).unwrap();
    for id in [waiting, single] {
        assert_eq!(new.events(id), ["submit", "dependency-add", "validate"]);
        assert_eq!(new.state(id), 2);
    }
    new.cancel(first).unwrap();
    new.cancel(before).unwrap();
    for id in [waiting, single] {
        assert_eq!(new.events(id)[3..5], ["dependency-remove", "depend"], "{id}");
    }
}

#[test]
fn lies_change_nothing() {
    let Some(mut bench) = Bench::with_plugins(2, false, json!({})) else {
        return;
    };
    hostile(&mut bench);
    let other = bench.submit();
    for callback in ["new", "state.depend", "state.sched", "state.run"] {
        let id = submit(
            &mut bench,
            json!({"duration": 0, "hostile": format!("{callback} lie")}),
        )
        .unwrap();
        bench.with(move |cx| finish(cx, id, 0));
        let names = [
            "submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free",
            "clean",
        ];
        let mut events = bench.events(id);
        // the one wish of it that is allowed: more priority
        events.dedup_by(|a, b| a == b && a == "priority");
        assert_eq!(events, names, "{callback}");
    }
    assert_eq!(
        bench.events(other),
        ["submit", "validate", "depend", "priority", "alloc"]
    );
    let stats = bench.rpc("job-manager.stats-get", &json!({})).unwrap();
    assert_eq!(
        (&stats["active_jobs"], &stats["jobtap"]["waiting"]),
        (&json!(1), &json!(0))
    );
}

#[test]
fn a_trap_in_any_state_lets_the_job_go_on() {
    let Some(mut bench) = Bench::with_plugins(1, false, json!({})) else {
        return;
    };
    hostile(&mut bench);
    let mut refused = 0;
    for callback in [
        "create",
        "validate",
        "new",
        "state.depend",
        "state.priority",
        "priority",
        "state.sched",
        "state.run",
        "state.cleanup",
        "state.inactive",
        "event.start",
        "added",
        "destroy",
    ] {
        // five failures within a minute would put it into quarantine
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../target/policies-test/jobtap-hostile.cwasm"
        );
        let again = json!({"load": path, "remove": "jobtap-hostile"});
        bench.rpc("job-manager.jobtap", &again).unwrap();
        match submit(
            &mut bench,
            json!({"duration": 0, "hostile": format!("{callback} trap")}),
        ) {
            Err(text) => {
                refused += 1;
                assert!(text.contains("panic or abort"), "{text}");
            }
            Ok(id) => {
                bench.with(move |cx| finish(cx, id, 0));
                assert_eq!(bench.events(id).last().unwrap(), "clean", "{callback}");
            }
        }
        let id = bench.submit();
        bench.with(move |cx| finish(cx, id, 0));
        assert_eq!(bench.events(id).len(), 10, "after {callback}");
    }
    assert_eq!(refused, 2, "create and validate");
}

#[test]
fn priorities_updates_and_state() {
    let Some(mut bench) = Bench::with_plugins(0, false, json!({})) else {
        return;
    };
    hostile(&mut bench);
    let id = submit(&mut bench, json!({"duration": 0, "hostile": "priority 77"})).unwrap();
    assert_eq!(bench.context(id, "priority"), json!({"priority": 77}));
    let held = submit(&mut bench, json!({"duration": 0, "hostile": "priority never"})).unwrap();
    assert_eq!(bench.events(held), ["submit", "validate", "depend"]);
    // hold and expedite are above plugins
    bench
        .rpc("job-manager.urgency", &json!({"id": held, "urgency": 31}))
        .unwrap();
    assert_eq!(
        bench.context(held, "priority"),
        json!({"priority": 4_294_967_295_u64})
    );
    assert_eq!(
        bench
            .refused(
                "job-manager.update",
                &json!({"id": id, "updates": {"attributes.system.other": 1}})
            )
            .1,
        "update of attributes.system.other not supported"
    );
    bench
        .rpc(
            "job-manager.update",
            &json!({"id": id, "updates": {"attributes.system.hostile": "x y"}}),
        )
        .unwrap();
    assert!(bench.events(id).contains(&"jobspec-update".to_owned()));
    // without its plugin the priority is the urgency again
    bench
        .rpc("job-manager.jobtap", &json!({"remove": "jobtap-hostile"}))
        .unwrap();
    // state is stored with the job's events, and is there after a restart
    hostile(&mut bench);
    let deed = "new remember this";
    submit(&mut bench, json!({"duration": 0, "hostile": deed})).unwrap();
    let world = bench.world.clone();
    assert!(
        world
            .borrow()
            .map
            .contains_key("checkpoint.jobtap.jobtap-hostile")
    );
    drop(bench);
    let mut new = Bench::plugins_over(world, json!({})).unwrap();
    hostile(&mut new);
    let query = new
        .rpc("job-manager.jobtap-query", &json!({"name": "jobtap-hostile"}))
        .unwrap();
    assert_eq!((&query["last"], &query["count"]), (&json!("this"), &json!("1")));
}

/// The history is told of all jobs when it comes, and when its instance was lost; other users see nothing of them.
#[test]
fn history_knows_older_jobs() {
    let Some(mut bench) = Bench::with_plugins(2, false, json!({})) else {
        return;
    };
    let ids: Vec<JobId> = (0..3).map(|_| bench.submit()).collect();
    let first = ids[0];
    bench.with(move |cx| finish(cx, first, 0));
    let slice = json!({"slice": "[:]"});
    let all = json!({"jobs": [ids[2], ids[1], ids[0]]});
    assert_eq!(bench.rpc("job-manager.history.get", &slice).unwrap(), all);
    let load = json!({"load": ".history", "remove": ".history"});
    bench.rpc("job-manager.jobtap", &load).unwrap();
    assert_eq!(bench.rpc("job-manager.history.get", &slice).unwrap(), all);
    bench
        .rpc("job-manager.purge-id", &json!({"id": first, "force": 1}))
        .unwrap();
    let left = json!({"jobs": [ids[2], ids[1]]});
    assert_eq!(bench.rpc("job-manager.history.get", &slice).unwrap(), left);
    let guest = bench.send_as(
        1001,
        flux_formats::msg::role::USER,
        "job-manager.history.get",
        &slice,
    );
    assert_eq!(guest.take().unwrap().unwrap(), json!({"jobs": []}));
    let bad = bench.refused("job-manager.history.get", &json!({"slice": "x"}));
    assert_eq!(bad.1, "could not parse python-style slice expression");
}
