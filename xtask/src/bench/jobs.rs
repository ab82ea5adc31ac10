//! How many jobs in a second? Real and mock execution, with and without a state directory, and with a long history.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result};

use super::instance::{Instance, cpu_millis, directory_kilobytes, output, rss_kilobytes, seconds};
use super::{Bench, Figure, Unit, median, middle, verify};

/// The jobspec attribute of a mock job that takes a millisecond.
const MOCK: &str = "--setattr=system.exec.test.run_duration=1ms";

/// Inactive jobs that are listed.
const LISTED: u32 = 10_000;

/// Submits `count` jobs and waits for all; returns jobs per second.
fn throughput(instance: &Instance, count: u32, mock: bool) -> Result<f64> {
    let copies = format!("--cc=1-{count}");
    let mut words = vec!["submit", &copies, "--wait", "--quiet"];
    if mock {
        words.push(MOCK);
    }
    words.push("true");
    Ok(f64::from(count) / seconds(&mut instance.flux(&words))?)
}

/// `flux submit --cc=1-1000 --wait --quiet true` without a state directory.
pub(super) fn real(bench: &Bench) -> Result<Vec<Figure>> {
    let instance = bench.instance(&two_cores(bench, "jobs-2")?)?;
    let ours = median(3, || throughput(&instance, 1000, false))?;
    verify::jobs(&instance, 3000)?;
    instance.stop()?;
    Ok(vec![Figure::new(
        "flux submit --cc=1-1000 --wait true",
        Unit::PerSecond,
        47.0,
        470.0,
        ours,
    )])
}

/// How long is the list of 10,000 jobs that have ended?
pub(super) fn listing(bench: &Bench) -> Result<Vec<Figure>> {
    let instance = bench.instance(&with_cores(bench, "listing", 256)?)?;
    throughput(&instance, LISTED, true)?;
    verify::jobs(&instance, LISTED)?;
    let all = median(3, || Ok(list_jobs(&instance)?.1))?;
    let first = median(3, || Ok(list_jobs(&instance)?.0))?;
    instance.stop()?;
    let figure = |work: &str, goal, ours| Figure::new(work, Unit::Seconds, 2.24, goal, ours);
    Ok(vec![
        figure("flux jobs -a -c 0, 10,000 inactive jobs: all", 0.1, all),
        figure("flux jobs -a -c 0: first line", 0.02, first),
    ])
}

/// The same with a state directory: every answer is durable.
pub(super) fn durable(bench: &Bench) -> Result<Vec<Figure>> {
    let dir = state_directory(bench, "state-real")?;
    let option = format!("-Sstatedir={}", dir.display());
    let mut options = two_cores(bench, "jobs-2-durable")?;
    options.push(option);
    let instance = bench.instance(&options)?;
    let ours = median(3, || throughput(&instance, 1000, false))?;
    verify::jobs(&instance, 3000)?;
    instance.stop()?;
    verify::store(bench, &dir)?;
    Ok(vec![Figure::new(
        "the same with statedir",
        Unit::PerSecond,
        47.0,
        300.0,
        ours,
    )])
}

/// 4000 mock jobs of 1 ms.
pub(super) fn mock(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (cores, theirs, goal) in [(2, 112.0, 1400.0), (256, 394.0, 3900.0)] {
        let ours = median(3, || {
            let instance = bench.instance(&with_cores(bench, &format!("mock-{cores}"), cores)?)?;
            let rate = throughput(&instance, 4000, true)?;
            verify::jobs(&instance, 4000)?;
            instance.stop()?;
            Ok(rate)
        })?;
        let work = format!("4000 mock jobs of 1 ms, R of {cores} cores");
        figures.push(Figure::new(work, Unit::PerSecond, theirs, goal, ours));
    }
    Ok(figures)
}

/// The standard jobtap plugins against none: what is left of the jobs per second, by turns so that a busy machine hurts both.
pub(super) fn jobtap(bench: &Bench) -> Result<Vec<Figure>> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for turn in 0..5 {
        for (rates, remove) in [(&mut with, None), (&mut without, Some(".*"))] {
            let instance = bench.instance(&with_cores(bench, &format!("jobtap-{turn}"), 256)?)?;
            if let Some(pattern) = remove {
                output(&mut instance.flux(&["jobtap", "remove", pattern]))?;
            }
            rates.push(throughput(&instance, SAMPLE, true)?);
            verify::jobs(&instance, SAMPLE)?;
            instance.stop()?;
        }
    }
    let (with, without) = (middle(with), middle(without));
    Ok(vec![
        Figure::new(
            "mock jobs with the standard jobtap plugins, of the rate without",
            Unit::Fraction,
            None,
            0.9,
            with / without,
        ),
        Figure::new(
            "what they cost a job, on both threads together",
            Unit::Micros,
            None,
            20.0,
            ((1.0 / with - 1.0 / without) * 1e6).max(0.0),
        ),
    ])
}

/// Hours that the ids of the endurance row spread over, however many jobs there are.
const HISTORY_HOURS: u32 = 5;
/// Seconds for a restart with all those jobs, until one of them is listed.
const RESTART_GOAL: f64 = 5.0;
/// Jobs whose speed is compared: the first ones and the last ones.
const SAMPLE: u32 = 4000;

/// How often both are measured.
const TURNS: usize = 7;

/// What the broker had taken at some time.
#[derive(Clone, Copy, Debug)]
struct Usage {
    rss: f64,
    store: f64,
}

/// Runs the jobs whose speed is compared; returns jobs per second, and the broker's CPU milliseconds for each.
fn sample(instance: &Instance, pid: &str) -> Result<(f64, f64)> {
    let before = cpu_millis(pid)?;
    let rate = throughput(instance, SAMPLE, true)?;
    Ok((rate, (cpu_millis(pid)? - before) / f64::from(SAMPLE)))
}

fn broker_pid(instance: &Instance) -> Result<String> {
    let pid = output(&mut instance.flux(&["getattr", "broker.pid"]))?;
    Ok(pid.trim().to_owned())
}

fn usage(pid: &str, dir: &Path) -> Result<Usage> {
    Ok(Usage {
        rss: rss_kilobytes(pid)?,
        store: directory_kilobytes(dir)?,
    })
}

/// What is left of the first speed, and what does a finished job cost, after many jobs?
///
/// Job ids advance by a fixed time with each job (attribute `test.jobid-step`), so that the directories of the KVS
/// are as large as after five hours, whatever the number of jobs and the speed of the machine.
pub(super) fn history(bench: &Bench) -> Result<Vec<Figure>> {
    let total = bench.history.max(2 * SAMPLE);
    let step = f64::from(HISTORY_HOURS * 3600) / f64::from(total);
    let dir = state_directory(bench, "state-mock")?;
    let start = |dir: &Path| {
        let mut options = with_cores(bench, "history", 256)?;
        options.push(format!("-Sstatedir={}", dir.display()));
        options.push(format!("-Stest.jobid-step={step:.6}s"));
        bench.instance(&options)
    };
    let instance = start(&dir)?;
    let pid = broker_pid(&instance)?;
    throughput(&instance, SAMPLE, true)?;
    let before = usage(&pid, &dir)?;
    let mut done = SAMPLE;
    while done < total {
        let batch = SAMPLE.min(total - done);
        let rate = throughput(&instance, batch, true)?;
        done += batch;
        if done % 100_000 < batch {
            crate::report(&format!(
                "  {done} jobs, {rate:.0}/s, {:.0} MB",
                rss_kilobytes(&pid)? / 1024.0
            ));
        }
    }
    let after = usage(&pid, &dir)?;
    // By turns, so that a busy machine hurts both: the first jobs of a new instance, and the next ones of this. What counts is the middle of
    // the turns' ratios: the speed of the machine differs more from turn to turn than within one.
    let (mut fractions, mut millis) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let fresh = state_directory(bench, "state-fresh")?;
        let new = start(&fresh)?;
        let first = sample(&new, &broker_pid(&new)?)?;
        new.stop()?;
        std::fs::remove_dir_all(&fresh)?;
        let last = sample(&instance, &pid)?;
        fractions.push(last.0 / first.0);
        millis.push((first.1, last.1));
    }
    let fraction = middle(fractions);
    let cpu = |turn: fn(&(f64, f64)) -> f64| middle(millis.iter().map(turn).collect());
    let (cpu_first, cpu_last) = (cpu(|turn| turn.0), cpu(|turn| turn.1));
    done += u32::try_from(TURNS)? * SAMPLE;
    verify::jobs(&instance, done)?;
    instance.stop()?;
    let statedir = format!("-Sstatedir={}", dir.display());
    let restart = seconds(&mut bench.flux(&["start", "-s", "1", &statedir, "flux", "jobs", "-a", "-c1"]))?;
    verify::store(bench, &dir)?;
    let finished = f64::from(total - SAMPLE);
    let when = format!("after {total} mock jobs in {HISTORY_HOURS} h of ids");
    let kilobytes = |work: &str, theirs, goal, ours| {
        Figure::new(format!("{work}, {when}"), Unit::Kilobytes, theirs, goal, ours)
    };
    Ok(vec![
        Figure::new(
            format!("{SAMPLE} mock jobs with statedir, {when}"),
            Unit::Fraction,
            None,
            0.9,
            fraction,
        ),
        Figure::new(
            format!("broker CPU per mock job, {when}, first {cpu_first:.3} ms"),
            Unit::Millis,
            None,
            cpu_first / 0.9,
            cpu_last,
        ),
        kilobytes(
            "rank 0 memory per finished job",
            139.0,
            1.0,
            (after.rss - before.rss) / finished,
        ),
        kilobytes(
            "store per finished job",
            31.0,
            6.0,
            (after.store - before.store) / finished,
        ),
        Figure::new(
            format!("restart, {when}"),
            Unit::Seconds,
            None,
            RESTART_GOAL,
            restart,
        ),
    ])
}

/// Returns the seconds to the first line and to the last one.
fn list_jobs(instance: &Instance) -> Result<(f64, f64)> {
    use std::io::Read;
    let started = Instant::now();
    let mut child = instance
        .flux(&["jobs", "-a", "-c", "0"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = child.stdout.take().context("standard output is piped")?;
    let mut byte = [0];
    stdout.read_exact(&mut byte).context("flux jobs prints nothing")?;
    let first = started.elapsed().as_secs_f64();
    std::io::copy(&mut stdout, &mut std::io::sink())?;
    anyhow::ensure!(child.wait()?.success(), "flux jobs failed");
    Ok((first, started.elapsed().as_secs_f64()))
}

fn state_directory(bench: &Bench, name: &str) -> Result<PathBuf> {
    let dir = bench.scratch.join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Returns the options of an instance with 2 cores, whatever this machine has.
fn two_cores(bench: &Bench, name: &str) -> Result<Vec<String>> {
    with_cores(bench, name, 2)
}

fn with_cores(bench: &Bench, name: &str, cores: u32) -> Result<Vec<String>> {
    let config = format!(
        "[resource]\nnoverify = true\n[[resource.config]]\nhosts = \"bench\"\ncores = \"0-{}\"\n",
        cores - 1
    );
    let path = bench.write(&format!("{name}/bench.toml"), &config)?;
    let dir = path
        .parent()
        .context("a file is in a directory")?
        .display()
        .to_string();
    Ok(vec![
        "-s".into(),
        "1".into(),
        "--test-hosts=bench".into(),
        format!("--config-path={dir}"),
    ])
}
