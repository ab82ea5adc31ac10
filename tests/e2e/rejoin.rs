//! Brokers that come late, come back, or are slow: a configured instance whose brokers start one by one.

use std::time::Duration;

use flux_tests::{Cluster, alive, wait_for};
use nix::sys::signal::Signal;

const WAIT: &str = "while [ ! -e go ]; do sleep 0.05; done";

fn lines(cluster: &Cluster, name: &str) -> usize {
    let text = std::fs::read_to_string(cluster.sandbox().workdir().join(name)).unwrap_or_default();
    text.lines().count()
}

/// F081: brokers may start in any order; they come online when their parent does.
#[test]
fn brokers_start_in_any_order() {
    // 0 is the parent of 1, 1 that of 2
    let mut cluster = Cluster::new(3, 28370, "", |rank| rank.checked_sub(1)).option("-Sbroker.quorum=1");
    cluster.start(2);
    cluster.start(0);
    cluster.wait_online("0");
    cluster.run(0, &["run", "-n1", "true"]).ok();
    let status = cluster.run(0, &["overlay", "status", "--no-pretty"]);
    status.ok().says("offline");
    cluster.start(1);
    cluster.wait_online("0-2");
    cluster.run(0, &["run", "-N3", "true"]).ok();
    // one that leaves and comes again is welcome again
    cluster.signal(2, Signal::SIGTERM);
    cluster.wait_end(2, Duration::from_secs(20));
    cluster.wait_online("0-1");
    cluster.start(2);
    cluster.wait_online("0-2");
    cluster.run(0, &["run", "-N3", "true"]).ok();
    cluster.wait_log("dead to Flux: fake2 (rank 2)");
}

/// F043: who is missing is said after `broker.quorum-warn`, and again.
#[test]
fn a_quorum_that_is_late_is_told() {
    let mut cluster = Cluster::new(2, 28375, "", |_| None)
        .option("-Sbroker.quorum=2")
        .option("-Sbroker.quorum-warn=0.3s");
    cluster.start(0);
    cluster.wait_log("broker.err[0]: quorum delayed: waiting for fake1 (rank 1)");
    wait_for("it is said again", Duration::from_secs(20), || {
        (cluster.log().matches("quorum delayed").count() > 1).then_some(())
    });
    assert!(!cluster.log().contains("quorum->run"));
    cluster.start(1);
    cluster.wait_log("quorum-full: quorum->run");
    cluster.wait_log("broker.err[0]: quorum reached");
    cluster.wait_online("0-1");
}

/// F077, F155: a broker that does not speak is torpid and gets no work, and is as before when it wakes.
#[test]
fn a_torpid_node_gets_no_work() {
    let tbon = "[tbon]\ntorpid_min = \"0.2s\"\ntorpid_max = \"1s\"\n";
    let mut cluster = Cluster::new(2, 28380, tbon, |_| None);
    cluster.start(0);
    cluster.start(1);
    cluster.wait_online("0-1");
    let before = cluster
        .run(0, &["submit", "--requires=rank:1", "sh", "-c", WAIT])
        .ok()
        .line()
        .to_owned();
    cluster
        .run(0, &["job", "wait-event", "-t", "20", &before, "start"])
        .ok();
    cluster.signal(1, Signal::SIGSTOP);
    cluster.wait_log("broker on fake1 (rank 1) has been unresponsive for ");
    cluster.wait_until(
        &["resource", "status", "-s", "torpid", "-no", "{ranks}"],
        |output| output.stdout.trim() == "1",
    );
    cluster.wait_until(&["resource", "list", "-s", "down", "-no", "{ranks}"], |output| {
        output.stdout.trim() == "1"
    });
    let id = cluster
        .run(0, &["submit", "--requires=rank:1", "true"])
        .ok()
        .line()
        .to_owned();
    cluster
        .run(0, &["jobs", "-no", "{id} {state}"])
        .ok()
        .says(&format!("{id} SCHED"));
    cluster.signal(1, Signal::SIGCONT);
    cluster.wait_log("broker on fake1 (rank 1) is responsive now");
    cluster
        .run(0, &["job", "wait-event", "-t", "20", &id, "clean"])
        .ok();
    // what ran there was not disturbed
    cluster.sandbox().write("go", "");
    cluster.run(0, &["job", "attach", &before]).ok();
    assert!(!cluster.log().contains("LOST"), "{}", cluster.log());
}

/// A follower is killed and comes back: its shell goes on, and the job knows nothing of it.
#[test]
fn a_job_outlives_a_follower() {
    let mut cluster = Cluster::new(3, 28385, "", |_| None);
    for rank in 0..3 {
        cluster.start(rank);
    }
    cluster.wait_online("0-2");
    let script = format!("echo $FLUX_TASK_RANK >>started; seq 100; {WAIT}; echo after; exit $FLUX_TASK_RANK");
    let id = cluster
        .run(0, &["submit", "-N3", "-n3", "--label-io", "sh", "-c", &script])
        .ok()
        .line()
        .to_owned();
    wait_for("the tasks have started", Duration::from_secs(30), || {
        (lines(&cluster, "started") == 3).then_some(())
    });
    for rank in [2, 1] {
        cluster.kill(rank);
        cluster.wait_until(&["overlay", "status", "--no-pretty"], |output| {
            output.stdout.contains("lost")
        });
        cluster
            .run(0, &["jobs", "-no", "{id} {state}"])
            .ok()
            .says(&format!("{id} RUN"));
        cluster.start(rank);
        cluster.wait_online("0-2");
    }
    // and the leader with all the others
    cluster.kill(0);
    for rank in [1, 2] {
        cluster.wait_end(rank, Duration::from_secs(20));
    }
    for rank in [2, 1, 0] {
        cluster.start(rank);
    }
    cluster.wait_online("0-2");
    cluster.sandbox().write("go", "");
    let output = cluster.run(0, &["job", "attach", "--label-io", &id]);
    output.code(2);
    let mut expected: Vec<String> = (1..=100).map(|number| number.to_string()).collect();
    expected.push("after".to_owned());
    for rank in ["0: ", "1: ", "2: "] {
        let lines = output.lines();
        let text: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(rank)).collect();
        assert_eq!(text, expected, "rank {rank}");
    }
    assert_eq!(lines(&cluster, "started"), 3, "nothing ran twice");
}

/// A follower that does not come back in time: the exception of the original; its shell ends when it does come back.
#[test]
fn a_follower_that_stays_away_fails_the_job() {
    let exec = "[exec]\nreattach-timeout = \"2s\"\n";
    let mut cluster = Cluster::new(2, 28390, exec, |_| None);
    cluster.start(0);
    cluster.start(1);
    cluster.wait_online("0-1");
    let id = cluster
        .run(
            0,
            &[
                "submit",
                "--requires=rank:1",
                "sh",
                "-c",
                "echo >>started; sleep 1000",
            ],
        )
        .ok()
        .line()
        .to_owned();
    wait_for("the task has started", Duration::from_secs(30), || {
        (lines(&cluster, "started") == 1).then_some(())
    });
    let shells = || -> Vec<i32> {
        let found = cluster_shells(&cluster);
        found.into_iter().filter(|pid| alive(*pid)).collect()
    };
    assert_eq!(shells().len(), 1);
    let shell = shells()[0];
    cluster.kill(1);
    cluster
        .run(0, &["job", "wait-event", "-t", "30", &id, "clean"])
        .ok();
    cluster
        .run(0, &["job", "eventlog", &id])
        .ok()
        .says("exception type=\"exec\" severity=0")
        .says("node failure on fake1 (rank 1)");
    assert!(alive(shell), "nobody is there to end it");
    cluster.start(1);
    cluster.wait_online("0-1");
    wait_for("the shell is ended", Duration::from_secs(30), || {
        cluster
            .sandbox()
            .processes()
            .iter()
            .all(|process| !process.command.contains("sleep 1000") && process.pid != shell)
            .then_some(())
    });
    cluster.run(0, &["run", "--requires=rank:1", "true"]).ok();
}

fn cluster_shells(cluster: &Cluster) -> Vec<i32> {
    let processes = cluster.sandbox().processes();
    let shells = processes
        .into_iter()
        .filter(|process| process.command.contains("flux-shell"));
    shells.map(|process| process.pid).collect()
}

/// F269: a broker that is told to end takes its jobs along, as the original does.
#[test]
fn a_follower_taken_out_of_service_ends_its_shells() {
    let exec = "[exec]\nreattach-timeout = \"1s\"\n";
    let mut cluster = Cluster::new(2, 28395, exec, |_| None);
    cluster.start(0);
    cluster.start(1);
    cluster.wait_online("0-1");
    let id = cluster
        .run(
            0,
            &[
                "submit",
                "--requires=rank:1",
                "sh",
                "-c",
                "echo >>started; sleep 1000",
            ],
        )
        .ok()
        .line()
        .to_owned();
    wait_for("the task has started", Duration::from_secs(30), || {
        (lines(&cluster, "started") == 1).then_some(())
    });
    cluster.signal(1, Signal::SIGTERM);
    cluster.wait_end(1, Duration::from_secs(20));
    cluster
        .run(0, &["job", "wait-event", "-t", "30", &id, "clean"])
        .ok();
    wait_for("the task is ended", Duration::from_secs(20), || {
        cluster_shells(&cluster).is_empty().then_some(())
    });
}
