//! A jobtap plugin that wants to be told of jobs that are purged and does nothing then: what is left is the call itself.

use flux_policy_sdk::{Jobtap, JobtapHost, Refusal, export_jobtap};

/// The plugin.
#[derive(Debug)]
pub struct Empty;

impl Jobtap for Empty {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(Empty)
    }

    fn topics(&self) -> Vec<String> {
        vec!["job.inactive-remove".to_owned()]
    }
}

export_jobtap!(Empty);
