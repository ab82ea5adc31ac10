//! `flux alloc`: instances for interactive work.

use flux_tests::Instance;

#[test]
fn a_command_in_an_instance_of_its_own() {
    let flux = Instance::boot(2);
    let output = flux.run(&[
        "alloc",
        "-N2",
        "flux",
        "run",
        "-N2",
        "flux",
        "getattr",
        "instance-level",
    ]);
    assert_eq!(output.ok().lines(), ["1", "1"]);
    flux.run(&["alloc", "-n1", "sh", "-c", "exit 3"]).code(3);
    flux.run(&["alloc", "true"]).fails().complains("slots");
    // limits of the job are those of the instance
    let output = flux.run(&[
        "alloc", "-n1", "-t", "10m", "flux", "run", "flux", "job", "timeleft",
    ]);
    let left: u32 = output.ok().line().parse().unwrap();
    assert!((1..=600).contains(&left), "{output}");
    flux.stop();
}

#[test]
fn in_the_background() {
    let flux = Instance::boot(1);
    let output = flux.run(&["alloc", "-n1", "--bg", "-v"]);
    output.complains("resources allocated").complains("ready");
    let id = output.ok().line().to_owned();
    assert_eq!(
        flux.run(&["proxy", &id, "flux getattr instance-level"])
            .ok()
            .line(),
        "1"
    );
    flux.run(&["shutdown", &id]).ok();
    flux.run(&["job", "status", &id]).ok();
    // a program that fails at once: the command says so and does not wait
    flux.run(&["alloc", "-n1", "--bg", "--broker-opts=--no-such-option"])
        .fails()
        .complains("unexpectedly exited");
    flux.stop();
}
