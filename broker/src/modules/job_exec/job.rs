//! What is known of a job that is being run? Pure: which shells run, who waits at the barrier, how it ends.
//!
//! ```text
//!          start           all shells run          all shells ended
//! on_start ─────> Starting ─────────────> Running ─────────────────> Ending ──> (gone)
//!                     └─ fatal error: shells are signalled, later killed ─^
//! ```

use super::mock::Mock;
use crate::service::TimerId;
use flux_formats::eventlog;
use flux_formats::idset::IdSet;
use flux_formats::jobid::JobId;
use flux_formats::msg::Message;
use flux_formats::resource_set::ResourceSet;
use serde::Serialize;
use serde_json::Value;
use std::rc::Rc;
use std::time::SystemTime;

/// Shells that wait for each other.
#[derive(Debug, Default)]
pub(super) struct Barrier {
    /// Ranks that wait, with their requests.
    pub(super) waiting: Vec<(u32, Message)>,
    /// Barriers passed.
    pub(super) passed: u32,
    /// A shell ended: nobody may wait any more.
    pub(super) broken: bool,
    /// Runs while somebody waits.
    pub(super) timer: Option<TimerId>,
}

/// What a shell's entering the barrier leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// Others are missing.
    Waits,
    /// All are there: answer them.
    Complete,
    /// All were there before, but the answer did not reach this shell.
    Passed,
    /// The rank is not one of the job, or waits already.
    NotPending,
    /// A shell has ended: it can never complete.
    Broken,
}

/// How far the killing of a job has gone.
#[derive(Debug, Default)]
pub(super) struct Killing {
    /// Fires at the next step.
    pub(super) timer: Option<TimerId>,
    /// Kill signals sent to tasks.
    pub(super) tasks: u32,
    /// Kill signals sent to shells.
    pub(super) shells: u32,
}

/// How far the job manager knows of the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Finish {
    /// Not at all.
    #[default]
    Untold,
    /// It was told.
    Told,
    /// It has written it down: nobody needs the shells' word any more.
    Kept,
}

/// What is only asked about jobs whose shells outlive the broker.
#[derive(Debug, Default)]
pub(super) struct Outliving {
    /// The shells outlive the broker.
    pub(super) on: bool,
    /// The job ran before this broker came.
    pub(super) reattached: bool,
    /// Ranks whose shells have not been found again.
    pub(super) sought: IdSet,
    /// Ranks that are asked for their shell.
    pub(super) asked: IdSet,
    /// Ranks whose broker is gone, with the timer that ends the wait for it.
    pub(super) lost: Vec<(u32, TimerId)>,
    /// Ranks whose shells were given up: should one come back, it ends.
    pub(super) gone: IdSet,
    /// The exec eventlog has its `complete` event, and its `done` event.
    pub(super) completed: bool,
    pub(super) closed: bool,
    pub(super) finish: Finish,
}

/// A job that is being run.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) userid: u32,
    pub(super) r: Rc<Value>,
    /// Broker ranks of all shells.
    pub(super) ranks: IdSet,
    /// Broker ranks whose shell has not ended.
    pub(super) active: IdSet,
    /// Broker ranks whose shell was started.
    pub(super) started: IdSet,
    /// The job manager was told that all shells run.
    pub(super) start_told: bool,
    /// Shell ranks whose loss is fatal.
    pub(super) critical: IdSet,
    /// Highest wait status so far.
    pub(super) status: i32,
    /// A fatal exception was raised.
    pub(super) exception: bool,
    /// Wait status of the task that caused the exception.
    pub(super) cause: Option<i32>,
    /// All shells ended.
    pub(super) ending: bool,
    /// Has a guest namespace.
    pub(super) has_namespace: bool,
    /// Another user's job, run through the IMP.
    pub(super) multiuser: bool,
    /// Seconds since the epoch, 0 never.
    pub(super) expiration: f64,
    pub(super) expiration_timer: Option<TimerId>,
    pub(super) barrier: Barrier,
    pub(super) killing: Killing,
    pub(super) mock: Option<Mock>,
    pub(super) outliving: Outliving,
    /// Lines of the exec eventlog that are not written yet.
    pub(super) log: String,
    leader_exit_logged: bool,
}

/// Returns the ranks of an R without looking at the rest of it.
pub(super) fn ranks_of(r: &Value) -> Option<IdSet> {
    let mut out = IdSet::default();
    for entry in r.get("execution")?.get("R_lite")?.as_array()? {
        let ranks: IdSet = entry.get("rank")?.as_str()?.parse().ok()?;
        out = out.union(&ranks);
    }
    Some(out).filter(|ranks| !ranks.is_empty())
}

/// Returns the end of an R, 0 when it has none.
pub(super) fn expiration_of(r: &Value) -> f64 {
    r.get("execution")
        .and_then(|e| e.get("expiration"))
        .and_then(Value::as_f64)
        .unwrap_or(0.0)
}

impl Job {
    /// Returns a job whose shells are about to be started on `ranks`.
    pub(super) fn new(id: JobId, userid: u32, r: Rc<Value>, ranks: IdSet) -> Self {
        let shells = u32::try_from(ranks.count()).unwrap_or(u32::MAX);
        Job {
            id,
            userid,
            expiration: expiration_of(&r),
            r,
            active: ranks.clone(),
            started: IdSet::default(),
            ranks,
            start_told: false,
            critical: IdSet::first_n(shells),
            status: 0,
            exception: false,
            cause: None,
            ending: false,
            has_namespace: false,
            multiuser: false,
            expiration_timer: None,
            barrier: Barrier::default(),
            killing: Killing::default(),
            mock: None,
            outliving: Outliving::default(),
            log: String::new(),
            leader_exit_logged: false,
        }
    }

    /// Returns the number of shells.
    pub(super) fn size(&self) -> u64 {
        self.ranks.count()
    }

    /// Returns the shell rank on a broker rank.
    pub(super) fn shell_rank(&self, rank: u32) -> u32 {
        u32::try_from(self.ranks.rank_of(rank)).unwrap_or(u32::MAX)
    }

    /// Returns true when losing the shell on this broker rank is fatal.
    pub(super) fn is_critical(&self, rank: u32) -> bool {
        self.critical.contains(self.shell_rank(rank))
    }

    /// Returns the host of a broker rank, for messages.
    pub(super) fn host(&self, rank: u32) -> String {
        let host = ResourceSet::from_value(&self.r).ok().and_then(|r| r.host(rank));
        host.unwrap_or_else(|| "(unknown)".to_owned())
    }

    /// Adds an event to the exec eventlog (RFC 50).
    pub(super) fn event(&mut self, name: &str) {
        eventlog::append_bare(&mut self.log, eventlog::timestamp(SystemTime::now()), name);
    }

    /// Adds an event with a context to the exec eventlog (RFC 50).
    pub(super) fn event_with<T: Serialize>(&mut self, name: &str, context: &T) {
        let now = eventlog::timestamp(SystemTime::now());
        if eventlog::append(&mut self.log, now, name, context).is_err() {
            eventlog::append_bare(&mut self.log, now, name);
        }
    }

    /// Notes that a shell runs. Returns true when it was the last one missing, once.
    pub(super) fn shell_started(&mut self, rank: u32) -> bool {
        self.started.insert(rank);
        if self.start_told || self.started.count() < self.size() {
            return false;
        }
        self.start_told = true;
        true
    }

    /// Notes that a shell ended; `None` when its wait status is unknown. Returns false when that was known.
    pub(super) fn shell_ended(&mut self, rank: u32, status: Option<i32>) -> bool {
        if !self.active.remove(rank) {
            return false;
        }
        if let Some(status) = status {
            self.status = self.status.max(status);
            self.log_leader_exit(rank, status);
        }
        self.barrier.broken = true;
        true
    }

    fn log_leader_exit(&mut self, rank: u32, wait_status: i32) {
        #[derive(Serialize)]
        struct ShellExit {
            rank: u32,
            wait_status: i32,
            #[serde(skip_serializing_if = "IdSet::is_empty")]
            active_ranks: IdSet,
        }
        if self.leader_exit_logged || self.ranks.first() != Some(rank) {
            return;
        }
        self.leader_exit_logged = true;
        let active_ranks = self.active.clone();
        self.event_with(
            "shell-exit",
            &ShellExit {
                rank,
                wait_status,
                active_ranks,
            },
        );
    }

    /// Lets a shell wait for the others; `number` says at which barrier, if the shell does.
    pub(super) fn enter_barrier(
        &mut self,
        rank: u32,
        number: Option<u32>,
        request: Message,
    ) -> (Entered, Option<Message>) {
        if number.is_some_and(|number| number <= self.barrier.passed) {
            return (Entered::Passed, Some(request));
        }
        if self.barrier.broken {
            return (Entered::Broken, Some(request));
        }
        if number.is_some() {
            // the connection over which it asked before is lost
            self.barrier.waiting.retain(|(known, _)| *known != rank);
        }
        if !self.active.contains(rank) || self.barrier.waiting.iter().any(|(known, _)| *known == rank) {
            return (Entered::NotPending, Some(request));
        }
        self.barrier.waiting.push((rank, request));
        if u64::try_from(self.barrier.waiting.len()).unwrap_or(u64::MAX) < self.size() {
            return (Entered::Waits, None);
        }
        self.barrier.passed += 1;
        (Entered::Complete, None)
    }

    /// Returns the wait status of the whole job: that of the task which caused a fatal exception, else the highest.
    /// A job that an exception ended was no success.
    pub(super) fn final_status(&self) -> i32 {
        let exit = |code: i32| (code & 0xff) << 8;
        match self.cause {
            _ if !self.exception => self.status,
            Some(cause) => match cause & 0x7f {
                0 => cause,
                signal => exit(128 + signal),
            },
            None if self.status == 0 => exit(1),
            None => self.status,
        }
    }

    /// Notes that some shell has passed this many barriers. Returns the requests that are answered by that.
    pub(super) fn barriers_passed(&mut self, passed: u32) -> Vec<(u32, Message)> {
        if passed <= self.barrier.passed {
            return Vec::new();
        }
        self.barrier.passed = passed;
        std::mem::take(&mut self.barrier.waiting)
    }

    /// Stops to wait for the broker of a rank. Returns the timer, when it was waited for.
    pub(super) fn found(&mut self, rank: u32) -> Option<TimerId> {
        let lost = &mut self.outliving.lost;
        let at = lost.iter().position(|(known, _)| *known == rank)?;
        Some(lost.swap_remove(at).1)
    }

    /// Notes that a rank has said what became of its shell. Returns true when it was the last one, once.
    pub(super) fn answered(&mut self, rank: u32) -> bool {
        self.outliving.asked.remove(rank);
        self.outliving.sought.remove(rank) && self.outliving.sought.is_empty()
    }

    /// Returns the ranks that the barrier waits for.
    pub(super) fn missing_at_barrier(&self) -> IdSet {
        let there: IdSet = self.barrier.waiting.iter().map(|(rank, _)| *rank).collect();
        self.active.difference(&there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn an_exception_gives_the_status() {
        let mut job = job("3");
        (job.status, job.cause) = (0, Some(768));
        assert_eq!(job.final_status(), 0);
        job.exception = true;
        assert_eq!(job.final_status(), 768);
        job.cause = Some(11);
        assert_eq!(job.final_status(), 139 << 8);
        job.cause = None;
        assert_eq!(job.final_status(), 256);
        job.status = 36608;
        assert_eq!(job.final_status(), 36608);
    }

    fn job(ranks: &str) -> Job {
        let r = json!({"version": 1, "execution": {"R_lite": [{"rank": ranks, "children": {"core": "0"}}],
            "nodelist": ["n[0-3]"], "expiration": 5.0}});
        let ranks = ranks_of(&r).unwrap();
        Job::new(JobId(1), 100, Rc::new(r), ranks)
    }

    fn request() -> Message {
        Message::request("job-exec.shell-barrier", 0, None)
    }

    #[test]
    fn shells_start_and_end() {
        let mut job = job("4-7");
        assert_eq!((job.size(), job.shell_rank(6), job.expiration), (4, 2, 5.0));
        assert_eq!(job.host(6), "n2");
        assert!(!job.shell_started(4) && !job.shell_started(5) && !job.shell_started(6));
        assert!(job.shell_started(7));
        assert!(!job.shell_started(7));
        assert!(job.shell_ended(4, Some(256)));
        assert!(!job.shell_ended(4, Some(512)));
        assert!(
            job.log.contains(
                r#""name":"shell-exit","context":{"rank":4,"wait_status":256,"active_ranks":"5-7"}"#
            )
        );
        for rank in 5..8 {
            job.shell_ended(rank, Some(0));
        }
        assert!(job.active.is_empty());
        assert_eq!(job.status, 256);
        assert_eq!(job.log.lines().count(), 1);
    }

    #[test]
    fn barrier() {
        let mut job = job("0-1");
        let mut enter = |rank| job.enter_barrier(rank, None, request()).0;
        assert_eq!(enter(0), Entered::Waits);
        assert_eq!(enter(0), Entered::NotPending);
        assert_eq!(enter(9), Entered::NotPending);
        assert_eq!(job.missing_at_barrier().to_string(), "1");
        assert_eq!(job.enter_barrier(1, None, request()).0, Entered::Complete);
        job.barrier.waiting.clear();
        job.shell_ended(1, Some(0));
        assert_eq!(job.enter_barrier(0, None, request()).0, Entered::Broken);
    }

    #[test]
    fn barriers_after_a_restart() {
        // shell 0 waits at the second barrier, so the first is behind all; the answer for shell 1 was lost
        let mut job = job("0-2");
        assert!(job.barriers_passed(1).is_empty());
        assert_eq!(job.enter_barrier(0, Some(2), request()).0, Entered::Waits);
        assert_eq!(job.enter_barrier(1, Some(1), request()).0, Entered::Passed);
        assert_eq!(job.enter_barrier(1, Some(2), request()).0, Entered::Waits);
        assert_eq!(
            job.enter_barrier(1, Some(2), request()).0,
            Entered::Waits,
            "again"
        );
        // shell 2 runs: it never comes here again
        let answered = job.barriers_passed(2);
        assert_eq!(answered.iter().map(|(rank, _)| *rank).collect::<Vec<_>>(), [0, 1]);
        job.shell_ended(2, Some(0));
        assert_eq!(job.enter_barrier(0, Some(2), request()).0, Entered::Passed);
        assert_eq!(job.enter_barrier(0, Some(3), request()).0, Entered::Broken);
    }

    proptest! {
        /// However reports come, each shell ends once and start is told at most once.
        #[test]
        fn reports_in_any_order(steps in prop::collection::vec((0u8..3, 0u32..6, 0i32..600), 0..40)) {
            let mut job = job("0-3");
            let (mut told, mut ended) = (0, 0);
            for (what, rank, status) in steps {
                match what {
                    0 => told += u32::from(job.shell_started(rank)),
                    1 => ended += u32::from(job.shell_ended(rank, Some(status))),
                    _ => drop(job.enter_barrier(rank, status.checked_rem(3).and_then(|n| u32::try_from(n).ok()), request())),
                }
                prop_assert!(job.active.is_subset(&job.ranks));
            }
            prop_assert!(told <= 1);
            prop_assert_eq!(u64::from(ended), 4 - job.active.count());
        }
    }
}
