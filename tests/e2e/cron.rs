//! `flux cron`: commands on timers, events and dates; crontabs at the start.

use std::time::Duration;

use flux_tests::{Instance, Sandbox};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn entries_run_where_they_shall_and_are_shown() {
    let flux = Instance::boot(2);
    flux.sh("flux cron interval -c1 -o rank=1 0.01s flux getattr rank")
        .ok()
        .complains("interval: cron-1 created");
    flux.wait_until(&["dmesg"], PATIENCE, |output| {
        output
            .stdout
            .contains(r#"cron-1[flux]: rank=1: command="flux getattr rank": "1""#)
    });
    flux.wait_until(&["cron", "list"], PATIENCE, |output| {
        output.stdout.contains("1/1") && output.stdout.contains("Success")
    });
    assert_eq!(
        flux.run(&["cron", "dump", "-k", "stopped", "1"]).ok().line(),
        "true"
    );
    assert_eq!(
        flux.run(&["cron", "dump", "-k", "task.1.state", "cron-1"])
            .ok()
            .line(),
        "Exited"
    );
    flux.run(&["cron", "start", "1"]).ok().says("Started cron-1");
    flux.wait_until(&["cron", "dump", "1"], PATIENCE, |output| {
        output.stdout.contains("stats.success = 2")
    });
    flux.run(&["cron", "delete", "1"])
        .ok()
        .says("Removed cron-1: flux last ran ");
    flux.run(&["cron", "dump", "1"])
        .fails()
        .complains("cron-1: no such");
    flux.run(&["cron", "stop", "x"])
        .fails()
        .complains("'x' is not the id");
    flux.stop();
}

#[test]
fn events_dates_and_the_environment() {
    let flux = Instance::boot(1);
    flux.sh("FOO=bar flux cron event -E -n2 tick 'echo FOO=$FOO in $(pwd)'")
        .ok();
    flux.sh("flux event pub -l tick && flux event pub -l tick").ok();
    flux.wait_until(&["dmesg"], PATIENCE, |output| {
        output.stdout.contains("\"FOO=bar in /")
    });
    flux.sh("flux cron at -d / 'now + 1 second' 'echo dated in $(pwd)'")
        .ok()
        .complains("cron-2 created: scheduled in ");
    flux.wait_until(&["dmesg"], PATIENCE, |output| {
        output.stdout.contains("\"dated in /\"")
    });
    assert_eq!(
        flux.run(&["cron", "dump", "-k", "stats.count", "2"]).ok().line(),
        "1"
    );
    flux.run(&["cron", "sync", "--epsilon=1s", "beat"])
        .ok()
        .complains("sync to event \"beat\" epsilon=1.000s.");
    flux.run(&["cron", "sync", "-d"]).ok().complains("sync disabled");
    flux.run_input(
        &["cron", "tab"],
        b"0 4 1 0 * true\n# nothing\n*/5 * * * mon-fri date\n",
    )
    .ok()
    .complains("cron-4 created: scheduled in ");
    assert_eq!(
        flux.run(&["cron", "dump", "-k", "typedata.weekday", "4"])
            .ok()
            .line(),
        "1-5"
    );
    flux.run_input(&["cron", "tab"], b"61 * * * * true\n")
        .fails()
        .complains("minute: '61' is not in 0-59");
    flux.run(&["cron", "interval", "-o", "colour=1", "1s", "true"])
        .fails()
        .complains("'colour=1' is none of");
    flux.stop();
}

#[test]
fn crontabs_are_loaded_at_the_start() {
    let sandbox = Sandbox::new();
    let good = sandbox.write(
        "cron.d/good",
        "# once a year\n0 0 1 0 * flux event pub new-year\n",
    );
    let dir = good.parent().unwrap().display().to_string();
    let option = format!("-Scron.directory={dir}");
    let output = sandbox.start(&["-s", "2", &option, "flux cron list"]);
    output.ok().says("flux            Active           0");
    sandbox.write("cron.d/zbad", "0 0 1 0\n");
    let output = sandbox.start(&["-s", "1", &option, "flux cron list"]);
    output
        .fails()
        .complains("zbad: line 1: '0 0 1 0' is not: minute hour");
}
