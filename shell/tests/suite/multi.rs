//! Several shells: barriers, output and input through the leader, first exit, lost shells.

use serde_json::json;

use super::broker::{FakeBroker, current_uid};
use super::job::{service, sh};

#[test]
fn two_shells_are_golden_job_one() {
    let (broker, exits) = sh("echo hello stdout $FLUX_TASK_RANK; echo hello stderr >&2; exit 0")
        .nodes(2, 4)
        .run();
    assert_eq!(exits, [0, 0]);
    assert_eq!(broker.barriers(), 2);
    let exec = broker.events("exec.eventlog");
    assert_eq!(
        broker.event_names("exec.eventlog"),
        ["shell.init", "shell.start", "shell.task-exit"]
    );
    assert_eq!(exec[0].1["size"], 2);
    assert_eq!(exec[1].1["taskmap"]["map"], json!([[0, 2, 2, 1]]));
    for rank in ["0", "1", "2", "3"] {
        assert_eq!(broker.data("stdout", rank), format!("hello stdout {rank}\n"));
        assert_eq!(broker.data("stderr", rank), "hello stderr\n");
    }
    let ends = broker
        .events("output")
        .iter()
        .filter(|(_, context)| context["eof"] == true)
        .count();
    assert_eq!(ends, 8);
}

#[test]
fn much_output_of_another_shell_arrives_whole() {
    let (broker, exits) = sh("[ $FLUX_TASK_RANK = 1 ] && seq 20000 || true")
        .nodes(2, 2)
        .run();
    assert_eq!(exits, [0, 0]);
    let expected: String = (1..=20000).map(|number| format!("{number}\n")).collect();
    assert!(broker.data("stdout", "1") == expected);
    assert!(
        broker
            .requests()
            .iter()
            .any(|topic| topic.ends_with(".write-getcredit"))
    );
}

#[test]
fn a_task_that_cannot_start_on_another_node_is_told_by_the_leader() {
    let broker = FakeBroker::start(2, 2);
    let job = sh("exit 0").nodes(2, 2);
    let mut wrong = sh("").nodes(2, 2);
    wrong.command = vec!["nosuchcommand".to_owned()];
    let leader = job.spawn(&broker, 0);
    let mut other = wrong.spawn(&broker, 1);
    broker.wait_log("output", "task 1 (host node1): start failed: nosuchcommand");
    assert_eq!(other.wait().code(), Some(127));
    // The execution system ends the others after the exception.
    flux_process::PidFd::open(leader.pid())
        .unwrap()
        .send_signal(flux_process::Signal::SIGTERM)
        .unwrap();
    assert_eq!(broker.raised().len(), 1);
    drop(leader);
}

#[test]
fn input_reaches_all_nodes() {
    let broker = FakeBroker::start(2, 2);
    let job = sh("cat").nodes(2, 2);
    let mut shells = [job.spawn(&broker, 0), job.spawn(&broker, 1)];
    let stdin = format!("{}.stdin", service());
    broker.wait_log("exec.eventlog", "shell.start");
    broker.request(
        1,
        &format!("{}.pids", service()),
        &json!({}),
        9,
        false,
        current_uid(),
    );
    let pids = broker.wait_reply(9, |_| true);
    let pids: serde_json::Value = pids.payload_json().unwrap();
    assert_eq!(
        (&pids["host"], &pids["tasks"][0]["rank"]),
        (&json!("node1"), &json!(1))
    );
    assert!(pids["tasks"][0]["pid"].as_u64().unwrap() > 1);
    let body = json!({"stream": "stdin", "rank": "all", "data": "text\n"});
    broker.request(0, &stdin, &body, 1, false, current_uid());
    let body = json!({"stream": "stdin", "rank": "1", "data": "more\n"});
    broker.request(0, &stdin, &body, 2, false, current_uid());
    broker.request(
        0,
        &stdin,
        &json!({"stream": "stdin", "rank": "all", "eof": true}),
        3,
        false,
        current_uid(),
    );
    assert_eq!(broker.wait_exits(), [0, 0]);
    for shell in &mut shells {
        assert!(shell.wait().success());
    }
    assert_eq!(broker.data("stdout", "0"), "text\n");
    assert_eq!(broker.data("stdout", "1"), "text\nmore\n");
}

#[test]
fn the_first_exit_of_another_shell_is_told_by_the_leader() {
    let broker = FakeBroker::start(2, 2);
    let job = sh("[ $FLUX_TASK_RANK = 1 ] && exit 5; sleep 1000")
        .nodes(2, 2)
        .options(json!({"exit-timeout": "0.05s", "exit-on-error": 1}));
    let shells = [job.spawn(&broker, 0), job.spawn(&broker, 1)];
    broker.wait_log("exec.eventlog", "shell.task-exit");
    // the exit may come before the leader has passed the second barrier
    let events = broker.events("exec.eventlog");
    let (_, exit) = events.iter().find(|(name, _)| name == "shell.task-exit").unwrap();
    assert_eq!(
        (&exit["rank"], &exit["localid"], &exit["wait_status"]),
        (&json!(1), &json!(0), &json!(5 << 8))
    );
    // the leader ends its own tasks for it, and its exit code is that of the task that failed
    assert_eq!(broker.wait_exits(), [5 << 8, 5 << 8]);
    assert_eq!(broker.raised()[0]["wait_status"], 5 << 8);
    assert!(
        broker.raised()[0]["note"]
            .as_str()
            .unwrap()
            .contains("exit-on-error")
    );
    drop(shells);
}

#[test]
fn a_lost_shell_does_not_hold_the_leader() {
    let broker = FakeBroker::start(2, 2);
    let job = sh("[ $FLUX_TASK_RANK = 1 ] && sleep 1000; echo here").nodes(2, 2);
    let mut leader = job.spawn(&broker, 0);
    let other = job.spawn(&broker, 1);
    broker.wait_log("exec.eventlog", "shell.task-exit");
    drop(other);
    let body = json!({"type": "lost-shell", "severity": 2, "shell_rank": 1, "message": "killed"});
    broker.request(
        0,
        &format!("{}.exception", service()),
        &body,
        1,
        false,
        current_uid(),
    );
    assert_eq!(leader.wait().code(), Some(0));
    assert_eq!(broker.wait_reply(1, |_| true).errnum(), 0);
}

#[test]
fn what_another_shell_logs_before_the_barrier_is_kept() {
    let mut job = sh("true").nodes(3, 3);
    job.cwd = "/no/such/dir".to_owned();
    let (broker, exits) = job.run();
    assert_eq!(exits, [0, 0, 0]);
    let lines = broker.log_lines();
    for node in 0..3 {
        let start = format!("3 host node{node}: Could not change dir");
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{lines:?}");
    }
    assert_eq!(broker.event_names("output")[0], "header");
}

#[test]
fn a_signal_before_the_barrier_ends_the_shell() {
    let broker = FakeBroker::start(2, 2);
    let mut shell = sh("true").nodes(2, 2).spawn(&broker, 0);
    broker.wait_request("job-exec.shell-barrier");
    flux_process::PidFd::open(shell.pid())
        .unwrap()
        .send_signal(flux_process::Signal::SIGTERM)
        .unwrap();
    assert_eq!(shell.wait().code(), Some(143));
}
