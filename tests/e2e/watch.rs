//! `flux watch` and `flux multi-prog`.

use flux_tests::{Instance, Sandbox};

#[test]
fn output_of_many_jobs() {
    let flux = Instance::boot(2);
    let ids = flux
        .run(&["submit", "--cc=1-3", "sh", "-c", "echo $FLUX_JOB_CC; echo e >&2"])
        .ok()
        .stdout
        .clone();
    let words: Vec<&str> = ["watch"].into_iter().chain(ids.lines()).collect();
    let output = flux.run(&words);
    assert_eq!(output.ok().sorted(), ["1", "2", "3"]);
    assert_eq!(output.stderr, "e\ne\ne\n");
    flux.run(&["submit", "-n2", "sh", "-c", "echo $FLUX_TASK_RANK; exit 3"])
        .ok();
    let output = flux.run(&["watch", "-A", "-l", "-v"]);
    output
        .code(3)
        .complains("Watching 4 jobs")
        .complains("exited with exit code 3");
    assert!(
        output.lines().iter().any(|line| line.ends_with(": 1: 1")),
        "{output}"
    );
    flux.run(&["watch", "--active"])
        .ok()
        .complains("No matching jobs");
    flux.run(&["watch"])
        .code(1)
        .complains("At least one job selection option");
    flux.run(&["watch", "ƒ1"]).complains("ƒ1");
    flux.run(&["watch", "--since=+1h"]).fails().complains("future");
    flux.stop();
}

#[test]
fn a_program_per_task() {
    let flux = Instance::boot(2);
    flux.sandbox().write(
        "conf",
        "# rank program\n0 echo first '%t %o'\n1,3 echo odd %o\n* sh -c 'exit 4'\n",
    );
    let output = flux.run(&["run", "-n4", "--label-io", "flux", "multi-prog", "conf"]);
    assert_eq!(output.code(4).sorted(), ["0: first 0 0", "1: odd 0", "3: odd 1"]);
    flux.stop();
    let sandbox = Sandbox::new();
    sandbox.write("conf", "0-1 echo 'a b' %t\n");
    let output = sandbox.run("flux", &["multi-prog", "-n", "0-1", "conf"]);
    assert_eq!(output.ok().lines(), ["0: echo 'a b' 0", "1: echo 'a b' 1"]);
    sandbox
        .run("flux", &["multi-prog", "-n", "2", "conf"])
        .fails()
        .complains("rank 2");
    sandbox
        .run("flux", &["multi-prog", "conf"])
        .fails()
        .complains("FLUX_TASK_RANK");
    sandbox.write("conf", "0 ok\nx bad\n");
    sandbox
        .run("flux", &["multi-prog", "-n0", "conf"])
        .fails()
        .complains("line 2");
    sandbox.write("conf", "0 no-such-program\n");
    let sandbox = Sandbox::new().env("FLUX_TASK_RANK", "0");
    sandbox.write("conf", "0 no-such-program\n");
    sandbox
        .run("flux", &["multi-prog", "conf"])
        .code(127)
        .complains("no-such-program");
}
