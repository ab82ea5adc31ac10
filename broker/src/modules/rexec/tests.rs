//! Tests of the actor: real processes, driven through the hub.

use super::Rexec;
use super::agent::{self, ShellReport, StartHeader};
use crate::service::RpcError;
use crate::service::testing::{Answers, Probe, TestHub, request};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use flux_formats::rpc::rexec::IoObject;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;

fn hub() -> TestHub {
    let mut hub = TestHub::new(&[]);
    hub.load("rexec", Box::<Rexec>::default()).unwrap();
    hub
}

fn exec(args: &[&str], flags: u32) -> Value {
    json!({"cmd": {"cmdline": args, "env": {"PATH": "/usr/bin:/bin", "X": "1"}, "opts": {}, "channels": []}, "flags": flags})
}

fn ended(answers: &Answers) -> bool {
    answers.borrow().last().is_some_and(Result::is_err)
}

fn text_of(answers: &Answers, stream: &str) -> String {
    let mut text = String::new();
    for answer in answers.borrow().iter().flatten() {
        if answer["type"] == "output" && answer["io"]["stream"] == stream {
            text.push_str(answer["io"]["data"].as_str().unwrap_or_default());
        }
    }
    text
}

fn pid_of(answers: &Answers) -> u64 {
    answers
        .borrow()
        .iter()
        .flatten()
        .find_map(|answer| answer["pid"].as_u64())
        .unwrap()
}

fn types(answers: &Answers) -> Vec<String> {
    answers
        .borrow()
        .iter()
        .flatten()
        .map(|answer| answer["type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn output_status_and_end() {
    let mut hub = hub();
    let script = "echo out$X; echo err >&2; exit 3";
    let (answers, _) = hub.stream(request("rexec.exec", &exec(&["sh", "-c", script], 3)));
    let seen = answers.clone();
    hub.run_until(move || ended(&seen));
    assert_eq!(
        (
            text_of(&answers, "stdout").as_str(),
            text_of(&answers, "stderr").as_str()
        ),
        ("out1\n", "err\n")
    );
    assert_eq!(types(&answers)[0], "started");
    let list = answers.borrow();
    assert_eq!(list.last(), Some(&Err(RpcError::bare(errno::ENODATA))));
    assert!(
        list.iter()
            .flatten()
            .any(|a| a["type"] == "finished" && a["status"] == 768)
    );
    let ends = list.iter().flatten().filter(|a| a["io"]["eof"] == true).count();
    assert_eq!(ends, 2);
}

#[test]
fn input_and_credit() {
    let mut hub = hub();
    let (answers, matchtag) = hub.stream(request("rexec.exec", &exec(&["cat"], 1 | 2 | 8)));
    assert_eq!(types(&answers), ["add-credit", "started"]);
    for (data, eof) in [("hello\n", false), ("", true)] {
        let io = IoObject {
            eof,
            ..IoObject::new("stdin", 0, data.as_bytes())
        };
        let write = request("rexec.write", &json!({"matchtag": matchtag, "io": io}));
        hub.with_probe(move |cx| cx.notify(write));
    }
    let seen = answers.clone();
    hub.run_until(move || ended(&seen));
    assert_eq!(text_of(&answers, "stdout"), "hello\n");
    let credits: Vec<u64> = answers
        .borrow()
        .iter()
        .flatten()
        .filter_map(|a| a["channels"]["stdin"].as_u64())
        .collect();
    assert_eq!(credits, [65536, 6]);
}

#[test]
fn errors_have_their_numbers() {
    let mut hub = hub();
    let (answers, _) = hub.stream(request("rexec.exec", &exec(&["/nonexistent/program"], 3)));
    let seen = answers.clone();
    hub.run_until(move || ended(&seen));
    assert_eq!(
        answers.borrow().first(),
        Some(&Err(RpcError::new(
            errno::ENOENT,
            "error launching process: No such file or directory"
        )))
    );
    let (answers, _) = hub.stream(request("rexec.exec", &exec(&[], 3)));
    assert_eq!(
        answers.borrow().first().unwrap().as_ref().unwrap_err().errnum,
        errno::EPROTO
    );
    let err = hub
        .json("rexec.kill", &json!({"pid": 1, "signum": 9}))
        .unwrap_err();
    assert_eq!(
        (err.errnum, err.text.as_str()),
        (errno::ENOENT, "pid 1 does not belong to any subprocess")
    );
    assert_eq!(
        hub.json("rexec.exec", &exec(&["true"], 8)).unwrap_err().errnum,
        errno::EINVAL
    );
}

#[test]
fn background_wait_and_labels() {
    let mut hub = hub();
    let mut body = exec(&["sh", "-c", "echo kept; exit 1"], 16);
    body["cmd"]["label"] = json!("mine");
    let started = hub.json("rexec.exec", &body).unwrap();
    assert_eq!(started["type"], "started");
    assert_eq!(hub.json("rexec.exec", &body).unwrap_err().errnum, errno::EEXIST);
    let list = hub.json("rexec.list", &json!({})).unwrap();
    assert_eq!(
        (&list["rank"], &list["procs"][0]["label"]),
        (&json!(0), &json!("mine"))
    );
    let waited = hub
        .json("rexec.wait", &json!({"pid": -1, "label": "mine"}))
        .unwrap();
    assert_eq!(waited["status"], 256);
    assert_eq!(waited["output"][0]["data"], "kept\n");
    assert_eq!(
        hub.json("rexec.wait", &json!({"pid": started["pid"]}))
            .unwrap_err()
            .errnum,
        errno::ENOENT
    );
}

#[test]
fn attach_follows_a_background_process() {
    let mut hub = hub();
    let pid = hub.json("rexec.exec", &exec(&["sleep", "60"], 16)).unwrap()["pid"].clone();
    let (answers, _) = hub.stream(request("rexec.attach", &json!({"pid": pid, "flags": 3})));
    assert_eq!(types(&answers), ["attached"]);
    let (second, _) = hub.stream(request("rexec.attach", &json!({"pid": pid, "flags": 3})));
    assert_eq!(second.borrow()[0].as_ref().unwrap_err().errnum, errno::EBUSY);
    hub.json("rexec.kill", &json!({"pid": pid, "signum": 15}))
        .unwrap();
    let seen = answers.clone();
    hub.run_until(move || ended(&seen));
    assert!(
        answers
            .borrow()
            .iter()
            .flatten()
            .any(|a| a["type"] == "finished" && a["status"] == 15)
    );
}

#[test]
fn a_client_that_leaves_takes_its_process_along() {
    let mut hub = hub();
    let (answers, _) = hub.stream(request("rexec.exec", &exec(&["sleep", "60"], 3)));
    assert!(pid_of(&answers) > 1);
    let gone = request("rexec.disconnect", &json!({}));
    hub.with_probe(move |cx| cx.notify(gone));
    let seen = answers.clone();
    let pid = pid_of(&answers);
    // the client is gone, so nothing more comes to it; the process is reaped all the same
    hub.run_until(move || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!ended(&seen));
}

#[test]
fn channels_are_named_in_the_environment() {
    let mut hub = hub();
    let mut body = exec(&["sh", "-c", "eval \"echo to-client >&$CHAN\""], 4);
    body["cmd"]["channels"] = json!(["CHAN"]);
    let (answers, _) = hub.stream(request("rexec.exec", &body));
    let seen = answers.clone();
    hub.run_until(move || ended(&seen));
    assert_eq!(text_of(&answers, "CHAN"), "to-client\n");
}

#[test]
fn a_shell_gets_its_document_and_is_reported() {
    let mut hub = hub();
    let argv = ["/bin/sh", "-c", "cat; echo \" $FLUX_KVS_NAMESPACE\"; exit 3"]
        .map(str::to_owned)
        .to_vec();
    let body = agent::start_body(
        &StartHeader {
            id: JobId(7),
            argv,
            outlives: false,
            j: None,
        },
        &json!({"jobspec": {}, "R": {}}),
    )
    .unwrap();
    let reports = Rc::new(RefCell::new(Vec::new()));
    let sink = reports.clone();
    hub.with_probe(move |cx| {
        agent::start(cx, 0, body, move |_: &mut Probe, _, report| {
            sink.borrow_mut().push(report)
        });
    });
    let seen = reports.clone();
    hub.run_until(move || matches!(seen.borrow().last(), Some(ShellReport::Ended(_))));
    let reports = reports.borrow();
    assert!(matches!(reports[0], ShellReport::Started));
    let Some(ShellReport::Ended(end)) = reports.last() else {
        panic!("no end")
    };
    assert_eq!(end.status, Some(768));
    assert_eq!(
        end.output,
        "{\"version\":1,\"id\":7,\"broker_rank\":0,\"jobid_path\":\"/\",\"jobspec\":{},\"R\":{}} job-7\n"
    );
}

#[test]
fn an_imp_gets_the_request_on_the_first_line_and_sigusr1_for_sigkill() {
    let mut hub = hub();
    let script = "trap 'echo; echo usr1; exit 4' USR1; read -r line; echo \"$line\"; cat; echo; echo ready >&2; while :; do sleep 0.01; done";
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let header = StartHeader {
        id: JobId(9),
        argv,
        outlives: false,
        j: Some("a.\"b.c".to_owned()),
    };
    let body = agent::start_body(&header, &json!({"R": {}})).unwrap();
    let end = Rc::new(RefCell::new(None));
    let sink = end.clone();
    hub.with_probe(move |cx| {
        agent::start(cx, 0, body, move |_: &mut Probe, _, report| match report {
            // the trap is set before anything is read
            ShellReport::Started => {}
            ShellReport::Ended(report) => *sink.borrow_mut() = Some(report),
            ShellReport::Failed(err) => panic!("{err}"),
        });
    });
    // signals that come before the trap would end it by the signal: its first child is the one that reads the rest
    let began = std::time::Instant::now();
    let pid = hub.json("rexec.list", &json!({})).unwrap()["procs"][0]["pid"]
        .as_u64()
        .unwrap();
    while !std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .is_ok_and(|text| !text.is_empty())
    {
        assert!(began.elapsed().as_secs() < 10);
    }
    hub.with_probe(|cx| agent::kill(cx, 0, JobId(9), 9));
    let seen = end.clone();
    hub.run_until(move || seen.borrow().is_some());
    let end = end.take().unwrap();
    assert_eq!(end.status, Some(4 << 8));
    let lines: Vec<&str> = end.output.lines().collect();
    assert_eq!(lines[0], r#"{"J":"a.\"b.c","options":{}}"#);
    assert_eq!(
        lines[1],
        r#"{"version":1,"id":9,"broker_rank":0,"jobid_path":"/","J":"a.\"b.c","R":{}}"#
    );
}

#[test]
fn a_killed_shell_leaves_no_task_behind() {
    let mut hub = hub();
    let ready = tempfile::NamedTempFile::new().unwrap();
    let script = format!("sleep 60 & echo $! >{}; wait", ready.path().display());
    let argv = vec!["/bin/sh".to_owned(), "-c".to_owned(), script];
    let body = agent::start_body(
        &StartHeader {
            id: JobId(8),
            argv,
            outlives: false,
            j: None,
        },
        &json!({"jobspec": {}}),
    )
    .unwrap();
    let end = Rc::new(RefCell::new(None));
    let sink = end.clone();
    hub.with_probe(move |cx| {
        agent::start(cx, 0, body, move |_: &mut Probe, _, report| {
            if let ShellReport::Ended(report) = report {
                *sink.borrow_mut() = Some(report);
            }
        });
    });
    let file = ready.path().to_owned();
    hub.run_until(move || std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
    let pid: u32 = std::fs::read_to_string(ready.path())
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    hub.with_probe(|cx| agent::kill(cx, 0, JobId(8), 9));
    let seen = end.clone();
    hub.run_until(move || seen.borrow().is_some());
    assert_eq!(end.borrow().as_ref().and_then(|end| end.status), Some(9));
    // the signal was sent before the report; the kernel ends the task a moment later
    hub.run_until(move || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .is_none_or(|(_, rest)| rest.trim_start().starts_with('Z'))
    });
}
