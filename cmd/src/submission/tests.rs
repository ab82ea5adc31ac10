//! Are the jobspecs the ones that the original makes? Against `--dry-run` output of flux-core 0.88.

use clap::{ArgMatches, Command};
use serde_json::{Map, Value};

use super::{Process, add_common, add_dry_run, add_shape, add_stdio, build};
use crate::common::args::{list, trailing};
use crate::common::json::python;

fn parse(words: &[&str]) -> ArgMatches {
    let command = add_shape(add_dry_run(add_stdio(add_common(Command::new("flux run")))));
    let command = command
        .arg(crate::common::args::value("cc-value", None, "N", "h"))
        .arg(trailing("command", false, "Command"));
    command.get_matches_from(std::iter::once("flux run").chain(words.iter().copied()))
}

/// Takes environment, cwd and limits from a recorded jobspec, as the recording process had them.
fn process(recorded: &Value) -> Process {
    let system = &recorded["attributes"]["system"];
    let environment = system["environment"].as_object().cloned().unwrap_or_default();
    let rlimits: Map<String, Value> = system["shell"]["options"]["rlimit"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    Process {
        environment: environment
            .into_iter()
            .map(|(k, v)| (k, v.as_str().unwrap_or("").to_owned()))
            .collect(),
        cwd: system["cwd"].as_str().unwrap_or("").to_owned(),
        rlimits,
        now: 1_795_240_137.525_952,
    }
}

fn check(words: &[&str], recorded: &str) {
    let golden: Value = serde_json::from_str(recorded).unwrap();
    let mut process = process(&golden);
    process.environment.shift_remove("FLUX_JOB_CC");
    let matches = parse(words);
    let request = build(&matches, &list(&matches, "command"), &process).unwrap();
    assert_eq!(
        python(&request.jobspec).unwrap(),
        recorded.trim_end(),
        "{words:?}"
    );
}

/// The recorded jobspecs, with an environment of one variable.
const BASIC: &str = r#"{"resources": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 1}], "label": "task"}], "tasks": [{"command": ["true"], "slot": "task", "count": {"per_slot": 1}}], "attributes": {"system": {"duration": 0, "environment": {"SHELL": "/bin/bash"}, "cwd": "/home/user/golden", "shell": {"options": {"rlimit": {"cpu": -1, "nofile": 20000}}}}}, "version": 1}"#;
const CORES_NODES: &str = r#"{"resources": [{"type": "node", "count": 2, "with": [{"type": "slot", "count": 1, "with": [{"type": "core", "count": 2}], "label": "task"}]}], "tasks": [{"command": ["hostname"], "slot": "task", "count": {"per_slot": 1}}], "attributes": {"system": {"duration": 0, "shell": {"options": {"per-resource": {"type": "core", "count": 1}, "rlimit": {"cpu": -1, "nofile": 20000}}}, "environment": {"SHELL": "/bin/bash"}, "cwd": "/home/user/golden"}}, "version": 1}"#;
const FULL: &str = r#"{"resources": [{"type": "slot", "count": 2, "with": [{"type": "core", "count": 1}], "label": "task"}], "tasks": [{"command": ["/bin/echo", "hello"], "slot": "task", "count": {"per_slot": 1}}], "attributes": {"system": {"duration": 300.0, "environment": {"FOO": "bar", "PATH": "/usr/bin:/bin"}, "cwd": "/tmp", "job": {"name": "foo"}, "shell": {"options": {"input": {"stdin": {"type": "file", "path": "/dev/null"}, "batch-timeout": 0.0}, "output": {"stdout": {"type": "file", "path": "out.{{id}}.txt", "label": true, "buffer": {"type": "none"}}, "stderr": {"type": "file", "path": "err.txt", "label": true, "buffer": {"type": "none"}}, "batch-timeout": 0.05}, "rlimit": {"cpu": -1, "nofile": 1024}, "signal": {"signum": 10, "timeleft": 60.0}, "taskmap": {"scheme": "cyclic", "value": ""}, "verbose": 2, "cpu-affinity": "per-task", "exit-timeout": "30s"}}, "queue": "batch", "bank": "proj", "dependencies": [{"scheme": "afterok", "value": "f1"}, {"scheme": "begin-time", "value": "1795243737.525952"}], "constraints": {"hostlist": ["foo"]}, "foo": 1}, "user": {"note": "hi"}}, "version": 1}"#;

#[test]
fn golden_jobspecs() {
    check(&["true"], BASIC);
    check(&["--output=none", "true"], BASIC);
    check(&["--cores=4", "-N2", "hostname"], CORES_NODES);
    let full = [
        "-n2",
        "-t5m",
        "--env=-*",
        "--env=FOO=bar",
        "--env=PATH=/usr/bin:/bin",
        "--cwd=/tmp",
        "--job-name=foo",
        "--input=/dev/null",
        "--output=out.{{id}}.txt",
        "--error=err.txt",
        "-l",
        "-u",
        "--rlimit=nofile=1024",
        "--signal=USR1@60s",
        "--taskmap=cyclic",
        "-o",
        "verbose=2",
        "-o",
        "cpu-affinity=per-task",
        "-o",
        "exit-timeout=30s",
        "-qbatch",
        "-Bproj",
        "--dependency=afterok:f1",
        "--begin-time=+1h",
        "--requires=host:foo",
        "-S",
        "foo",
        "-S",
        "user.note=hi",
        "/bin/echo",
        "hello",
    ];
    check(&full, FULL);
    let cc = BASIC.replace(
        r#""SHELL": "/bin/bash""#,
        r#""SHELL": "/bin/bash", "FLUX_JOB_CC": "1""#,
    );
    check(&["--cc-value=1", "true"], &cc);
}

/// Walks the recorded outputs when the directory is named: `FLUX_GOLDEN_DIR`.
#[test]
fn recorded_directory() {
    let Ok(dir) = std::env::var("FLUX_GOLDEN_DIR") else {
        return;
    };
    let cases: [(&str, &[&str]); 10] = [
        ("basic", &["true"]),
        ("output-none", &["true"]),
        ("wait-event", &["true"]),
        ("run-n4-c2-g1", &["-n4", "-c2", "-g1", "hostname", "-f"]),
        ("nodes-N2-n4", &["-N2", "-n4", "hostname"]),
        ("nodes-exclusive", &["-N2", "-x", "hostname"]),
        ("gpus-per-node", &["-N2", "--gpus-per-node=2", "hostname"]),
        ("tasks-per-node", &["-N2", "--tasks-per-node=2", "hostname"]),
        ("cores-nodes", &["-N2", "--cores=4", "hostname"]),
        (
            "constraint",
            &["--requires=(a ^b) or (host:node[1-3] rank:0)", "true"],
        ),
    ];
    for (name, words) in cases {
        check(
            words,
            &std::fs::read_to_string(format!("{dir}/jobspec/{name}.json")).unwrap(),
        );
    }
    let cc = std::fs::read_to_string(format!("{dir}/jobspec/cc.txt")).unwrap();
    check(&["--cc-value=1", "echo", "1"], cc.lines().next().unwrap());
}

#[test]
fn errors_name_the_option() {
    let bad: [(&[&str], &str); 12] = [
        (&[], "command"),
        (&["-n0", "true"], "greater than zero"),
        (&["-n2", "--cores=2", "true"], "mixed"),
        (&["--tasks-per-node=1", "--tasks-per-core=1", "true"], "Only one"),
        (&["-nx", "true"], "--ntasks"),
        (&["-tx", "true"], "time limit"),
        (&["--urgency=32", "true"], "urgency"),
        (&["--flags=x", "true"], "--flags"),
        (&["--signal=@x", "true"], "duration"),
        (&["--signal=FOO", "true"], "--signal"),
        (&["--dependency=x", "true"], "--dependency"),
        (&["--requires=(", "true"], "--requires"),
    ];
    let golden: Value = serde_json::from_str(BASIC).unwrap();
    for (words, want) in bad {
        let matches = parse(words);
        let err = build(&matches, &list(&matches, "command"), &process(&golden))
            .unwrap_err()
            .to_string();
        assert!(err.contains(want), "{words:?}: {err}");
    }
}

#[test]
fn attributes_and_options() {
    let golden: Value = serde_json::from_str(BASIC).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("j.json");
    std::fs::write(&file, "{\"a\": [1]}").unwrap();
    let from_file = format!("^x.y={}", file.display());
    let words = [
        "-S",
        ".foo.bar=1",
        "-S",
        "system.q=[2]",
        "-S",
        &from_file,
        "-o",
        "a.b",
        "-o",
        "t=text",
        "--urgency=hold",
        "--flags=debug,waitable",
        "--input=0-3",
        "--signal",
        "true",
    ];
    let matches = parse(&words);
    let request = build(&matches, &["true"], &process(&golden)).unwrap();
    let attributes = &request.jobspec["attributes"];
    assert_eq!(attributes["foo"]["bar"], 1);
    assert_eq!(attributes["system"]["q"][0], 2);
    assert_eq!(attributes["system"]["x"]["y"]["a"][0], 1);
    assert_eq!(attributes["system"]["shell"]["options"]["a"]["b"], 1);
    assert_eq!(attributes["system"]["shell"]["options"]["t"], "text");
    assert_eq!(attributes["system"]["shell"]["options"]["signal"]["signum"], 10);
    assert_eq!(
        (request.urgency, request.flags, request.stdin_ranks.as_deref()),
        (0, 6, Some("0-3"))
    );
}
