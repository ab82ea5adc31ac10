//! Cases 19 to 28: limits, signals, tracing, terminals.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::world::sys::{Before, before_exec, kill};
use crate::world::*;

fn with_limit(world: &World, resource: u32, value: u64) -> Output {
    let mut command = world.exec(&world.input(&world.token(ALI), ""));
    before_exec(&mut command, Before::Limit(resource, value));
    world.run(&mut command)
}

#[test]
fn case_019_022_023_tiny_limits_end_it_before_anything_happens() {
    let Some(world) = World::new() else { return };
    for (resource, value) in [
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_FSIZE, 1),
        (libc::RLIMIT_DATA, 4096),
        (libc::RLIMIT_AS, 8 << 20),
        (libc::RLIMIT_STACK, 64 << 10),
        (libc::RLIMIT_CPU, 1),
        (libc::RLIMIT_CPU, 0),
    ] {
        let output = with_limit(&world, resource, value);
        // Where the monitor may raise the limit for itself, the job runs and has it.
        assert!(
            output.code != Some(0) || output.stdout.contains("RAN"),
            "{resource} {value}: {output:?}"
        );
        // Where files may not grow, nothing can be said into one.
        if output.code == Some(1) && output.stderr.len() > 1 {
            output.refused("is too low");
        }
    }
    assert_eq!(fs::read_dir("/var/lib").unwrap().count(), 0);
}

#[test]
fn case_020_too_many_processes_is_fatal() {
    let Some(world) = World::new() else { return };
    let sleeper = || {
        Command::new("sleep")
            .arg("1000")
            .uid(ALI)
            .gid(ALI)
            .spawn()
            .unwrap()
    };
    let others = [sleeper(), sleeper()];
    let mut command = world.exec(&world.input(&world.token(ALI), "echo RAN"));
    before_exec(&mut command, Before::Limit(libc::RLIMIT_NPROC, 1));
    let output = run_within(&mut command, DEADLINE);
    for mut other in others {
        other.kill().unwrap();
        other.wait().unwrap();
    }
    output.refused("cannot execute the program: Resource temporarily unavailable");
    assert_eq!(output.code, Some(127));
}

/// Starts `exec` with an input that does not come; the relay waits for it.
fn waiting(world: &World) -> std::process::Child {
    let mut command = world.imp(&["exec", SHELL, "1"]);
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    wait_for("the relay's drop", || {
        fs::read_to_string(&status)
            .unwrap()
            .contains(&format!("Uid:\t{OWNER}\t{OWNER}\t{OWNER}\t{OWNER}"))
    });
    child
}

#[test]
fn case_021_026_memory_is_not_shown() {
    let Some(world) = World::new() else { return };
    let mut child = waiting(&world);
    let proc = format!("/proc/{}", child.id());
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // The same user cannot look into it, nor trace it, nor read its descriptors.
    for file in ["mem", "environ", "fd", "maps", "stack", "cwd"] {
        let mut command = Command::new("ls");
        command.arg(format!("{proc}/{file}/")).uid(OWNER).gid(OWNER);
        assert_ne!(run_within(&mut command, DEADLINE).code, Some(0), "{file}");
        let owner =
            std::os::unix::fs::MetadataExt::uid(&fs::symlink_metadata(format!("{proc}/{file}")).unwrap());
        assert_eq!(owner, 0, "{file}");
    }
    kill(child.id().cast_signed(), libc::SIGSEGV);
    kill(child.id().cast_signed(), libc::SIGKILL);
    child.wait().unwrap();
    world.nothing_is_left();
    if !std::path::Path::new("/usr/bin/strace").exists() {
        return skip("strace");
    }
    let mut traced = waiting(&world);
    let mut command = Command::new("strace");
    command
        .args(["-p", &traced.id().to_string()])
        .uid(OWNER)
        .gid(OWNER);
    let output = run_within(&mut command, DEADLINE);
    assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
    traced.kill().unwrap();
    traced.wait().unwrap();
    // A traced program has no privilege from the start.
    let input = world.input(&world.token(ALI), "");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-o", "/dev/null", IMP, "exec", SHELL, "1"])
        .uid(OWNER)
        .gid(OWNER);
    world
        .run(command.stdin(fs::File::open(&input).unwrap()))
        .refused("not installed setuid");
}

#[test]
fn case_024_input_that_changes_under_a_stopped_relay() {
    let Some(world) = World::new() else { return };
    let (good, other) = (world.token(ALI), world.token_for(ALI, BOB, None));
    for turn in 0..20u64 {
        let input = world.input(&good, "id -un");
        let changed = fs::read_to_string(&input).unwrap().replace(&good, &other);
        let mut command = world.exec(&input);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::park_timeout(Duration::from_micros(turn * 250));
        kill(child.id().cast_signed(), libc::SIGSTOP);
        fs::write(&input, changed).unwrap();
        kill(child.id().cast_signed(), libc::SIGCONT);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.is_empty() || text.starts_with("ali\n"), "{text}");
        assert!(output.status.success() == text.contains("RAN"), "{output:?}");
        world.nothing_is_left();
    }
}

#[test]
fn case_025_inherited_signals_and_storms() {
    let Some(world) = World::new() else { return };
    let script = "grep -E 'Sig(Blk|Ign|Pnd)' /proc/self/status | tr -d '\\n'; sleep 0.2";
    let mut command = world.exec(&world.input(&world.token(ALI), script));
    before_exec(&mut command, Before::Signals);
    let zeros = "0000000000000000";
    let output = world.run(&mut command);
    let want = format!("SigPnd:\t{zeros}SigBlk:\t{zeros}SigIgn:\t{zeros}RAN\n");
    assert_eq!(output.ran().stdout, want);
    // Signals of all kinds while it starts: the job runs, or is ended by what the shell got.
    for signal in [
        libc::SIGHUP,
        libc::SIGPIPE,
        libc::SIGALRM,
        libc::SIGTERM,
        libc::SIGCHLD,
        libc::SIGUSR2,
    ] {
        let mut command = world.exec(&world.input(&world.token(ALI), "sleep 0.1"));
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            kill(child.id().cast_signed(), signal);
            std::thread::park_timeout(Duration::from_micros(200));
        }
        let output = finish(&mut child, DEADLINE);
        let ignored = [libc::SIGPIPE, libc::SIGCHLD, libc::SIGUSR2].contains(&signal);
        // Before its first instruction a signal ends it like any program.
        assert!(
            !ignored || output.code == Some(0) || output.signal == Some(signal),
            "{signal}: {output:?}"
        );
        world.nothing_is_left();
    }
}

#[test]
fn case_027_starved_it_still_works() {
    let Some(world) = World::new() else { return };
    let mut command = world.exec(&world.input(&world.token(ALI), "id -un"));
    before_exec(&mut command, Before::Starve);
    world.run(&mut command).ran();
}

#[test]
fn case_028_no_terminal_and_a_session_of_its_own() {
    let Some(world) = World::new() else { return };
    // pid, session, terminal, and whether /dev/tty opens.
    let script = "cut -d' ' -f1,6,7 /proc/$$/stat; (: </dev/tty) 2>/dev/null && echo HAS-TTY";
    let input = world.input(&world.token(ALI), script);
    let mut command = Command::new("script");
    let line = format!("{IMP} exec {SHELL} 1 <{input}");
    command
        .args(["-qec", &line, "/dev/null"])
        .uid(OWNER)
        .gid(OWNER)
        .env("SHELL", "/bin/sh");
    let output = world.run(&mut command);
    assert!(
        output.ran().stdout.lines().all(|line| !line.contains("HAS-TTY")),
        "{output:?}"
    );
    let fields: Vec<&str> = output.stdout.lines().next().unwrap().split_whitespace().collect();
    assert_eq!((fields[0], fields[2]), (fields[1], "0"));
}
