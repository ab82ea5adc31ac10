//! Cases 50 to 55: the switch of identity. Case 52 is in `faults.rs`.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::world::sys::as_root_then;
use crate::world::*;

#[test]
fn case_050_users_that_are_not_quite_there() {
    let Some(world) = World::new() else { return };
    world
        .try_exec(&world.token(NOBODY), "")
        .refused("userid 7999 is not known to the name service");
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let with = |line: &str| {
        fs::write("/etc/passwd", format!("{users}{line}\n")).unwrap();
        world.try_exec(&world.token(NOBODY), "id")
    };
    with(":x:7999:7999::/home:/bin/sh").refused("userid 7999 is not known");
    with(&format!("{}:x:7999:7999::/home:/bin/sh", "n".repeat(300))).refused("userid 7999 is not known");
    with("a\u{1b}b:x:7999:7999::/home:/bin/sh").refused("userid 7999 is not known");
    with("nn:x:7999:7999::/home\u{7}:/bin/sh").refused("userid 7999 is not known");
    // A group without a name is a group all the same.
    assert!(
        with("nn:x:7999:7998::/:/bin/sh")
            .ran()
            .stdout
            .starts_with("uid=7999(nn) gid=7998 groups=7998\n")
    );
}

#[test]
fn case_051_groups() {
    let Some(world) = World::new() else { return };
    let token = world.token(ALI);
    let names = fs::read_to_string("/etc/group").unwrap();
    let many = |count: u32| {
        (0..count)
            .map(|n| format!("g{n}:x:{}:ali\n", 100_000 + n))
            .collect::<String>()
    };
    fs::write("/etc/group", format!("{names}{}", many(3000))).unwrap();
    let output = world.try_exec(&token, "id -G | wc -w");
    assert_eq!(output.ran().stdout, "3002\nRAN\n");
    fs::write("/etc/group", format!("{names}{}", many(70_000))).unwrap();
    world.try_exec(&token, "").refused("userid 7002 is not known");
    fs::write("/etc/group", &names).unwrap();
    // A name service that hangs.
    assert!(
        Command::new("mkfifo")
            .arg("/mnt/fifo")
            .status()
            .unwrap()
            .success()
    );
    crate::world::sys::bind("/mnt/fifo", "/etc/passwd");
    let begun = Instant::now();
    world
        .try_exec(&token, "")
        .refused("the helper for names does not answer");
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn case_053_054_nothing_of_root_is_left() {
    let Some(world) = World::new() else { return };
    let script = "grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb)|NoNewPrivs|Seccomp):' /proc/$$/status; umask; pwd; \
                  ls /proc/$$/fd | tr '\\n' ' '; cat /proc/$$/oom_score_adj; cat /proc/keys 2>/dev/null | grep -c ' _ses' ; \
                  readlink /proc/$$/fd/0 >/dev/null && echo fd-ok; kill -9 $PPID 2>&1 | tail -c 24";
    let mut command = world.exec(&world.input(&world.token(ALI), script));
    command.current_dir(HOME);
    let output = world.run(&mut command);
    let text = output.ran().stdout.as_str();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), ["7002"; 4]);
    assert_eq!(field("Gid:"), ["7002"; 4]);
    assert_eq!(field("Groups:"), ["7002", "7010"]);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    for line in ["0022", "/", "fd-ok"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(text.contains("0 1 2 "), "{text}");
    // The monitor is out of its reach.
    assert!(
        text.contains("permitted") || output.stderr.contains("permitted"),
        "{output:?}"
    );
}

#[test]
fn case_055_capabilities_and_secure_bits_of_the_caller() {
    let Some(world) = World::new() else { return };
    let input = world.input(
        &world.token(ALI),
        "grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/$$/status | cut -f2 | sort -u",
    );
    let mut command = Command::new("setpriv");
    let caps = ["--inh-caps=+net_raw,+chown", "--ambient-caps=+net_raw,+chown"];
    command
        .args(["--reuid=7001", "--regid=7001", "--clear-groups"])
        .args(caps)
        .args([IMP, "exec", SHELL, "1"]);
    let output = world.run(command.stdin(fs::File::open(&input).unwrap()));
    assert_eq!(output.ran().stdout, "0000000000000000\nRAN\n");
    // "No setuid fixup": a switch of users would keep capabilities.
    let mut command = Command::new(IMP);
    command
        .args(["exec", SHELL, "1"])
        .stdin(fs::File::open(&input).unwrap());
    as_root_then(&mut command, OWNER, true);
    world.run(&mut command).refused("secure bits are set");
}
