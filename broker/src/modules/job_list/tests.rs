//! Tests of the actor, fed with events as the journal brings them.

use super::JobList;
use super::apply::tests::{event, life};
use crate::service::testing::{OWNER, TestHub, request};
use flux_formats::errno;
use flux_formats::msg::{Message, role};
use serde_json::{Value, json};

fn hub() -> TestHub {
    let mut hub = TestHub::new(&[]);
    hub.load("job-list", Box::<JobList>::default()).unwrap();
    hub
}

/// Brings a job through the first `steps` events of its life.
fn feed(hub: &mut TestHub, id: u64, priority: u32, steps: usize) {
    let submit = json!({"userid": 7, "urgency": 16, "flags": 0, "version": 1});
    let start = f64::from(u32::try_from(id).unwrap());
    let mut events = vec![event(id, "submit", start, &submit)];
    for (at, (name, context)) in life().into_iter().take(steps).enumerate() {
        let context = if name == "priority" {
            json!({ "priority": priority })
        } else {
            context
        };
        events.push(event(
            id,
            name,
            start + 0.01 * f64::from(u32::try_from(at + 1).unwrap()),
            &context,
        ));
    }
    hub.with_probe(move |cx| {
        cx.to::<JobList>("job-list", move |list, cx| list.on_journal(cx, &events));
    });
}

fn list(hub: &mut TestHub, constraint: Value, max: u32) -> Vec<u64> {
    let body = json!({"max_entries": max, "attrs": [], "constraint": constraint});
    let (answers, _) = hub.stream(request("job-list.list", &body));
    hub.run_idle();
    let answers = answers.borrow();
    assert_eq!(
        answers.last().unwrap().as_ref().unwrap_err().errnum,
        errno::ENODATA
    );
    assert_eq!(answers[0].as_ref().unwrap()["version"], 1);
    answers
        .iter()
        .flatten()
        .flat_map(|a| a["jobs"].as_array().unwrap().clone())
        .map(|j| j["id"].as_u64().unwrap())
        .collect()
}

fn filled() -> TestHub {
    let mut hub = hub();
    feed(&mut hub, 1, 16, 9);
    feed(&mut hub, 2, 16, 9);
    feed(&mut hub, 3, 16, 5);
    feed(&mut hub, 4, 16, 5);
    feed(&mut hub, 5, 16, 3);
    feed(&mut hub, 6, 20, 3);
    feed(&mut hub, 7, 16, 3);
    hub
}

#[test]
fn order_of_the_original() {
    let mut hub = filled();
    assert_eq!(list(&mut hub, json!({}), 0), [6, 5, 7, 4, 3, 2, 1]);
    assert_eq!(list(&mut hub, json!({}), 4), [6, 5, 7, 4]);
    assert_eq!(list(&mut hub, json!({"states": ["inactive"]}), 1), [2]);
    assert_eq!(list(&mut hub, json!({"states": ["running"]}), 0), [4, 3]);
    assert_eq!(list(&mut hub, json!({"userid": [8]}), 0), [0; 0]);
}

#[test]
fn one_answer_without_streaming() {
    let mut hub = filled();
    let body = hub
        .json(
            "job-list.list",
            &json!({"max_entries": 2, "attrs": ["name"], "states": 64}),
        )
        .unwrap();
    assert_eq!(
        body,
        json!({"jobs": [{"id": 2, "name": "sleep"}, {"id": 1, "name": "sleep"}]})
    );
    let err = hub
        .json("job-list.list", &json!({"max_entries": 2, "attrs": ["nope"]}))
        .unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::EINVAL, "nope is not a valid attribute")
    );
}

#[test]
fn long_lists_come_in_chunks() {
    let mut hub = hub();
    for id in 1..5001 {
        feed(&mut hub, id, 16, 9);
    }
    let ids = list(&mut hub, json!({}), 0);
    assert_eq!(ids, (1..5001).rev().collect::<Vec<u64>>());
    assert_eq!(list(&mut hub, json!({}), 4500).len(), 4500);
}

#[test]
fn one_job_now_or_when_it_gets_there() {
    let mut hub = filled();
    let job = hub
        .json("job-list.list-id", &json!({"id": 3, "attrs": ["state"]}))
        .unwrap();
    assert_eq!(job, json!({"job": {"id": 3, "state": 16}}));
    assert_eq!(
        hub.json("job-list.list-id", &json!({"id": 99, "attrs": []}))
            .unwrap_err()
            .errnum,
        errno::ENOENT
    );
    let (answers, _) = hub.stream(request(
        "job-list.list-id",
        &json!({"id": 5, "attrs": ["state"], "state": 16}),
    ));
    assert!(answers.borrow().is_empty());
    let alloc = event(5, "alloc", 9.0, &json!({}));
    hub.with_probe(move |cx| {
        cx.to::<JobList>("job-list", move |list, cx| list.on_journal(cx, &[alloc]));
    });
    assert_eq!(answers.borrow()[0], Ok(json!({"job": {"id": 5, "state": 16}})));
}

#[test]
fn statistics_and_purge() {
    let mut hub = filled();
    let stats = hub.json("job-list.job-stats", &json!({})).unwrap();
    assert_eq!(
        stats["job_states"],
        json!({"depend": 0, "priority": 0, "sched": 3, "run": 2, "cleanup": 0, "inactive": 2, "total": 7})
    );
    assert_eq!((&stats["successful"], &stats["queues"]), (&json!(2), &json!([])));
    hub.with_probe(|cx| cx.publish("job-purge-inactive", &json!({"jobs": [1]})));
    assert_eq!(list(&mut hub, json!({"states": [64]}), 0), [2]);
    let stats = hub.json("job-list.job-stats", &json!({})).unwrap();
    assert_eq!(
        (&stats["inactive_purged"], &stats["job_states"]["inactive"]),
        (&json!(1), &json!(1))
    );
    let counts = hub.json("job-list.stats-get", &json!({})).unwrap();
    assert_eq!(counts["jobs"], json!({"pending": 3, "running": 2, "inactive": 1}));
}

#[test]
fn guests_see_their_own_jobs_in_private_mode() {
    let mut hub = filled();
    hub.hub.core().config = std::rc::Rc::new(json!({"access": {"private-mode": true}}));
    let as_guest = |userid: u32| {
        let req = request("job-list.list", &json!({"max_entries": 0, "attrs": []}));
        Message {
            userid,
            rolemask: role::USER,
            ..req
        }
    };
    let count = |msg: Message| {
        msg.payload_json::<Value>().unwrap()["jobs"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count(hub.rpc(as_guest(7)).unwrap()), 7);
    assert_eq!(count(hub.rpc(as_guest(OWNER + 1)).unwrap()), 0);
}
