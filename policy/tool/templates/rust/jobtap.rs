//! Lets each user have a few active jobs, and no more.

use std::collections::{HashMap, HashSet};

use flux_policy_sdk::{Job, Jobtap, JobtapHost, Refusal, json::Object};

flux_policy_sdk::export_jobtap!(Policy);

/// Active jobs that a user may have, unless the site sets `max-jobs`.
const MAX_JOBS: usize = 2;

/// The policy.
pub struct Policy {
    max_jobs: usize,
    /// Active jobs of each user.
    active: HashMap<u32, HashSet<u64>>,
}

impl Jobtap for Policy {
    fn configure(host: &dyn JobtapHost) -> Result<Self, Refusal> {
        let args = host.args();
        let given = Object::parse(&args).and_then(|args| args.get("max-jobs")?.parse().ok());
        Ok(Policy {
            max_jobs: given.unwrap_or(MAX_JOBS),
            active: HashMap::new(),
        })
    }

    /// Only what is named here is called.
    fn topics(&self) -> Vec<String> {
        ["job.validate", "job.new", "job.state.inactive"].map(str::to_owned).to_vec()
    }

    fn validate(&mut self, _host: &dyn JobtapHost, job: &dyn Job) -> Result<(), Refusal> {
        let active = self.active.get(&job.userid()).map_or(0, HashSet::len);
        if active >= self.max_jobs {
            return Err(Refusal::invalid(format!("you may have at most {} active jobs", self.max_jobs)));
        }
        Ok(())
    }

    /// After a restart of the broker, and after a crash of this plugin, all active jobs come again.
    fn new_job(&mut self, _host: &dyn JobtapHost, job: &dyn Job, _replay: bool) {
        self.active.entry(job.userid()).or_default().insert(job.id());
    }

    fn state(&mut self, _host: &dyn JobtapHost, job: &dyn Job, _state: &str) {
        if let Some(jobs) = self.active.get_mut(&job.userid()) {
            jobs.remove(&job.id());
        }
    }
}
