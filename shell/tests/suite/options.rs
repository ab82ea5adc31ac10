//! Shell options: files, labels, taskmaps, affinity, terminals, limits, refusals.

use serde_json::json;

use super::broker::{FakeBroker, current_uid};
use super::job::{command, service, sh};

#[test]
fn output_to_one_file_with_labels() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out-{{id}}.txt");
    let job = sh("echo hi; echo err >&2")
        .nodes(2, 2)
        .options(json!({"output": {"stdout": {"type": "file", "path": path, "label": true}}}));
    let (broker, exits) = job.run();
    assert_eq!(exits, [0, 0]);
    let file = dir.path().join("out-ƒuZZybuNNy.txt");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0: err", "0: hi", "1: err", "1: hi"]);
    let events = broker.events("output");
    let redirects: Vec<_> = events
        .iter()
        .filter(|(name, _)| name == "redirect")
        .map(|(_, c)| c)
        .collect();
    assert_eq!(
        *redirects[0],
        json!({"stream": "stdout", "rank": "0-1", "path": file})
    );
    assert_eq!(redirects[1]["stream"], "stderr");
    assert!(events.iter().all(|(name, _)| name != "data"));
}

#[test]
fn output_to_a_file_for_each_task_and_appending() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.{{node.name}}.{{taskid}}");
    std::fs::write(dir.path().join("out.node1.1"), "before\n").unwrap();
    let options = json!({"output": {"mode": "append", "stdout": {"type": "file", "path": path}, "stderr": {"type": "kvs"}}});
    let (broker, _) = sh("echo hi $FLUX_TASK_RANK; echo err >&2")
        .nodes(2, 2)
        .options(options)
        .run();
    assert_eq!(
        std::fs::read_to_string(dir.path().join("out.node0.0")).unwrap(),
        "hi 0\n"
    );
    assert_eq!(
        std::fs::read_to_string(dir.path().join("out.node1.1")).unwrap(),
        "before\nhi 1\n"
    );
    assert_eq!(broker.data("stderr", "1"), "err\n");
}

#[test]
fn an_unwritable_output_file_is_named() {
    let options = json!({"output": {"stdout": {"type": "file", "path": "/no/such/dir/file"}}});
    let (broker, exits) = sh("true").options(options).run();
    assert_eq!(exits, [1 << 8]);
    let text = "output: error opening /no/such/dir/file: No such file or directory";
    assert_eq!(broker.log_lines(), [format!("0 {text}")]);
    assert_eq!(broker.raised()[0]["note"], text);
}

#[test]
fn input_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in.1"), "one\n").unwrap();
    std::fs::write(dir.path().join("in.0"), "zero\n").unwrap();
    let path = dir.path().join("in.{{taskid}}");
    let (broker, _) = command(&["cat"])
        .nodes(1, 2)
        .options(json!({"input": {"stdin": {"type": "file", "path": path}}}))
        .run();
    assert_eq!(
        (
            broker.data("stdout", "0").as_str(),
            broker.data("stdout", "1").as_str()
        ),
        ("zero\n", "one\n")
    );
    let options = json!({"input": {"stdin": {"type": "file", "path": "/no/such"}}});
    let (broker, exits) = command(&["cat"]).options(options).run();
    assert_eq!(exits, [1 << 8]);
    assert_eq!(
        broker.log_lines(),
        ["0 input: error opening /no/such: No such file or directory"]
    );
}

#[test]
fn too_much_output_is_cut_off() {
    let (broker, exits) = sh("seq 1000; echo end >&2")
        .options(json!({"output": {"limit": "100"}}))
        .run();
    assert_eq!(exits, [0]);
    assert!(broker.data("stdout", "0").len() <= 100);
    assert_eq!(broker.data("stderr", "0"), "end\n");
    assert!(
        broker.log_lines()[0].starts_with("4 stdout: truncating output at 100"),
        "{:?}",
        broker.log_lines()
    );
}

#[test]
fn verbose_says_what_the_manual_says() {
    let (broker, _) = command(&["true"]).options(json!({"verbose": 2})).run();
    let lines = broker.log_lines();
    for text in [
        "6 0: task_count=1 slot_count=1 cores_per_slot=1 slots_per_node=1",
        "6 0: tasks [0] on cores 0-63",
        "6 output: batch timeout = 0.500s",
        "6 task 0 complete status=0",
        "6 exit 0",
    ] {
        assert!(lines.iter().any(|line| line == text), "no {text} in {lines:#?}");
    }
}

#[test]
fn cyclic_tasks_alternate() {
    let options = json!({"taskmap": {"scheme": "cyclic"}});
    let (broker, _) = sh("echo $FLUX_TASK_RANK is local $FLUX_TASK_LOCAL_ID")
        .nodes(2, 4)
        .options(options)
        .run();
    assert_eq!(broker.data("stdout", "2"), "2 is local 1\n");
    assert_eq!(
        broker.events("exec.eventlog")[1].1["taskmap"]["map"],
        json!([[0, 2, 1, 2]])
    );
}

#[test]
fn wrong_options_end_the_job_with_a_reason() {
    for (options, text) in [
        (
            json!({"userrc": "/home/u/rc.lua"}),
            "userrc: Lua scripts are not supported",
        ),
        (json!({"initrc": "x"}), "initrc: Lua scripts are not supported"),
        (
            json!({"exit-timeout": "soon"}),
            "exit-timeout: invalid value \"soon\"",
        ),
        (
            json!({"output": {"stdout": {"type": "pigeon"}}}),
            "output.stdout.type: unknown type 'pigeon'",
        ),
        (
            json!({"output": {"stdout": {"type": "file"}}}),
            "output.stdout.path: missing file name",
        ),
        (json!({"cpu-affinity": "sideways"}), "cpu-affinity: invalid value"),
        (
            json!({"signal": {"signum": 99}}),
            "signal.signum: invalid value 99",
        ),
    ] {
        let (broker, exits) = command(&["true"]).options(options).run();
        assert_eq!(exits, [1 << 8]);
        assert!(broker.log_lines()[0].contains(text), "{:?}", broker.log_lines());
        assert!(broker.raised()[0]["note"].as_str().unwrap().contains(text));
    }
}

#[test]
fn unknown_options_are_no_matter() {
    let (_, exits) = command(&["true"])
        .options(json!({"mpi": "none", "no-such-option": {"a": 1}}))
        .run();
    assert_eq!(exits, [0]);
}

#[test]
fn affinity_and_gpus() {
    let mut job = sh("grep Cpus_allowed_list /proc/self/status; echo gpu $CUDA_VISIBLE_DEVICES").nodes(1, 2);
    job.gpus = "0-3".to_owned();
    job.options = json!({"cpu-affinity": "map:0", "gpu-affinity": "per-task"});
    let (broker, _) = job.run();
    let first = flux_process::affinity::allowed_cpus().unwrap()[0];
    assert_eq!(
        broker.data("stdout", "0"),
        format!("Cpus_allowed_list:\t{first}\ngpu 0,1\n")
    );
    assert_eq!(
        broker.data("stdout", "1"),
        format!("Cpus_allowed_list:\t{first}\ngpu 2,3\n")
    );
    job.options = json!({"cpu-affinity": "on"});
    let (broker, exits) = job.run();
    assert_eq!(exits, [0]);
    assert!(
        broker.log_lines()[0].contains("are not available on this host"),
        "{:?}",
        broker.log_lines()
    );
}

#[test]
fn limits_reach_the_tasks() {
    let options = json!({"rlimit": {"core": 0, "nofile": 123, "nope": 1}});
    let (broker, _) = sh("ulimit -c; ulimit -n").options(options).run();
    assert_eq!(broker.data("stdout", "0"), "0\n123\n");
    assert_eq!(broker.log_lines(), ["4 rlimit: invalid option: nope"]);
}

#[test]
fn a_terminal_is_captured() {
    let (broker, exits) = sh("test -t 0 && test -t 2 && echo yes")
        .options(json!({"pty": 1}))
        .run();
    assert_eq!(exits, [0]);
    assert_eq!(broker.data("stdout", "0"), "yes\r\n");
    let ends = broker
        .events("output")
        .iter()
        .filter(|(_, context)| context["eof"] == true)
        .count();
    assert_eq!(ends, 2);
}

#[test]
fn a_client_talks_to_an_interactive_terminal() {
    let broker = FakeBroker::start(1, 1);
    let job = sh("stty size; read line; stty size; echo got $line; exit 3")
        .options(json!({"pty": {"interactive": 1}}));
    let mut shell = job.spawn(&broker, 0);
    broker.wait_log("exec.eventlog", "\"pty\":\"pty.0\"");
    let topic = format!("{}.pty.0", service());
    let uid = current_uid();
    let attach = json!({"type": "attach", "mode": "rw", "winsize": {"rows": 30, "cols": 99}});
    broker.request(0, &topic, &attach, 7, true, uid);
    broker.wait_reply(7, |reply| {
        reply.payload_str().is_ok_and(|text| text.contains("attach"))
    });
    broker.request(
        0,
        &topic,
        &json!({"type": "data", "data": "word\n"}),
        8,
        false,
        uid,
    );
    let end = broker.wait_reply(7, |reply| reply.errnum() != 0);
    assert_eq!(end.errnum(), 61);
    let texts: Vec<String> = broker
        .replies(7)
        .iter()
        .filter_map(|r| r.payload_str().ok().map(str::to_owned))
        .collect();
    let all = texts.concat();
    // a terminal has a size before a client tells its own
    assert!(
        all.contains("25 80") || all.matches("30 99").count() == 2,
        "{all}"
    );
    assert!(all.contains("30 99"), "{all}");
    assert!(all.contains("got word"), "{all}");
    assert!(
        all.contains(r#""type":"exit","message":"session exiting","status":768"#),
        "{all}"
    );
    assert_eq!(broker.wait_exits(), [3 << 8]);
    shell.wait();
    assert!(
        broker
            .events("output")
            .iter()
            .all(|(_, context)| context["data"].is_null()),
        "not captured"
    );
}
