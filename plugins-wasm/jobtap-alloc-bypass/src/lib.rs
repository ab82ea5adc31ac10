//! A job of the instance owner with `attributes.system.alloc-bypass.R` runs on these resources at once; the scheduler never sees it.

use flux_policy_sdk::{Bypass, Job, Jobtap, JobtapHost, Refusal, export_jobtap};

const R: &str = "attributes.system.alloc-bypass.R";

#[cfg(target_arch = "wasm32")]
fn resources() -> impl Bypass {
    flux_policy_sdk::bindings::jobtap::Resources
}

/// Tests bring their own.
#[cfg(not(target_arch = "wasm32"))]
fn resources() -> impl Bypass {
    flux_policy_sdk::fake::FakeHost::default()
}

/// The plugin.
#[derive(Debug)]
pub struct AllocBypass {
    owner: u32,
}

impl AllocBypass {
    fn sched(bypass: &dyn Bypass, job: &dyn Job) {
        if let Some(r) = job.attribute(R) {
            bypass.set_resources(job.id(), &r);
        }
    }
}

impl Jobtap for AllocBypass {
    fn configure(host: &dyn JobtapHost) -> Result<Self, Refusal> {
        let owner = host.config("instance.owner").and_then(|owner| owner.parse().ok());
        Ok(AllocBypass {
            owner: owner.unwrap_or(0),
        })
    }

    fn topics(&self) -> Vec<String> {
        vec![format!("job.validate {R}"), format!("job.state.sched {R}")]
    }

    fn validate(&mut self, host: &dyn JobtapHost, job: &dyn Job) -> Result<(), Refusal> {
        if job.userid() != self.owner {
            return Err(Refusal::invalid("Guest user cannot use alloc bypass"));
        }
        let r = job.attribute(R).unwrap_or_default();
        if !r.starts_with('{') || !r.contains("\"R_lite\"") {
            return Err(Refusal::invalid("alloc-bypass: invalid R: no R_lite"));
        }
        host.set_flag(job.id(), "alloc-bypass");
        Ok(())
    }

    fn state(&mut self, _: &dyn JobtapHost, job: &dyn Job, _: &str) {
        AllocBypass::sched(&resources(), job);
    }
}

export_jobtap!(AllocBypass);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};

    #[test]
    fn the_owner_alone() {
        let host = FakeHost::new(r#"{"instance":{"owner":100}}"#.parse().unwrap());
        let mut plugin = AllocBypass::configure(&host).unwrap();
        let mut job = FakeJob {
            id: 3,
            userid: 100,
            ..FakeJob::new(r#"{"attributes":{"system":{"alloc-bypass":{"R":{"execution":{"R_lite":[]}}}}}}"#)
        };
        plugin.validate(&host, &job).unwrap();
        AllocBypass::sched(&host, &job);
        assert_eq!(
            host.take_wishes(),
            [
                "set-flag 3 alloc-bypass",
                r#"set-resources 3 {"execution":{"R_lite":[]}}"#
            ]
        );
        job.userid = 101;
        assert!(plugin.validate(&host, &job).unwrap_err().text.contains("Guest"));
        let bad = FakeJob {
            userid: 100,
            ..FakeJob::new(r#"{"attributes":{"system":{"alloc-bypass":{"R":[]}}}}"#)
        };
        assert!(plugin.validate(&host, &bad).is_err());
    }
}
