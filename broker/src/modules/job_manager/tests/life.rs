//! A job's way through the job manager.

use super::super::api::{self, ExecEvent, JobEvent};
use super::fakes::{Bench, end, finish};
use crate::service::testing::{Probe, request};
use flux_formats::errno;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::msg::role;
use flux_formats::rpc::job_ingest::flags;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;

/// The events of a job that ran, as flux-core 0.88 logs them.
fn golden_names() -> Vec<&'static str> {
    vec![
        "submit", "validate", "depend", "priority", "alloc", "start", "finish", "release", "free", "clean",
    ]
}

#[test]
fn a_job_runs_with_the_golden_events() {
    let mut bench = Bench::new(1, false);
    let id = bench.submit();
    assert_eq!(
        bench.events(id),
        ["submit", "validate", "depend", "priority", "alloc"]
    );
    let start = bench.world.borrow_mut().starts.pop().unwrap();
    assert_eq!(
        (start.id, start.reattach, start.j.as_deref()),
        (id, false, Some("J"))
    );
    assert_eq!(
        start.environment.as_deref().map(RawValue::get),
        Some(r#"{"PATH":"/bin"}"#)
    );
    assert_eq!(bench.state(id), 16);
    bench.with(move |cx| finish(cx, id, 0));
    assert_eq!(bench.events(id), golden_names());
    let contexts: Vec<(&str, Value)> = vec![
        (
            "submit",
            json!({"userid": 1000, "urgency": 16, "flags": 0, "version": 1}),
        ),
        ("priority", json!({"priority": 16})),
        (
            "alloc",
            json!({"annotations": {"sched": {"resource_summary": "rank0/core0"}}}),
        ),
        ("finish", json!({"status": 0})),
        ("release", json!({"ranks": "all", "final": true})),
    ];
    for (name, context) in contexts {
        assert_eq!(bench.context(id, name), context);
    }
    let world = bench.world.borrow();
    assert_eq!(world.slots, 1);
    assert!(world.map.contains_key(&id.kvs_key("R")) && world.map.contains_key(&id.kvs_key("J")));
    drop(world);
    let stats = bench.rpc("job-manager.stats-get", &json!({})).unwrap();
    assert_eq!(stats["active_jobs"], json!(0));
    assert_eq!(stats["inactive_jobs"], json!(1));
    assert_eq!(stats["max_jobid"], json!(id));
}

#[test]
fn jobs_of_one_turn_share_commits() {
    let mut bench = Bench::new(100, true);
    let jobs: Vec<_> = (0..100).map(|_| bench.submission(16, 0)).collect();
    let results = bench.submit_all(jobs);
    assert!(results.iter().all(Result::is_ok));
    let world = bench.world.borrow();
    // submit … priority; alloc; start … clean: the batches of all jobs together
    assert!(world.commits <= 6, "{} commits", world.commits);
    assert!(world.durable_commits <= world.commits);
    drop(world);
    for result in results {
        assert_eq!(bench.events(result.unwrap()), golden_names());
    }
}

#[test]
fn cancelled_while_pending_running_and_between() {
    let mut bench = Bench::new(1, false);
    let (running, pending) = (bench.submit(), bench.submit());
    bench.cancel(pending).unwrap();
    assert_eq!(
        bench.events(pending),
        ["submit", "validate", "depend", "priority", "exception", "clean"]
    );
    assert_eq!(
        bench.context(pending, "exception"),
        json!({"type": "cancel", "severity": 0, "note": "", "userid": 1000})
    );
    bench.cancel(running).unwrap();
    assert_eq!(bench.state(running), 32);
    assert_eq!(
        bench.world.borrow().exceptions,
        [(running, 0, "cancel".to_owned())]
    );
    bench.with(move |cx| finish(cx, running, 36608));
    let expected = [
        "alloc",
        "exception",
        "start",
        "finish",
        "release",
        "free",
        "clean",
    ];
    assert_eq!(bench.events(running)[4..], expected);
    assert_eq!(
        bench.refused(
            "job-manager.raise",
            &json!({"id": running, "severity": 0, "type": "cancel"})
        ),
        (errno::ENOENT, "job is inactive".to_owned())
    );
    assert_eq!(bench.world.borrow().slots, 1);
}

/// A shell can complain before job-exec has told of its start, when this broker hears of both in one turn.
#[test]
fn what_a_shell_says_comes_after_its_start() {
    let mut bench = Bench::new(1, false);
    let id = bench.submit();
    let answer = Rc::new(RefCell::new(None));
    let kept = answer.clone();
    bench.with(move |cx| {
        let exception = json!({"id": id, "severity": 0, "type": "exec", "note": "start failed"});
        let mut raise = request("job-manager.raise", &exception);
        raise.rolemask = role::OWNER;
        cx.rpc(raise, move |_: &mut Probe, _, result| {
            *kept.borrow_mut() = Some(result.is_ok())
        });
        api::exec_event(cx, id, ExecEvent::Start);
    });
    assert_eq!(answer.take(), Some(true));
    bench.with(move |cx| end(cx, id, 32512));
    let expected = [
        "alloc",
        "start",
        "exception",
        "finish",
        "release",
        "free",
        "clean",
    ];
    assert_eq!(bench.events(id)[4..], expected);
}

#[test]
fn exceptions_and_releases_of_the_execution_service() {
    let mut bench = Bench::new(1, false);
    let id = bench.submit();
    bench.with(move |cx| {
        api::exec_event(cx, id, ExecEvent::Start);
        let note = "resource allocation expired".to_owned();
        api::exec_event(
            cx,
            id,
            ExecEvent::Exception {
                severity: 0,
                kind: "timeout".into(),
                note,
                userid: None,
            },
        );
        api::exec_event(cx, id, ExecEvent::Finish { status: 36352 });
        api::exec_event(
            cx,
            id,
            ExecEvent::Release {
                ranks: IdSet::from_range(0, 1),
                last: false,
            },
        );
        api::exec_event(
            cx,
            id,
            ExecEvent::Release {
                ranks: IdSet::from_range(2, 3),
                last: true,
            },
        );
    });
    let log = bench.log(id);
    assert!(log.contains(
        r#""exception","context":{"type":"timeout","severity":0,"userid":1000,"note":"resource allocation expired"}"#
    ));
    assert!(log.contains(r#""release","context":{"ranks":"0-1","final":false}"#));
    assert!(log.contains(r#""release","context":{"ranks":"2-3","final":true}"#));
    assert_eq!(bench.events(id).last().unwrap(), "clean");
}

#[test]
fn a_denied_job_gets_an_alloc_exception() {
    let mut bench = Bench::new(1, false);
    bench.world.borrow_mut().denied = Some("unsatisfiable request".into());
    let id = bench.submit();
    assert_eq!(bench.events(id)[4..], ["exception", "clean"]);
    assert_eq!(
        bench.context(id, "exception"),
        json!({"type": "alloc", "severity": 0, "note": "unsatisfiable request", "userid": 1000})
    );
}

#[test]
fn priority_order_hold_and_expedite() {
    let mut bench = Bench::new(1, false);
    let first = bench.submit();
    let (low, high, held) = (
        bench.submission(3, 0),
        bench.submission(31, 0),
        bench.submission(0, 0),
    );
    let ids: Vec<JobId> = bench
        .submit_all(vec![low, high, held])
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        bench.context(ids[1], "priority"),
        json!({"priority": 4_294_967_295_u32})
    );
    assert_eq!(bench.context(ids[2], "priority"), json!({"priority": 0}));
    let order = |bench: &Bench| {
        bench
            .world
            .borrow()
            .pending
            .iter()
            .map(|(_, id)| *id)
            .collect::<Vec<_>>()
    };
    assert_eq!(order(&bench), [ids[1], ids[0]]);
    let answer = bench
        .rpc("job-manager.urgency", &json!({"id": ids[2], "urgency": 20}))
        .unwrap();
    assert_eq!(answer, json!({"old_urgency": 0}));
    assert_eq!(order(&bench), [ids[1], ids[2], ids[0]]);
    bench
        .rpc("job-manager.urgency", &json!({"id": ids[1], "urgency": 0}))
        .unwrap();
    assert_eq!(order(&bench), [ids[2], ids[0]]);
    assert_eq!(
        bench
            .refused("job-manager.urgency", &json!({"id": first, "urgency": 1}))
            .1,
        "urgency cannot be changed once resources are allocated"
    );
    bench.with(move |cx| finish(cx, first, 0));
    assert_eq!(bench.state(ids[2]), 16);
}

#[test]
fn a_scheduler_that_goes_and_comes() {
    let mut bench = Bench::new(0, false);
    let id = bench.submit();
    assert_eq!(
        bench.rpc("job-manager.alloc-query", &json!({})).unwrap(),
        json!({"queue_length": 0, "alloc_pending": 1, "running": 0})
    );
    bench.with(|cx| api::sched_ready(cx, false));
    bench.world.borrow_mut().pending.clear();
    assert_eq!(
        bench.rpc("job-manager.alloc-query", &json!({})).unwrap(),
        json!({"queue_length": 1, "alloc_pending": 0, "running": 0})
    );
    let status = bench.rpc("job-manager.queue-status", &json!({})).unwrap();
    assert_eq!(
        status,
        json!({"enable": true, "start": false, "blocked": "scheduler", "stop_reason": "Scheduler is offline"})
    );
    bench.world.borrow_mut().slots = 1;
    bench.with(|cx| api::sched_ready(cx, true));
    assert_eq!(bench.state(id), 16);
}

#[test]
fn an_execution_service_that_comes_late_and_is_replaced() {
    let mut bench = Bench::new(1, false);
    bench.world.borrow_mut().exec_gone = true;
    let id = bench.submit();
    assert_eq!(bench.state(id), 16);
    assert!(bench.world.borrow().starts.is_empty());
    bench.world.borrow_mut().exec_gone = false;
    bench.with(api::exec_hello);
    assert!(!bench.world.borrow().starts[0].reattach);
    bench.with(api::exec_hello);
    assert!(bench.world.borrow().starts[1].reattach);
}

#[test]
fn the_journal_shows_everything_once() {
    let mut bench = Bench::new(1, false);
    let early = bench.submit();
    let seen: Rc<RefCell<Vec<(JobId, String)>>> = Rc::default();
    let slot = seen.clone();
    bench.with(move |cx| {
        // events of the same turn come before and after the subscription
        api::exec_event(cx, early, ExecEvent::Start);
        api::subscribe_journal(cx, move |_: &mut Probe, _, events: &[JobEvent]| {
            slot.borrow_mut()
                .extend(events.iter().map(|event| (event.id, event.name.to_string())));
        });
        end(cx, early, 0);
    });
    let names: Vec<String> = seen.borrow().iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(names, golden_names());
    let late = bench.submit();
    assert!(
        seen.borrow()
            .iter()
            .any(|(id, name)| *id == late && name == "alloc")
    );
}

#[test]
fn waitable_jobs() {
    let mut bench = Bench::new(4, false);
    let job = |bench: &mut Bench| {
        let job = bench.submission(16, flags::WAITABLE);
        bench.submit_all(vec![job]).remove(0).unwrap()
    };
    let (a, b) = (job(&mut bench), job(&mut bench));
    let plain = bench.submit();
    let specific = bench.send("job-manager.wait", &json!({"id": a}));
    let any = bench.send("job-manager.wait", &json!({"id": -1}));
    let excess = bench.send("job-manager.wait", &json!({"id": u64::MAX}));
    assert_eq!(
        excess.take().unwrap().unwrap_err().text,
        "there are no more waitable jobs"
    );
    let refused = bench.refused("job-manager.wait", &json!({"id": plain}));
    assert_eq!(
        refused,
        (
            errno::ECHILD,
            "job was not submitted with FLUX_JOB_WAITABLE".to_owned()
        )
    );
    bench.with(move |cx| finish(cx, a, 0));
    assert_eq!(
        specific.take().unwrap().unwrap(),
        json!({"id": a, "success": true, "errstr": ""})
    );
    bench.with(move |cx| finish(cx, b, 256));
    let text = "task(s) exited with exit code 1";
    assert_eq!(
        any.take().unwrap().unwrap(),
        json!({"id": b, "success": false, "errstr": text})
    );
    let c = job(&mut bench);
    bench.cancel(c).unwrap();
    bench.with(move |cx| finish(cx, c, 15));
    let zombie = bench.rpc("job-manager.wait", &json!({"id": c})).unwrap();
    assert_eq!(zombie["errstr"], json!("Fatal exception type=cancel "));
}

#[test]
fn drain_and_idle() {
    let mut bench = Bench::new(1, false);
    let (running, pending) = (bench.submit(), bench.submit());
    let (drain, idle) = (
        bench.send("job-manager.drain", &json!({})),
        bench.send("job-manager.idle", &json!({})),
    );
    bench
        .rpc("job-manager.queue-start", &json!({"start": false, "all": false}))
        .unwrap();
    bench.with(move |cx| finish(cx, running, 0));
    assert_eq!(idle.take().unwrap().unwrap(), json!({"pending": 1}));
    assert!(drain.borrow().is_none());
    bench.cancel(pending).unwrap();
    assert_eq!(drain.take().unwrap().unwrap(), Value::Null);
}

#[test]
fn a_full_store_refuses_submissions_and_keeps_the_rest() {
    for visible in [false, true] {
        let mut bench = Bench::new(1, false);
        let running = bench.submit();
        {
            let mut world = bench.world.borrow_mut();
            world.fail = Some(errno::ENOSPC);
            world.fail_visible = visible;
        }
        let job = bench.submission(16, 0);
        let lost = job.id;
        let result = bench.submit_all(vec![job]).remove(0).unwrap_err();
        assert_eq!(
            (result.errnum, result.text.as_str()),
            (errno::ENOSPC, "store.sqlite: disk full")
        );
        let job = bench.submission(16, 0);
        assert_eq!(
            bench.submit_all(vec![job]).remove(0).unwrap_err().errnum,
            errno::ENOSPC
        );
        bench.with(move |cx| finish(cx, running, 0));
        assert_eq!(bench.world.borrow().slots, 0, "freed before finish was stored");
        bench.world.borrow_mut().fail = None;
        // the retry is a timer: fire it by hand
        bench.with(|cx| {
            cx.to::<super::super::JobManager>("job-manager", |jobs, cx| jobs.retry(cx));
        });
        assert_eq!(bench.events(running), golden_names(), "visible {visible}");
        assert_eq!(bench.world.borrow().slots, 1);
        assert_eq!(bench.state(lost), 0);
        assert!(bench.log(lost).is_empty());
        bench.submit();
    }
}
