//! `flux exec`: processes on brokers, their streams, signals and exit codes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use flux_tests::Instance;
use nix::sys::signal::Signal;

#[test]
fn everywhere_with_labels_and_codes() {
    let flux = Instance::boot(4);
    let output = flux.run(&["exec", "-r", "all", "--label-io", "flux", "getattr", "rank"]);
    assert_eq!(output.ok().sorted(), ["0: 0", "1: 1", "2: 2", "3: 3"]);
    let output = flux.run(&["exec", "-r", "all", "-x", "0-1", "flux", "getattr", "rank"]);
    assert_eq!(output.ok().sorted(), ["2", "3"]);
    flux.run(&["exec", "-r", "1", "sh", "-c", "exit 9"]).code(9);
    flux.run(&["exec", "-r", "1", "no-such-program"])
        .code(127)
        .complains("no-such-program");
    flux.run(&["exec", "-r", "9", "true"]).fails();
    flux.run(&["exec", "-r", "2", "--dir=/", "pwd"]).ok().says("/\n");
    flux.run(&["exec", "-r", "0-1", "sh", "-c", "echo err >&2"])
        .ok()
        .complains("err");
    flux.stop();
}

#[test]
fn standard_input_reaches_all() {
    let flux = Instance::boot(3);
    let data = "line\n".repeat(50_000);
    let output = flux.run_input(&["exec", "-r", "all", "sh", "-c", "cat | wc -c"], data.as_bytes());
    assert_eq!(output.ok().sorted(), ["250000"; 3]);
    flux.stop();
}

#[test]
fn a_client_that_goes_takes_its_processes_along() {
    let flux = Instance::boot(2);
    let mut command = flux.command(&flux_tests::bindir().join("flux").to_string_lossy());
    command.args(["exec", "-r", "1", "sleep", "987"]);
    let mut client = command.spawn().unwrap();
    let sleeping = || {
        flux.sandbox()
            .processes()
            .iter()
            .any(|p| p.command == "sleep 987")
    };
    flux_tests::wait_for("the process runs", flux_tests::DEADLINE, || {
        sleeping().then_some(())
    });
    client.kill().unwrap();
    client.wait().unwrap();
    flux_tests::wait_for("the process is ended", flux_tests::DEADLINE, || {
        (!sleeping()).then_some(())
    });
    flux.stop();
}

/// `--attach`: output and exit code of a background process; an interrupt leaves it alone.
#[test]
fn attached_to_a_background_process() {
    let flux = Instance::boot(2);
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let script = format!(
        "while ! test -e {}; do sleep 0.05; done; echo done; exit 7",
        go.display()
    );
    let all = ["exec", "-q", "--bg", "--label=bg", "sh", "-c", &script];
    flux.run(&all).ok();
    let ps = flux.run(&["sproc", "ps", "-r", "1", "-no", "{pid}"]);
    let pid = ps.ok().line().to_owned();
    let attach = |words: &[&str]| {
        let mut command = flux.command("flux");
        command.args(["exec", "-v", "--attach"]).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("attached to pid"), "{line}");
        (child, lines)
    };
    let (mut first, mut said) = attach(&["-r", "1", &pid]);
    flux.run(&["exec", "-r", "1", "--attach", "bg"])
        .code(1)
        .complains("has a client already");
    flux_tests::kill(first.id().try_into().unwrap(), Signal::SIGINT);
    assert!(first.wait().unwrap().success());
    let hint = format!("detached; use 'flux sproc kill SIGNUM {pid}' to signal it");
    assert_eq!(said.next().unwrap().unwrap(), hint);
    let (second, _said) = attach(&["-l", "bg"]);
    std::fs::write(&go, "").unwrap();
    let output = second.wait_with_output().unwrap();
    let mut lines: Vec<_> = output.stdout.lines().map(Result::unwrap).collect();
    lines.sort();
    assert_eq!(
        (lines, output.status.code()),
        (vec!["0: done".to_owned(), "1: done".to_owned()], Some(7))
    );
    let refused = |words: &[&str]| flux.run(&[&["exec", "--attach"], words].concat());
    refused(&["-r", "0", "bg"]).code(127).complains("label bg");
    refused(&["-r", "0", "4294967297"]).code(127);
    refused(&["4242"]).fails().complains("single target rank");
    refused(&["a", "b"]).fails().complains("single pid or label");
    refused(&["--bg", "a"])
        .fails()
        .complains("cannot be used with --bg");
    flux.stop();
}

/// `--jobid`: the shells of the job run the program beside its tasks, and end it with them.
#[test]
fn beside_the_tasks_of_a_job() {
    let flux = Instance::boot(3);
    let job = ["submit", "-N2", "--requires=rank:1-2", "sleep", "1000"];
    let id = flux.run(&job).ok().line().to_owned();
    let exec = |words: &[&str]| flux.run(&[&["exec", "--jobid", &id], words].concat());
    let output = exec(&["-l", "flux", "getattr", "rank"]);
    assert_eq!(output.ok().sorted(), ["1: 1", "2: 2"]);
    // the ranks are those of the job
    assert_eq!(exec(&["-r", "1", "flux", "getattr", "rank"]).ok().lines(), ["2"]);
    assert_eq!(exec(&["-x", "1", "flux", "getattr", "rank"]).ok().lines(), ["1"]);
    let big = "x".repeat(300_000);
    let script = ["exec", "--jobid", &id, "-r", "0", "cat"];
    let output = flux.run_input(&script, big.as_bytes());
    assert!(output.ok().stdout == big, "{} bytes", output.stdout.len());
    exec(&["sh", "-c", "echo wrong >&2; exit 3"])
        .code(3)
        .complains("wrong");
    exec(&["/no/such/program"])
        .code(127)
        .complains("No such file or directory");
    let mut beside = flux
        .command("flux")
        .args([
            "exec",
            "--jobid",
            &id,
            "--noinput",
            "sh",
            "-c",
            "echo started; exec sleep 1000",
        ])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(beside.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "started");
    flux.run(&["cancel", &id]).ok();
    assert_eq!(beside.wait().unwrap().code(), Some(128 + 9));
    flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
        .ok();
    exec(&["true"]).fails().complains("is not currently running");
    flux.run(&["exec", "--jobid", "1", "true"])
        .fails()
        .complains("job 1 not found");
    flux.stop();
}
