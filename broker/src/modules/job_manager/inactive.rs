//! What stays in memory of a job that is over? 32 bytes and an index entry; the rest is in the KVS and in job-list.

use super::job::{End, Job};
use flux_formats::jobid::JobId;
use indexmap::IndexMap;

/// An inactive job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Inactive {
    /// When it became inactive, seconds since the epoch.
    pub(super) t_clean: f64,
    /// Its user.
    pub(super) userid: u32,
    /// 1 completed, 2 failed, 4 cancelled, 8 timeout (RFC 21 results).
    pub(super) result: u8,
    /// It ran.
    pub(super) started: bool,
}

impl Inactive {
    fn of(job: &Job) -> Self {
        let result = match &job.end {
            Some(End::Finish { status: 0 }) => 1,
            Some(End::Exception { kind, .. }) if kind == "cancel" => 4,
            Some(End::Exception { kind, .. }) if kind == "timeout" => 8,
            _ => 2,
        };
        Inactive {
            t_clean: job.t_clean,
            userid: job.userid,
            result,
            started: job.marks.started,
        }
    }
}

/// All inactive jobs, ordered by the time they became inactive.
#[derive(Debug, Default)]
pub(super) struct InactiveJobs {
    jobs: IndexMap<u64, Inactive>,
    /// True while a replay adds jobs in order of their ids.
    unsorted: bool,
}

impl InactiveJobs {
    pub(super) fn insert(&mut self, job: &Job) {
        if self
            .jobs
            .last()
            .is_some_and(|(_, last)| last.t_clean > job.t_clean)
        {
            self.unsorted = true;
        }
        self.jobs.insert(job.id.0, Inactive::of(job));
    }

    pub(super) fn contains(&self, id: JobId) -> bool {
        self.jobs.contains_key(&id.0)
    }

    pub(super) fn get(&self, id: JobId) -> Option<&Inactive> {
        self.jobs.get(&id.0)
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Returns the ids, oldest end first.
    pub(super) fn ids(&mut self) -> impl Iterator<Item = JobId> + '_ {
        self.sort();
        self.jobs.keys().map(|id| JobId(*id))
    }

    /// Returns ids and ends, in any order.
    pub(super) fn ends(&self) -> Vec<(JobId, f64)> {
        self.jobs
            .iter()
            .map(|(id, job)| (JobId(*id), job.t_clean))
            .collect()
    }

    /// Returns how many jobs a purge with these limits would take.
    pub(super) fn eligible(&mut self, now: f64, age_limit: Option<f64>, num_limit: Option<usize>) -> usize {
        self.sort();
        let by_count = num_limit.map_or(0, |limit| self.jobs.len().saturating_sub(limit));
        let by_age = age_limit.map_or(0, |limit| {
            self.jobs
                .as_slice()
                .partition_point(|_, job| now - job.t_clean > limit)
        });
        by_count.max(by_age)
    }

    /// Takes out the oldest `count` jobs.
    pub(super) fn take_oldest(&mut self, count: usize) -> Vec<(JobId, Inactive)> {
        self.sort();
        let count = count.min(self.jobs.len());
        self.jobs
            .drain(..count)
            .map(|(id, job)| (JobId(id), job))
            .collect()
    }

    /// Takes out one job.
    pub(super) fn take(&mut self, id: JobId) -> Option<Inactive> {
        self.jobs.shift_remove(&id.0)
    }

    fn sort(&mut self) {
        if std::mem::take(&mut self.unsorted) {
            self.jobs.sort_by(|_, a, _, b| a.t_clean.total_cmp(&b.t_clean));
        }
    }
}
