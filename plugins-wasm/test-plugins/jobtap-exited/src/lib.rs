//! A jobtap plugin that runs a program for each job, and fails when it is told of its end.

#[cfg(target_arch = "wasm32")]
use flux_policy_sdk::Exec;
use flux_policy_sdk::{Exited, Job, Jobtap, JobtapHost, Refusal, export_jobtap};

/// The plugin.
#[derive(Debug)]
pub struct TrapsAtExit;

impl Jobtap for TrapsAtExit {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(TrapsAtExit)
    }

    fn topics(&self) -> Vec<String> {
        vec!["job.state.run".to_owned()]
    }

    fn state(&mut self, _: &dyn JobtapHost, job: &dyn Job, _: &str) {
        let _id = job.id();
        #[cfg(target_arch = "wasm32")]
        flux_policy_sdk::bindings::jobtap::Programs.spawn(_id, &["true".to_owned()], &[]);
    }

    fn exited(&mut self, _: &dyn JobtapHost, _: &Exited<'_>) {
        std::process::abort();
    }
}

export_jobtap!(TrapsAtExit);
