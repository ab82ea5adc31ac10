//! Tests of the actor with the KVS beside it.

use super::JobInfo;
use crate::modules::job_manager::api::JobEvent;
use crate::modules::kvs::{Kvs, Txn, local as kvs};
use crate::modules::kvs_watch::KvsWatch;
use crate::service::RpcError;
use crate::service::testing::{Probe, TestHub, request};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::msg::{Message, role};
use serde_json::{Value, json};
use std::rc::Rc;

const ID: JobId = JobId(42);
const SUBMIT: &str = "{\"timestamp\":1.0,\"name\":\"submit\",\"context\":{\"userid\":7,\"urgency\":16,\"flags\":0,\"version\":1}}\n";
const CLEAN: &str = "{\"timestamp\":2.0,\"name\":\"clean\"}\n";

fn hub() -> TestHub {
    let mut hub = TestHub::new(&[]);
    hub.load("kvs", Box::<Kvs>::default()).unwrap();
    hub.load("kvs-watch", Box::new(KvsWatch)).unwrap();
    hub.load("job-info", Box::<JobInfo>::default()).unwrap();
    append(&mut hub, "primary", &ID.kvs_key("eventlog"), SUBMIT);
    hub
}

fn append(hub: &mut TestHub, namespace: &'static str, key: &str, text: &str) {
    let mut txn = Txn::new();
    txn.append(key, text.as_bytes());
    hub.wait(move |cx, done| {
        kvs::commit(cx, namespace, txn, move |probe: &mut Probe, cx, result| {
            done(probe, cx, result.map(drop))
        });
    })
    .unwrap();
}

fn watch(path: &str, flags: u32) -> Message {
    request(
        "job-info.eventlog-watch",
        &json!({"id": ID, "path": path, "flags": flags}),
    )
}

fn guest(req: Message, userid: u32) -> Message {
    Message {
        userid,
        rolemask: role::USER,
        ..req
    }
}

fn ends(errnum: u32) -> Result<Value, RpcError> {
    Err(RpcError::bare(errnum))
}

#[test]
fn lookups() {
    let mut hub = hub();
    append(
        &mut hub,
        "primary",
        &ID.kvs_key("R"),
        r#"{"version":1,"execution":{"expiration":0.0}}"#,
    );
    let update = "{\"timestamp\":1.5,\"name\":\"resource-update\",\"context\":{\"expiration\":9.5}}\n";
    append(&mut hub, "primary", &ID.kvs_key("eventlog"), update);
    let ask = |keys: Value, flags: u32| json!({"id": ID, "keys": keys, "flags": flags});
    let plain = hub
        .json("job-info.lookup", &ask(json!(["R", "eventlog"]), 0))
        .unwrap();
    assert_eq!(
        (&plain["id"], plain["eventlog"].as_str().unwrap()),
        (&json!(42), format!("{SUBMIT}{update}").as_str())
    );
    assert!(plain["R"].is_string());
    let current = hub.json("job-info.lookup", &ask(json!(["R"]), 3)).unwrap();
    assert_eq!(current["R"]["execution"]["expiration"], 9.5);
    let unknown = json!({"id": 1, "keys": ["R"], "flags": 0});
    let err = hub.json("job-info.lookup", &unknown).unwrap_err();
    assert_eq!((err.errnum, err.text.as_str()), (errno::ENOENT, "invalid job id"));
    let err = hub.json("job-info.lookup", &ask(json!(["nope"]), 0)).unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::ENOENT, "nope: key not found")
    );
}

#[test]
fn guests_see_their_own_jobs() {
    let mut hub = hub();
    let ask = || {
        request(
            "job-info.lookup",
            &json!({"id": ID, "keys": ["eventlog"], "flags": 0}),
        )
    };
    assert!(hub.rpc(guest(ask(), 7)).is_ok());
    let err = hub.rpc(guest(ask(), 8)).unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::EPERM, "access is restricted to job/instance owner")
    );
    let unknown = request(
        "job-info.lookup",
        &json!({"id": 1, "keys": ["eventlog"], "flags": 0}),
    );
    assert_eq!(hub.rpc(guest(unknown, 7)).unwrap_err().errnum, errno::ENOENT);
}

#[test]
fn the_main_eventlog_ends_with_clean() {
    let mut hub = hub();
    let (answers, _) = hub.stream(watch("eventlog", 2));
    assert_eq!(*answers.borrow(), [Ok(json!({"event": SUBMIT})), Ok(Value::Null)]);
    append(&mut hub, "primary", &ID.kvs_key("eventlog"), CLEAN);
    hub.run_idle();
    assert_eq!(
        answers.borrow()[2..],
        [Ok(json!({"event": CLEAN})), ends(errno::ENODATA)]
    );
}

#[test]
fn watches_are_cancelled_and_counted() {
    let mut hub = hub();
    let (answers, matchtag) = hub.stream(watch("eventlog", 0));
    assert_eq!(hub.json("job-info.stats-get", &json!({})).unwrap()["watchers"], 1);
    let cancel = request("job-info.eventlog-watch-cancel", &json!({"matchtag": matchtag}));
    hub.with_probe(move |cx| cx.notify(cancel));
    hub.run_idle();
    assert_eq!(answers.borrow().last(), Some(&ends(errno::ENODATA)));
    assert_eq!(hub.json("job-info.stats-get", &json!({})).unwrap()["watchers"], 0);
    let unknown = request(
        "job-info.eventlog-watch",
        &json!({"id": 1, "path": "eventlog", "flags": 0}),
    );
    let (answers, _) = hub.stream(unknown);
    hub.run_idle();
    assert_eq!(answers.borrow()[0].as_ref().unwrap_err().errnum, errno::ENOENT);
}

#[test]
fn the_guest_eventlog_of_a_finished_job() {
    let mut hub = hub();
    append(
        &mut hub,
        "primary",
        &ID.kvs_key("guest.output"),
        "{\"timestamp\":1.0,\"name\":\"header\"}\n",
    );
    let (answers, _) = hub.stream(watch("guest.output", 0));
    hub.run_idle();
    assert_eq!(answers.borrow().len(), 2);
    assert_eq!(answers.borrow()[1], ends(errno::ENODATA));
    let (answers, _) = hub.stream(watch("guest.nothing", 0));
    hub.run_idle();
    assert_eq!(answers.borrow()[0], ends(errno::ENOENT));
}

#[test]
fn updates_are_followed() {
    let mut hub = hub();
    append(
        &mut hub,
        "primary",
        &ID.kvs_key("R"),
        r#"{"execution":{"expiration":0.0}}"#,
    );
    let (answers, _) = hub.stream(request(
        "job-info.update-watch",
        &json!({"id": ID, "key": "R", "flags": 0}),
    ));
    hub.run_idle();
    assert_eq!(
        answers.borrow()[0],
        Ok(json!({"R": {"execution": {"expiration": 0.0}}}))
    );
    let event = |name: &str, line: &str| JobEvent {
        id: ID,
        userid: 7,
        timestamp: 2.0,
        sequence: 0,
        name: Rc::from(name),
        line: Rc::from(line),
        jobspec: None,
        r: None,
    };
    let update = "{\"timestamp\":2.0,\"name\":\"resource-update\",\"context\":{\"expiration\":5.0}}\n";
    let events = [event("resource-update", update), event("clean", CLEAN)];
    hub.with_probe(move |cx| {
        cx.to::<JobInfo>("job-info", move |info, cx| info.on_journal(cx, &events));
    });
    assert_eq!(
        answers.borrow()[1..],
        [
            Ok(json!({"R": {"execution": {"expiration": 5.0}}})),
            ends(errno::ENODATA)
        ]
    );
    let bad = hub
        .json(
            "job-info.update-lookup",
            &json!({"id": ID, "key": "J", "flags": 0}),
        )
        .unwrap_err();
    assert_eq!(bad.errnum, errno::EINVAL);
}
