//! Shells that outlive their broker: nothing is lost, nothing is there twice, and they know when it is over.

use serde_json::json;

use super::broker::FakeBroker;
use super::job::{Job, Running, sh};

/// Starts all shells of a job with `--reconnect`.
fn start(job: &Job, broker: &FakeBroker) -> Vec<Running> {
    (0..job.nodes)
        .map(|rank| job.spawn_with(broker, rank, &["--reconnect"]))
        .collect()
}

/// A script that says "ready", waits for the test to make the file "go", and does the rest.
fn gated(broker: &FakeBroker, rest: &str) -> String {
    let go = broker.path().join("go");
    format!(
        "echo ready; while [ ! -e {} ]; do sleep 0.02; done; {rest}",
        go.display()
    )
}

fn go(broker: &FakeBroker) {
    std::fs::write(broker.path().join("go"), "").unwrap();
}

#[test]
fn a_lost_connection_is_made_again() {
    let broker = FakeBroker::start(1, 1);
    let job = sh(&gated(&broker, "echo after"));
    let mut shells = start(&job, &broker);
    broker.wait_log("output", "ready");
    broker.hang_up();
    go(&broker);
    assert_eq!(broker.wait_exits(), [0]);
    shells[0].wait();
    assert_eq!(broker.data("stdout", "0"), "ready\nafter\n");
    assert_eq!(broker.hellos()[0]["barriers"], 2);
}

#[test]
fn what_the_broker_lost_is_sent_again_once() {
    for lag in 0..4 {
        let broker = FakeBroker::start(1, 1);
        broker.journals();
        let script = format!(
            "echo one; sleep 0.1; echo two; sleep 0.1; echo three; sleep 0.1; {}",
            gated(&broker, "echo after; exit 3")
        );
        let job = sh(&script).options(json!({"output": {"batch-timeout": 0.02}}));
        let mut shells = start(&job, &broker);
        broker.wait_log("output", "ready");
        broker.write_down(lag);
        broker.crash();
        go(&broker);
        assert_eq!(broker.wait_exits(), [3 << 8], "lag {lag}");
        assert_eq!(shells[0].wait().code(), Some(3));
        assert_eq!(
            broker.data("stdout", "0"),
            "one\ntwo\nthree\nready\nafter\n",
            "lag {lag}"
        );
        let exec = broker.event_names("exec.eventlog");
        assert_eq!(
            exec,
            ["shell.init", "shell.start", "shell.task-exit"],
            "lag {lag}"
        );
    }
}

#[test]
fn a_task_goes_on_without_a_broker() {
    let broker = FakeBroker::start(1, 1);
    broker.journals();
    let done = broker.path().join("done");
    // more than a pipe holds
    let rest = format!("seq 50000; touch {}; exit 4", done.display());
    let job = sh(&gated(&broker, &rest));
    let mut shells = start(&job, &broker);
    broker.wait_log("output", "ready");
    broker.refuse_connections(true);
    broker.crash();
    go(&broker);
    broker.wait_file(&done);
    broker.refuse_connections(false);
    assert_eq!(broker.wait_exits(), [4 << 8]);
    shells[0].wait();
    let expected: String = (1..=50000).map(|number| format!("{number}\n")).collect();
    assert!(broker.data("stdout", "0") == format!("ready\n{expected}"));
}

#[test]
fn messages_between_shells_arrive_once() {
    let broker = FakeBroker::start(3, 3);
    broker.journals();
    let script = format!(
        "[ $FLUX_TASK_RANK = 0 ] || seq 3000; {}",
        gated(&broker, "echo after $FLUX_TASK_RANK")
    );
    let job = sh(&script).nodes(3, 3);
    let mut shells = start(&job, &broker);
    broker.wait_log("output", "ready");
    // in the middle of the stream, more than once
    for _ in 0..3 {
        broker.crash();
        broker.wait_log("output", "ready");
    }
    go(&broker);
    assert_eq!(broker.wait_exits(), [0, 0, 0]);
    for shell in &mut shells {
        assert_eq!(shell.wait().code(), Some(0));
    }
    let numbers: String = (1..=3000).map(|number| format!("{number}\n")).collect();
    for rank in ["1", "2"] {
        let text = broker.data("stdout", rank);
        assert!(
            text == format!("{numbers}ready\nafter {rank}\n"),
            "rank {rank}: {} bytes",
            text.len()
        );
    }
}

#[test]
fn what_a_shell_says_first_while_nobody_hears_arrives_too() {
    let broker = FakeBroker::start(2, 2);
    let job = sh(&gated(&broker, "echo after $FLUX_TASK_RANK").replace("echo ready; ", "")).nodes(2, 2);
    let mut shells = start(&job, &broker);
    broker.wait_log("exec.eventlog", "shell.start");
    broker.refuse_connections(true);
    broker.crash();
    go(&broker);
    // the tasks end meanwhile
    for shell in &shells {
        shell.wait_childless();
    }
    broker.refuse_connections(false);
    assert_eq!(broker.wait_exits(), [0, 0]);
    for shell in &mut shells {
        assert_eq!(shell.wait().code(), Some(0));
    }
    assert_eq!(broker.data("stdout", "1"), "after 1\n");
}

#[test]
fn a_job_that_is_over_takes_its_shell_along() {
    let broker = FakeBroker::start(1, 1);
    let job = sh("echo ready; sleep 1000");
    let mut shells = start(&job, &broker);
    broker.wait_log("output", "ready");
    broker.forget();
    broker.hang_up();
    assert_eq!(shells[0].wait().code(), Some(1));
}

#[test]
fn an_instance_that_is_gone_takes_its_shells_along() {
    let broker = FakeBroker::start(1, 1);
    let job = sh("echo ready; sleep 1000");
    let mut shells = start(&job, &broker);
    broker.wait_log("output", "ready");
    broker.refuse_connections(true);
    std::fs::remove_dir_all(broker.path()).unwrap();
    broker.hang_up();
    assert_eq!(shells[0].wait().code(), Some(1));
}

#[test]
fn a_claim_that_is_taken_starts_nothing() {
    let broker = FakeBroker::start(1, 1);
    let claim = broker.path().join("claim");
    let mut job = sh("true");
    job.claim = Some(claim.display().to_string());
    let mut shells = start(&job, &broker);
    assert_eq!(broker.wait_exits(), [0]);
    shells[0].wait();
    let mut late = start(&job, &broker);
    assert_eq!(late[0].wait().code(), Some(1));
    assert_eq!(broker.event_names("exec.eventlog").len(), 3, "ran once");
}
