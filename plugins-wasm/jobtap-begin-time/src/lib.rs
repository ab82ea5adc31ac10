//! A job waits in DEPEND until its `begin-time` (seconds since the epoch).

use flux_policy_sdk::{Dependency, Job, Jobtap, JobtapHost, Refusal, export_jobtap, json};

/// The plugin. Its timers carry the job's id and the description of the dependency.
#[derive(Debug)]
pub struct BeginTime;

impl Jobtap for BeginTime {
    fn configure(_: &dyn JobtapHost) -> Result<Self, Refusal> {
        Ok(BeginTime)
    }

    fn topics(&self) -> Vec<String> {
        vec!["job.dependency.begin-time".to_owned()]
    }

    fn dependency(
        &mut self,
        host: &dyn JobtapHost,
        job: &dyn Job,
        dependency: &Dependency<'_>,
    ) -> Result<(), Refusal> {
        let value = json::Object::parse(dependency.entry)
            .and_then(|entry| entry.get("value").and_then(json::string))
            .ok_or_else(|| Refusal::invalid("error processing begin-time: value must be a string"))?;
        let at = value
            .parse::<f64>()
            .ok()
            .filter(|at| at.is_finite() && *at >= 0.0);
        let at = at.ok_or_else(|| Refusal::invalid(format!("Invalid begin-time={value}")))?;
        let description = format!("begin-time={at:.3}");
        host.dependency_add(job.id(), &description);
        host.set_timer(&format!("{} {description}", job.id()), at);
        Ok(())
    }

    fn expired(&mut self, host: &dyn JobtapHost, key: &str) {
        if let Some((id, description)) = key.split_once(' ')
            && let Ok(id) = id.parse()
        {
            host.dependency_remove(id, description);
        }
    }
}

export_jobtap!(BeginTime);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};

    #[test]
    fn waits_for_its_timer() {
        let host = FakeHost::default();
        let mut plugin = BeginTime::configure(&host).unwrap();
        let job = FakeJob {
            id: 7,
            ..FakeJob::new("{}")
        };
        let mut depend = |entry: &str| {
            let dependency = Dependency {
                scheme: "begin-time",
                entry,
                target: None,
                replay: false,
            };
            plugin.dependency(&host, &job, &dependency)
        };
        depend(r#"{"scheme":"begin-time","value":"1795240138.5"}"#).unwrap();
        assert_eq!(
            host.take_wishes(),
            [
                "dependency-add 7 begin-time=1795240138.500",
                "timer 7 begin-time=1795240138.500 1795240138.5"
            ]
        );
        for bad in ["x", "-1", "inf", "nan", ""] {
            let refused = depend(&format!(r#"{{"value":"{bad}"}}"#)).unwrap_err();
            assert_eq!(refused.text, format!("Invalid begin-time={bad}"));
        }
        assert!(depend("{}").is_err());
        plugin.expired(&host, "7 begin-time=1795240138.500");
        assert_eq!(
            host.take_wishes(),
            ["dependency-remove 7 begin-time=1795240138.500"]
        );
    }
}
