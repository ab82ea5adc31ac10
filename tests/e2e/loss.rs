//! `kill -9`: what happens to the others when a broker dies without a word? (acceptance 8)

use std::time::{Duration, Instant};

use flux_client::NODEID_ANY;
use flux_formats::errno;
use flux_tests::{Instance, Random, alive, scaled, wait_for};
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

/// Acceptance 8: followers, shells and clients are killed at random points; the instance goes on.
#[test]
fn random_kills_do_not_stop_the_instance() {
    let mut random = Random::from_env();
    let kills = scaled(200, 12);
    let followers = scaled(10, 3);
    let size = u32::try_from(followers + 2).unwrap();
    let flux = Instance::builder(size).option("--test-exit-mode=leader").boot();
    let mut victims: Vec<u32> = (2..size).collect();
    for round in 0..kills {
        let mut command = flux.command(&flux_tests::bindir().join("flux").to_string_lossy());
        command.args(["run", "-n2", "sh", "-c", "sleep 0.1"]);
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut client = command.spawn().unwrap();
        flux.run(&["ping", "-c", &(1 + random.below(20)).to_string(), "-i0", "0"])
            .ok();
        match random.below(if victims.is_empty() { 2 } else { 3 }) {
            0 => client.kill().unwrap(),
            1 => kill_one_shell(&flux, &mut random),
            _ if round % (kills / followers).max(1) == 0 => {
                let rank = victims.swap_remove(random.below(victims.len()));
                flux.signal(rank, Signal::SIGKILL);
                flux.wait_until(
                    &["ping", "-c1", &rank.to_string()],
                    Duration::from_secs(20),
                    |output| output.stderr.contains("No route to host"),
                );
            }
            _ => {}
        }
        let _code = wait_for("the client ends", Duration::from_secs(60), || {
            client.try_wait().unwrap()
        });
        assert!(
            alive(flux.pid(0)) && alive(flux.pid(1)),
            "round {round}: {}",
            flux.log()
        );
    }
    flux.run(&["run", "-N2", "--requires=rank:0-1", "true"]).ok();
}

fn kill_one_shell(flux: &Instance, random: &mut Random) {
    let shells: Vec<_> = flux
        .sandbox()
        .processes()
        .into_iter()
        .filter(|p| p.command.contains("flux-shell"))
        .collect();
    if !shells.is_empty() {
        flux_tests::kill(shells[random.below(shells.len())].pid, Signal::SIGKILL);
    }
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
    log.ok().says("exception type=\"exec\" severity=0");
}
