//! `kill -9`: what happens to the others when a broker dies without a word? (acceptance 8)

use std::collections::HashSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use flux_client::NODEID_ANY;
use flux_formats::errno;
use flux_tests::{Instance, Random, alive, kills, wait_for};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn a_killed_follower_is_lost_and_unreachable() {
    let flux = Instance::builder(4).option("--test-exit-mode=leader").boot();
    let mut handle = flux.handle(0);
    // one request waits at the victim when it dies
    let waiting = handle
        .stream("log.dmesg", 3, &json!({"follow": true, "nobacklog": true}))
        .unwrap();
    flux.run(&["ping", "-c1", "3"]).ok();
    flux.signal(3, Signal::SIGKILL);
    let deadline = Some(Instant::now() + Duration::from_secs(20));
    let failed = loop {
        match handle.next_until(&waiting, deadline) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without an error"),
            Err(err) => break err,
        }
    };
    assert!(failed.is_rpc(errno::EHOSTUNREACH), "{failed}");
    flux.run(&["ping", "-c1", "3"])
        .fails()
        .complains("No route to host");
    flux.wait_until(
        &["overlay", "status", "--no-pretty"],
        Duration::from_secs(20),
        |output| {
            output
                .lines()
                .iter()
                .any(|line| line.contains('3') && line.contains("lost"))
        },
    );
    // the instance goes on
    flux.run(&["ping", "-c1", "2"]).ok();
    let size: serde_json::Value = handle
        .call("attr.get", NODEID_ANY, &json!({"name": "size"}))
        .unwrap();
    assert_eq!(size["value"], "4");
}

#[test]
fn an_inner_node_takes_its_subtree_along() {
    let flux = Instance::builder(7)
        .attr("tbon.topo", "kary:2")
        .option("--test-exit-mode=leader")
        .boot();
    flux.run(&["ping", "-c1", "3"]).ok();
    flux.signal(1, Signal::SIGKILL);
    for rank in [1, 3, 4] {
        flux.wait_until(
            &["ping", "-c1", &rank.to_string()],
            Duration::from_secs(20),
            |output| output.stderr.contains("No route to host"),
        );
    }
    for rank in [2, 5, 6] {
        flux.run(&["ping", "-c1", &rank.to_string()]).ok();
    }
    wait_for("the orphans end", Duration::from_secs(20), || {
        (!alive(flux.pid(3)) && !alive(flux.pid(4))).then_some(())
    });
}

#[test]
fn followers_end_when_the_leader_is_killed() {
    let mut flux = Instance::boot(4);
    let started = Instant::now();
    flux.signal(0, Signal::SIGKILL);
    wait_for("all followers end", Duration::from_secs(20), || {
        (1..4).all(|rank| !alive(flux.pid(rank))).then_some(())
    });
    assert!(started.elapsed() < Duration::from_secs(20));
    let code = flux.wait_end(Duration::from_secs(25));
    assert_ne!(code, 0);
}

/// What the kill test knows of what it has done.
struct Killing {
    flux: Instance,
    random: Random,
    /// Ranks that may be killed.
    followers: Vec<u32>,
    /// Jobs that were acknowledged.
    jobs: Vec<String>,
    clients: Vec<std::process::Child>,
}

impl Killing {
    fn flux_program() -> String {
        flux_tests::bindir().join("flux").to_string_lossy().into_owned()
    }

    /// Submits some jobs that say that they ran, and starts a client that waits for its own.
    fn more_work(&mut self) {
        let script = "echo $FLUX_JOB_ID >>ran; sleep 0.2";
        let output = self.flux.run(&["submit", "--cc=1-3", "sh", "-c", script]);
        self.jobs
            .extend(output.ok().lines().into_iter().map(str::to_owned));
        let mut command = self.flux.command(&Self::flux_program());
        command.args(["run", "-n2", "sh", "-c", "echo hello; sleep 0.3"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.clients.push(command.spawn().unwrap());
    }

    /// Kills a process of the sandbox whose command contains a text, if there is one.
    fn kill_process(&mut self, text: &str) {
        let found = self.flux.sandbox().processes();
        let found: Vec<_> = found
            .iter()
            .filter(|process| process.command.contains(text))
            .collect();
        if !found.is_empty() {
            flux_tests::kill(found[self.random.below(found.len())].pid, Signal::SIGKILL);
        }
    }

    /// Kills a follower while a job runs there: the job gets the original's exception, the node is lost.
    fn kill_follower(&mut self) {
        let at = self.random.below(self.followers.len());
        let rank = self.followers.swap_remove(at);
        let requires = format!("--requires=rank:{rank}");
        let id = self
            .flux
            .run(&["submit", &requires, "sleep", "1000"])
            .ok()
            .line()
            .to_owned();
        self.flux
            .run(&["job", "wait-event", "-t", "30", &id, "start"])
            .ok();
        self.flux.signal(rank, Signal::SIGKILL);
        self.flux
            .run(&["job", "wait-event", "-t", "30", &id, "clean"])
            .ok();
        let log = self.flux.run(&["job", "eventlog", &id]);
        log.ok().says(&format!("(rank {rank})")).says("node failure on ");
        assert_eq!(
            log.stdout.matches(" exception ").count(),
            1,
            "one exception: {log}"
        );
        self.flux
            .run(&["ping", "-c1", &rank.to_string()])
            .fails()
            .complains("No route to host");
        let status = self.flux.run(&["overlay", "status", "--no-pretty"]);
        let word = rank.to_string();
        let lines = status.lines();
        let line = lines
            .iter()
            .find(|line| line.split_whitespace().next() == Some(&word));
        assert!(
            line.is_some_and(|line| line.contains("lost")),
            "rank {rank}: {status}"
        );
        self.jobs.push(id);
    }
}

/// Acceptance 8: followers, shells, tasks and clients are killed at random points; the instance goes on, and every
/// acknowledged job comes to its end, once. `FLUX_TEST_KILLS` sets how many are killed, `FLUX_TEST_SEED` repeats a run.
#[test]
fn random_kills_do_not_stop_the_instance() {
    let random = Random::from_env();
    let kills = kills(40);
    let followers = u32::try_from(kills / 10).unwrap();
    let size = followers + 2;
    let flux = Instance::builder(size)
        .option("--test-exit-mode=leader")
        .deadline(Duration::from_secs(120))
        .boot();
    let mut test = Killing {
        flux,
        random,
        followers: (2..size).collect(),
        jobs: Vec::new(),
        clients: Vec::new(),
    };
    for round in 0..kills {
        test.more_work();
        let pings = (1 + test.random.below(20)).to_string();
        test.flux.run(&["ping", "-c", &pings, "-i0.005", "0"]).ok();
        if round % 10 == 9 {
            test.kill_follower();
        } else {
            match test.random.below(3) {
                0 => {
                    let at = test.random.below(test.clients.len());
                    test.clients[at].kill().unwrap();
                }
                1 => test.kill_process("flux-shell"),
                _ => test.kill_process("sleep 0."),
            }
        }
        for rank in [0, 1] {
            assert!(alive(test.flux.pid(rank)), "round {round}: {}", test.flux.log());
        }
    }
    let Killing {
        flux,
        jobs,
        mut clients,
        ..
    } = test;
    for client in &mut clients {
        wait_for("the client ends", Duration::from_secs(60), || {
            client.try_wait().unwrap()
        });
    }
    flux.run(&["queue", "drain", "--timeout=60s"]).ok();
    every_job_has_ended_once(&flux, &jobs);
    // the instance is as useful as before, on the nodes that are left
    flux.run(&["run", "-N2", "--requires=rank:0-1", "true"]).ok();
}

/// Checks that the acknowledged jobs are there, inactive, with one `clean` event, and ran at most once.
fn every_job_has_ended_once(flux: &Instance, jobs: &[String]) {
    let listed = flux.run(&["jobs", "-ac0", "-no", "{id} {state}"]);
    let lines: Vec<&str> = listed.ok().lines();
    let unique: HashSet<&str> = lines.iter().copied().collect();
    assert_eq!(unique.len(), lines.len(), "no job is listed twice");
    for id in jobs {
        assert!(
            unique.contains(format!("{id} INACTIVE").as_str()),
            "{id}: {listed}"
        );
        let log = flux.run(&["job", "eventlog", id]);
        assert_eq!(log.ok().stdout.matches(" clean").count(), 1, "{id}: {log}");
    }
    let ran = std::fs::read_to_string(flux.sandbox().workdir().join("ran")).unwrap_or_default();
    let ran: Vec<&str> = ran.lines().collect();
    let once: HashSet<&str> = ran.iter().copied().collect();
    assert_eq!(once.len(), ran.len(), "no job ran twice");
    let mut handle = flux.handle(0);
    let stats: serde_json::Value = handle.call_empty("job-list.job-stats", NODEID_ANY).unwrap();
    let states = &stats["job_states"];
    assert_eq!(states["inactive"], lines.len(), "{stats}");
    assert_eq!(states["total"], lines.len(), "{stats}");
    let ended: u64 = ["successful", "failed"]
        .iter()
        .filter_map(|key| stats[key].as_u64())
        .sum();
    assert_eq!(ended, u64::try_from(lines.len()).unwrap(), "{stats}");
}

/// A node failure gives its jobs the exception of the original.
#[test]
fn jobs_of_a_lost_node_get_an_exception() {
    let flux = Instance::builder(3).option("--test-exit-mode=leader").boot();
    let id = flux
        .run(&["submit", "-N1", "--requires=rank:2", "sleep", "1000"])
        .ok()
        .line()
        .to_owned();
    flux.run(&["job", "wait-event", "-t", "20", &id, "start"]).ok();
    flux.run(&["job", "wait-event", "-t", "20", "-p", "exec", &id, "shell.start"])
        .ok();
    flux.signal(2, Signal::SIGKILL);
    flux.run(&["job", "wait-event", "-t", "40", &id, "clean"]).ok();
    let log = flux.run(&["job", "eventlog", &id]);
    log.ok()
        .says("exception type=\"exec\" severity=0")
        .says("node failure on ")
        .says("(rank 2)");
    assert_eq!(log.stdout.matches(" exception ").count(), 1, "{log}");
}

/// The other shells of a job that loses a node have nothing to add to its exception, whenever that is.
#[test]
fn a_parallel_job_that_loses_a_node_gets_one_exception() {
    let flux = Instance::builder(4).option("--test-exit-mode=leader").boot();
    for (victim, when) in [(3, "start"), (2, "shell.start")] {
        let ranks = format!("--requires=rank:0-{victim}");
        let nodes = format!("-N{}", victim + 1);
        let id = flux
            .run(&["submit", &nodes, &ranks, "sleep", "1000"])
            .ok()
            .line()
            .to_owned();
        let mut wait = vec!["job", "wait-event", "-t", "20"];
        if when.contains('.') {
            wait.extend(["-p", "exec"]);
        }
        wait.extend([id.as_str(), when]);
        flux.run(&wait).ok();
        flux.signal(victim, Signal::SIGKILL);
        flux.run(&["job", "wait-event", "-t", "40", &id, "clean"]).ok();
        let log = flux.run(&["job", "eventlog", &id]);
        log.ok().says(&format!("(rank {victim})"));
        assert_eq!(
            log.stdout.matches(" exception ").count(),
            1,
            "after {when}: {log}"
        );
    }
}
