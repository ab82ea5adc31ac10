//! Priority = urgency. Urgencies 0 (hold) and 31 (expedite) are the broker's own.

use flux_policy_sdk::{Job, Jobtap, JobtapHost, Priority, Refusal, export_jobtap};

/// The plugin.
#[derive(Debug)]
pub struct PriorityDefault;

impl Jobtap for PriorityDefault {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(PriorityDefault)
    }

    fn topics(&self) -> Vec<String> {
        vec!["job.priority.get".to_owned()]
    }

    fn priority(&mut self, _: &dyn JobtapHost, job: &dyn Job) -> Priority {
        Priority::Value(job.urgency().into())
    }
}

export_jobtap!(PriorityDefault);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};

    #[test]
    fn urgency_is_priority() {
        let host = FakeHost::default();
        let mut plugin = PriorityDefault::configure(&host).unwrap();
        let job = FakeJob::new("{}");
        assert_eq!(plugin.priority(&host, &job), Priority::Value(16));
    }
}
