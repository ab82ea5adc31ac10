//! What happens on a job's nodes between its end and their next job?

use std::time::Duration;

use flux_tests::{Instance, wait_for};

const DEADLINE: Duration = Duration::from_secs(30);

/// Boots two brokers whose housekeeping says where it is, then waits for its gate: a named pipe per rank.
fn boot(more: &str) -> Instance {
    let command = "echo at ${FLUX_URI##*-} after $FLUX_JOB_ID of $FLUX_JOB_RANKS; read end < $GATES.${FLUX_URI##*-}; exit $end";
    let builder = Instance::builder(2);
    let gates = builder.sandbox().workdir().join("gate");
    for rank in 0..2 {
        let made = std::process::Command::new("mkfifo")
            .arg(format!("{}.{rank}", gates.display()))
            .status();
        assert!(made.is_ok_and(|status| status.success()));
    }
    let command = command.replace("$GATES", &gates.display().to_string());
    let config = format!("[job-manager.housekeeping]\ncommand = [\"sh\", \"-c\", \"{command}\"]\n{more}");
    builder.config(&config).boot()
}

/// Lets housekeeping end on a rank with this exit code; returns when it has been told.
fn open_gate(flux: &Instance, rank: u32, code: u32) {
    let gate = flux.sandbox().workdir().join(format!("gate.{rank}"));
    std::fs::write(gate, format!("{code}\n")).unwrap();
}

fn listed(flux: &Instance) -> String {
    let format = "{id} {allocated.ranks} {pending.ranks}";
    flux.run(&["housekeeping", "list", "-n", "-o", format])
        .ok()
        .stdout
        .clone()
}

fn wait_listed(flux: &Instance, wanted: &str) {
    wait_for(&format!("housekeeping is {wanted:?}"), DEADLINE, || {
        (listed(flux) == wanted).then_some(())
    });
}

#[test]
fn nodes_are_held_until_all_are_done() {
    let flux = boot("");
    flux.run(&["run", "-N2", "true"]).ok();
    let id = flux.run(&["job", "last"]).ok().line().to_owned();
    // the job is over, its nodes are not free
    flux.run(&["job", "wait-event", "--timeout=30", &id, "clean"])
        .ok();
    wait_listed(&flux, &format!("{id} 0-1 0-1\n"));
    flux.run(&["resource", "list", "-s", "allocated", "-no", "{nnodes}"])
        .ok()
        .says("2");
    flux.run(&["resource", "status", "-s", "housekeeping", "-no", "{ranks}"])
        .ok()
        .says("0-1");
    let next = flux.run(&["submit", "-N2", "true"]).ok().line().to_owned();
    open_gate(&flux, 0, 0);
    wait_listed(&flux, &format!("{id} 0-1 1\n"));
    flux.run(&["jobs", "-no", "{status_abbrev}", &next])
        .ok()
        .says("S");
    // a new scheduler learns of it
    flux.run(&["module", "reload", "sched-simple"]).ok();
    flux.run(&["resource", "list", "-s", "allocated", "-no", "{nnodes}"])
        .ok()
        .says("2");
    open_gate(&flux, 1, 3);
    flux.run(&["job", "wait-event", "--timeout=30", &next, "clean"])
        .ok();
    flux.run(&["module", "stats", "job-manager"])
        .ok()
        .says("\"release-after\": -1.0");
    let dec = flux.run(&["job", "id", "--to=dec", &id]).ok().line().to_owned();
    flux.run(&["dmesg"])
        .ok()
        .says(&format!("at 0 after {dec} of 0-1"))
        .says(&format!("(rank 1) {id}: nonzero exit code"));
    // this one is ended by a signal
    wait_listed(&flux, &format!("{next} 0-1 0-1\n"));
    flux.run(&["housekeeping", "kill", "--jobid", &next, "--targets=0"])
        .ok();
    wait_listed(&flux, &format!("{next} 0-1 1\n"));
    flux.run(&["housekeeping", "kill", "--all", "--signal=KILL"]).ok();
    wait_listed(&flux, "");
    flux.run(&["resource", "list", "-s", "free", "-no", "{nnodes}"])
        .ok()
        .says("2");
    flux.run(&["dmesg"])
        .ok()
        .says(&format!("(rank 0) {next}: Terminated"))
        .says(&format!("(rank 1) {next}: Killed"));
    flux.stop();
}

#[test]
fn each_node_goes_back_when_it_is_done() {
    let flux = boot("release-after = \"0\"\n");
    flux.run(&["run", "-N2", "true"]).ok();
    let id = flux.run(&["job", "last"]).ok().line().to_owned();
    wait_listed(&flux, &format!("{id} 0-1 0-1\n"));
    open_gate(&flux, 1, 0);
    wait_listed(&flux, &format!("{id} 0 0\n"));
    flux.run(&["resource", "list", "-s", "free", "-no", "{ranks}"])
        .ok()
        .says("1");
    // a configuration that cannot be used changes nothing
    let bad = "{\"job-manager\":{\"housekeeping\":{\"release-after\":\"soon\"}}}";
    flux.run_input(&["config", "load"], bad.as_bytes())
        .fails()
        .complains("job-manager.housekeeping.release-after: FSD parse error");
    // and without one, what runs still ends
    flux.run_input(&["config", "load"], b"{}").ok();
    flux.run(&["run", "-N1", "true"]).ok();
    open_gate(&flux, 0, 0);
    wait_listed(&flux, "");
    flux.stop();
}
