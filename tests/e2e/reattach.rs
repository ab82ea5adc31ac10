//! Nothing of a job depends on the broker living (promise P4, design note 0006): with a state directory shells and
//! tasks go on when brokers are killed, and are found again.

use std::time::{Duration, Instant};

use flux_tests::{Instance, Random, alive, kill, scaled, wait_for};
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(30);

/// Returns the lines of a file in the working directory, none when it is not there.
fn lines(flux: &Instance, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(flux.sandbox().workdir().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Submits a job, waits until its tasks have started (a line in the file `started` from each), returns its id.
fn submit(flux: &Instance, options: &[&str], tasks: usize, script: &str) -> String {
    let script = format!("echo $FLUX_TASK_RANK >>started; {script}");
    let mut words = vec!["submit"];
    words.extend(options);
    words.extend(["sh", "-c", &script]);
    let id = flux.run(&words).ok().line().to_owned();
    wait_for("all tasks have started", SOON, || {
        (lines(flux, "started").len() >= tasks).then_some(())
    });
    id
}

fn go(flux: &Instance) {
    flux.sandbox().write("go", "");
}

const WAIT: &str = "while [ ! -e go ]; do sleep 0.05; done";

/// Returns the processes of the sandbox whose command contains a text.
fn processes(flux: &Instance, text: &str) -> Vec<i32> {
    let found = flux.sandbox().processes();
    let found = found.into_iter().filter(|process| process.command.contains(text));
    found.map(|process| process.pid).collect()
}

#[test]
fn a_job_outlives_the_leader() {
    let mut flux = Instance::builder(1).persistent().boot();
    let id = submit(&flux, &[], 1, &format!("echo before; {WAIT}; echo after; exit 3"));
    flux.run(&["job", "wait-event", "-t", "20", "-p", "exec", &id, "shell.start"])
        .ok();
    let shells = processes(&flux, "flux-shell");
    flux.crash();
    assert!(shells.len() == 1 && alive(shells[0]), "the shell lives on");
    flux.boot_again();
    flux.run(&["jobs", "-no", "{id} {state}"])
        .ok()
        .says(&format!("{id} RUN"));
    go(&flux);
    let output = flux.run(&["job", "attach", &id]);
    assert_eq!(output.code(3).stdout, "before\nafter\n");
    flux.run(&["job", "wait-event", "-t", "20", &id, "clean"]).ok();
    assert_eq!(lines(&flux, "started").len(), 1, "ran once");
    let exec = flux.run(&["job", "eventlog", "-p", "guest.exec.eventlog", &id]);
    let lines = exec.lines();
    let names: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(
        names.iter().filter(|name| **name == "reattach").count(),
        1,
        "{exec}"
    );
    // what the broker had not written down comes again, after it
    let others: Vec<&str> = names.into_iter().filter(|name| *name != "reattach").collect();
    assert_eq!(
        others,
        [
            "init",
            "starting",
            "shell.init",
            "shell.start",
            "shell.task-exit",
            "shell-exit",
            "complete",
            "done"
        ]
    );
    flux.stop();
}

#[test]
fn a_job_on_several_nodes_outlives_all_brokers() {
    let mut flux = Instance::builder(3).persistent().boot();
    let script = format!("seq 200; {WAIT}; echo after; exit $FLUX_TASK_RANK");
    let id = submit(&flux, &["-N3", "-n6", "--label-io"], 6, &script);
    flux.crash();
    go(&flux);
    // the tasks end while no broker is there
    wait_for("the tasks have ended", SOON, || {
        processes(&flux, "sh -c").is_empty().then_some(())
    });
    assert_eq!(
        processes(&flux, "flux-shell").len(),
        3,
        "the shells wait to be heard"
    );
    flux.boot_again();
    let output = flux.run(&["job", "attach", "--label-io", &id]);
    output.code(5);
    for rank in 0..6 {
        let label = format!("{rank}: ");
        let text: Vec<&str> = output
            .lines()
            .iter()
            .filter_map(|line| line.strip_prefix(&label))
            .collect();
        let mut expected: Vec<String> = (1..=200).map(|number| number.to_string()).collect();
        expected.push("after".to_owned());
        assert_eq!(text, expected, "rank {rank}");
    }
    assert_eq!(lines(&flux, "started").len(), 6);
    flux.stop();
}

/// The leader is killed again and again while a parallel job starts, talks and ends; what it says is exact.
#[test]
fn output_is_whole_after_many_crashes() {
    let mut random = Random::from_env();
    let mut flux = Instance::builder(2).persistent().boot();
    let script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; sleep 0.03; done; exit 4";
    let script = format!("echo $FLUX_TASK_RANK >>started; {script}");
    let id = flux
        .run(&["submit", "-N2", "-n2", "sh", "-c", &script])
        .ok()
        .line()
        .to_owned();
    for _ in 0..scaled(8, 3) {
        flux.run(&["ping", "-c", &(1 + random.below(30)).to_string(), "-i0.02", "0"])
            .ok();
        flux.crash();
        flux.boot_again();
    }
    let output = flux.run(&["job", "attach", "--label-io", &id]);
    let started = lines(&flux, "started").len();
    assert!(started <= 2, "ran once: {started}");
    if started < 2 {
        // killed before the shells had made their claims: an intent without a live shell
        assert_ne!(output.code, 0, "{output}");
        flux.run(&["job", "eventlog", &id])
            .ok()
            .says("was lost while the instance was down");
        return;
    }
    output.code(4);
    let expected: Vec<String> = (1..=300).map(|number| number.to_string()).collect();
    for rank in ["0: ", "1: "] {
        let text: Vec<&str> = output
            .lines()
            .iter()
            .filter_map(|line| line.strip_prefix(rank))
            .collect();
        assert_eq!(text, expected, "rank {rank}");
    }
    flux.stop();
}

#[test]
fn a_job_whose_shell_died_too_is_never_run_again() {
    let mut flux = Instance::builder(1).persistent().boot();
    let id = submit(&flux, &[], 1, "sleep 1000");
    let waiting = flux
        .run(&["submit", "sh", "-c", "echo ran >>waited"])
        .ok()
        .line()
        .to_owned();
    flux.signal(0, Signal::SIGSTOP);
    for shell in processes(&flux, "flux-shell") {
        kill(shell, Signal::SIGKILL);
    }
    flux.crash();
    assert!(
        !processes(&flux, "sleep 1000").is_empty(),
        "nobody was there to end the task"
    );
    flux.boot_again();
    flux.run(&["job", "wait-event", "-t", "20", &id, "clean"]).ok();
    let log = flux.run(&["job", "eventlog", &id]);
    log.ok()
        .says("exception type=\"exec\" severity=0")
        .says("ended without a report");
    wait_for("the task that was left behind is ended", SOON, || {
        processes(&flux, "sleep 1000").is_empty().then_some(())
    });
    assert_eq!(lines(&flux, "started").len(), 1, "never a second run");
    flux.run(&["job", "wait-event", "-t", "20", &waiting, "clean"])
        .ok();
    assert!(lines(&flux, "waited").len() <= 1);
    flux.stop();
}

#[test]
fn a_job_that_was_being_cancelled_is_ended() {
    let mut flux = Instance::builder(1).persistent().boot();
    let id = submit(&flux, &[], 1, "trap '' TERM; sleep 1000; sleep 1000");
    flux.run(&["cancel", &id]).ok();
    flux.crash();
    flux.boot_again();
    flux.run(&["job", "wait-event", "-t", "30", &id, "clean"]).ok();
    flux.run(&["job", "eventlog", &id]).ok().says("type=\"cancel\"");
    wait_for("the tasks are ended", SOON, || {
        processes(&flux, "sleep 1000").is_empty().then_some(())
    });
    flux.stop();
}

#[test]
fn the_time_limit_holds_after_a_restart() {
    let mut flux = Instance::builder(1).persistent().boot();
    let id = submit(&flux, &["-t", "4s"], 1, "sleep 1000");
    flux.crash();
    flux.boot_again();
    flux.run(&["job", "wait-event", "-t", "30", &id, "clean"]).ok();
    flux.run(&["job", "eventlog", &id]).ok().says("type=\"timeout\"");
    flux.stop();
}

#[test]
fn the_execution_service_can_be_reloaded() {
    let flux = Instance::boot(2);
    let id = submit(&flux, &["-N2", "-n2"], 2, &format!("{WAIT}; echo after"));
    flux.run(&["module", "remove", "job-exec"]).ok();
    flux.run(&["module", "load", "job-exec"]).ok();
    flux.run(&["jobs", "-no", "{id} {state}"])
        .ok()
        .says(&format!("{id} RUN"));
    go(&flux);
    let output = flux.run(&["job", "attach", &id]);
    assert_eq!(output.ok().stdout, "after\nafter\n");
    flux.stop();
}

#[test]
fn without_a_state_directory_nothing_lingers() {
    let mut flux = Instance::boot(3);
    // with something in the background, and something that does not mind signals
    submit(
        &flux,
        &["-N3", "-n3"],
        3,
        "trap '' TERM HUP; sleep 1000 & sleep 1001; sleep 1002",
    );
    flux.signal(0, Signal::SIGKILL);
    // the initial program was started by the leader and does not know of its end
    flux.end_program();
    wait_for(
        "brokers, shells and tasks have ended",
        Duration::from_secs(20),
        || {
            let left = flux.sandbox().processes();
            left.iter()
                .all(|process| process.command.contains("start -s"))
                .then_some(())
        },
    );
    flux.wait_end(Duration::from_secs(25));
    flux.sandbox().nothing_left("the death of the leader");
}

#[test]
fn a_clean_shutdown_ends_running_jobs() {
    let mut flux = Instance::builder(2).persistent().boot();
    let id = submit(&flux, &["-N2", "-n2"], 2, "sleep 1000");
    flux.run(&["shutdown", "--skip-gc"]).ok();
    flux.wait_end(SOON);
    // a shell whose last word was heard may still be on its way out
    let started = Instant::now();
    wait_for("nothing is left", SOON, || {
        let left = flux.sandbox().processes();
        assert!(started.elapsed() < SOON / 2, "left behind: {left:?}");
        left.is_empty().then_some(())
    });
    flux.boot_again();
    flux.run(&["job", "eventlog", &id])
        .ok()
        .says("exception type=\"cancel\" severity=0 note=\"instance is shutting down\"")
        .says("clean");
    flux.stop();
}

#[test]
fn a_clean_shutdown_can_leave_jobs_alone() {
    let mut flux = Instance::builder(2)
        .persistent()
        .env("FLUX_DISABLE_JOB_CLEANUP", "1")
        .boot();
    let id = submit(&flux, &["-N2", "-n2"], 2, &format!("{WAIT}; echo after"));
    flux.run(&["shutdown", "--skip-gc"]).ok();
    flux.wait_end(SOON);
    assert_eq!(processes(&flux, "flux-shell").len(), 2);
    flux.boot_again();
    go(&flux);
    let output = flux.run(&["job", "attach", &id]);
    assert_eq!(output.ok().stdout, "after\nafter\n");
    flux.stop();
}
