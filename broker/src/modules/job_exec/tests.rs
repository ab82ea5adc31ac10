//! Tests of the actor: mock jobs, and real ones whose shell is `/bin/sh`.

use super::JobExec;
use super::api::{self, StartRequest};
use crate::modules::kvs::{Kvs, local as kvs};
use crate::modules::kvs_watch::KvsWatch;
use crate::modules::rexec::Rexec;
use crate::service::testing::{Probe, TestHub, request};
use flux_formats::errno;
use flux_formats::eventlog;
use flux_formats::jobid::JobId;
use flux_formats::msg::flags;
use serde_json::{Value, json};
use std::rc::Rc;

fn hub(config: Value) -> TestHub {
    let mut hub = TestHub::new(&[]);
    hub.hub.core().config = Rc::new(config);
    hub.load("kvs", Box::<Kvs>::default()).unwrap();
    hub.load("kvs-watch", Box::new(KvsWatch)).unwrap();
    hub.load("rexec", Box::<Rexec>::default()).unwrap();
    hub.load("job-exec", Box::<JobExec>::default()).unwrap();
    hub
}

fn start(hub: &mut TestHub, id: u64, ranks: &str, test: Option<Value>, expiration: f64) {
    let mut jobspec = json!({"attributes": {"system": {"duration": 0.0}}});
    if let Some(test) = test {
        jobspec["attributes"]["system"]["exec"] = json!({ "test": test });
    }
    let r = json!({"version": 1, "execution": {"R_lite": [{"rank": ranks, "children": {"core": "0"}}],
        "nodelist": ["n[0-3]"], "starttime": 0.0, "expiration": expiration}});
    hub.with_probe(move |cx| {
        let request = StartRequest {
            id: JobId(id),
            userid: crate::service::testing::OWNER,
            jobspec: Rc::new(jobspec),
            environment: None,
            r: Rc::new(r),
            reattach: false,
            finished: false,
            j: None,
        };
        assert!(api::start(cx, request));
    });
}

fn running(hub: &mut TestHub) -> usize {
    hub.json("job-exec.stats-get", &json!({})).unwrap()["jobs"]
        .as_object()
        .unwrap()
        .len()
}

fn wait_for_end(hub: &mut TestHub) {
    let began = std::time::Instant::now();
    while running(hub) > 0 {
        assert!(began.elapsed().as_secs() < 10, "job does not end");
        hub.run_idle();
    }
}

/// Returns the events of a finished job's exec eventlog, as `name` or `name context`.
fn exec_log(hub: &mut TestHub, id: u64) -> Vec<String> {
    let key = JobId(id).kvs_key("guest.exec.eventlog");
    let log = hub.wait(move |cx, done| {
        kvs::lookup(cx, "primary", &key, move |probe: &mut Probe, cx, result| {
            done(probe, cx, result)
        });
    });
    let log = String::from_utf8(log.unwrap().to_vec()).unwrap();
    let events = eventlog::decode_log(&log).unwrap();
    events
        .iter()
        .map(|e| {
            e.context
                .as_ref()
                .map_or(e.name.clone(), |c| format!("{} {}", e.name, c.get()))
        })
        .collect()
}

#[test]
fn a_mock_job_runs_and_finishes() {
    let mut hub = hub(json!({}));
    start(
        &mut hub,
        1,
        "0",
        Some(json!({"run_duration": "1ms", "wait_status": 256})),
        0.0,
    );
    assert_eq!(running(&mut hub), 1);
    wait_for_end(&mut hub);
    assert_eq!(
        exec_log(&mut hub, 1),
        ["init", "starting", r#"complete {"status":256}"#, "done"]
    );
}

#[test]
fn a_mock_job_by_hand() {
    let mut hub = hub(json!({}));
    start(&mut hub, 1, "0", Some(json!({"override": 1})), 0.0);
    let finish = json!({"event": "finish", "jobid": 1, "status": 0});
    assert_eq!(
        hub.json("job-exec.override", &finish).unwrap_err().errnum,
        errno::EINVAL
    );
    hub.json("job-exec.override", &json!({"event": "start", "jobid": 1}))
        .unwrap();
    assert_eq!(running(&mut hub), 1);
    hub.json("job-exec.override", &finish).unwrap();
    wait_for_end(&mut hub);
}

#[test]
fn a_shell_runs_and_its_exit_counts() {
    let mut hub = hub(json!({"exec": {"job-shell": "/bin/sh"}}));
    // sh takes the job id for a script, which does not exist
    start(&mut hub, 424_242, "0", None, 0.0);
    wait_for_end(&mut hub);
    let log = exec_log(&mut hub, 424_242);
    assert_eq!(log[..2], ["init", "starting"]);
    assert!(
        log[2].starts_with(r#"log {"component":"flux-shell","stream":"stderr","rank":"0","data":""#),
        "{}",
        log[2]
    );
    assert!(
        log[3].starts_with(r#"shell-exit {"rank":0,"wait_status":"#),
        "{}",
        log[3]
    );
    assert!(log[4].starts_with("complete ") && log[5] == "done");
}

#[test]
fn a_missing_shell_fails_the_job() {
    let mut hub = hub(json!({"exec": {"job-shell": "/nonexistent/flux-shell"}}));
    start(&mut hub, 5, "0", None, 0.0);
    wait_for_end(&mut hub);
    assert_eq!(
        exec_log(&mut hub, 5),
        ["init", "starting", r#"complete {"status":32512}"#, "done"]
    );
}

#[test]
fn the_report_of_the_shell_ends_the_job() {
    let mut hub = hub(json!({"exec": {"job-shell": "/bin/cat"}}));
    // two ranks, of which only rank 0 exists: the other is unreachable and critical
    start(&mut hub, 6, "0-1", None, 0.0);
    wait_for_end(&mut hub);
    let log = exec_log(&mut hub, 6);
    assert_eq!(log.last().map(String::as_str), Some("done"));
    let err = hub
        .json("job-exec.shell-exit", &json!({"id": 6, "rank": 0, "status": 0}))
        .unwrap_err();
    assert_eq!(err.errnum, errno::ENOENT);
}

#[test]
fn the_barrier_answers_although_no_response_is_wanted() {
    let mut hub = hub(json!({}));
    start(&mut hub, 7, "0-1", Some(json!({"override": 1})), 0.0);
    let mut first = request("job-exec.shell-barrier", &json!({"id": 7, "rank": 0}));
    first.flags |= flags::NORESPONSE;
    let mut second = request("job-exec.shell-barrier", &json!({"id": 7, "rank": 1}));
    second.flags |= flags::NORESPONSE;
    let answered = Rc::new(std::cell::Cell::new(0));
    let count = answered.clone();
    hub.with_probe(move |cx| {
        cx.rpc(first, move |_: &mut Probe, _, result| {
            assert!(result.is_ok());
            count.set(count.get() + 1);
        });
    });
    assert_eq!(answered.get(), 0);
    hub.rpc(second).unwrap();
    assert_eq!(answered.get(), 1);
    let unknown = json!({"id": 9, "rank": 0});
    assert_eq!(
        hub.json("job-exec.shell-barrier", &unknown).unwrap_err().errnum,
        errno::ENOENT
    );
    let other = json!({"id": 7, "rank": 5});
    assert_eq!(
        hub.json("job-exec.shell-barrier", &other).unwrap_err().errnum,
        errno::EINVAL
    );
}

#[test]
fn the_time_limit_ends_a_job() {
    let mut hub = hub(json!({}));
    start(&mut hub, 8, "0", Some(json!({"run_duration": "60s"})), 1.0);
    wait_for_end(&mut hub);
    assert_eq!(exec_log(&mut hub, 8)[2], r#"complete {"status":14}"#);
}

#[test]
fn an_exception_ends_a_job() {
    let mut hub = hub(json!({}));
    start(&mut hub, 9, "0", Some(json!({"run_duration": "60s"})), 0.0);
    hub.with_probe(|cx| api::exception(cx, JobId(9), 1, "note", None));
    assert_eq!(running(&mut hub), 1);
    hub.with_probe(|cx| api::exception(cx, JobId(9), 0, "cancel", None));
    wait_for_end(&mut hub);
    assert_eq!(exec_log(&mut hub, 9)[2], r#"complete {"status":15}"#);
}
