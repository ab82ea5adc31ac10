//! How fast are the schedulers? (`flux policy bench`, in the broker's own policy host.)

use anyhow::{Context, Result};
use serde_json::Value;

use super::instance::output;
use super::{Bench, Figure, Unit, median};

/// Runs of which the middle one counts.
const TURNS: usize = 9;

/// Decisions on 1000 nodes of 48 cores, and one allocation on 16,384 nodes in a queue of 10,000.
pub(super) fn schedulers(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (name, goal) in [("fcfs", 500_000.0), ("easy", 200_000.0)] {
        let size = ["--nodes=1000", "--cores=48", "--pending=1000", "--calls=500"];
        // each takes a fraction of a second, in which a shared machine may be half as fast as before
        let rate = median(TURNS, || {
            figure(bench, &format!("sched-{name}"), &size, "decisions_per_second")
        })?;
        let work = format!("scheduler decisions, {name}, 1000 x 48, 1000 pending");
        figures.push(Figure::new(work, Unit::PerSecond, None, goal, rate));
    }
    // whole nodes are what such machines give away: one core stands for a node
    for name in ["fcfs", "easy"] {
        let size = ["--nodes=16384", "--cores=1", "--pending=10000", "--calls=20"];
        let micros = figure(bench, &format!("sched-{name}"), &size, "one_allocation_us")?;
        let work = format!("one allocation, {name}, 16,384 nodes, queue of 10,000");
        figures.push(Figure::new(work, Unit::Millis, None, 1.0, micros / 1000.0));
    }
    Ok(figures)
}

/// A callback that does nothing: into the guest and back, with what the host does around it.
pub(super) fn empty_callback(bench: &Bench) -> Result<Figure> {
    let dir = format!("--dir={}", super::plugins::test_plugins().display());
    let micros = figure(bench, "jobtap-empty", &[&dir, "--calls=50000"], "removed_p50_us")?;
    Ok(Figure::new("empty callback", Unit::Micros, None, 0.3, micros))
}

fn figure(bench: &Bench, policy: &str, options: &[&str], key: &str) -> Result<f64> {
    let words = [&["policy", "bench", policy, "--json"], options].concat();
    let text = output(&mut bench.flux(&words))?;
    let report: Value = serde_json::from_str(text.trim()).context("flux policy bench --json")?;
    let value = report.get(key).and_then(Value::as_f64);
    value.with_context(|| format!("flux policy bench says nothing of {key}"))
}
