//! Every new job is held: its urgency becomes 0 when it is in DEPEND, unless it is 0 already.

use flux_policy_sdk::{Job, Jobtap, JobtapHost, Refusal, export_jobtap};

/// The plugin.
#[derive(Debug)]
pub struct SubmitHold;

impl Jobtap for SubmitHold {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(SubmitHold)
    }

    fn topics(&self) -> Vec<String> {
        vec!["job.state.depend".to_owned()]
    }

    fn state(&mut self, host: &dyn JobtapHost, job: &dyn Job, _: &str) {
        if job.urgency() != 0 {
            host.post(job.id(), "urgency", r#"{"urgency":0}"#);
        }
    }
}

export_jobtap!(SubmitHold);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};

    #[test]
    fn holds_what_is_not_held() {
        let host = FakeHost::default();
        let mut plugin = SubmitHold::configure(&host).unwrap();
        let mut job = FakeJob {
            id: 5,
            ..FakeJob::new("{}")
        };
        plugin.state(&host, &job, "depend");
        assert_eq!(host.take_wishes(), [r#"post 5 urgency {"urgency":0}"#]);
        job.urgency = 0;
        plugin.state(&host, &job, "depend");
        assert!(host.take_wishes().is_empty());
    }
}
