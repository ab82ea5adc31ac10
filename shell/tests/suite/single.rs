//! One shell: events, output, exit codes, input, signals.

use flux_formats::msg::role;
use serde_json::json;

use super::broker::{FakeBroker, current_uid};
use super::job::{ID, command, service, sh};

#[test]
fn a_job_that_does_nothing_is_two_commits_at_most() {
    let (broker, exits) = command(&["true"]).run();
    assert_eq!(exits, [0]);
    assert_eq!(
        broker.event_names("exec.eventlog"),
        ["shell.init", "shell.start", "shell.task-exit"]
    );
    let exec = broker.events("exec.eventlog");
    assert_eq!(
        exec[0].1,
        json!({"service": service(), "leader-rank": 0, "size": 1})
    );
    assert_eq!(
        exec[1].1,
        json!({"taskmap": {"version": 1, "map": [[0, 1, 1, 1]]}})
    );
    let exit = &exec[2].1;
    let keys: Vec<&String> = exit.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "localid",
            "rank",
            "state",
            "pid",
            "wait_status",
            "signaled",
            "exitcode"
        ]
    );
    assert_eq!(
        (&exit["state"], &exit["wait_status"]),
        (&json!("Exited"), &json!(0))
    );
    assert_eq!(broker.event_names("output"), ["header", "data", "data"]);
    assert_eq!(broker.event_names("input"), ["header"]);
    assert!(broker.commits() <= 2, "{}", broker.commits());
    let mut requests = broker.requests();
    requests.dedup();
    assert_eq!(
        requests,
        [
            "service.add",
            "event.subscribe",
            "kvs.commit",
            "job-exec.shell-exit"
        ]
    );
}

#[test]
fn output_is_cut_into_lines_per_task() {
    let (broker, exits) = sh("echo out $FLUX_TASK_RANK; echo more; printf tail; echo err >&2")
        .nodes(1, 3)
        .run();
    assert_eq!(exits, [0]);
    for rank in ["0", "1", "2"] {
        assert_eq!(broker.data("stdout", rank), format!("out {rank}\nmore\ntail"));
        assert_eq!(broker.data("stderr", rank), "err\n");
    }
    let events = broker.events("output");
    assert_eq!(events[0].1["count"], json!({"stdout": 3, "stderr": 3}));
    let of_task = events
        .iter()
        .filter(|(_, context)| context["rank"] == "0" && context["stream"] == "stdout");
    let texts: Vec<_> = of_task
        .map(|(_, context)| context["data"].as_str().unwrap_or("EOF"))
        .collect();
    assert_eq!(texts, ["out 0\n", "more\n", "tail", "EOF"]);
}

#[test]
fn bytes_that_are_no_text_become_base64() {
    let (broker, _) = sh(r"printf '\377\000\n'").run();
    let events = broker.events("output");
    let data = events
        .iter()
        .find(|(_, context)| context["encoding"] == "base64")
        .unwrap();
    assert_eq!(data.1["data"], "/wAK");
}

#[test]
fn the_highest_exit_code_counts() {
    let (broker, exits) = sh("exit $FLUX_TASK_RANK").nodes(1, 4).run();
    assert_eq!(exits, [3 << 8]);
    assert_eq!(
        broker
            .event_names("exec.eventlog")
            .iter()
            .filter(|name| *name == "shell.task-exit")
            .count(),
        1
    );
    let (broker, exits) = sh("kill -SEGV $$").run();
    assert_eq!(exits, [35584]);
    let exit = broker.events("exec.eventlog")[2].1.clone();
    assert_eq!(
        (
            &exit["wait_status"].as_i64().map(|status| status & 0x7f),
            &exit["signaled"]
        ),
        (&Some(11), &json!(11))
    );
    assert_eq!(exit["exitcode"], 139);
}

#[test]
fn a_command_that_does_not_exist_is_golden_job_four() {
    let (broker, exits) = command(&["nosuchcommand"]).run();
    assert_eq!(exits, [32512]);
    let text = "task 0 (host node0): start failed: nosuchcommand: No such file or directory";
    assert_eq!(broker.log_lines(), [format!("0 {text}")]);
    assert_eq!(broker.event_names("exec.eventlog"), ["shell.init"]);
    assert_eq!(broker.event_names("output"), ["header", "log"]);
    assert_eq!(
        broker.raised(),
        [json!({"id": ID, "type": "exec", "severity": 0, "note": text})]
    );
    let (_, exits) = command(&["/etc/passwd"]).run();
    assert_eq!(exits, [126 << 8]);
}

#[test]
fn the_environment_of_a_task() {
    let (broker, _) = sh("env | sort; pwd; ls -d $FLUX_JOB_TMPDIR").nodes(1, 2).run();
    let text = broker.data("stdout", "1");
    for line in [
        "GREETING=hello",
        "FLUX_JOB_ID=ƒuZZybuNNy",
        "FLUX_JOB_SIZE=2",
        "FLUX_JOB_NNODES=1",
        "FLUX_TASK_RANK=1",
        "FLUX_TASK_LOCAL_ID=1",
        "PMI_RANK=1",
        "PMI_SIZE=2",
        "CUDA_VISIBLE_DEVICES=-1",
        "/",
        &format!("FLUX_KVS_NAMESPACE=job-{ID}"),
        &format!("FLUX_URI={}", broker.uri(0)),
        &format!("{}/jobtmp-0-fuZZybuNNy", broker.path().display()),
    ] {
        assert!(text.lines().any(|have| have == line), "no {line} in {text}");
    }
    assert!(
        !broker.path().join("jobtmp-0-fuZZybuNNy").exists(),
        "removed at the end"
    );
}

#[test]
fn a_missing_directory_is_replaced_by_tmp() {
    let mut job = sh("pwd");
    job.cwd = "/no/such/dir".to_owned();
    let (broker, exits) = job.run();
    assert_eq!(
        (exits.as_slice(), broker.data("stdout", "0").as_str()),
        (&[0][..], "/tmp\n")
    );
    assert_eq!(
        broker.log_lines(),
        [
            "3 host node0: Could not change dir to /no/such/dir: No such file or directory. Going to /tmp instead"
        ]
    );
}

#[test]
fn standard_input_comes_through_the_service() {
    let broker = FakeBroker::start(1, 1);
    let mut shell = sh("cat; echo done $FLUX_TASK_RANK").nodes(1, 2).spawn(&broker, 0);
    let stdin = format!("{}.stdin", service());
    let uid = current_uid();
    broker.request(
        0,
        &stdin,
        &json!({"stream": "stdin", "rank": "all", "data": "one\n"}),
        1,
        false,
        uid,
    );
    broker.request(
        0,
        &stdin,
        &json!({"stream": "stdin", "rank": "1", "data": "dHdvCg==", "encoding": "base64"}),
        2,
        false,
        uid,
    );
    broker.request(
        0,
        &stdin,
        &json!({"stream": "stdin", "rank": "all", "data": "x"}),
        3,
        false,
        uid + 1,
    );
    broker.request(
        0,
        &stdin,
        &json!({"stream": "stdin", "rank": "all", "eof": true}),
        4,
        false,
        uid,
    );
    broker.request(
        0,
        &stdin,
        &json!({"stream": "stdout", "rank": "all"}),
        5,
        false,
        uid,
    );
    assert_eq!(broker.wait_exits(), [0]);
    shell.wait();
    assert_eq!(broker.data("stdout", "0"), "one\ndone 0\n");
    assert_eq!(broker.data("stdout", "1"), "one\ntwo\ndone 1\n");
    let errnums: Vec<u32> = (1..=5)
        .map(|tag| broker.wait_reply(tag, |_| true).errnum())
        .collect();
    assert_eq!(errnums, [0, 0, 1, 0, 71]);
    assert_eq!(broker.event_names("input"), ["header", "data", "data", "data"]);
}

#[test]
fn kill_events_and_signals_reach_the_tasks() {
    let broker = FakeBroker::start(1, 1);
    let script = "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done";
    let mut shell = sh(script).spawn(&broker, 0);
    broker.wait_log("output", "ready");
    // a guest's event is nobody's order
    broker.publish_as(role::USER, &format!("shell-{ID}.kill"), &json!({"signum": 9}));
    broker.publish(&format!("shell-{ID}.kill"), &json!({"signum": 10}));
    broker.wait_log("output", "usr1");
    broker.publish(&format!("shell-{}.kill", ID + 1), &json!({"signum": 9}));
    flux_process::PidFd::open(shell.pid())
        .unwrap()
        .send_signal(flux_process::Signal::SIGTERM)
        .unwrap();
    assert_eq!(broker.wait_exits(), [36608]);
    assert_eq!(shell.wait().code(), Some(143));
}

#[test]
fn what_a_task_leaves_behind_holds_the_job_and_can_be_killed() {
    let broker = FakeBroker::start(1, 1);
    let mut shell = sh("sleep 1000 & echo left").spawn(&broker, 0);
    broker.wait_log("exec.eventlog", "shell.task-exit");
    broker.publish(&format!("shell-{ID}.kill"), &json!({"signum": 15}));
    assert_eq!(broker.wait_exits(), [0]);
    shell.wait();
}

#[test]
fn a_refused_commit_ends_the_job_all_the_same() {
    let broker = FakeBroker::start(1, 1);
    broker.refuse_commits();
    let mut shell = sh("echo x").spawn(&broker, 0);
    assert_eq!(broker.wait_exits(), [1 << 8]);
    shell.wait();
}

#[test]
fn a_broker_that_goes_away_ends_the_shell() {
    let broker = FakeBroker::start(1, 1);
    let mut shell = sh("echo ready; sleep 1000").spawn(&broker, 0);
    broker.wait_log("output", "ready");
    broker.hang_up();
    assert_eq!(shell.wait().code(), Some(1));
}

#[test]
fn files_of_the_job_are_in_its_directory() {
    let mut job = sh("$FLUX_JOB_TMPDIR/script");
    job.files = Some(
        json!({"script": {"mode": 0o100_700, "encoding": "utf-8", "data": "#!/bin/sh\necho from script\n"}}),
    );
    let (broker, exits) = job.run();
    assert_eq!(
        (exits.as_slice(), broker.data("stdout", "0").as_str()),
        (&[0][..], "from script\n")
    );
    job.files = Some(json!({"../x": {"mode": 0o100_700}}));
    let (broker, exits) = job.run();
    assert_eq!(exits, [1 << 8]);
    assert_eq!(
        broker.log_lines(),
        ["0 files: ../x: path must be relative and without '..'"]
    );
}
