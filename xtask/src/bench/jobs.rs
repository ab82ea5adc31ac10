//! How many jobs in a second? Real and mock execution, with and without a state directory, and with a long history.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result};

use super::instance::{Instance, directory_kilobytes, output, rss_kilobytes, seconds};
use super::{Bench, Figure, Unit, median, verify};

/// The jobspec attribute of a mock job that takes a millisecond.
const MOCK: &str = "--setattr=system.exec.test.run_duration=1ms";

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

/// What is left of the first speed, and what does a finished job cost, after many jobs? And how long is the list?
pub(super) fn history(bench: &Bench) -> Result<Vec<Figure>> {
    let dir = state_directory(bench, "state-mock")?;
    let mut options = with_cores(bench, "history", 256)?;
    options.push(format!("-Sstatedir={}", dir.display()));
    let instance = bench.instance(&options)?;
    let pid = output(&mut instance.flux(&["getattr", "broker.pid"]))?
        .trim()
        .to_owned();
    let first = throughput(&instance, 4000, true)?;
    let (rss_before, store_before) = (rss_kilobytes(&pid)?, directory_kilobytes(&dir)?);
    let mut done = 4000;
    let mut listing = None;
    while done < bench.history {
        let batch = 4000.min(bench.history - done);
        throughput(&instance, batch, true)?;
        done += batch;
        if done >= 10_000 && listing.is_none() {
            listing = Some(list_jobs(&instance)?);
        }
    }
    let (rss_after, store_after) = (rss_kilobytes(&pid)?, directory_kilobytes(&dir)?);
    let last = throughput(&instance, 4000, true)?;
    done += 4000;
    let list_jobs = match listing {
        Some(times) => times,
        None => list_jobs(&instance)?,
    };
    verify::jobs(&instance, done)?;
    instance.stop()?;
    verify::store(bench, &dir)?;
    let finished = f64::from(bench.history.max(8000) - 4000);
    let after = format!("after {} mock jobs", bench.history);
    Ok(vec![
        Figure::new(
            format!("4000 mock jobs with statedir, {after}"),
            Unit::Fraction,
            None,
            0.9,
            last / first,
        ),
        Figure::new(
            format!("rank 0 memory per finished job, {after}"),
            Unit::Kilobytes,
            139.0,
            1.0,
            (rss_after - rss_before) / finished,
        ),
        Figure::new(
            format!("store per finished job, {after}"),
            Unit::Kilobytes,
            31.0,
            6.0,
            (store_after - store_before) / finished,
        ),
        Figure::new(
            "flux jobs -a -c 0, 10,000 jobs or more: all",
            Unit::Seconds,
            2.24,
            0.1,
            list_jobs.1,
        ),
        Figure::new(
            "flux jobs -a -c 0: first line",
            Unit::Seconds,
            2.24,
            0.02,
            list_jobs.0,
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
