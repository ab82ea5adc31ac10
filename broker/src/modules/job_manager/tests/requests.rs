//! Requests: answers, errors, who may ask what.

use super::super::api::{self, SchedEvent};
use super::fakes::{Bench, finish, r_text};
use crate::service::testing::request;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::role;
use serde_json::{Value, json};

const ANYONE: i64 = -1;

fn err(result: Option<Result<Value, crate::service::RpcError>>) -> (u32, String) {
    let err = result.unwrap().unwrap_err();
    (err.errnum, err.text)
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "a flat table of requests and their refusals"
)]
fn texts_of_refused_requests() {
    let Some(mut bench) = Bench::with_plugins(1, false, json!({})) else {
        return;
    };
    let running = bench.submit();
    let id = bench.submit();
    let unknown = JobId(7);
    for (topic, payload, errnum, text) in [
        (
            "job-manager.urgency",
            json!({"id": id, "urgency": 32}),
            errno::EINVAL,
            "urgency value is out of range",
        ),
        (
            "job-manager.urgency",
            json!({"id": unknown, "urgency": 1}),
            errno::EINVAL,
            "unknown job",
        ),
        (
            "job-manager.raise",
            json!({"id": id, "severity": 8, "type": "x"}),
            errno::EPROTO,
            "invalid exception severity",
        ),
        (
            "job-manager.raise",
            json!({"id": id, "severity": 0, "type": "a b"}),
            errno::EPROTO,
            "invalid exception type",
        ),
        (
            "job-manager.raise",
            json!({"id": unknown, "severity": 0, "type": "x"}),
            errno::ENOENT,
            "unknown job id",
        ),
        (
            "job-manager.kill",
            json!({"id": id, "signum": 0}),
            errno::EINVAL,
            "Invalid signal number",
        ),
        (
            "job-manager.kill",
            json!({"id": unknown, "signum": 15}),
            errno::EINVAL,
            "unknown job id",
        ),
        (
            "job-manager.kill",
            json!({"id": id, "signum": 15}),
            errno::EINVAL,
            "job is not running",
        ),
        (
            "job-manager.update",
            json!({"id": id, "updates": {"x": 1}}),
            errno::EINVAL,
            "one or more jobspec updates are invalid",
        ),
        (
            "job-manager.update",
            json!({"id": unknown, "updates": {}}),
            errno::ENOENT,
            "unknown job id",
        ),
        (
            "job-manager.update",
            json!({"id": id, "updates": {"attributes.system.cwd": "/"}}),
            errno::EINVAL,
            "update of attributes.system.cwd not supported",
        ),
        (
            "job-manager.update",
            json!({"id": id, "updates": {"attributes.system.duration": -1}}),
            errno::EINVAL,
            "duration must not be negative",
        ),
        (
            "job-manager.memo",
            json!({"id": unknown, "memo": {}}),
            errno::ENOENT,
            "unknown job id",
        ),
        (
            "job-manager.getattr",
            json!({"id": unknown, "attrs": []}),
            errno::EINVAL,
            "unknown job",
        ),
        (
            "job-manager.getattr",
            json!({"id": id, "attrs": ["x"]}),
            errno::ENOENT,
            "unknown attr x",
        ),
        (
            "job-manager.getattr",
            json!({"id": id, "attrs": ["R"]}),
            errno::ENOENT,
            "R is NULL",
        ),
        (
            "job-manager.queue-status",
            json!({"name": "x"}),
            errno::EINVAL,
            "'x' is not a valid queue",
        ),
        (
            "job-manager.queue-enable",
            json!({"enable": false, "all": true}),
            errno::EINVAL,
            "reason is required for disable",
        ),
        (
            "job-manager.purge-id",
            json!({"id": running, "force": 1}),
            errno::EINVAL,
            "cannot purge active job",
        ),
        (
            "job-manager.purge-id",
            json!({"id": unknown, "force": 1}),
            errno::ENOENT,
            "id not found",
        ),
        (
            "job-manager.purge",
            json!({"age_limit": -1, "num_limit": -1, "batch": 0, "force": true}),
            errno::EINVAL,
            "batch must be >= 1 and <= 100",
        ),
        (
            "job-manager.wait",
            json!({"id": unknown}),
            errno::ECHILD,
            "invalid job id, or job may be inactive and not waitable",
        ),
        (
            "job-manager.events-journal",
            json!({}),
            errno::EPROTO,
            "job-manager.events requires streaming RPC flag",
        ),
    ] {
        assert_eq!(
            bench.refused(topic, &payload),
            (errnum, text.to_owned()),
            "{topic} {payload}"
        );
    }
    for topic in [
        "job-manager.raise",
        "job-manager.kill",
        "job-manager.list",
        "job-manager.wait",
        "job-manager.purge",
    ] {
        let (errnum, _) = bench.refused(topic, &json!({"nonsense": true}));
        assert_eq!(errnum, errno::EPROTO, "{topic}");
    }
}

#[test]
fn guests_and_other_peoples_jobs() {
    let Some(mut bench) = Bench::with_plugins(1, false, json!({})) else {
        return;
    };
    let id = bench.submit();
    for (topic, payload, text) in [
        (
            "job-manager.urgency",
            json!({"id": id, "urgency": 1}),
            "guests can only reprioritize their own jobs",
        ),
        (
            "job-manager.raise",
            json!({"id": id, "severity": 0, "type": "x"}),
            "guests can only raise exceptions on their own jobs",
        ),
        (
            "job-manager.kill",
            json!({"id": id, "signum": 9}),
            "guests may only send signals to their own jobs",
        ),
        (
            "job-manager.update",
            json!({"id": id, "updates": {}}),
            "guests may only update their own jobs",
        ),
        (
            "job-manager.memo",
            json!({"id": id, "memo": {}}),
            "guests can only add a memo to their own jobs",
        ),
        (
            "job-manager.getattr",
            json!({"id": id, "attrs": []}),
            "guests can only access their own jobs",
        ),
        (
            "job-manager.killall",
            json!({"dry_run": true, "userid": ANYONE, "signum": 9}),
            "guests can only kill their own jobs",
        ),
        (
            "job-manager.raiseall",
            json!({"dry_run": true, "userid": ANYONE, "states": 62, "severity": 0, "type": "x"}),
            "guests can only raise exceptions on their own jobs",
        ),
        (
            "job-manager.drain",
            json!({}),
            "Request requires owner credentials",
        ),
    ] {
        let reply = bench.send_as(5, role::USER, topic, &payload);
        assert_eq!(err(reply.take()), (errno::EPERM, text.to_owned()), "{topic}");
    }
    let mut own = bench.submission(16, 0);
    own.userid = 5;
    let own = bench.submit_all(vec![own]).remove(0).unwrap();
    let reply = bench.send_as(
        5,
        role::USER,
        "job-manager.urgency",
        &json!({"id": own, "urgency": 17}),
    );
    assert_eq!(
        err(reply.take()),
        (
            errno::EPERM,
            "guests can only adjust urgency <= default".to_owned()
        )
    );
    let reply = bench.send_as(
        5,
        role::USER,
        "job-manager.urgency",
        &json!({"id": own, "urgency": 3}),
    );
    assert_eq!(reply.take().unwrap().unwrap(), json!({"old_urgency": 16}));
    // the owner's update makes it immutable for the guest
    let updates = json!({"id": own, "updates": {"attributes.system.duration": 60}});
    bench.rpc("job-manager.update", &updates).unwrap();
    let reply = bench.send_as(5, role::USER, "job-manager.update", &updates);
    assert_eq!(
        err(reply.take()),
        (
            errno::EPERM,
            "job is immutable due to previous instance owner update".to_owned()
        )
    );
}

#[test]
fn queues_stop_start_disable_enable() {
    let mut bench = Bench::new(1, false);
    bench
        .rpc(
            "job-manager.queue-start",
            &json!({"start": false, "all": false, "reason": "x"}),
        )
        .unwrap();
    let id = bench.submit();
    assert_eq!(bench.state(id), 8);
    assert_eq!(
        bench.rpc("job-manager.queue-status", &json!({})).unwrap(),
        json!({"enable": true, "start": false, "stop_reason": "x"})
    );
    assert_eq!(
        bench.rpc("job-manager.queue-list", &json!({})).unwrap(),
        json!({"queues": []})
    );
    bench
        .rpc("job-manager.queue-start", &json!({"start": true, "all": true}))
        .unwrap();
    assert_eq!(bench.state(id), 16);
    let disable = json!({"enable": false, "all": false, "reason": "maint"});
    bench.rpc("job-manager.queue-enable", &disable).unwrap();
    let job = bench.submission(16, 0);
    let refused = bench.submit_all(vec![job]).remove(0).unwrap_err();
    assert_eq!(
        (refused.errnum, refused.text.as_str()),
        (errno::EINVAL, "job submission is disabled: maint")
    );
    let saved = bench
        .world
        .borrow()
        .map
        .get("checkpoint.job-manager")
        .cloned()
        .unwrap();
    let saved: Value = serde_json::from_slice(&saved).unwrap();
    assert_eq!(
        saved["queue"],
        json!([{"enable": false, "disable_reason": "maint", "start": true}])
    );
}

#[test]
fn a_dependency_that_nobody_handles() {
    let mut bench = Bench::new(1, false);
    let mut job = bench.submission(16, 0);
    job.jobspec["attributes"]["system"]["dependencies"] = json!([{"scheme": "foo", "value": "1"}]);
    let refused = bench.submit_all(vec![job]).remove(0).unwrap_err();
    assert_eq!(refused.text, "dependency scheme \"foo\" not supported");
    assert_eq!(
        bench.rpc("job-manager.stats-get", &json!({})).unwrap()["active_jobs"],
        json!(0)
    );
}

#[test]
fn raiseall_killall_list_getattr() {
    let mut bench = Bench::new(1, false);
    let (a, b) = (bench.submit(), bench.submit());
    let all = |dry| json!({"dry_run": dry, "userid": ANYONE, "states": 8, "severity": 0, "type": "cancel"});
    assert_eq!(
        bench.rpc("job-manager.raiseall", &all(true)).unwrap(),
        json!({"count": 1, "errors": 0})
    );
    let killall = json!({"dry_run": false, "userid": 1000, "signum": 10});
    assert_eq!(
        bench.rpc("job-manager.killall", &killall).unwrap(),
        json!({"count": 1, "errors": 0})
    );
    let listed = bench.rpc("job-manager.list", &json!({"max_entries": 0})).unwrap();
    assert_eq!(listed["jobs"][0]["id"], json!(b));
    assert_eq!(listed["jobs"][1]["state"], json!(16));
    let attrs = json!({"id": a, "attrs": ["jobspec", "R", "eventlog"]});
    let active = bench.rpc("job-manager.getattr", &attrs).unwrap();
    assert_eq!(active["eventlog"][0]["name"], json!("submit"));
    assert_eq!(
        bench.rpc("job-manager.raiseall", &all(false)).unwrap(),
        json!({"count": 1, "errors": 0})
    );
    assert_eq!(bench.state(b), 0);
    bench.with(move |cx| finish(cx, a, 0));
    let inactive = bench.rpc("job-manager.getattr", &attrs).unwrap();
    assert_eq!(inactive["jobspec"], active["jobspec"]);
    assert_eq!(inactive["R"], active["R"]);
    assert_eq!(inactive["eventlog"].as_array().unwrap().len(), 10);
    assert_eq!(bench.known(), json!([b, a]));
    assert_eq!(
        bench.rpc("job-manager.getinfo", &json!({})).unwrap(),
        json!({"max_jobid": b})
    );
    assert_eq!(
        bench.rpc("job-manager.resource-status", &json!({})).unwrap()["allocated"]["execution"]["R_lite"],
        json!([])
    );
}

/// A job that is updated while the scheduler's answer is on its way gets resources for what it asks now.
#[test]
fn an_update_overtakes_the_scheduler() {
    let Some(mut bench) = Bench::with_plugins(0, false, json!({})) else {
        return;
    };
    let id = bench.submit();
    bench.world.borrow_mut().late_cancel = true;
    let update = json!({"id": id, "updates": {"attributes.system.duration": 60}});
    bench.rpc("job-manager.update", &update).unwrap();
    {
        let mut world = bench.world.borrow_mut();
        (world.late_cancel, world.slots) = (false, 0);
        world.pending.clear();
        world.holding.insert(id);
    }
    let answer = SchedEvent::Alloc {
        r: r_text(),
        annotations: "{}".to_owned(),
    };
    bench.with(move |cx| api::sched_events(cx, vec![(id, answer)]));
    // the old allocation was given back, which made a slot free, and the new one was made
    assert!(bench.world.borrow().holding.contains(&id));
    assert_eq!(bench.world.borrow().slots, 0);
    assert_eq!(bench.world.borrow().starts.len(), 1);
    assert_eq!(bench.events(id).iter().filter(|name| *name == "alloc").count(), 1);
}

#[test]
fn memo_update_and_post_event() {
    let Some(mut bench) = Bench::with_plugins(1, false, json!({})) else {
        return;
    };
    let id = bench.submit();
    bench
        .rpc("job-manager.memo", &json!({"id": id, "memo": {"uri": "x"}}))
        .unwrap();
    bench
        .rpc(
            "job-manager.memo",
            &json!({"id": id, "memo": {"v": 1}, "volatile": true}),
        )
        .unwrap();
    assert_eq!(bench.context(id, "memo"), json!({"uri": "x"}));
    let listed = bench.rpc("job-manager.list", &json!({"max_entries": 1})).unwrap();
    assert_eq!(
        listed["jobs"][0]["annotations"]["user"],
        json!({"uri": "x", "v": 1})
    );
    let far = 1e10;
    bench
        .rpc(
            "job-manager.update",
            &json!({"id": id, "updates": {"attributes.system.duration": far}}),
        )
        .unwrap();
    assert_eq!(
        bench.context(id, "jobspec-update"),
        json!({"attributes.system.duration": far})
    );
    let expiration = bench.context(id, "resource-update")["expiration"]
        .as_f64()
        .unwrap();
    assert_eq!(bench.world.borrow().expirations, [(id, expiration)]);
    let past = json!({"id": id, "updates": {"attributes.system.duration": 1}});
    assert_eq!(
        bench.refused("job-manager.update", &past).1,
        "requested duration places job expiration in the past"
    );
    bench
        .rpc(
            "job-manager.post-event.post",
            &json!({"id": id, "name": "foo", "context": {"a": 1}}),
        )
        .unwrap();
    assert_eq!(bench.context(id, "foo"), json!({"a": 1}));
    assert_eq!(
        bench
            .refused("job-manager.post-event.post", &json!({"id": id, "name": "clean"}))
            .0,
        errno::EINVAL
    );
    assert_eq!(
        bench
            .refused(
                "job-manager.post-event.post",
                &json!({"id": id, "name": "finish"})
            )
            .0,
        errno::EINVAL
    );
}

#[test]
fn the_journal_stream() {
    let mut bench = Bench::new(1, true);
    let done = bench.submit();
    bench.world.borrow_mut().auto = false;
    let active = bench.submit();
    let (all, _) = bench
        .hub
        .stream(request("job-manager.events-journal", &json!({"full": true})));
    bench.with(|_| ());
    {
        let all = all.borrow();
        assert_eq!(all.len(), 3);
        let first = all[0].as_ref().unwrap();
        assert_eq!(first["id"], json!(done));
        assert_eq!(first["events"].as_array().unwrap().len(), 10);
        assert!(first["R"].is_object() && first["jobspec"].is_object());
        assert_eq!(all[1].as_ref().unwrap()["id"], json!(active));
        assert_eq!(*all[2].as_ref().unwrap(), json!({"id": -1, "events": []}));
    }
    let (some, tag) = bench.hub.stream(request(
        "job-manager.events-journal",
        &json!({"allow": {"finish": 1}}),
    ));
    bench.with(move |cx| finish(cx, active, 0));
    {
        let some = some.borrow();
        assert_eq!(some[0].as_ref().unwrap(), &{
            let first = some[0].as_ref().unwrap().clone();
            assert_eq!(first["events"], json!([]));
            first
        });
        assert_eq!(some[2].as_ref().unwrap()["events"][0]["name"], json!("finish"));
        assert_eq!(some.len(), 3);
    }
    assert_eq!(all.borrow().len(), 3 + 5);
    let submitted = bench.submit();
    let last = all
        .borrow()
        .iter()
        .map(|r| r.clone().unwrap())
        .find(|r| r["id"] == json!(submitted))
        .unwrap();
    assert!(last["jobspec"].is_object());
    bench.hub.with_probe(move |cx| {
        let cancel = cx.request_any("job-manager.events-journal-cancel", &json!({"matchtag": tag}));
        cx.notify(cancel);
    });
    assert_eq!(
        some.borrow().last().unwrap().as_ref().unwrap_err().errnum,
        errno::ENODATA
    );
}

#[test]
fn purging() {
    let mut bench = Bench::new(4, true);
    let ids: Vec<JobId> = (0..5).map(|_| bench.submit()).collect();
    let purge =
        |num, batch, force| json!({"age_limit": -1.0, "num_limit": num, "batch": batch, "force": force});
    assert_eq!(
        bench.rpc("job-manager.purge", &purge(2, 10, false)).unwrap(),
        json!({"count": 3})
    );
    assert_eq!(
        bench.rpc("job-manager.purge", &purge(2, 2, true)).unwrap(),
        json!({"count": 2})
    );
    assert!(bench.log(ids[0]).is_empty() && !bench.log(ids[2]).is_empty());
    assert_eq!(
        bench
            .rpc("job-manager.purge-id", &json!({"id": ids[4], "force": 1}))
            .unwrap(),
        json!({"count": 1})
    );
    assert!(bench.log(ids[4]).is_empty());
    let stats = bench.rpc("job-manager.stats-get", &json!({})).unwrap();
    assert_eq!(
        (&stats["inactive_jobs"], &stats["max_jobid"]),
        (&json!(2), &json!(ids[4]))
    );
    assert_eq!(bench.known(), json!([ids[3], ids[2]]));
    let saved: Value =
        serde_json::from_slice(bench.world.borrow().map.get("checkpoint.job-manager").unwrap()).unwrap();
    assert_eq!(saved["max_jobid"], json!(ids[4]));
}

#[test]
fn submission_by_the_wire() {
    let mut bench = Bench::new(1, false);
    let jobs = json!({"jobs": [
        {"id": 5, "userid": 7, "urgency": 16, "flags": 0, "t_submit": 2.5, "jobspec": {}},
        {"id": 5, "userid": 7, "urgency": 16, "flags": 0, "t_submit": 2.5, "jobspec": {}},
    ]});
    let answer = bench.rpc("job-manager.submit", &jobs).unwrap();
    assert_eq!(answer["errors"].as_array().unwrap().len(), 1);
    assert_eq!(bench.events(JobId(5))[..2], ["submit", "validate"]);
}
