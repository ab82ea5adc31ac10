//! What does the IMP add to the start of a job? At most 5 ms of a quiet machine's time (PAM off).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]
#![expect(clippy::print_stderr, reason = "the figure is said")]
#![expect(unreachable_pub, reason = "several test programs share the world")]

#[expect(dead_code, reason = "the world of all tests; this program uses part of it")]
#[path = "world/mod.rs"]
mod world;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use world::*;

fn fastest(mut run: impl FnMut() -> Command) -> Duration {
    let times = (0..40).map(|_| {
        let mut command = run();
        let begun = Instant::now();
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        begun.elapsed()
    });
    let mut times: Vec<Duration> = times.collect();
    // Other work of the machine only makes it slower.
    times.sort();
    times[0]
}

#[test]
fn exec_adds_little() {
    let Some(world) = World::new() else { return };
    let input = world.put(
        "in",
        format!("{{\"J\":\"{}\"}}\nexit 0\n", world.token(ALI)),
        0o644,
    );
    let script = world.put("script", "exit 0\n", 0o644);
    let direct = fastest(|| {
        let mut command = Command::new(SHELL);
        command
            .arg("1")
            .uid(ALI)
            .gid(ALI)
            .env_clear()
            .stdin(fs::File::open(&script).unwrap());
        command
    });
    let through = fastest(|| world.exec(&input));
    let added = through.saturating_sub(direct);
    eprintln!(
        "the shell alone {direct:?}, through flux-imp {through:?}: {added:?} more (wanted: at most 5 ms)"
    );
    // A wide margin: the machine may be busy. The figure above is what is looked at.
    assert!(added < Duration::from_secs(1), "{added:?}");
}
