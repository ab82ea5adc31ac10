//! A job may not ask for more time than the instance has left (`instance.expiration` of the configuration that the job manager gives its plugins).

use flux_policy_sdk::{Job, Jobtap, JobtapHost, Refusal, export_jobtap, fsd};

/// The plugin.
#[derive(Debug)]
pub struct ValidateDuration {
    /// When the instance ends; 0 is never.
    expiration: f64,
}

fn expiration(host: &dyn JobtapHost) -> f64 {
    let text = host.config("instance.expiration");
    text.and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

impl Jobtap for ValidateDuration {
    fn configure(host: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(ValidateDuration {
            expiration: expiration(host),
        })
    }

    fn reconfigure(&mut self, host: &dyn JobtapHost) -> Result<(), Refusal> {
        self.expiration = expiration(host);
        Ok(())
    }

    fn topics(&self) -> Vec<String> {
        if self.expiration > 0.0 {
            vec!["job.validate attributes.system.duration".to_owned()]
        } else {
            Vec::new()
        }
    }

    fn validate(&mut self, host: &dyn JobtapHost, job: &dyn Job) -> Result<(), Refusal> {
        let duration = job.attribute("attributes.system.duration").unwrap_or_default();
        let duration: f64 = duration
            .parse()
            .map_err(|_| Refusal::invalid("failed to unpack duration: it must be a number"))?;
        let left = self.expiration - host.now();
        if duration > 0.0 && duration > left {
            return Err(Refusal::invalid(format!(
                "job duration ({}) exceeds remaining instance lifetime ({})",
                fsd::format(duration),
                fsd::format(left.max(0.0))
            )));
        }
        Ok(())
    }
}

export_jobtap!(ValidateDuration);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};

    #[test]
    fn the_instance_must_live_longer() {
        let mut host = FakeHost::new(r#"{"instance":{"expiration":4600}}"#.parse().unwrap());
        host.now = 1000.0;
        let mut plugin = ValidateDuration::configure(&host).unwrap();
        assert_eq!(plugin.topics().len(), 1);
        let job = |duration: f64| {
            FakeJob::new(format!(
                r#"{{"attributes":{{"system":{{"duration":{duration}}}}}}}"#
            ))
        };
        assert_eq!(plugin.validate(&host, &job(3600.0)), Ok(()));
        assert_eq!(plugin.validate(&host, &job(0.0)), Ok(()));
        assert_eq!(
            plugin.validate(&host, &job(7200.0)).unwrap_err().text,
            "job duration (2h) exceeds remaining instance lifetime (1h)"
        );
        let forever = FakeHost::default();
        plugin.reconfigure(&forever).unwrap();
        assert!(plugin.topics().is_empty());
    }
}
