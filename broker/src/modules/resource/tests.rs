//! Tests of the actor on rank 0, with the KVS and groups beside it.

use super::Resource;
use super::api::{self, AcquireUpdate};
use crate::modules::groups::Groups;
use crate::modules::kvs::Kvs;
use crate::service::testing::{Answers, Probe, TestHub, request};
use flux_formats::errno;
use flux_formats::idset::IdSet;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;

fn hub(config: Value) -> TestHub {
    let mut hub = TestHub::new(&[("hostlist", "n0")]);
    hub.hub.core().config = Rc::new(config);
    hub.load("groups", Box::<Groups>::default()).unwrap();
    hub.load("kvs", Box::<Kvs>::default()).unwrap();
    hub.load("resource", Box::<Resource>::default()).unwrap();
    hub.run_idle();
    hub
}

fn configured() -> Value {
    json!({"resource": {"noverify": true, "config": [{"hosts": "n0", "cores": "0-7", "gpus": "0"}]}})
}

fn online(hub: &mut TestHub, joined: bool) {
    hub.with_probe(move |cx| {
        let me = IdSet::from(0);
        cx.to::<Groups>("groups", move |groups, cx| {
            groups.change(cx, "broker.online", joined, &me)
        });
    });
    hub.run_idle();
}

fn names(answers: &Answers) -> Vec<String> {
    let events = answers.borrow();
    events
        .iter()
        .flatten()
        .flat_map(|a| a["events"].as_array().unwrap().clone())
        .map(|e| e["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn configured_resources_are_told() {
    let mut hub = hub(configured());
    online(&mut hub, true);
    let status = hub.json("resource.status", &json!({})).unwrap();
    assert_eq!(
        status["R"]["execution"]["R_lite"],
        json!([{"rank": "0", "children": {"gpu": "0", "core": "0-7"}}])
    );
    assert_eq!(
        (&status["online"], &status["offline"], &status["exclude"]),
        (&json!("0"), &json!(""), &json!(""))
    );
    let get = hub.json("resource.get", &json!({})).unwrap();
    assert_eq!(get["method"], "configuration");
    let sched = hub.json("resource.sched-status", &json!({})).unwrap();
    assert_eq!(sched["down"]["execution"]["R_lite"], json!([]));
    assert_eq!(sched["allocated"]["execution"]["R_lite"], json!([]));
}

#[test]
fn this_host_is_discovered() {
    let mut hub = hub(json!({}));
    let get = hub.json("resource.get", &json!({})).unwrap();
    assert_eq!(get["method"], "dynamic-discovery");
    assert_eq!(get["R"]["execution"]["nodelist"], json!(["n0"]));
}

#[test]
fn less_than_configured_is_drained() {
    let mut hub = hub(json!({"resource": {"config": [{"hosts": "n0", "cores": "0-99999"}]}}));
    let status = hub.json("resource.status", &json!({})).unwrap();
    let reason = status["drain"]["0"]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("rank 0 (n0) missing resources: core["),
        "{reason}"
    );
}

#[test]
fn journal_and_drains() {
    let mut hub = hub(configured());
    online(&mut hub, true);
    let (journal, _) = hub.stream(request("resource.journal", &json!({})));
    hub.run_idle();
    assert_eq!(names(&journal), ["restart", "resource-define", "online"]);
    assert_eq!(journal.borrow().last(), Some(&Ok(json!({"events": []}))));
    assert!(journal.borrow().iter().flatten().any(|a| a["R"]["version"] == 1));
    hub.json("resource.drain", &json!({"targets": "0", "reason": "bad"}))
        .unwrap();
    let err = hub
        .json("resource.drain", &json!({"targets": "n0", "reason": "bad"}))
        .unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::EEXIST, "rank 0 already drained")
    );
    hub.json("resource.undrain", &json!({"targets": "0"})).unwrap();
    let err = hub
        .json("resource.undrain", &json!({"targets": "0"}))
        .unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::EINVAL, "rank 0 not drained")
    );
    hub.run_idle();
    assert_eq!(names(&journal)[3..], ["drain", "undrain"]);
    let last = journal.borrow()[journal.borrow().len() - 2].clone().unwrap();
    assert_eq!(
        last["events"][0]["context"],
        json!({"idset": "0", "nodelist": "n0", "reason": "bad", "overwrite": 0})
    );
}

#[test]
fn drains_survive_a_reload_of_the_module() {
    let mut hub = hub(configured());
    hub.json("resource.drain", &json!({"targets": "0", "reason": "bad"}))
        .unwrap();
    hub.remove("resource");
    hub.load("resource", Box::<Resource>::default()).unwrap();
    hub.run_idle();
    let status = hub.json("resource.status", &json!({})).unwrap();
    assert_eq!(status["drain"]["0"]["reason"], "bad");
}

#[test]
fn a_scheduler_follows_what_is_up() {
    let mut hub = hub(configured());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let sink = seen.clone();
    hub.with_probe(move |cx| {
        assert!(api::acquire(cx, move |_: &mut Probe, _, update| sink
            .borrow_mut()
            .push(update)));
    });
    online(&mut hub, true);
    hub.json("resource.drain", &json!({"targets": "0"})).unwrap();
    hub.json("resource.expiration-update", &json!({"expiration": 99.0}))
        .unwrap();
    let zero = IdSet::from(0);
    let seen = seen.borrow();
    assert!(matches!(&seen[0], AcquireUpdate::Initial { up, .. } if up.is_empty()));
    assert_eq!(
        seen[1..],
        [
            AcquireUpdate::Up(zero.clone()),
            AcquireUpdate::Down(zero),
            AcquireUpdate::Expiration(99.0)
        ]
    );
}

#[test]
fn the_wire_form_of_acquire() {
    let mut hub = hub(configured());
    online(&mut hub, true);
    let (answers, matchtag) = hub.stream(request("resource.acquire", &json!({})));
    assert_eq!(answers.borrow()[0].as_ref().unwrap()["up"], "0");
    let (second, _) = hub.stream(request("resource.acquire", &json!({})));
    assert_eq!(second.borrow()[0].as_ref().unwrap_err().errnum, errno::EBUSY);
    hub.json("resource.monitor-force-down", &json!({"ranks": "0"}))
        .unwrap();
    assert_eq!(answers.borrow()[1], Ok(json!({"down": "0"})));
    let cancel = request("resource.acquire-cancel", &json!({"matchtag": matchtag}));
    hub.with_probe(move |cx| cx.notify(cancel));
    assert_eq!(answers.borrow()[2].as_ref().unwrap_err().errnum, errno::ECANCELED);
}

#[test]
fn a_bad_configuration_is_refused() {
    let mut hub = TestHub::new(&[("hostlist", "n0")]);
    hub.hub.core().config = Rc::new(json!({"resource": {"config": [{"hosts": "n0", "cores": "x"}]}}));
    let err = hub.load("resource", Box::<Resource>::default()).unwrap_err();
    assert!(err.text.contains("resource.config"), "{err}");
}
