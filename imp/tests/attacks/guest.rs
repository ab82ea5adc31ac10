//! Cases 66 and 68: the binary itself, and kills at any moment.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::pam;
use crate::world::sys::kill;
use crate::world::*;

#[test]
fn case_066_the_binary() {
    let image = binary();
    let read = |options: &[&str]| {
        let mut command = Command::new("readelf");
        run_within(command.args(options).arg(&image), DEADLINE).stdout
    };
    let (header, dynamic, program) = (read(&["-h"]), read(&["-d"]), read(&["-lW"]));
    assert!(
        header.contains("DYN (Position-Independent Executable"),
        "{header}"
    );
    assert!(
        dynamic.contains("BIND_NOW") || dynamic.contains("Flags: NOW"),
        "{dynamic}"
    );
    assert!(
        !dynamic.contains("RPATH") && !dynamic.contains("RUNPATH") && !dynamic.contains("TEXTREL"),
        "{dynamic}"
    );
    assert!(program.contains("GNU_RELRO"), "{program}");
    let stack = program.lines().find(|line| line.contains("GNU_STACK")).unwrap();
    assert!(stack.contains(" RW "), "{stack}");
    let libraries: Vec<&str> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    for library in &libraries {
        let known = ["libc.so.6", "ld-linux"]
            .iter()
            .any(|name| library.contains(name));
        assert!(known, "{library}");
    }
    if std::env::var_os("FLUX_IMP_RELEASE").is_some() && !is_foreign() {
        assert!(fs::metadata(&image).unwrap().len() < 1 << 20);
        // No symbols are exported, none are left.
        let symbols = read(&["-sW"]);
        let exported = |line: &&str| line.contains("GLOBAL") && !line.contains("UND");
        assert_eq!(symbols.lines().filter(exported).count(), 0, "{symbols}");
        assert!(!symbols.contains(".symtab"), "{symbols}");
    }
}

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Relay,
    Shell,
    Task,
}

#[test]
fn case_068_killed_at_random_points() {
    let Some(world) = pam::world() else { return };
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut state = seed | 1;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    fs::set_permissions(HOME, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let script = "echo $$ >/mnt/home/pid; setsid sleep 1000 & sleep 1001 & echo $! >/mnt/home/task; wait";
    let input = world.input(&world.token(ALI), script);
    let count = std::env::var("FLUX_TEST_KILLS").map_or(100, |count| count.parse().unwrap());
    let (mut slowest, mut opened) = (Duration::ZERO, 0);
    for turn in 0..count {
        let cgroup = if turn % 4 == 3 { "off" } else { "auto" };
        world.exec_config(&format!("pam-support = true\ncgroup = \"{cgroup}\""));
        pam::stack("");
        for file in ["/mnt/home/pid", "/mnt/home/task"] {
            drop(fs::remove_file(file));
        }
        let mut command = world.exec(&input);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let victim =
            [Victim::Relay, Victim::Relay, Victim::Shell, Victim::Task][usize::try_from(random(4)).unwrap()];
        std::thread::park_timeout(Duration::from_micros(random(12_000)));
        let pid_in = |file: &str| {
            let mut pid = 0;
            wait_for("the job", || {
                pid = fs::read_to_string(file)
                    .unwrap_or_default()
                    .trim()
                    .parse()
                    .unwrap_or(0);
                pid != 0
            });
            pid
        };
        match victim {
            Victim::Relay => child.kill().unwrap(),
            Victim::Shell => kill(pid_in("/mnt/home/pid"), libc::SIGKILL),
            Victim::Task => {
                kill(pid_in("/mnt/home/task"), libc::SIGKILL);
                kill(child.id().cast_signed(), libc::SIGKILL);
            }
        }
        let begun = Instant::now();
        finish(&mut child, DEADLINE);
        world.nothing_is_left();
        // What was opened is closed, whenever it was.
        let calls = pam::calls();
        let count_of = |name: &str| calls.iter().filter(|call| call.starts_with(name)).count();
        assert_eq!(count_of("open"), count_of("close"), "{victim:?} {calls:?}");
        assert_eq!(count_of("setcred"), count_of("delete"), "{victim:?} {calls:?}");
        opened += count_of("open");
        slowest = slowest.max(begun.elapsed());
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{victim:?} {:?}",
            begun.elapsed()
        );
    }
    eprintln!("{count} kills, {opened} sessions; all gone and closed after at most {slowest:?}");
}
