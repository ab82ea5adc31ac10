//! How fast are the schedulers? (`flux policy bench`, in the broker's own policy host.)

use anyhow::{Context, Result};
use serde_json::Value;

use super::instance::output;
use super::{Bench, Figure, Unit};

/// Decisions on 1000 nodes of 48 cores, and one allocation on 16,384 nodes in a queue of 10,000.
pub(super) fn schedulers(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (name, goal) in [("fcfs", 500_000.0), ("easy", 200_000.0)] {
        let policy = format!("sched-{name}");
        let words = [
            "policy",
            "bench",
            &policy,
            "--json",
            "--nodes=1000",
            "--cores=48",
            "--pending=1000",
            "--calls=500",
        ];
        let rate = figure(bench, &words, "decisions_per_second")?;
        figures.push(Figure::new(
            format!("scheduler decisions, {name}, 1000 x 48, 1000 pending"),
            Unit::PerSecond,
            None,
            goal,
            rate,
        ));
    }
    // whole nodes are what such machines give away: one core stands for a node
    for name in ["fcfs", "easy"] {
        let policy = format!("sched-{name}");
        let words = [
            "policy",
            "bench",
            &policy,
            "--json",
            "--nodes=16384",
            "--cores=1",
            "--pending=10000",
            "--calls=20",
        ];
        let micros = figure(bench, &words, "one_allocation_us")?;
        figures.push(Figure::new(
            format!("one allocation, {name}, 16,384 nodes, queue of 10,000"),
            Unit::Millis,
            None,
            1.0,
            micros / 1000.0,
        ));
    }
    Ok(figures)
}

fn figure(bench: &Bench, words: &[&str], key: &str) -> Result<f64> {
    let text = output(&mut bench.flux(words))?;
    let report: Value = serde_json::from_str(text.trim()).context("flux policy bench --json")?;
    let value = report.get(key).and_then(Value::as_f64);
    value.with_context(|| format!("flux policy bench says nothing of {key}"))
}
