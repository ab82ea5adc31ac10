//! `flux-imp run`: scripts of the administrator's (features F100, F101).

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::world::sys::kill;
use crate::world::*;

fn configure(world: &World, more: &str) {
    world.imp_config(format!(
        "[run.prolog]\nallowed-users = [\"own\"]\npath = \"/mnt/prolog\"\n{more}\n"
    ));
}

fn prolog(world: &World, text: &str) {
    world.put("prolog", format!("#!/bin/sh\n{text}\n"), 0o755);
}

#[test]
fn a_script_runs_as_root_with_a_fixed_environment() {
    let Some(world) = World::new() else { return };
    configure(&world, "allowed-environment = [\"FLUX_*\", \"LD_*\"]");
    prolog(
        &world,
        "id; env | sort; pwd; cat; ls /proc/self/fd | tr '\\n' ' '; echo; echo to-stderr >&2; umask; exit 3",
    );
    let mut command = world.imp(&["run", "prolog"]);
    for (name, value) in [
        ("FLUX_JOB_ID", "123"),
        ("FLUX_JOB_USERID", "7002"),
        ("FLUX_URI", "local:///x"),
        ("FLUX_OWNER_USERID", "0"),
        ("HOME", "/evil"),
        ("PATH", "/evil"),
        ("USER", "evil"),
        ("LD_PRELOAD", "/evil.so"),
        ("BASH_ENV", "/evil"),
        ("OTHER", "x"),
    ] {
        command.env(name, value);
    }
    let output = world.run(&mut command);
    let want = "uid=0(root) gid=0(root) groups=0(root)\nFLUX_JOB_ID=123\nFLUX_JOB_USERID=7002\nFLUX_OWNER_USERID=7001\n\
                FLUX_URI=local:///x\nHOME=/root\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/\nUSER=root\n/\n0 1 2 3 \n0022\n";
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (Some(3), want, "to-stderr\n")
    );
    // Without the key only Flux's two are passed on.
    configure(&world, "");
    let output = world.run(&mut command);
    assert!(
        output.stdout.contains("FLUX_JOB_ID=123") && !output.stdout.contains("FLUX_URI"),
        "{output:?}"
    );
}

#[test]
fn scripts_that_are_not_allowed() {
    let Some(world) = World::new() else { return };
    configure(&world, "");
    prolog(&world, "echo RAN");
    let run = |words: &[&str]| world.run(&mut world.imp(words));
    run(&["run", "epilog"]).refused("run: epilog: no configuration found");
    run(&["run", "../prolog"]).refused("no configuration found");
    run(&["run", "prolog.path"]).refused("no configuration found");
    run(&["run", ""]).refused("no configuration found");
    world
        .run(world.imp(&["run", "prolog"]).uid(ALI).gid(ALI))
        .refused("run: permission denied");
    chown("/mnt/prolog", Some(OWNER), None).unwrap();
    run(&["run", "prolog"]).refused("does not belong to root");
    chown("/mnt/prolog", Some(0), None).unwrap();
    fs::set_permissions("/mnt/prolog", PermissionsExt::from_mode(0o777)).unwrap();
    run(&["run", "prolog"]).refused("may be written by others");
    fs::set_permissions("/mnt/prolog", PermissionsExt::from_mode(0o644)).unwrap();
    run(&["run", "prolog"]).refused("cannot execute the program");
    fs::remove_file("/mnt/prolog").unwrap();
    run(&["run", "prolog"]).refused("cannot be opened");
    world.imp_config("[run.prolog]\nallowed-users = [\"own\"]");
    run(&["run", "prolog"]).refused("run: prolog: path is missing or invalid");
    world.imp_config("[run.prolog]\nallowed-users = [\"own\"]\npath = \"prolog\"");
    run(&["run", "prolog"]).refused("is not absolute");
    // Nothing in [exec] allows a script, nor the other way round.
    world.exec_config("");
    run(&["run", "prolog"]).refused("no configuration found");
    configure(&world, "");
    let input = world.input(&world.token(ALI), "");
    world
        .run(&mut world.exec(&input))
        .refused("exec: no configuration found");
}

#[test]
fn signals_reach_the_scripts_group() {
    let Some(world) = World::new() else { return };
    configure(&world, "");
    let ready = "/mnt/ready";
    let start = |text: &str| {
        drop(fs::remove_file(ready));
        prolog(&world, text);
        let mut command = world.imp(&["run", "prolog"]);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the script", || fs::exists(ready).unwrap());
        child
    };
    let mut child = start("sleep 1000 & touch /mnt/ready; wait");
    kill(child.id().cast_signed(), libc::SIGTERM);
    assert_eq!(finish(&mut child, DEADLINE).signal, Some(libc::SIGTERM));
    world.nothing_is_left();
    let mut child = start("trap '' TERM; touch /mnt/ready; while :; do sleep 0.01; done");
    kill(child.id().cast_signed(), libc::SIGUSR1);
    assert_eq!(finish(&mut child, DEADLINE).signal, Some(libc::SIGKILL));
    // A caller that dies takes the script along, which may end by itself.
    let mut child =
        start("trap 'touch /mnt/cleaned; exit' TERM; touch /mnt/ready; while :; do sleep 0.01; done");
    let begun = Instant::now();
    child.kill().unwrap();
    child.wait().unwrap();
    world.nothing_is_left();
    assert!(fs::exists("/mnt/cleaned").unwrap() && begun.elapsed() < Duration::from_secs(3));
}
