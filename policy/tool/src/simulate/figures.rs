//! What do users and the machine get out of a schedule?

use serde::Serialize;

use super::check::Found;
use super::run::{Machine, Run};
use super::trace::Trace;

/// Jobs shorter than this count as so long for the slowdown, in seconds; the usual bound.
const SLOWDOWN_BOUND_SECS: f64 = 10.0;

/// The figures of one policy.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) policy: String,
    pub(crate) jobs: usize,
    /// Larger than the machine.
    pub(crate) refused: usize,
    /// From the first submission to the last end, in seconds.
    pub(crate) makespan_secs: f64,
    /// Used part of all cores over that time.
    pub(crate) utilisation: f64,
    pub(crate) wait_secs: Spread,
    /// (Wait + run) / run, for runs of at least 10 s.
    pub(crate) slowdown: Spread,
    /// Part of the jobs that started while one before them waited.
    pub(crate) backfilled: f64,
    pub(crate) checks: Found,
    /// Of the simulator.
    pub(crate) jobs_per_second: f64,
}

/// How values are spread.
#[derive(Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) mean: f64,
    pub(crate) median: f64,
    pub(crate) p95: f64,
    pub(crate) max: f64,
}

#[expect(clippy::cast_precision_loss, reason = "counts of jobs and cores")]
pub(crate) fn figures(run: &Run, trace: &Trace, machine: Machine) -> Figures {
    let mut waits = Vec::new();
    let mut slowdowns = Vec::new();
    let (mut used, mut last, mut passed) = (0.0, 0.0_f64, 0);
    for (job, outcome) in trace.jobs.iter().zip(&run.outcomes) {
        let Some(start) = outcome.start else { continue };
        let (wait, ran) = (start - job.submit, outcome.end - start);
        waits.push(wait);
        slowdowns.push(((wait + ran) / ran.max(SLOWDOWN_BOUND_SECS)).max(1.0));
        used += ran * machine.cores_of(job) as f64;
        last = last.max(outcome.end);
        passed += usize::from(outcome.passed);
    }
    let jobs = waits.len();
    Figures {
        policy: run.policy.clone(),
        jobs,
        refused: trace.jobs.len() - jobs,
        makespan_secs: last,
        utilisation: if last > 0.0 {
            used / (last * machine.cores_all() as f64)
        } else {
            0.0
        },
        wait_secs: spread(waits),
        slowdown: spread(slowdowns),
        backfilled: passed as f64 / jobs.max(1) as f64,
        checks: run.found.clone(),
        jobs_per_second: jobs as f64 / run.wall_secs.max(1e-9),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of jobs")]
fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| {
        let index = values.len().saturating_sub(1) * part / 100;
        values.get(index).copied().unwrap_or(0.0)
    };
    Spread {
        mean: values.iter().sum::<f64>() / values.len().max(1) as f64,
        median: at(50),
        p95: at(95),
        max: at(100),
    }
}

/// Returns the rows of the table that people read: name, and a value of each policy.
pub(crate) fn rows(all: &[Figures]) -> Vec<(&'static str, Vec<String>)> {
    let row = |name, of: &dyn Fn(&Figures) -> String| (name, all.iter().map(of).collect());
    vec![
        row("jobs", &|f| f.jobs.to_string()),
        row("refused (larger than the machine)", &|f| f.refused.to_string()),
        row("utilisation", &|f| percent(f.utilisation)),
        row("makespan", &|f| time(f.makespan_secs)),
        row("wait, mean", &|f| time(f.wait_secs.mean)),
        row("wait, median", &|f| time(f.wait_secs.median)),
        row("wait, 95 %", &|f| time(f.wait_secs.p95)),
        row("wait, longest", &|f| time(f.wait_secs.max)),
        row("slowdown, mean", &|f| format!("{:.1}", f.slowdown.mean)),
        row("slowdown, median", &|f| format!("{:.1}", f.slowdown.median)),
        row("slowdown, 95 %", &|f| format!("{:.1}", f.slowdown.p95)),
        row("backfilled", &|f| percent(f.backfilled)),
        row("first job delayed (times)", &|f| f.checks.head_delays.to_string()),
        row("simulated jobs per second", &|f| {
            format!("{:.0}", f.jobs_per_second)
        }),
    ]
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// Returns seconds as people say them.
pub(crate) fn time(secs: f64) -> String {
    match secs {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_and_times() {
        let spread = spread((1..=100).map(f64::from).collect());
        assert_eq!(
            (spread.mean, spread.median, spread.p95, spread.max),
            (50.5, 50.0, 95.0, 100.0)
        );
        assert_eq!(super::spread(Vec::new()).mean, 0.0);
        assert_eq!(
            [90.0, 600.0, 36_000.0, 864_000.0].map(time),
            ["90 s", "10.0 min", "10.0 h", "10.0 d"]
        );
    }
}
