//! Users may change `attributes.system.duration` of their pending jobs within the limits, the instance owner also of running ones, without limits.
//!
//! Argument `owner-allow-any = 0`: the owner has no such right either.

use flux_policy_sdk::json::Object;
use flux_policy_sdk::{Job, Jobtap, JobtapHost, Refusal, Update, export_jobtap};

const RUNNING: u32 = 48;
const OWNER: u32 = 1;

/// The plugin.
#[derive(Debug)]
pub struct UpdateDuration {
    owner_allow_any: bool,
}

impl Jobtap for UpdateDuration {
    fn configure(host: &dyn JobtapHost) -> Result<Self, Refusal> {
        let args = host.args();
        let allow = Object::parse(&args).and_then(|args| args.get("owner-allow-any").map(str::to_owned));
        Ok(UpdateDuration {
            owner_allow_any: !matches!(allow.as_deref(), Some("0" | "false")),
        })
    }

    fn topics(&self) -> Vec<String> {
        vec!["job.update.attributes.system.duration".to_owned()]
    }

    fn update(
        &mut self,
        _: &dyn JobtapHost,
        job: &dyn Job,
        update: &Update<'_>,
    ) -> Result<Vec<(String, String)>, Refusal> {
        let duration: f64 = update
            .value
            .parse()
            .map_err(|_| Refusal::invalid("duration must be a number"))?;
        if duration < 0.0 {
            return Err(Refusal::invalid("duration must not be negative"));
        }
        let any = update.rolemask & OWNER != 0 && self.owner_allow_any;
        if job.state() & RUNNING != 0 && !any {
            return Err(Refusal::invalid(
                "duration update of running job requires instance owner privileges",
            ));
        }
        let validated = ("validated".to_owned(), "true".to_owned());
        Ok(if any { vec![validated] } else { Vec::new() })
    }
}

export_jobtap!(UpdateDuration);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};

    #[test]
    fn who_may_change_what() {
        let host = FakeHost::default();
        let mut plugin = UpdateDuration::configure(&host).unwrap();
        let pending = FakeJob {
            state: 8,
            ..FakeJob::new("{}")
        };
        let running = FakeJob {
            state: 16,
            ..FakeJob::new("{}")
        };
        let mut say = |job: &FakeJob, value: &str, rolemask: u32| {
            let key = "attributes.system.duration";
            plugin.update(
                &host,
                job,
                &Update {
                    key,
                    value,
                    userid: 1,
                    rolemask,
                },
            )
        };
        assert_eq!(say(&pending, "60", 2), Ok(vec![]));
        assert_eq!(say(&running, "60", 1).unwrap().len(), 1);
        assert!(
            say(&running, "60", 2)
                .unwrap_err()
                .text
                .contains("instance owner")
        );
        assert_eq!(
            say(&pending, "-1", 1).unwrap_err().text,
            "duration must not be negative"
        );
        assert_eq!(
            say(&pending, "\"1h\"", 1).unwrap_err().text,
            "duration must be a number"
        );
        let strict = FakeHost {
            args: "owner-allow-any".into(),
            ..FakeHost::default()
        };
        assert!(UpdateDuration::configure(&strict).is_ok());
    }
}
