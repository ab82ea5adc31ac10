//! Which jobs are there, and how did they end? A log in the KVS, so that a restart need not read every eventlog
//! (design note 0005). Pure.
//!
//! Its lines are part of the commits of the events that they stand for, so it is never ahead of them or behind. It is
//! cut into segments; old ones go when all their jobs are purged.
//!
//! ```text
//!   +ID                             submitted
//!   -ID USERID RESULT STARTED END   inactive: result bit, 1 or 0, seconds since the epoch
//!   ~ID                             purged
//! ```
//!
//! Ids are hexadecimal. A line for a job that is known already changes nothing. A purged job may come back as an active
//! one when the lines about its end went before that of its submission: the KVS does not have it then.

use super::inactive::{Inactive, InactiveJobs};
use flux_formats::jobid::JobId;
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write;

/// KVS directory of the segments.
pub(super) const DIR: &str = "checkpoint.job-index";
/// Key below [`DIR`] that says that the index is complete, and of which version.
pub(super) const VERSION_KEY: &str = "checkpoint.job-index.version";
/// Version of the lines.
pub(super) const VERSION: u64 = 1;
/// Lines of a segment, about.
const SEGMENT_LINES: usize = if cfg!(test) { 16 } else { 4096 };

/// A line cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0:?} of the job index cannot be read")]
pub(super) struct LineError(String);

/// Returns the key of a segment.
pub(super) fn segment_key(number: u64) -> String {
    format!("{DIR}.{number:08}")
}

/// Appends the line of a submission.
pub(super) fn submitted(out: &mut String, id: JobId) {
    line(out, format_args!("+{:x}", id.0));
}

/// Appends the line of a job that became inactive.
pub(super) fn ended(out: &mut String, id: JobId, job: &Inactive) {
    let Inactive {
        t_clean,
        userid,
        result,
        started,
        alloc,
        exception,
    } = job;
    let started = u8::from(*started) | u8::from(*alloc) << 1 | u8::from(*exception) << 2;
    line(
        out,
        format_args!("-{:x} {userid} {result} {started} {t_clean:?}", id.0),
    );
}

/// Appends the line of a job that was purged.
pub(super) fn purged(out: &mut String, id: JobId) {
    line(out, format_args!("~{:x}", id.0));
}

fn line(out: &mut String, args: std::fmt::Arguments<'_>) {
    // a String takes everything
    let _written = out.write_fmt(args);
    out.push('\n');
}

/// A part of the log, as far as it matters for dropping it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    number: u64,
    lines: usize,
    /// Least and largest id submitted in it.
    ids: (JobId, JobId),
    /// Latest end in it; -infinity for none.
    end: f64,
}

impl Segment {
    fn new(number: u64) -> Self {
        Segment {
            number,
            lines: 0,
            ids: (JobId(u64::MAX), JobId(0)),
            end: f64::NEG_INFINITY,
        }
    }

    /// Notes the lines.
    fn add(&mut self, text: &str) {
        for line in text.lines() {
            self.lines += 1;
            match Line::parse(line) {
                Ok(Line::Submitted(id)) => self.ids = (self.ids.0.min(id), self.ids.1.max(id)),
                Ok(Line::Ended(_, job)) => self.end = self.end.max(job.t_clean),
                Ok(Line::Purged(_)) | Err(_) => {}
            }
        }
    }
}

/// The segments that there are.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// It is kept: there is a state directory, or somebody began it.
    pub(super) on: bool,
    /// The version was written.
    pub(super) complete: bool,
    /// It is being written anew: the version must wait.
    pub(super) rewriting: bool,
    segments: VecDeque<Segment>,
    /// Number of the last segment.
    last: u64,
}

impl Index {
    /// Returns the key that these lines are to be appended to.
    pub(super) fn append(&mut self, text: &str) -> String {
        match self.segments.back() {
            Some(segment) if segment.lines < SEGMENT_LINES => {}
            _ => {
                self.last += 1;
                self.segments.push_back(Segment::new(self.last));
            }
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.add(text);
        }
        segment_key(self.last)
    }

    /// Takes note of a segment that was read.
    fn known(&mut self, number: u64, text: &str) {
        let mut segment = Segment::new(number);
        segment.add(text);
        self.segments.push_back(segment);
        self.last = self.last.max(number);
    }

    /// Takes out a segment that is needed no more, except for its submissions of jobs that are active: they must be
    /// written again. `oldest_end` is the first end of the inactive jobs, `has_active` tells whether a job between two
    /// ids is active.
    ///
    /// Segments with ends go in their order, because a job may be purged in a later segment than it ended in.
    pub(super) fn drop_one(
        &mut self,
        oldest_end: Option<f64>,
        has_active: impl Fn(JobId, JobId) -> bool,
    ) -> Option<Dropped> {
        let mut older = self.segments.iter().take(self.segments.len().saturating_sub(1));
        let at = older.position(|segment| {
            let has_ends = segment.end > f64::NEG_INFINITY;
            let (first, last) = segment.ids;
            has_ends || first > last || !has_active(first, last)
        })?;
        let over = |segment: &Segment| oldest_end.is_none_or(|oldest| segment.end < oldest);
        let Segment { number, ids, .. } = *self.segments.get(at).filter(|segment| over(segment))?;
        self.segments.remove(at);
        Some(Dropped { number, ids })
    }

    /// Returns true when most lines are about jobs that are gone.
    pub(super) fn is_sparse(&self, jobs: usize) -> bool {
        let lines: usize = self.segments.iter().map(|segment| segment.lines).sum();
        lines > 4 * jobs + 4 * SEGMENT_LINES
    }

    /// Begins a new index for these jobs; returns its segments in order, and the numbers of the old ones.
    ///
    /// What is appended later comes after them.
    pub(super) fn rewrite(
        &mut self,
        inactive: &InactiveJobs,
        active: impl Iterator<Item = JobId>,
    ) -> (VecDeque<(String, String)>, Vec<u64>) {
        let old = self.segments.drain(..).map(|segment| segment.number).collect();
        let (mut out, mut text, mut lines) = (VecDeque::new(), String::new(), 0);
        let mut put = |index: &mut Index, text: &mut String| {
            let number = index.last + 1;
            index.known(number, text);
            out.push_back((segment_key(number), std::mem::take(text)));
        };
        for id in active {
            submitted(&mut text, id);
            lines += 1;
            if lines % SEGMENT_LINES == 0 {
                put(self, &mut text);
            }
        }
        for (id, job) in inactive.iter() {
            ended(&mut text, id, job);
            lines += 1;
            if lines % SEGMENT_LINES == 0 {
                put(self, &mut text);
            }
        }
        if !text.is_empty() {
            put(self, &mut text);
        }
        (out, old)
    }
}

/// A segment that is to be removed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropped {
    pub(super) number: u64,
    /// Active jobs between these ids must be written again; the first is the larger when there are none.
    pub(super) ids: (JobId, JobId),
}

enum Line {
    Submitted(JobId),
    Ended(JobId, Inactive),
    Purged(JobId),
}

impl Line {
    fn parse(line: &str) -> Result<Line, LineError> {
        Self::parsed(line).ok_or_else(|| LineError(line.to_owned()))
    }

    fn parsed(line: &str) -> Option<Line> {
        let mut words = line.get(1..)?.split(' ');
        let id = JobId(u64::from_str_radix(words.next()?, 16).ok()?);
        let line = match line.as_bytes().first()? {
            b'+' => Line::Submitted(id),
            b'~' => Line::Purged(id),
            b'-' => {
                let (userid, result, marks) = (words.next()?, words.next()?, words.next()?);
                let marks: u8 = marks.parse().ok()?;
                let job = Inactive {
                    userid: userid.parse().ok()?,
                    result: result.parse().ok()?,
                    started: marks & 1 != 0,
                    // what started had resources
                    alloc: marks & 3 != 0,
                    exception: marks & 4 != 0,
                    t_clean: words.next()?.parse().ok().filter(|end: &f64| end.is_finite())?,
                };
                Line::Ended(id, job)
            }
            _ => return None,
        };
        words.next().is_none().then_some(line)
    }
}

/// What an index says, read segment by segment.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) index: Index,
    pub(super) inactive: InactiveJobs,
    /// Jobs that were submitted and are not inactive, some purged ones among them.
    pub(super) active: BTreeSet<JobId>,
    pub(super) max_jobid: JobId,
}

impl Reading {
    /// Takes the next segment, in order.
    ///
    /// # Errors
    /// A line is damaged: the index cannot be used.
    pub(super) fn segment(&mut self, number: u64, text: &str) -> Result<(), LineError> {
        self.index.known(number, text);
        for line in text.lines() {
            match Line::parse(line)? {
                Line::Submitted(id) => {
                    self.max_jobid = self.max_jobid.max(id);
                    if !self.inactive.contains(id) {
                        self.active.insert(id);
                    }
                }
                Line::Ended(id, job) => {
                    self.max_jobid = self.max_jobid.max(id);
                    self.active.remove(&id);
                    self.inactive.restore(id, job);
                }
                Line::Purged(id) => {
                    self.active.remove(&id);
                    self.inactive.take(id);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn over(t_clean: f64) -> Inactive {
        Inactive {
            t_clean,
            userid: 7,
            result: 4,
            started: true,
            alloc: true,
            exception: false,
        }
    }

    #[test]
    fn lines() {
        let mut text = String::new();
        submitted(&mut text, JobId(0xabc));
        ended(&mut text, JobId(0xabc), &over(1_795_240_138.25));
        purged(&mut text, JobId(0xabc));
        assert_eq!(text, "+abc\n-abc 7 4 3 1795240138.25\n~abc\n");
        // an older index says nothing of resources and exceptions
        let old = Line::parsed("-abc 7 4 1 1795240138.25");
        assert!(matches!(old, Some(Line::Ended(_, job)) if job == over(1_795_240_138.25)));
        for bad in ["", "+", "x1", "+zz", "-1 7 4 1", "-1 7 4 1 inf", "+1 2", "ƒ"] {
            let text = format!("{bad}\n");
            assert!(Reading::default().segment(1, &text).is_err(), "{bad}");
        }
    }

    /// What happens to jobs, in the order of their numbers.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Submit,
        End(usize),
        PurgeOldest(usize),
        PurgeOne(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Submit),
            3 => (0usize..8).prop_map(Step::End),
            1 => (1usize..12).prop_map(Step::PurgeOldest),
            1 => (0usize..8).prop_map(Step::PurgeOne),
        ]
    }

    /// The index with its KVS, and what it should say.
    #[derive(Default)]
    struct Model {
        index: Index,
        kvs: BTreeMap<String, String>,
        active: BTreeSet<JobId>,
        inactive: InactiveJobs,
        purged: BTreeSet<JobId>,
        next: u64,
        now: f64,
    }

    impl Model {
        fn append(&mut self, text: &str) {
            let key = self.index.append(text);
            self.kvs.entry(key).or_default().push_str(text);
        }

        fn step(&mut self, step: Step) {
            self.now += 1.0;
            let mut text = String::new();
            match step {
                Step::Submit => {
                    self.next += 1;
                    self.active.insert(JobId(self.next));
                    submitted(&mut text, JobId(self.next));
                }
                Step::End(at) => {
                    let Some(id) = self.active.iter().nth(at).copied() else {
                        return;
                    };
                    self.active.remove(&id);
                    self.inactive.restore(id, over(self.now));
                    ended(&mut text, id, &over(self.now));
                }
                Step::PurgeOldest(count) => {
                    for (id, _) in self.inactive.take_oldest(count) {
                        self.purged.insert(id);
                        purged(&mut text, id);
                    }
                }
                Step::PurgeOne(at) => {
                    let Some(id) = self.inactive.iter().nth(at).map(|(id, _)| id) else {
                        return;
                    };
                    self.inactive.take(id);
                    self.purged.insert(id);
                    purged(&mut text, id);
                }
            }
            if !text.is_empty() {
                self.append(&text);
            }
            let oldest = self.inactive.oldest_end();
            while let Some(Dropped { number, ids }) = self.index.drop_one(oldest, |first, last| {
                self.active.range(first..=last).next().is_some()
            }) {
                self.kvs.remove(&segment_key(number));
                let mut again = String::new();
                if ids.0 <= ids.1 {
                    let left = self.active.range(ids.0..=ids.1);
                    left.for_each(|id| submitted(&mut again, *id));
                }
                if !again.is_empty() {
                    self.append(&again);
                }
            }
        }

        fn read(&self) -> Reading {
            let mut reading = Reading::default();
            for (key, text) in &self.kvs {
                let number = key.rsplit('.').next().unwrap().parse().unwrap();
                reading.segment(number, text).unwrap();
            }
            reading
        }
    }

    fn jobs(inactive: &InactiveJobs) -> BTreeMap<JobId, String> {
        inactive
            .iter()
            .map(|(id, job)| (id, format!("{job:?}")))
            .collect()
    }

    proptest! {
        /// At any point the index gives back the jobs that there are, and it does not grow with those that are gone.
        #[test]
        fn a_restart_finds_the_jobs(steps in prop::collection::vec(step(), 0..400), rewrite in any::<bool>()) {
            let mut model = Model::default();
            steps.into_iter().for_each(|step| model.step(step));
            if rewrite {
                let (new, old) = model.index.rewrite(&model.inactive, model.active.iter().copied());
                model.kvs.extend(new);
                let halfway = model.read();
                prop_assert_eq!(jobs(&halfway.inactive), jobs(&model.inactive));
                prop_assert!(halfway.active.is_superset(&model.active));
                for number in old {
                    model.kvs.remove(&segment_key(number));
                }
                model.step(Step::Submit);
            }
            let reading = model.read();
            prop_assert_eq!(jobs(&reading.inactive), jobs(&model.inactive));
            prop_assert!(reading.active.is_superset(&model.active));
            prop_assert!(reading.active.difference(&model.active).all(|id| model.purged.contains(id)));
            prop_assert!(reading.max_jobid.0 <= model.next);
        }
    }

    #[test]
    fn old_segments_go() {
        let mut model = Model::default();
        let keeper = {
            model.step(Step::Submit);
            JobId(1)
        };
        for _ in 0..1000 {
            model.step(Step::Submit);
            model.step(Step::End(1));
            if model.inactive.len() > 20 {
                model.step(Step::PurgeOldest(10));
            }
        }
        assert!(model.kvs.len() < 12, "{} segments", model.kvs.len());
        assert!(!model.index.is_sparse(model.inactive.len()));
        let reading = model.read();
        assert_eq!(reading.active, BTreeSet::from([keeper]));
        assert_eq!(reading.inactive.len(), model.inactive.len());
    }
}
