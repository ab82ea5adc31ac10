//! What if a system call fails? Each one of the path with privilege is made to fail once (case 52), and their order is compared
//! with docs/imp/order.md. Both through strace.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]
#![expect(clippy::print_stderr, reason = "figures and skipped cases are said")]
#![expect(unreachable_pub, reason = "several test programs share the world")]

#[expect(dead_code, reason = "the world of all tests; this program uses part of it")]
#[path = "world/mod.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use world::*;

/// One system call of a trace.
struct Call {
    pid: String,
    name: String,
    arguments: String,
}

/// Says who it is that runs: root must not be.
const SCRIPT: &str = "id -u; id -G; grep -h CapEff /proc/self/status";
const RAN: &str = "7002 7010\n7002\nCapEff:\t0000000000000000\nRAN\n";
/// The same when the name service did not find all groups.
const FEWER: &str = "7002\n7002\nCapEff:\t0000000000000000\nRAN\n";

/// Some of the lines that the script writes, and no others.
fn is_part(text: &str) -> bool {
    !text.is_empty() && text.lines().all(|line| RAN.lines().any(|known| known == line))
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| {
        (
            line.starts_with("RAN"),
            line.starts_with("Cap"),
            std::cmp::Reverse(line.len()),
        )
    });
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

fn strace(world: &World, options: &[&str], input: &str) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qqq", "-u", "own"])
        .args(options)
        .args([IMP, "exec", SHELL, &world.id]);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(fs::File::open(input).unwrap());
    command
}

/// The calls of flux-imp's processes, up to the shell's start.
fn trace(world: &World, input: &str) -> Vec<Call> {
    let file = "/mnt/trace";
    run_within(&mut strace(world, &["-o", file, "-a", "0"], input), DEADLINE).ran();
    let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
    let mut calls = Vec::new();
    let mut gone = BTreeSet::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, arguments)) = rest.trim_start().split_once('(') else {
            continue;
        };
        if gone.contains(pid) || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            continue;
        }
        calls.push(Call {
            pid: pid.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        });
        if name == "execveat" {
            gone.insert(pid.to_owned());
            // What the shell forks is not ours either: it comes later than all of flux-imp's processes.
            break;
        }
    }
    calls
}

fn able() -> Option<World> {
    if !std::path::Path::new("/usr/bin/strace").exists() {
        skip("strace");
        return None;
    }
    World::new()
}

/// These begin and end a process or manage its memory.
const LEFT_OUT: [&str; 22] = [
    "execve",
    "exit_group",
    "exit",
    "mmap",
    "munmap",
    "mprotect",
    "brk",
    "madvise",
    "mremap",
    "rt_sigreturn",
    "futex",
    "set_robust_list",
    "set_tid_address",
    "rseq",
    "arch_prctl",
    "pread64",
    "access",
    "sigaltstack",
    "getrandom",
    "clock_gettime",
    "restart_syscall",
    "sched_getaffinity",
];
/// Every one of these is made to fail; of others, a few.
const DECISIVE: [&str; 20] = [
    "setresuid",
    "setresgid",
    "setgroups",
    "capset",
    "capget",
    "getresuid",
    "getresgid",
    "setfsuid",
    "setfsgid",
    "getgroups",
    "prctl",
    "clone",
    "clone3",
    "execveat",
    "setsid",
    "keyctl",
    "chdir",
    "close_range",
    "signalfd4",
    "socketpair",
];
const FEW: usize = 8;

#[test]
fn case_052_each_system_call_fails_once() {
    let Some(world) = able() else { return };
    let input = world.input(&world.token(ALI), SCRIPT);
    let calls = trace(&world, &input);
    let mut counts: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for call in &calls {
        if !LEFT_OUT.contains(&call.name.as_str()) {
            *counts
                .entry(&call.name)
                .or_default()
                .entry(&call.pid)
                .or_default() += 1;
        }
    }
    let (mut ran, mut refused) = (0, 0);
    for (name, count) in counts {
        // strace counts for each process by itself.
        let most = count.values().copied().max().unwrap_or(0);
        let step = if DECISIVE.contains(&name) {
            1
        } else {
            most.div_ceil(FEW)
        };
        for at in (1..=most).step_by(step.max(1)) {
            let error = if at % 2 == 0 { "EAGAIN" } else { "EPERM" };
            let inject = format!("inject={name}:error={error}:when={at}");
            let traced = format!("trace={name}");
            let options = ["-o", "/dev/null", "-e", &traced, "-e", &inject];
            let output = run_within(&mut strace(&world, &options, &input), Duration::from_secs(100));
            // A shell whose wait fails does not wait: its lines come in another order.
            match sorted(&output.stdout).as_str() {
                // All of it as it must be, or nothing at all.
                RAN => ran += 1,
                // The C library cannot say that it did not find all groups; fewer are no danger.
                FEWER => ran += 1,
                // A shell whose wait fails goes on at once, and what it did not wait for ends with the job; a program of the job's that
                // cannot read writes less.
                text if (name.starts_with("wait") || name == "read") && is_part(text) => ran += 1,
                text => {
                    assert!(!text.lines().any(|line| line == "0"), "{inject}: {output:?}");
                    let stopped = output.code != Some(0) || output.signal.is_some();
                    assert!(stopped && !text.contains("RAN"), "{inject}: {output:?}");
                    refused += 1;
                }
            }
            let begun = std::time::Instant::now();
            while !processes_in(&world).is_empty() {
                assert!(
                    begun.elapsed() < Duration::from_secs(5),
                    "{inject}: {:?}",
                    processes_in(&world)
                );
                std::thread::park_timeout(Duration::from_millis(2));
            }
            // The call that failed may have been the one that removes the group.
            world
                .cgroups()
                .iter()
                .for_each(|group| drop(fs::remove_dir(group)));
        }
    }
    eprintln!(
        "{} failures: {refused} ended the call, {ran} did no harm",
        refused + ran
    );
    assert!(refused > 60 && ran > 5);
}

/// The calls that matter, as docs/imp/order.md writes them.
fn shown(call: &Call) -> Option<String> {
    let first = call.arguments.split([',', ')']).next().unwrap_or_default().trim();
    let argument = |at: usize| {
        call.arguments
            .split(", ")
            .nth(at)
            .unwrap_or_default()
            .trim_matches('"')
    };
    Some(match call.name.as_str() {
        "setresuid" | "setresgid" => {
            let id = first.parse::<u32>().ok()?;
            let who = match id {
                0 => "root",
                OWNER => "caller",
                ALI => "user",
                _ => "nobody-else",
            };
            format!("{}({who})", call.name)
        }
        // The C library and libcap look around before the program begins, and when a module is loaded.
        "prctl" if first == "PR_CAPBSET_READ" || first == "PR_GET_NO_NEW_PRIVS" => return None,
        "prctl" | "keyctl" => format!("{}({first})", call.name),
        "openat" if call.arguments.contains(".toml\"") => "openat(*.toml)".to_owned(),
        "openat" if argument(1) == "shell" => "openat(shell)".to_owned(),
        "mkdirat" => "mkdirat(group)".to_owned(),
        "connect" if call.arguments.contains("munge") => "connect(munged)".to_owned(),
        "clone" => "fork".to_owned(),
        "clone3" => "clone3(into group)".to_owned(),
        "setsid" | "setgroups" | "capset" | "capget" | "setfsuid" | "setfsgid" | "close_range"
        | "setitimer" | "umask" | "chdir" | "socketpair" | "execveat" | "getgroups" => call.name.clone(),
        _ => return None,
    })
}

#[test]
fn the_system_calls_are_known() {
    let Some(world) = able() else { return };
    let calls = trace(&world, &world.input(&world.token(ALI), SCRIPT));
    let list = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/imp/syscalls.txt")).unwrap();
    let unknown: BTreeSet<&str> = calls.iter().map(|call| call.name.as_str()).collect();
    let unknown: Vec<&str> = unknown
        .into_iter()
        .filter(|name| !list.split_whitespace().any(|known| known == *name))
        .collect();
    assert!(unknown.is_empty(), "not in docs/imp/syscalls.txt: {unknown:?}");
}

#[test]
fn the_order_is_that_of_the_auditors_guide() {
    let Some(world) = able() else { return };
    world.exec_config("cgroup = \"require\"");
    let input = world.input(&world.token(ALI), SCRIPT);
    if world.run(&mut world.exec(&input)).code != Some(0) {
        return skip("cgroup2");
    }
    let calls = trace(&world, &input);
    // Who is who, by what they do; each process appears in the order of its first call.
    let mut order: Vec<&str> = Vec::new();
    let mut by_process: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for call in &calls {
        if !order.contains(&call.pid.as_str()) {
            order.push(&call.pid);
        }
        let list = by_process.entry(&call.pid).or_default();
        if let Some(text) = shown(call)
            && list.last() != Some(&text)
        {
            list.push(text);
        }
    }
    let monitor = |list: &Vec<String>| {
        list.contains(&"setresuid(root)".to_owned()) && list.contains(&"setsid".to_owned())
    };
    let role = |list: &Vec<String>| match list {
        _ if list.contains(&"setresuid(caller)".to_owned()) => "relay",
        _ if list.contains(&"execveat".to_owned()) => "shell",
        _ if list.contains(&"prctl(PR_SET_SECCOMP)".to_owned()) => "parser",
        _ if list.contains(&"setresuid(nobody-else)".to_owned()) => "names",
        _ if monitor(list) => "monitor",
        _ => "?",
    };
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for pid in order {
        let list = &mut by_process.get_mut(pid).unwrap();
        if let Some(begin) = list.iter().position(|call| call == "setitimer") {
            list.drain(..begin);
        }
        seen.entry(role(list)).or_default().insert(list.join(" "));
    }
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/imp/order.md")).unwrap();
    let mut told: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in guide.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [
            _,
            who @ ("relay" | "monitor" | "parser" | "names" | "shell"),
            calls,
            ..,
        ] = cells[..]
        {
            let calls = calls.split('`').skip(1).step_by(2).map(str::to_owned);
            lines.entry(who).or_default().extend(calls);
        }
    }
    for (who, mut calls) in lines {
        calls.dedup();
        told.entry(who).or_default().insert(calls.join(" "));
    }
    assert_eq!(seen, told, "what is done, and what docs/imp/order.md says");
}
