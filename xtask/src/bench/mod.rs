//! How fast is it, beside flux-core 0.88? `make bench` installs for release, then runs every row and prints a table.
//!
//! Where flux-core is installed, the same rows are measured with it, in the same run. Else its figures are those of a machine with
//! 2 cores (gcc 12 -O2, Debian 12, loopback, medians), marked with a star: ratios to them are rough.
//!
//! Goals are of that machine. Where flux-core is measured too, a goal that is missed may still be reached: as a ratio to flux-core's own
//! figure, or, for work that flux-core does not do, by as much as flux-core is slower here than there (the median of its figures).

mod guests;
mod instance;
mod jobs;
mod original;
mod plugins;
mod policies;
mod rows;
mod verify;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// A figure and which way is better.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// Seconds; less is better.
    Seconds,
    /// Milliseconds; less is better.
    Millis,
    /// Microseconds; less is better.
    Micros,
    /// Megabytes; less is better.
    Megabytes,
    /// Kilobytes; less is better.
    Kilobytes,
    /// Something per second; more is better.
    PerSecond,
    /// Part of the first figure; more is better.
    Fraction,
    /// Of the first figure; less is better.
    Times,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Seconds => "s",
            Unit::Millis => "ms",
            Unit::Micros => "us",
            Unit::Megabytes => "MB",
            Unit::Kilobytes => "KB",
            Unit::PerSecond => "/s",
            Unit::Fraction => "",
            Unit::Times => "x",
        }
    }

    fn more_is_better(self) -> bool {
        matches!(self, Unit::PerSecond | Unit::Fraction)
    }
}

/// One line of the table.
#[derive(Debug)]
struct Figure {
    work: String,
    unit: Unit,
    /// flux-core's figure, where there is one.
    theirs: Option<f64>,
    /// flux-core's figure of another machine, when `theirs` was measured in this run.
    elsewhere: Option<f64>,
    /// What we want to reach.
    goal: f64,
    /// What was measured now.
    ours: f64,
}

/// What the rows share.
#[derive(Debug)]
struct Bench {
    prefix: PathBuf,
    scratch: PathBuf,
    /// Jobs that the endurance row puts behind it.
    history: u32,
}

/// A group of rows that is measured in one go and may fail without hurting the others.
type Group = (&'static str, Measure);
/// Measures the rows of a group.
type Measure = fn(&Bench) -> Result<Vec<Figure>>;

const GROUPS: &[Group] = &[
    ("boot", rows::boot),
    ("memory", rows::memory),
    ("commands", rows::commands),
    ("ping", rows::ping),
    ("kvs", rows::kvs),
    ("schedulers", policies::schedulers),
    ("policies", plugins::all),
    ("listing", jobs::listing),
    ("jobs", jobs::real),
    ("statedir", jobs::durable),
    ("guests", guests::guests),
    ("mock", jobs::mock),
    ("jobtap", jobs::jobtap),
    ("history", jobs::history),
];

/// Runs `cargo xtask bench --prefix=DIR [--history=N] [--flux-core=DIR] [GROUP...]`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut prefix = None;
    let mut original = None;
    let mut history = 20_000;
    let mut wanted = Vec::new();
    for arg in args {
        match arg.split_once('=') {
            Some(("--prefix", dir)) => prefix = Some(PathBuf::from(dir)),
            Some(("--flux-core", dir)) => original = Some(PathBuf::from(dir)),
            Some(("--history", count)) => history = count.parse().context("--history is a number of jobs")?,
            None if GROUPS.iter().any(|(name, _)| name == arg) => wanted.push(arg.as_str()),
            _ => {
                let names: Vec<_> = GROUPS.iter().map(|(name, _)| *name).collect();
                bail!("unknown argument '{arg}'; groups are {}", names.join(", "))
            }
        }
    }
    let prefix = prefix.context("--prefix=DIR names an installation; 'make bench' makes one")?;
    if !prefix.join("bin/flux").is_file() {
        bail!(
            "there is no {}; run 'make bench'",
            prefix.join("bin/flux").display()
        );
    }
    let scratch = std::env::temp_dir().join(format!("flux-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let original = original::find(original)?.map(|prefix| Bench {
        prefix,
        scratch: scratch.join("flux-core"),
        history,
    });
    let bench = Bench {
        prefix,
        scratch,
        history,
    };
    let failed = run_groups(&bench, original.as_ref(), &wanted);
    std::fs::remove_dir_all(&bench.scratch)?;
    if failed > 0 {
        bail!("{failed} groups of figures could not be measured");
    }
    Ok(())
}

fn run_groups(bench: &Bench, original: Option<&Bench>, wanted: &[&str]) -> usize {
    let mut failed = 0;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    crate::print(&match original {
        Some(original) => format!(
            "{cores} cores; flux-core is measured too, from {}",
            original.prefix.display()
        ),
        None => format!("{cores} cores; flux-core is not installed here"),
    });
    crate::print("* flux-core 0.88 on another machine with 2 cores\n");
    crate::print(&line("work", "ours", "flux-core", "ratio", "goal", ""));
    let mut slowness = Vec::new();
    for (name, measure) in GROUPS {
        if !wanted.is_empty() && !wanted.contains(name) {
            continue;
        }
        let started = Instant::now();
        match measure(bench).map(|figures| original::compare(original, name, *measure, figures)) {
            Ok(figures) => {
                slowness.extend(figures.iter().filter_map(Figure::slowness));
                let slower = (!slowness.is_empty()).then(|| middle(slowness.clone()));
                for figure in &figures {
                    crate::print(&figure.line(slower));
                }
            }
            Err(err) => {
                failed += 1;
                crate::print(&format!("{name}: not measured: {err:#}"));
            }
        }
        crate::report(&format!("  ({name}: {:.0} s)", started.elapsed().as_secs_f64()));
    }
    if !slowness.is_empty() {
        let (count, slower) = (slowness.len(), number(middle(slowness)));
        crate::print(&format!(
            "\nflux-core takes {slower} times as long here as on the other machine (median of {count} figures)"
        ));
    }
    failed
}

impl Figure {
    fn new(
        work: impl Into<String>,
        unit: Unit,
        theirs: impl Into<Option<f64>>,
        goal: f64,
        ours: f64,
    ) -> Self {
        Figure {
            work: work.into(),
            unit,
            theirs: theirs.into(),
            elsewhere: None,
            goal,
            ours,
        }
    }

    /// Replaces flux-core's figure by one of this run.
    fn compare(&mut self, theirs: f64) {
        self.elsewhere = self.theirs.replace(theirs);
    }

    fn met(&self) -> bool {
        if self.unit.more_is_better() {
            self.ours >= self.goal
        } else {
            self.ours <= self.goal
        }
    }

    /// How many times better than flux-core.
    fn ratio(&self) -> Option<f64> {
        Some(self.times(self.ours, self.theirs?))
    }

    /// How many times better than flux-core the goal was on the machine of flux-core's known figure. That is what a slower or a
    /// busy machine can still show, when both were measured on it.
    fn ratio_wanted(&self) -> Option<f64> {
        Some(self.times(self.goal, self.elsewhere?))
    }

    /// How many times as long flux-core takes here as on the machine of its known figure.
    fn slowness(&self) -> Option<f64> {
        let (here, there) = (self.theirs?, self.elsewhere?);
        match self.unit {
            Unit::Seconds | Unit::Millis | Unit::Micros => Some(here / there),
            Unit::PerSecond => Some(there / here),
            Unit::Megabytes | Unit::Kilobytes | Unit::Fraction | Unit::Times => None,
        }
    }

    /// Whether the goal is reached on a machine that takes `slower` times as long as that of the goal.
    fn met_when(&self, slower: f64) -> bool {
        match self.unit {
            Unit::Seconds | Unit::Millis | Unit::Micros => self.ours <= self.goal * slower,
            Unit::PerSecond => self.ours >= self.goal / slower,
            Unit::Megabytes | Unit::Kilobytes | Unit::Fraction | Unit::Times => self.met(),
        }
    }

    fn times(&self, ours: f64, theirs: f64) -> f64 {
        if self.unit.more_is_better() {
            ours / theirs
        } else {
            theirs / ours
        }
    }

    fn verdict(&self, slower: Option<f64>) -> String {
        if self.met() {
            return String::new();
        }
        if let Some(slower) = slower.filter(|slower| self.theirs.is_none() && self.met_when(*slower)) {
            return format!("reached where flux-core takes {} times as long", number(slower));
        }
        match (self.ratio(), self.ratio_wanted()) {
            (Some(ratio), Some(wanted)) if ratio >= wanted => {
                format!("reached as a ratio: >= {}x", number(wanted))
            }
            _ => "NOT REACHED".into(),
        }
    }

    fn line(&self, slower: Option<f64>) -> String {
        let unit = self.unit.name();
        let star = if self.elsewhere.is_some() { "" } else { "*" };
        let sign = if self.unit.more_is_better() { ">=" } else { "<=" };
        line(
            &self.work,
            &format!("{} {unit}", number(self.ours)),
            &self
                .theirs
                .map_or("-".into(), |theirs| format!("{} {unit}{star}", number(theirs))),
            &self
                .ratio()
                .map_or("-".into(), |ratio| format!("{}x", number(ratio))),
            &format!("{sign} {} {unit}", number(self.goal)),
            &self.verdict(slower),
        )
    }
}

/// Three significant digits, or whole numbers.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn line(work: &str, ours: &str, theirs: &str, ratio: &str, goal: &str, mark: &str) -> String {
    let mut text = String::new();
    // writing to a string does not fail
    let _written = write!(
        text,
        "{work:58} {ours:>12} {theirs:>12} {ratio:>8} {goal:>14}  {mark}"
    );
    text.trim_end().to_owned()
}

/// Returns the middle of several measurements.
fn median(count: usize, mut measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    anyhow::ensure!(count > 0, "nothing was measured");
    Ok(middle((0..count).map(|_| measure()).collect::<Result<_>>()?))
}

/// Returns the middle of some figures, 0 of none.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_missed_goal_is_worth() {
        let figure = |unit, theirs: Option<f64>, elsewhere, goal, ours| Figure {
            elsewhere,
            ..Figure::new("", unit, theirs, goal, ours)
        };
        // flux-core: 17 there, 51 here
        let ping = figure(Unit::Micros, Some(51.0), Some(17.0), 5.0, 6.0);
        assert_eq!(ping.slowness(), Some(3.0));
        assert_eq!(ping.verdict(None), "reached as a ratio: >= 3.40x");
        assert_eq!(
            figure(Unit::Micros, Some(17.0), Some(17.0), 5.0, 6.0).verdict(None),
            "NOT REACHED"
        );
        assert_eq!(
            figure(Unit::PerSecond, Some(10.0), Some(30.0), 1.0, 1.0).slowness(),
            Some(3.0)
        );
        let alone = figure(Unit::PerSecond, None, None, 200.0, 100.0);
        assert_eq!(alone.verdict(None), "NOT REACHED");
        assert_eq!(alone.verdict(Some(1.9)), "NOT REACHED");
        assert_eq!(
            alone.verdict(Some(2.0)),
            "reached where flux-core takes 2.00 times as long"
        );
        let memory = figure(Unit::Megabytes, None, None, 10.0, 11.0);
        assert_eq!(memory.verdict(Some(9.0)), "NOT REACHED");
        assert_eq!(
            figure(Unit::Millis, None, None, 1.0, 2.5).verdict(Some(2.0)),
            "NOT REACHED"
        );
    }
}
