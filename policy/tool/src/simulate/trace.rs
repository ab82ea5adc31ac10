//! Which jobs came when? (Traces in the Standard Workload Format, jobs of our own, or made up.)

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// A job of a trace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TraceJob {
    /// Seconds since the trace began.
    pub(crate) submit: f64,
    /// How long it ran, in seconds.
    pub(crate) run: f64,
    /// Its time limit in seconds; 0 is none.
    pub(crate) limit: f64,
    /// Cores.
    pub(crate) cores: u32,
    pub(crate) user: u32,
    pub(crate) queue: String,
}

/// A trace, ascending by submission.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) jobs: Vec<TraceJob>,
    /// Lines that are no job that ran: cancelled before start, unknown size.
    pub(crate) skipped: usize,
    /// Cores of the machine, if the trace tells.
    pub(crate) cores: Option<u32>,
}

/// Reads a file of either format.
///
/// # Errors
/// Says which line has what wrong.
pub(crate) fn read(path: &std::path::Path) -> Result<Trace> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let first = text.trim_start();
    let mut trace = if first.starts_with('{') || first.starts_with('[') {
        from_jobs(&text)
    } else {
        from_swf(&text)
    }
    .with_context(|| path.display().to_string())?;
    trace.name = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    ensure!(
        !trace.jobs.is_empty(),
        "{} has no job that ran: a trace in the Standard Workload Format or the output of 'flux jobs -a --json' is needed",
        path.display()
    );
    trace.tidy();
    Ok(trace)
}

impl Trace {
    /// Sorts by submission and lets time begin with the first.
    fn tidy(&mut self) {
        self.jobs.sort_by(|a, b| a.submit.total_cmp(&b.submit));
        let start = self.jobs.first().map_or(0.0, |job| job.submit);
        for job in &mut self.jobs {
            job.submit -= start;
        }
    }
}

/// Fields of a line of the Standard Workload Format, from 0.
const FIELDS: usize = 18;

fn from_swf(text: &str) -> Result<Trace> {
    let mut trace = Trace::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix(';') {
            if let Some((key, value)) = comment.split_once(':')
                && key.trim() == "MaxProcs"
            {
                trace.cores = value.split_whitespace().next().and_then(|word| word.parse().ok());
            }
            continue;
        }
        if line.is_empty() {
            continue;
        }
        let fields: Vec<f64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("line {}: not a line of numbers", number + 1))?;
        let [_, submit, _, run, allocated, _, _, requested, limit, ..] = fields[..] else {
            bail!("line {}: {} fields instead of {FIELDS}", number + 1, fields.len());
        };
        ensure!(
            fields.len() == FIELDS,
            "line {}: {} fields instead of {FIELDS}",
            number + 1,
            fields.len()
        );
        let cores = if requested > 0.0 { requested } else { allocated };
        let of = |at: usize| fields.get(at).copied().unwrap_or(-1.0);
        match whole(cores).filter(|_| run > 0.0 && submit >= 0.0) {
            Some(cores) => trace.jobs.push(TraceJob {
                submit,
                run,
                limit: limit.max(0.0),
                cores,
                user: whole(of(11)).unwrap_or(0),
                queue: whole(of(14)).map_or_else(String::new, |queue| format!("q{queue}")),
            }),
            None => trace.skipped += 1,
        }
    }
    Ok(trace)
}

/// Returns a positive count.
fn whole(value: f64) -> Option<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked before"
    )]
    let count = (value >= 1.0 && value <= f64::from(u32::MAX)).then_some(value as u32);
    count
}

/// Reads the output of `flux jobs -a --json`.
fn from_jobs(text: &str) -> Result<Trace> {
    let value: Value = serde_json::from_str(text).context("not JSON")?;
    let list = value
        .get("jobs")
        .unwrap_or(&value)
        .as_array()
        .context("neither an array of jobs nor an object with 'jobs'")?;
    let mut trace = Trace::default();
    for job in list {
        let time = |key: &str| job.get(key).and_then(Value::as_f64).filter(|time| *time > 0.0);
        let end = time("t_cleanup").or_else(|| time("t_inactive"));
        let cores = job.get("ncores").and_then(Value::as_f64).and_then(whole);
        let (Some(submit), Some(run), Some(end), Some(cores)) = (time("t_submit"), time("t_run"), end, cores)
        else {
            trace.skipped += 1;
            continue;
        };
        trace.jobs.push(TraceJob {
            submit,
            run: (end - run).max(0.001),
            limit: time("duration").unwrap_or(0.0),
            cores,
            user: job
                .get("userid")
                .and_then(Value::as_u64)
                .and_then(|id| u32::try_from(id).ok())
                .unwrap_or(0),
            queue: job.get("queue").and_then(Value::as_str).unwrap_or("").to_owned(),
        });
    }
    Ok(trace)
}

/// Makes up a trace that keeps `cores` cores busy at `load` (1.0 is all they can do): many small jobs, few large ones, time limits that are
/// mostly much too long. The same seed gives the same trace.
pub(crate) fn generate(count: usize, cores: u32, load: f64, seed: u64) -> Trace {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut jobs = Vec::with_capacity(count);
    let mut work = 0.0;
    let largest = f64::from(cores).log2();
    for _ in 0..count {
        // sizes are powers of two more often than not, most of them small
        let log = (random.unit() * random.unit() * largest).min(largest);
        let size = if random.unit() < 0.7 {
            log.floor().exp2()
        } else {
            log.exp2()
        };
        let run = (random.unit() * 7.0 + random.unit() * 3.0)
            .exp()
            .clamp(1.0, 43_200.0);
        let limit = if random.unit() < 0.1 {
            run
        } else {
            run * (1.0 + random.unit() * 9.0)
        };
        // people ask for round numbers
        let limit = (limit / 300.0).ceil() * 300.0;
        let user = whole(1.0 + random.unit() * 40.0).unwrap_or(1);
        jobs.push(TraceJob {
            submit: 0.0,
            run: run.round().max(1.0),
            limit,
            cores: whole(size).unwrap_or(1).min(cores),
            user,
            queue: String::new(),
        });
        work += run * size;
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of jobs")]
    let gap = work / (f64::from(cores) * load) / count.max(1) as f64;
    let mut at = 0.0;
    for job in &mut jobs {
        job.submit = f64::round(at);
        // exponential gaps: arrivals come in bunches
        at -= (1.0 - random.unit()).ln() * gap;
    }
    Trace {
        name: format!("{count} made-up jobs (seed {seed})"),
        jobs,
        skipped: 0,
        cores: Some(cores),
    }
}

struct Random(u64);

impl Random {
    /// Returns a number from 0 to 1, 1 excluded.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        #[expect(clippy::cast_precision_loss, reason = "53 bits")]
        let unit = (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_standard_workload_format() {
        let text = "; Version: 2.2\n; MaxProcs: 128\n\n  1 100 -1 50 4 -1 -1 8 60 -1 1 7 1 -1 3 -1 -1 -1\n  2 160 -1 -1 4 -1 -1 -1 -1 -1 5 -1 -1 -1 -1 -1 -1 -1\n  3 90 0 7.5 2 -1 -1 -1 -1 -1 1 -1 -1 -1 -1 -1 -1 -1\n";
        let mut trace = from_swf(text).unwrap();
        trace.tidy();
        assert_eq!((trace.cores, trace.skipped, trace.jobs.len()), (Some(128), 1, 2));
        assert_eq!(
            trace.jobs[0],
            TraceJob {
                submit: 0.0,
                run: 7.5,
                limit: 0.0,
                cores: 2,
                user: 0,
                queue: String::new()
            }
        );
        assert_eq!(
            trace.jobs[1],
            TraceJob {
                submit: 10.0,
                run: 50.0,
                limit: 60.0,
                cores: 8,
                user: 7,
                queue: "q3".into()
            }
        );
        let error = from_swf("1 2 3\n").unwrap_err().to_string();
        assert_eq!(error, "line 1: 3 fields instead of 18");
        assert!(from_swf("a b\n").unwrap_err().to_string().starts_with("line 1"));
    }

    #[test]
    fn reads_our_own_jobs() {
        let text = r#"{"jobs": [{"id": 1, "t_submit": 5.0, "t_run": 6.0, "t_cleanup": 16.5, "ncores": 4, "duration": 60.0, "userid": 3, "queue": "batch"},
            {"id": 2, "t_submit": 5.0, "ncores": 1}]}"#;
        let trace = from_jobs(text).unwrap();
        assert_eq!(trace.skipped, 1);
        assert_eq!(
            trace.jobs[0],
            TraceJob {
                submit: 5.0,
                run: 10.5,
                limit: 60.0,
                cores: 4,
                user: 3,
                queue: "batch".into()
            }
        );
        assert!(from_jobs("{}").is_err() && from_jobs("[").is_err());
    }

    #[test]
    fn made_up_traces_keep_to_their_load() {
        let trace = generate(5000, 1024, 0.8, 7);
        assert_eq!(trace, generate(5000, 1024, 0.8, 7));
        let work: f64 = trace.jobs.iter().map(|job| job.run * f64::from(job.cores)).sum();
        let span = trace.jobs.last().unwrap().submit;
        let load = work / span / 1024.0;
        assert!((0.7..0.9).contains(&load), "{load}");
        assert!(
            trace
                .jobs
                .iter()
                .all(|job| job.cores >= 1 && job.cores <= 1024 && job.limit >= job.run)
        );
    }
}
