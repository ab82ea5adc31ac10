//! How many jobs are in which state? (`job-list.job-stats`)

use super::db::Count;
use super::job::Job;
use super::row::Row;
use flux_formats::jobstate::{JobResult, JobState};
use serde_json::{Map, Value, json};

/// Counts of jobs of one queue, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    depend: u64,
    priority: u64,
    sched: u64,
    run: u64,
    cleanup: u64,
    inactive: u64,
    successful: u64,
    failed: u64,
    canceled: u64,
    timeout: u64,
    purged: u64,
}

impl Counts {
    fn of_state(&mut self, state: JobState) -> Option<&mut u64> {
        Some(match state {
            JobState::New => return None,
            JobState::Depend => &mut self.depend,
            JobState::Priority => &mut self.priority,
            JobState::Sched => &mut self.sched,
            JobState::Run => &mut self.run,
            JobState::Cleanup => &mut self.cleanup,
            JobState::Inactive => &mut self.inactive,
        })
    }

    fn of_result(&mut self, result: JobResult) -> &mut u64 {
        match result {
            JobResult::Completed => &mut self.successful,
            JobResult::Failed => &mut self.failed,
            JobResult::Canceled => &mut self.canceled,
            JobResult::Timeout => &mut self.timeout,
        }
    }

    fn fill(&self, out: &mut Map<String, Value>) {
        let total = self.depend + self.priority + self.sched + self.run + self.cleanup + self.inactive;
        out.insert(
            "job_states".into(),
            json!({
                "depend": self.depend, "priority": self.priority, "sched": self.sched, "run": self.run,
                "cleanup": self.cleanup, "inactive": self.inactive, "total": total,
            }),
        );
        for (name, count) in [
            ("successful", self.successful),
            ("failed", self.failed),
            ("canceled", self.canceled),
            ("timeout", self.timeout),
            ("inactive_purged", self.purged),
        ] {
            out.insert(name.into(), Value::from(count));
        }
    }
}

/// Counts of all jobs and of each queue.
#[derive(Debug, Default)]
pub(super) struct Stats {
    all: Counts,
    queues: Vec<(Box<str>, Counts)>,
}

impl Stats {
    fn each(&mut self, queue: Option<&str>, change: impl Fn(&mut Counts)) {
        change(&mut self.all);
        let Some(queue) = queue else { return };
        if let Some((_, counts)) = self.queues.iter_mut().find(|(name, _)| **name == *queue) {
            change(counts);
            return;
        }
        let mut counts = Counts::default();
        change(&mut counts);
        self.queues.push((queue.into(), counts));
    }

    /// Counts a job in its state, and in its result when it is over.
    pub(super) fn add(&mut self, job: &Job) {
        self.each(job.spec.queue.as_deref(), |counts| {
            if let Some(count) = counts.of_state(job.state) {
                *count += 1;
            }
            if job.is_inactive() {
                *counts.of_result(job.result()) += 1;
            }
        });
    }

    /// Takes an active job out, before it changes or is forgotten.
    pub(super) fn subtract(&mut self, job: &Job) {
        self.each(job.spec.queue.as_deref(), |counts| {
            if let Some(count) = counts.of_state(job.state) {
                *count = count.saturating_sub(1);
            }
        });
    }

    /// Takes inactive jobs out that were purged.
    pub(super) fn purged(&mut self, queue: Option<&str>, result: JobResult, jobs: u64) {
        self.each(queue, |counts| {
            counts.inactive = counts.inactive.saturating_sub(jobs);
            let of_result = counts.of_result(result);
            *of_result = of_result.saturating_sub(jobs);
            counts.purged += jobs;
        });
    }

    /// Counts the inactive jobs again: those of the database and those in memory.
    pub(super) fn set_inactive<'a>(
        &mut self,
        stored: &[Count],
        recent: impl Iterator<Item = &'a std::sync::Arc<Row>>,
    ) {
        let queues = self.queues.iter_mut().map(|(_, counts)| counts);
        for counts in queues.chain([&mut self.all]) {
            counts.inactive = 0;
            for result in JobResult::ALL {
                *counts.of_result(result) = 0;
            }
        }
        let stored = stored.iter().map(|count| {
            (
                Some(&*count.queue).filter(|queue| !queue.is_empty()),
                count.result,
                count.jobs,
            )
        });
        let recent = recent.map(|row| (row.queue.as_deref(), row.result, 1));
        for (queue, result, jobs) in stored.chain(recent) {
            self.each(queue, |counts| {
                counts.inactive += jobs;
                *counts.of_result(result) += jobs;
            });
        }
    }

    /// Returns the body of `job-list.job-stats`.
    pub(super) fn body(&self) -> Value {
        let mut out = Map::new();
        self.all.fill(&mut out);
        let queues: Vec<Value> = self
            .queues
            .iter()
            .map(|(name, counts)| {
                let mut queue = Map::new();
                queue.insert("name".into(), Value::from(&**name));
                counts.fill(&mut queue);
                Value::Object(queue)
            })
            .collect();
        out.insert("queues".into(), Value::Array(queues));
        Value::Object(out)
    }

    /// Returns the numbers of pending, running and inactive jobs.
    pub(super) fn sums(&self) -> (u64, u64, u64) {
        let all = &self.all;
        (
            all.depend + all.priority + all.sched,
            all.run + all.cleanup,
            all.inactive,
        )
    }
}
