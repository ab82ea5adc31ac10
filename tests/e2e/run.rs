//! `flux run`: tasks over brokers, their streams, options and exit codes (acceptance 2 and 6).

use std::time::Duration;

use flux_tests::{Instance, Sandbox};

/// Acceptance 2, word for word.
#[test]
fn eight_labelled_lines() {
    let output = Sandbox::new().start(&["-s", "4", "flux", "run", "-N4", "-n8", "--label-io", "hostname"]);
    let lines = output.ok().sorted();
    assert_eq!(lines.len(), 8, "{output}");
    for (task, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("{task}: ")), "{output}");
    }
}

#[test]
fn exit_codes() {
    let flux = Instance::boot(2);
    flux.run(&["run", "true"]).ok();
    flux.run(&["run", "false"]).code(1);
    flux.run(&["run", "-n2", "sh", "-c", "exit $((FLUX_TASK_RANK * 7))"])
        .code(7);
    flux.run(&["run", "sh", "-c", "kill -TERM $$"]).code(143);
    flux.run(&["run", "no-such-program"])
        .code(127)
        .complains("no-such-program");
    flux.run(&["run", "/"]).code(126);
    flux.stop();
}

#[test]
fn environment_directory_and_tasks() {
    let flux = Instance::boot(2);
    let script = "echo $FLUX_JOB_SIZE $FLUX_JOB_NNODES $FLUX_TASK_LOCAL_ID $MINE";
    let output = flux.run(&["run", "-N2", "-n2", "--env=MINE=yes", "sh", "-c", script]);
    assert_eq!(output.ok().sorted(), ["2 2 0 yes"; 2]);
    assert_eq!(flux.run(&["run", "--cwd=/", "pwd"]).ok().line(), "/");
    let output = flux.run(&["run", "-n4", "--label-io", "sh", "-c", "echo $FLUX_TASK_RANK"]);
    assert_eq!(output.ok().sorted(), ["0: 0", "1: 1", "2: 2", "3: 3"]);
    let output = flux.run(&["run", "-N2", "-n4", "--taskmap=cyclic", "flux", "getattr", "rank"]);
    assert_eq!(output.ok().sorted(), ["0", "0", "1", "1"]);
    flux.run(&[
        "run",
        "--env-remove=*",
        "--env=PATH",
        "sh",
        "-c",
        "test -z \"$HOME\"",
    ])
    .ok();
    flux.stop();
}

#[test]
fn streams() {
    let flux = Instance::boot(2);
    let output = flux.run_input(&["run", "-n2", "cat"], b"one\ntwo\n");
    assert_eq!(output.ok().sorted(), ["one", "one", "two", "two"]);
    flux.run(&["run", "sh", "-c", "echo out; echo err >&2"])
        .ok()
        .says("out")
        .complains("err");
    flux.run(&["run", "--output=out-{{id}}.txt", "echo", "in a file"])
        .ok();
    assert_eq!(flux.sh("cat out-*.txt").ok().line(), "in a file");
    flux.run(&["run", "--output=/no/such/dir/file", "echo", "x"])
        .fails()
        .complains("/no/such/dir/file");
    flux.sandbox().write("input.txt", "from a file\n");
    assert_eq!(
        flux.run(&["run", "--input=input.txt", "cat"]).ok().line(),
        "from a file"
    );
    let big = flux.run(&["run", "-n2", "sh", "-c", "yes 0123456789 | head -n 20000"]);
    assert_eq!(big.ok().lines().len(), 40_000);
    flux.stop();
}

/// Acceptance 6: the events of a job and of its execution, in order.
#[test]
fn verbose_shows_the_events_in_order() {
    let flux = Instance::boot(1);
    let output = flux.run(&["run", "-vvv", "sleep", "0.01"]);
    // two eventlogs, each in its order; which of two events of the same moment is shown first is not said
    let job = [
        "jobid: ",
        "job.validate",
        "job.depend",
        "job.priority",
        "job.alloc",
        "job.start",
    ];
    let exec = [
        "exec.init",
        "exec.starting",
        "exec.shell.init",
        "exec.shell.start",
        "exec.shell.task-exit",
        "exec.complete",
        "exec.done",
    ];
    for expected in [job.as_slice(), exec.as_slice()] {
        let mut rest = output.ok().stderr.as_str();
        for name in expected {
            match rest.split_once(name) {
                Some((_, after)) => rest = after,
                None => panic!("{name} is missing or out of order: {output}"),
            }
        }
    }
    output
        .complains("job.finish")
        .complains("job.release")
        .complains("job.free")
        .complains("job.clean");
    flux.stop();
}

#[test]
fn signals_and_limits() {
    let flux = Instance::boot(1);
    let output = flux.run(&["run", "-t", "0.5s", "sleep", "100"]);
    output.code(142).complains("timeout");
    assert!(output.elapsed < Duration::from_secs(30), "{output}");
    let output = flux.sh(
        "id=$(flux submit sleep 100); flux job wait-event -t 20 $id start >/dev/null
         flux cancel $id; flux job attach $id",
    );
    output.code(143).complains("cancel");
    let output = flux.sh(
        "id=$(flux submit sh -c 'trap \"echo caught; exit 0\" USR1; echo ready; while :; do sleep 0.01; done')
         flux job wait-event -t 20 -p exec $id shell.start >/dev/null
         flux job attach $id >out & pid=$!; until grep -q ready out; do :; done
         flux job kill -s USR1 $id; wait $pid; cat out",
    );
    output.ok().says("caught");
    flux.stop();
}

#[test]
fn a_terminal() {
    let flux = Instance::boot(1);
    let output = flux.run(&[
        "run",
        "-o",
        "pty",
        "sh",
        "-c",
        "test -t 0 && test -t 1 && echo tty",
    ]);
    output.ok().says("tty");
    flux.stop();
}

/// What the shell says of itself, in the words of the original.
#[test]
fn the_log_of_the_shell() {
    let flux = Instance::boot(1);
    let output = flux.run(&["run", "-o", "verbose=2", "-n2", "-c1", "flux", "pmi", "barrier"]);
    output
        .ok()
        .complains(
            "s: flux-shell[0]: DEBUG: 0: task_count=2 slot_count=2 cores_per_slot=1 slots_per_node=-1\n",
        )
        .complains("s: flux-shell[0]: DEBUG: 0: tasks [0-1] on cores ")
        .complains("s: flux-shell[0]: DEBUG: output: batch timeout = 0.500s\n")
        .complains("s: flux-shell[0]: TRACE: pmi-simple: 0: C: cmd=init pmi_version=1 pmi_subversion=1\n")
        .complains("s: flux-shell[0]: TRACE: pmi-simple: 1: S: pmi finalized\n")
        .complains("s: flux-shell[0]: TRACE: pmi-simple: 1: C: pmi EOF\n")
        .complains("s: flux-shell[0]: DEBUG: task 1 complete status=0\n")
        .complains("s: flux-shell[0]: DEBUG: exit 0\n");
    assert_eq!(flux.run(&["mini", "run", "-n1", "echo", "hi"]).ok().line(), "hi");
    flux.stop();
}
