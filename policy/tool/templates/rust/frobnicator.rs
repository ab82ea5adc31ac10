//! Gives jobs without a time limit one of an hour.

use flux_policy_sdk::{Frobnicator, Host, Job, Refusal};
use serde_json::Value;

flux_policy_sdk::export_frobnicator!(Policy);

/// The time limit in seconds.
const SECONDS: f64 = 3600.0;

/// The policy.
pub struct Policy;

impl Frobnicator for Policy {
    fn configure(_host: &dyn Host) -> Result<Self, Refusal> {
        Ok(Policy)
    }

    fn frobnicate(&mut self, _host: &dyn Host, job: &dyn Job) -> Result<Option<String>, Refusal> {
        let mut jobspec: Value = serde_json::from_str(&job.jobspec()).map_err(|_| Refusal::invalid("jobspec is not JSON"))?;
        if jobspec["attributes"]["system"]["duration"].as_f64().unwrap_or(0.0) > 0.0 {
            return Ok(None);
        }
        jobspec["attributes"]["system"]["duration"] = SECONDS.into();
        Ok(Some(jobspec.to_string()))
    }
}
