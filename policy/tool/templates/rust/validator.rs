//! Refuses jobs that run longer than an hour.

use flux_policy_sdk::{Host, Job, Refusal, Validator};
use serde_json::Value;

flux_policy_sdk::export_validator!(Policy);

/// Longest time limit in seconds, unless the site sets `max-seconds`.
const MAX_SECONDS: f64 = 3600.0;

/// The policy.
pub struct Policy {
    max_seconds: f64,
}

impl Validator for Policy {
    fn configure(host: &dyn Host) -> Result<Self, Refusal> {
        let args: Value = serde_json::from_str(&host.args()).unwrap_or_default();
        let max_seconds = args["max-seconds"].as_f64().unwrap_or(MAX_SECONDS);
        Ok(Policy { max_seconds })
    }

    fn validate(&mut self, _host: &dyn Host, job: &dyn Job) -> Result<(), Refusal> {
        let jobspec: Value = serde_json::from_str(&job.jobspec()).map_err(|_| Refusal::invalid("jobspec is not JSON"))?;
        let duration = jobspec["attributes"]["system"]["duration"].as_f64().unwrap_or(0.0);
        if duration == 0.0 || duration > self.max_seconds {
            return Err(Refusal::invalid(format!("time limit must be above 0 and at most {} s", self.max_seconds)));
        }
        Ok(())
    }
}
