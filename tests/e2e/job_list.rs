//! Lists of many inactive jobs, after restarts too; and what a finished job costs.

use flux_tests::{Builder, DEADLINE, Instance, scaled};
use nix::sys::signal::Signal;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

const MOCK: &str = "--setattr=system.exec.test.run_duration=1ms";

/// An instance that thinks that each host has 64 cores, so that mock jobs do not wait for each other.
fn wide(size: u32) -> Builder {
    let config = format!(
        "[resource]\nnoverify = true\n[[resource.config]]\nhosts = \"wide[0-{}]\"\ncores = \"0-63\"\n",
        size - 1
    );
    Instance::builder(size)
        .option(&format!("--test-hosts=wide[0-{}]", size - 1))
        .config(&config)
        .deadline(DEADLINE * 4)
}

fn run_mocks(flux: &Instance, count: usize) {
    let cc = format!("--cc=1-{count}");
    flux.run(&["submit", &cc, "--quiet", "--wait", MOCK, "true"]).ok();
}

/// The ids of all jobs, as they are listed.
fn listed(flux: &Instance) -> Vec<String> {
    let output = flux.wait_until(
        &["jobs", "-a", "-c0", "-no", "{id.dec} {result}"],
        DEADLINE,
        // job-list may hear of the last ends a moment after those who waited for them
        |output| output.lines().iter().all(|line| line.ends_with(" COMPLETED")),
    );
    output.lines().iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn a_long_list_is_complete_and_begins_at_once() {
    let flux = wide(2).boot();
    let count = scaled(10_000, 5000);
    run_mocks(&flux, count);
    let lines = listed(&flux);
    let mut ids: Vec<u64> = lines
        .iter()
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
    // through the tree, too
    let far = flux.on(1, &["jobs", "-a", "-c0", "-no", "{id.dec} {result}"]);
    assert_eq!(far.ok().lines(), lines);
    let ends = flux.run(&["jobs", "-a", "-c0", "-no", "{t_inactive}"]);
    let ends: Vec<f64> = ends
        .ok()
        .lines()
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    assert!(
        ends.is_sorted_by(|a, b| a >= b),
        "the last one that ended comes first"
    );
    let some = flux.run(&["jobs", "-a", "-c", "2000"]);
    assert_eq!(some.ok().lines().len(), 2001, "a header and 2000 jobs");
    some.complains("truncated");
    // a reader that takes one line and leaves sees it before the rest is there, and costs the broker nothing
    let mut child = flux
        .command("flux")
        .args(["jobs", "-a", "-c0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut first = [0; 64];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert!(String::from_utf8_lossy(&first).contains("JOBID"));
    child.wait().unwrap();
    flux.run(&["ping", "--count=1", "0"]).ok();
    flux.stop();
}

fn with_statedir() -> (Builder, PathBuf) {
    let builder = wide(1).option("--test-exit-mode=leader");
    let dir = builder.sandbox().workdir().join("state");
    std::fs::create_dir(&dir).unwrap();
    let builder = builder.attr("statedir", &dir.display().to_string());
    (builder, dir)
}

/// Starts once more, with other programs than `flux start`'s initial one; returns what they print.
fn again(flux: &Instance, dir: &std::path::Path, script: &str) -> flux_tests::Output {
    let option = format!("-Sstatedir={}", dir.display());
    flux.sandbox().run("flux", &["start", "-s", "1", &option, script])
}

#[test]
fn inactive_jobs_are_listed_after_restarts() {
    let (builder, dir) = with_statedir();
    let mut flux = builder.boot();
    let count = scaled(10_000, 1500);
    run_mocks(&flux, count);
    flux.run(&["run", "true"]).ok();
    let before = listed(&flux);
    assert_eq!(before.len(), count + 1);
    // killed: what the database does not have comes from the KVS
    flux.signal(0, Signal::SIGKILL);
    flux.wait_end(DEADLINE);
    flux.sandbox().kill_all();
    let list = "flux jobs -a -c0 -no '{id.dec} {result}'";
    let after = again(&flux, &dir, &format!("{list}; flux dmesg >&2"));
    assert_eq!(after.ok().lines(), before);
    assert!(
        after.stderr.contains(&format!("restart: {} jobs", count + 1)),
        "{after}"
    );
    // stopped: nothing is missing
    let after = again(&flux, &dir, &format!("{list}; flux dmesg >&2; flux job last >&2"));
    assert_eq!(after.ok().lines(), before);
    assert!(!after.stderr.contains("missing"), "{after}");
    // damaged: it is made again
    let file = dir.join("job-list.sqlite");
    std::fs::write(&file, vec![0x55; 100_000]).unwrap();
    let after = again(&flux, &dir, &format!("{list}; flux dmesg >&2"));
    assert_eq!(after.ok().lines(), before);
    after.complains("job-list.sqlite").complains("read from the KVS");
    // purged jobs stay purged, and new ids come after the old ones
    let purge = format!(
        "flux job purge --force --num-limit=10 >&2; {list}; flux job purge --force --num-limit=0 >&2;
         flux run true; flux job id --to=dec $(flux job last)"
    );
    let after = again(&flux, &dir, &purge);
    let lines = after.ok().lines();
    assert_eq!(lines[..10], before[..10]);
    let newest = before
        .iter()
        .filter_map(|line| line.split(' ').next()?.parse::<u64>().ok())
        .max();
    assert!(lines.last().unwrap().parse::<u64>().ok() > newest, "{after}");
    let after = again(
        &flux,
        &dir,
        &format!("{list} | wc -l; flux kvs ls checkpoint.job-index; flux fsck -q"),
    );
    assert_eq!(after.ok().lines().first(), Some(&"1"));
    flux.sandbox().nothing_left("after the restarts");
}

/// Promise P5. Finished jobs leave next to nothing in memory, and a job that waits is small.
#[test]
fn jobs_cost_little_memory() {
    // an environment of the usual size
    let flux = wide(1)
        .env("SOME_PATHS", &"/usr/lib/something:".repeat(80))
        .boot();
    let rss = || flux_tests::rss_kib(flux.pid(0));
    // plugins take their memory with the first job
    run_mocks(&flux, 10);
    flux.run(&["queue", "stop", "--quiet"]).ok();
    let (before, waiting) = (rss(), 1500);
    let cc = format!("--cc=1-{waiting}");
    flux.run(&["submit", &cc, "--quiet", MOCK, "true"]).ok();
    let per_waiting = rss().saturating_sub(before) / waiting;
    eprintln!("{per_waiting} KiB for a job that waits");
    assert!(per_waiting < 24, "{per_waiting} KiB for a job that waits");
    flux.run(&["queue", "start", "--quiet"]).ok();
    flux.run(&["queue", "drain"]).ok();
    // the KVS keeps what changed lately, up to a limit; only growth beyond it counts
    for _ in 0..3 {
        run_mocks(&flux, 2000);
    }
    let (before, count) = (rss(), scaled(40_000, 8000));
    for _ in 0..count / 2000 {
        run_mocks(&flux, 2000);
    }
    let growth = rss().saturating_sub(before);
    let per_job = growth / u64::try_from(count).unwrap();
    eprintln!("{growth} KiB for {count} finished jobs");
    assert!(
        per_job < 6,
        "{per_job} KiB for a finished job ({growth} KiB in all)"
    );
    flux.stop();
}

/// The configured limits, of age and of number, the second one after a restart.
#[test]
fn old_jobs_are_purged_by_the_limits() {
    let (builder, dir) = with_statedir();
    let limits = "[heartbeat]\nperiod = \"0.2s\"\n[job-manager]\ninactive-age-limit = \"0.5s\"\n";
    let path = builder.sandbox().write("config/limits.toml", limits);
    let flux = builder.boot();
    run_mocks(&flux, 300);
    flux.wait_until(&["jobs", "-a", "-c0", "-no", "{id}"], DEADLINE, |output| {
        output.lines().is_empty()
    });
    let stats = flux.run(&["job", "stats"]);
    assert_eq!(stats.json()["inactive_purged"], 300, "{stats}");
    flux.sandbox().write("config/limits.toml", "");
    flux.run(&["config", "reload"]).ok();
    run_mocks(&flux, 40);
    let before = listed(&flux);
    flux.run(&["shutdown"]).ok();
    let limits = "[heartbeat]\nperiod = \"0.2s\"\n[job-manager]\ninactive-num-limit = 7\n";
    std::fs::write(&path, limits).unwrap();
    let script =
        "for try in $(seq 100); do test $(flux jobs -a -c0 -no '{id}' | wc -l) = 7 && break; sleep 0.1; done
                  flux jobs -a -c0 -no '{id.dec} {result}'";
    let config = format!("--config-path={}", path.display());
    let option = format!("-Sstatedir={}", dir.display());
    let args = ["start", "-s", "1", &option, &config, "sh", "-c", script];
    let after = flux.sandbox().run("flux", &args);
    assert_eq!(after.ok().lines(), before[..7]);
}

/// Whoever has seen the end of a job in its eventlog finds it inactive, though the end is not durable yet.
#[test]
fn an_end_that_was_seen_is_listed() {
    let flux = Instance::builder(1).persistent().boot();
    let script = "for i in $(seq 20); do flux jobs -no '{state}' $(flux submit --wait true); done";
    let output = flux.sh(script);
    assert_eq!(output.ok().lines(), ["INACTIVE"; 20]);
    flux.stop();
}
