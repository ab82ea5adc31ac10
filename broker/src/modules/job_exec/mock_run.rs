//! How does a mock job start, fail and finish?

use super::JobExec;
use super::job::Job;
use super::mock::Mock;
use crate::modules::job_manager::api::{self as manager, ExecEvent};
use crate::service::Cx;
use flux_formats::jobid::JobId;
use std::time::Duration;

impl JobExec {
    pub(super) fn start_mock(&mut self, cx: &mut Cx<'_>, mut job: Job, mock: Mock) {
        let id = job.id;
        let failing = ["init", "starting", "run"]
            .into_iter()
            .find(|step| mock.fails_at(step));
        let by_hand = mock.by_hand();
        if failing != Some("init") {
            job.event("init");
            job.event("starting");
        }
        job.mock = Some(mock);
        if matches!(failing, Some("init" | "starting")) {
            job.active.clear();
        }
        self.jobs.insert(id, job);
        match failing {
            Some(step @ ("init" | "starting")) => {
                self.fatal(cx, id, &format!("mock {step} exception generated"));
            }
            Some(_) => {
                self.run_mock(cx, id);
                self.fatal(cx, id, "mock run exception generated");
            }
            None if by_hand => self.arm_expiration(cx, id),
            None => self.run_mock(cx, id),
        }
    }

    fn run_mock(&mut self, cx: &mut Cx<'_>, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(mock) = job.mock.as_mut() else { return };
        let (duration, by_hand) = (mock.duration, mock.by_hand());
        mock.running = true;
        job.start_told = true;
        manager::exec_event(cx, id, ExecEvent::Start);
        if by_hand {
            return;
        }
        let duration = duration.unwrap_or(Duration::ZERO);
        if duration.is_zero() {
            self.finish_mock(cx, id, None);
            return;
        }
        let timer = cx.timer(duration, move |me: &mut JobExec, cx| me.finish_mock(cx, id, None));
        if let Some(mock) = self.jobs.get_mut(&id).and_then(|job| job.mock.as_mut()) {
            mock.timer = Some(timer);
        }
        self.arm_expiration(cx, id);
    }

    fn finish_mock(&mut self, cx: &mut Cx<'_>, id: JobId, status: Option<i32>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(mock) = &job.mock else { return };
        job.status = status.unwrap_or(mock.spec.wait_status);
        job.active.clear();
        self.check_complete(cx, id);
    }

    /// A signal ends a mock job at once.
    pub(super) fn kill_mock(&mut self, cx: &mut Cx<'_>, id: JobId, signum: i32) {
        let running = self
            .jobs
            .get(&id)
            .and_then(|job| job.mock.as_ref())
            .is_some_and(|mock| mock.running);
        self.finish_mock(cx, id, running.then_some(signum));
    }

    /// Starts or finishes a mock job by hand.
    ///
    /// # Errors
    /// Text that says why not.
    pub(super) fn override_mock(
        &mut self,
        cx: &mut Cx<'_>,
        id: JobId,
        event: &str,
        status: i32,
    ) -> Result<(), &'static str> {
        let mock = self.jobs.get(&id).ok_or("job id not found")?.mock.as_ref();
        let mock = mock
            .filter(|mock| mock.by_hand())
            .ok_or("job not in run-override mode")?;
        match (event, mock.running) {
            ("start", false) => self.run_mock(cx, id),
            ("start", true) => return Err("job already running"),
            ("finish", true) => self.finish_mock(cx, id, Some(status)),
            ("finish", false) => return Err("job not running"),
            _ => return Err("invalid override event"),
        }
        Ok(())
    }
}
