//! Which figures are there without many jobs? Boot, memory, commands, RPCs, the KVS.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use flux_client::kvs::{self, Transaction};

use super::instance::{output, private_megabytes, seconds};
use super::{Bench, Figure, Unit, median};

/// `flux start -s N true`.
pub(super) fn boot(bench: &Bench) -> Result<Vec<Figure>> {
    let sizes = [("1", 0.83, 0.08, 9), ("16", 2.78, 0.28, 5), ("64", 10.7, 1.2, 3)];
    let mut figures = Vec::new();
    for (size, theirs, goal, runs) in sizes {
        let ours = median(runs, || seconds(&mut bench.flux(&["start", "-s", size, "true"])))?;
        figures.push(Figure::new(
            format!("flux start -s {size} true"),
            Unit::Seconds,
            theirs,
            goal,
            ours,
        ));
    }
    Ok(figures)
}

/// Private memory of an idle broker.
pub(super) fn memory(bench: &Bench) -> Result<Vec<Figure>> {
    let one = bench.instance(&["-s", "1"])?;
    let leader = idle_memory(&output(&mut one.flux(&["getattr", "broker.pid"]))?)?;
    one.stop()?;
    let many = bench.instance(&["-s", "16"])?;
    let uri = many.uri.replace("local-0", "local-7");
    let follower = idle_memory(&output(
        many.flux(&["getattr", "broker.pid"]).env("FLUX_URI", uri),
    )?)?;
    many.stop()?;
    Ok(vec![
        Figure::new(
            "idle private memory, size 16, a follower",
            Unit::Megabytes,
            2.4,
            2.0,
            follower,
        ),
        Figure::new(
            "idle private memory, size 1, rank 0",
            Unit::Megabytes,
            11.5,
            10.0,
            leader,
        ),
    ])
}

fn idle_memory(pid: &str) -> Result<f64> {
    pause(Duration::from_secs(5));
    private_megabytes(pid.trim())
}

#[expect(
    clippy::disallowed_methods,
    reason = "idle memory is that of a broker which was left alone for a while"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Commands that people and scripts type often.
pub(super) fn commands(bench: &Bench) -> Result<Vec<Figure>> {
    let instance = bench.instance(&["-s", "1"])?;
    let rows: [(&[&str], f64, f64); 4] = [
        (&["run", "true"], 125.0, 12.0),
        (&["submit", "true"], 111.0, 6.0),
        (&["jobs"], 87.0, 6.0),
        (&["resource", "list"], 90.0, 6.0),
    ];
    let mut figures = Vec::new();
    for (words, theirs, goal) in rows {
        let ours = median(21, || seconds(&mut instance.flux(words)))? * 1e3;
        figures.push(Figure::new(
            format!("flux {}", words.join(" ")),
            Unit::Millis,
            theirs,
            goal,
            ours,
        ));
        output(&mut instance.flux(&["queue", "idle"]))?;
    }
    instance.stop()?;
    Ok(figures)
}

/// `flux ping -c10000 -i0`, all in flight.
pub(super) fn ping(bench: &Bench) -> Result<Vec<Figure>> {
    let instance = bench.instance(&["-s", "2"])?;
    let mut figures = Vec::new();
    for (target, what, theirs, goal) in [("0", "rank 0", 17.0, 5.0), ("1", "one hop", 104.0, 25.0)] {
        let words = ["ping", "-c10000", "-i0", target];
        let ours = median(5, || seconds(&mut instance.flux(&words)))? * 1e6 / 10_000.0;
        figures.push(Figure::new(
            format!("flux ping -c10000 -i0, per RPC, {what}"),
            Unit::Micros,
            theirs,
            goal,
            ours,
        ));
    }
    instance.stop()?;
    Ok(figures)
}

/// Commits one after another, and many keys in one commit.
pub(super) fn kvs(bench: &Bench) -> Result<Vec<Figure>> {
    const COMMITS: u32 = 5000;
    const PUTS: u32 = 10_000;
    let instance = bench.instance(&["-s", "1"])?;
    let mut handle = instance.handle()?;
    let started = Instant::now();
    for number in 0..COMMITS {
        let mut transaction = Transaction::new();
        transaction.put(format!("bench.k{number}"), "1");
        kvs::commit(&mut handle, "primary", 0, &transaction)?;
    }
    let commits = f64::from(COMMITS) / started.elapsed().as_secs_f64();
    let mut round = 0;
    let puts = median(5, || {
        round += 1;
        let mut transaction = Transaction::new();
        for number in 0..PUTS {
            transaction.put(format!("many{round}.k{number}"), "1");
        }
        let started = Instant::now();
        kvs::commit(&mut handle, "primary", 0, &transaction)?;
        Ok(f64::from(PUTS) / started.elapsed().as_secs_f64())
    })?;
    let value = kvs::get(&mut handle, "primary", "bench.k17").context("a key that was just written")?;
    anyhow::ensure!(value == b"1", "the KVS gives back another value");
    drop(handle);
    instance.stop()?;
    Ok(vec![
        Figure::new(
            "KVS commits, one client, a new key each",
            Unit::PerSecond,
            347.0,
            5000.0,
            commits,
        ),
        Figure::new(
            "KVS puts in one commit",
            Unit::PerSecond,
            90_600.0,
            500_000.0,
            puts,
        ),
    ])
}
