//! Tests of the actor: real commands, driven through the hub.

use super::Cron;
use crate::modules::rexec::Rexec;
use crate::service::testing::TestHub;
use flux_formats::errno;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn hub() -> TestHub {
    let mut hub = TestHub::new(&[]);
    hub.load("rexec", Box::<Rexec>::default()).unwrap();
    hub.load("cron", Box::new(Cron::new(&[]))).unwrap();
    hub
}

fn create(hub: &mut TestHub, kind: &str, command: &str, args: Value, more: Value) -> i64 {
    let mut body = json!({"type": kind, "name": "test", "command": command, "args": args});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    hub.json("cron.create", &body).unwrap()["id"].as_i64().unwrap()
}

fn entry(hub: &mut TestHub, id: i64) -> Option<Value> {
    let list = hub.json("cron.list", &json!({})).unwrap();
    list["entries"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["id"] == id)
        .cloned()
}

/// Runs the hub until an entry is as wanted.
fn wait(hub: &mut TestHub, id: i64, good: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let seen = entry(hub, id).unwrap();
        if good(&seen) {
            return seen;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{seen}");
        hub.run_idle();
    }
}

fn idle(entry: &Value) -> bool {
    entry["stopped"] == true && entry["tasks"][0]["end-time"].is_f64()
}

#[test]
fn an_interval_runs_its_count_and_can_be_started_again() {
    let mut hub = hub();
    let id = create(
        &mut hub,
        "interval",
        "true",
        json!({"interval": 0.002}),
        json!({"repeat": 3}),
    );
    let seen = wait(&mut hub, id, idle);
    assert_eq!(
        (&seen["stats"]["count"], &seen["stats"]["success"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(seen["tasks"][0]["state"], "Exited");
    assert_eq!(seen["tasks"].as_array().unwrap().len(), 1);
    hub.json("cron.start", &json!({"id": id})).unwrap();
    let seen = wait(&mut hub, id, |seen| seen["stats"]["total"] == 6 && idle(seen));
    assert_eq!(seen["stats"]["count"], 3);
    hub.json("cron.delete", &json!({"id": id})).unwrap();
    assert!(entry(&mut hub, id).is_none());
}

#[test]
fn failures_stop_an_entry() {
    let mut hub = hub();
    let more = json!({"stop-on-failure": 2, "task-history-count": 5});
    let id = create(&mut hub, "interval", "exit 7", json!({"interval": 0.002}), more);
    let seen = wait(&mut hub, id, idle);
    assert_eq!(seen["stats"]["failure"], 2);
    assert_eq!(seen["tasks"][1]["code"], 7);
    let id = create(
        &mut hub,
        "interval",
        "true",
        json!({"interval": 0}),
        json!({"rank": 5, "repeat": 1}),
    );
    let seen = wait(&mut hub, id, idle);
    assert_eq!(seen["tasks"][0]["state"], "Rexec Failure");
}

#[test]
fn events_and_the_sync_event() {
    let mut hub = hub();
    let id = create(
        &mut hub,
        "event",
        "true",
        json!({"topic": "some.*", "nth": 2}),
        json!({}),
    );
    for topic in ["some.thing", "other", "some.one"] {
        hub.with_probe(move |cx| cx.publish(topic, &json!({})));
    }
    wait(&mut hub, id, |seen| {
        seen["stats"]["success"] == 1 && seen["typedata"]["counter"] == 2
    });
    let body = json!({"topic": "tick", "sync_epsilon": 0.0});
    let answer = hub.json("cron.sync", &body).unwrap();
    assert_eq!(answer, json!({"sync_event": "tick", "sync_epsilon": 0.0}));
    for _ in 0..2 {
        hub.with_probe(move |cx| cx.publish("some.thing", &json!({})));
    }
    let seen = wait(&mut hub, id, |seen| seen["stats"]["deferred"] == 1);
    assert_eq!(seen["tasks"][0]["state"], "Deferred");
    hub.with_probe(move |cx| cx.publish("tick", &json!({})));
    wait(&mut hub, id, |seen| seen["stats"]["success"] == 2);
    let answer = hub.json("cron.sync", &json!({"disable": true})).unwrap();
    assert_eq!(answer, json!({"sync_disabled": true}));
}

#[test]
fn a_task_is_ended_by_its_timeout_or_with_its_entry() {
    let mut hub = hub();
    let more = json!({"timeout": 0.01, "repeat": 1});
    let id = create(
        &mut hub,
        "interval",
        "exec sleep 60",
        json!({"interval": 0}),
        more,
    );
    let seen = wait(&mut hub, id, idle);
    assert_eq!(
        (&seen["tasks"][0]["state"], &seen["tasks"][0]["code"]),
        (&json!("Timeout"), &json!(143))
    );
    let id = create(
        &mut hub,
        "interval",
        "exec sleep 60",
        json!({"interval": 0}),
        json!({}),
    );
    wait(&mut hub, id, |seen| seen["tasks"][0]["running-time"].is_f64());
    hub.json("cron.delete", &json!({"id": id, "kill": true})).unwrap();
    let start = Instant::now();
    while entry(&mut hub, id).is_some() {
        assert!(start.elapsed() < Duration::from_secs(20));
        hub.run_idle();
    }
}

#[test]
fn bad_requests_are_refused() {
    let mut hub = hub();
    let mut refused = |topic, body: Value| {
        let err = hub.json(topic, &body).unwrap_err();
        (err.errnum, err.text)
    };
    let body = json!({"type": "moon", "name": "a", "command": "b", "args": {}});
    assert_eq!(refused("cron.create", body).0, errno::ENOSYS);
    let body = json!({"type": "datetime", "name": "a", "command": "b", "args": {"minute": "61"}});
    assert_eq!(
        refused("cron.create", body),
        (errno::EINVAL, "minute: '61' is not in 0-59".to_owned())
    );
    assert_eq!(refused("cron.create", json!({"type": "event"})).0, errno::EPROTO);
    assert_eq!(
        refused("cron.stop", json!({"id": 9})),
        (errno::ENOENT, "cron-9: no such entry".to_owned())
    );
    let id = create(&mut hub, "datetime", "true", json!({"mday": 31}), json!({}));
    let err = hub.json("cron.start", &json!({"id": id})).unwrap_err();
    assert_eq!(
        (err.errnum, err.text),
        (errno::EINVAL, format!("cron-{id} is not stopped"))
    );
    let bad = hub
        .load("cron2", Box::new(Cron::new(&["nope".to_owned()])))
        .unwrap_err();
    assert!(bad.text.contains("nope") || bad.errnum == errno::EEXIST, "{bad}");
}
