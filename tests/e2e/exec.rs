//! `flux exec`: processes on brokers, their streams, signals and exit codes.

use flux_tests::Instance;

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
