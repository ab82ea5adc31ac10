//! How does an instance end? `flux shutdown`, signals, the cleanup stack, and nothing left behind.

use std::time::Duration;

use flux_tests::Instance;
use nix::sys::signal::Signal;

#[test]
fn shutdown_command_ends_all_brokers() {
    let mut flux = Instance::boot(4);
    flux.run(&["shutdown", "--skip-gc"]).ok();
    let code = flux.wait_end(Duration::from_secs(20));
    // the initial program is ended with SIGHUP, as the original does
    assert_eq!(code, 129, "{}", flux.log());
    flux.sandbox().nothing_left("shutdown");
}

#[test]
fn shutdown_works_from_a_follower_and_in_the_background() {
    let mut flux = Instance::boot(2);
    flux.on(1, &["shutdown", "--skip-gc", "--background"]).ok();
    flux.wait_end(Duration::from_secs(20));
    flux.sandbox().nothing_left("shutdown");
}

/// Acceptance 8: SIGTERM to the leader runs cleanup and leaves no process, socket or directory behind.
#[test]
fn sigterm_to_the_leader_leaves_nothing() {
    let mut flux = Instance::boot(4);
    flux.signal(0, Signal::SIGTERM);
    let code = flux.wait_end(Duration::from_secs(20));
    // the broker waits for the program that it interrupted
    assert_eq!(code, 129, "{}", flux.log());
    flux.sandbox().nothing_left("SIGTERM");
}

#[test]
fn sigterm_to_flux_start_is_passed_on() {
    let mut flux = Instance::boot(2);
    for process in flux.sandbox().processes() {
        if process.command.contains("start -s 2") {
            flux_tests::kill(process.pid, Signal::SIGTERM);
        }
    }
    flux.wait_end(Duration::from_secs(20));
    flux.sandbox().nothing_left("SIGTERM to flux start");
}

#[test]
fn a_follower_that_leaves_says_goodbye() {
    let flux = Instance::boot(3);
    flux.signal(2, Signal::SIGTERM);
    flux.wait_until(
        &["overlay", "status", "--no-pretty"],
        Duration::from_secs(20),
        |output| output.stdout.contains("offline") || output.stdout.contains("lost"),
    );
    assert!(flux_tests::alive(flux.pid(0)) && flux_tests::alive(flux.pid(1)));
    flux.run(&["ping", "-c1", "1"]).ok();
    flux.run(&["ping", "-c1", "2"])
        .fails()
        .complains("No route to host");
}

#[test]
fn jobs_are_cancelled_at_the_end() {
    let flux = Instance::boot(2);
    flux.run(&["submit", "-N2", "sleep", "1000"]).ok();
    flux.wait_until(&["jobs", "-no", "{state}"], Duration::from_secs(20), |output| {
        output.stdout.contains("RUN")
    });
    flux.stop();
}
