//! How many jobs are in which state? (`job-list.job-stats`)

use flux_client::{Handle, NODEID_ANY};
use serde_json::Value;

use crate::common::error::{CmdError, fail};

/// Counts of jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JobStats {
    /// In DEPEND, PRIORITY and SCHED.
    pub(crate) pending: u64,
    /// In RUN and CLEANUP.
    pub(crate) running: u64,
    /// Ended with status 0.
    pub(crate) successful: u64,
    /// Ended otherwise, cancelled and timed out included.
    pub(crate) failed: u64,
    /// Cancelled.
    pub(crate) canceled: u64,
    /// Ended at their time limit.
    pub(crate) timeout: u64,
    /// Ended.
    pub(crate) inactive: u64,
    /// Ended and purged.
    pub(crate) inactive_purged: u64,
    /// All that are known.
    pub(crate) total: u64,
}

impl JobStats {
    /// Asks for the counts, of one queue when it is named.
    ///
    /// # Errors
    /// When there is no such queue, and those of the RPC.
    pub(crate) fn fetch(handle: &mut Handle, queue: Option<&str>) -> Result<Self, CmdError> {
        let all: Value = handle.call_empty("job-list.job-stats", NODEID_ANY)?;
        let Some(name) = queue else {
            return Ok(JobStats::of(&all));
        };
        let queues = all.get("queues").and_then(Value::as_array);
        let found = queues
            .into_iter()
            .flatten()
            .find(|queue| queue.get("name").and_then(Value::as_str) == Some(name));
        match found {
            Some(found) => Ok(JobStats::of(found)),
            None => fail(format!(
                "error retrieving job stats: no stats available for queue {name}"
            )),
        }
    }

    fn of(stats: &Value) -> Self {
        let number = |path: &str| stats.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let state = |name: &str| number(&format!("/job_states/{name}"));
        JobStats {
            pending: state("depend") + state("priority") + state("sched"),
            running: state("run") + state("cleanup"),
            successful: number("/successful"),
            failed: number("/failed") + number("/canceled") + number("/timeout"),
            canceled: number("/canceled"),
            timeout: number("/timeout"),
            inactive: state("inactive"),
            inactive_purged: number("/inactive_purged"),
            total: state("total"),
        }
    }

    /// Returns the number of jobs that have not ended.
    pub(crate) fn active(&self) -> u64 {
        self.pending + self.running
    }

    /// Returns a count by its name, as formats name it.
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        Some(match name {
            "pending" => self.pending,
            "running" => self.running,
            "successful" => self.successful,
            "failed" => self.failed,
            "canceled" => self.canceled,
            "timeout" => self.timeout,
            "inactive" => self.inactive,
            "inactive_purged" => self.inactive_purged,
            "active" => self.active(),
            "total" => self.total,
            _ => return None,
        })
    }
}

impl std::fmt::Display for JobStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PD:{} R:{} CD:{} F:{}",
            self.pending, self.running, self.successful, self.failed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counts() {
        let stats = JobStats::of(&json!({
            "job_states": {"depend": 1, "priority": 0, "sched": 2, "run": 3, "cleanup": 1, "inactive": 9, "total": 16},
            "successful": 5, "failed": 2, "canceled": 1, "timeout": 1, "inactive_purged": 7,
        }));
        assert_eq!(stats.to_string(), "PD:3 R:4 CD:5 F:4");
        assert_eq!(
            (stats.active(), stats.get("total"), stats.get("nope")),
            (7, Some(16), None)
        );
    }
}
