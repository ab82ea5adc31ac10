//! No resource belongs to two jobs at once: a job that is given what another has gets a fatal exception and does not start.
//!
//! The scheduler cannot do that; a plugin that gives resources past it (`alloc-bypass`) can.

mod claims;

use std::collections::HashMap;

use flux_policy_sdk::{Job, Jobtap, JobtapHost, Level, Refusal, export_jobtap};

use claims::{Claims, Resources};

/// RUN and CLEANUP.
const HOLDING: u32 = 48;

/// The plugin.
#[derive(Debug, Default)]
pub struct AllocCheck {
    claims: Claims,
    /// What each job holds.
    jobs: HashMap<u64, Resources>,
}

impl AllocCheck {
    /// Notes a job's resources; returns false when another job has some of them.
    fn take(&mut self, host: &dyn JobtapHost, job: &dyn Job) -> bool {
        if self.jobs.contains_key(&job.id()) {
            return true;
        }
        let Some(r) = job.resources() else { return true };
        let Some(resources) = Resources::parse(&r) else {
            host.log(Level::Err, &format!("R of job {} cannot be read", job.id()));
            return true;
        };
        if !self.claims.add(&resources) {
            return false;
        }
        self.jobs.insert(job.id(), resources);
        host.subscribe(job.id());
        true
    }
}

impl Jobtap for AllocCheck {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(AllocCheck::default())
    }

    fn topics(&self) -> Vec<String> {
        // `clean` is told even of jobs whose `free` came too early
        let topics = ["job.new", "job.state.run", "job.event.free", "job.event.clean"];
        topics.map(str::to_owned).to_vec()
    }

    /// Jobs that have resources already when the plugin comes are taken as they are.
    fn new_job(&mut self, host: &dyn JobtapHost, job: &dyn Job, replay: bool) {
        if replay && job.state() & HOLDING != 0 {
            self.take(host, job);
        }
    }

    fn state(&mut self, host: &dyn JobtapHost, job: &dyn Job, _: &str) {
        if !self.take(host, job) {
            host.raise(job.id(), "alloc-check", 0, "resources already allocated");
        }
    }

    fn event(&mut self, host: &dyn JobtapHost, job: &dyn Job, _: &str, _: &str) {
        if let Some(resources) = self.jobs.remove(&job.id()) {
            self.claims.remove(&resources);
            host.unsubscribe(job.id());
        }
    }
}

export_jobtap!(AllocCheck);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};

    fn job(id: u64, state: u32, lite: &str) -> FakeJob {
        FakeJob {
            id,
            state,
            r: Some(format!(r#"{{"version":1,"execution":{{"R_lite":{lite}}}}}"#)),
            ..FakeJob::default()
        }
    }

    #[test]
    fn nobody_has_what_another_has() {
        let host = FakeHost::default();
        let mut plugin = AllocCheck::configure(&host).unwrap();
        let first = job(1, 16, r#"[{"rank":"0-1","children":{"core":"0-3","gpu":"0"}}]"#);
        let beside = job(
            2,
            16,
            r#"[{"rank":"0","children":{"core":"4-70"}},{"rank":"2","children":{"core":"0"}}]"#,
        );
        let gpu = job(3, 16, r#"[{"rank":"1","children":{"core":"9","gpu":"0"}}]"#);
        let far = job(4, 16, r#"[{"rank":"0","children":{"core":"64"}}]"#);
        plugin.state(&host, &first, "run");
        plugin.state(&host, &beside, "run");
        assert_eq!(host.take_wishes(), ["subscribe 1", "subscribe 2"]);
        plugin.state(&host, &gpu, "run");
        plugin.state(&host, &far, "run");
        let text = "alloc-check 0 resources already allocated";
        assert_eq!(
            host.take_wishes(),
            [format!("raise 3 {text}"), format!("raise 4 {text}")]
        );
        // a refused job holds nothing, and takes nothing away when it ends
        plugin.event(&host, &gpu, "free", "{}");
        plugin.state(&host, &gpu, "run");
        assert_eq!(host.take_wishes(), [format!("raise 3 {text}")]);
        plugin.event(&host, &first, "free", "{}");
        plugin.event(&host, &first, "clean", "{}");
        plugin.state(&host, &gpu, "run");
        assert_eq!(host.take_wishes(), ["unsubscribe 1", "subscribe 3"]);
    }

    #[test]
    fn jobs_that_run_already() {
        let host = FakeHost::default();
        let mut plugin = AllocCheck::configure(&host).unwrap();
        let lite = r#"[{"rank":"0","children":{"core":"0"}}]"#;
        plugin.new_job(&host, &job(1, 16, lite), true);
        plugin.new_job(&host, &job(2, 32, lite), true);
        plugin.new_job(&host, &job(3, 8, lite), true);
        assert_eq!(host.take_wishes(), ["subscribe 1"]);
        plugin.state(&host, &job(4, 16, lite), "run");
        assert_eq!(
            host.take_wishes(),
            ["raise 4 alloc-check 0 resources already allocated"]
        );
        plugin.state(&host, &job(5, 16, "7"), "run");
        assert_eq!(host.logged.borrow().len(), 1);
    }
}
