//! How does a job run that does not really run? Mock execution (`attributes.system.exec.test`), for tests.
//!
//! No namespace, no process: the exec eventlog is kept in memory and written once at the end.

use crate::service::TimerId;
use flux_formats::fsd::Fsd;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// The jobspec's `attributes.system.exec.test`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct MockSpec {
    /// How long it pretends to run (FSD); by default as long as the job's duration.
    #[serde(default)]
    run_duration: Option<String>,
    /// The wait status it ends with.
    #[serde(default)]
    pub(super) wait_status: i32,
    /// The step that fails: `init`, `starting` or `run`.
    #[serde(default)]
    pub(super) mock_exception: Option<String>,
    /// Start and finish only happen on request (`job-exec.override`).
    #[serde(default, rename = "override")]
    override_: i32,
}

/// A mock job.
#[derive(Debug, Default)]
pub(super) struct Mock {
    pub(super) spec: MockSpec,
    /// How long it runs; `None` until it is told.
    pub(super) duration: Option<Duration>,
    pub(super) timer: Option<TimerId>,
    /// It has started.
    pub(super) running: bool,
}

impl Mock {
    /// Returns the mock execution that a jobspec asks for, if it does.
    ///
    /// # Errors
    /// Text that says what is wrong.
    pub(super) fn of(jobspec: &Value) -> Result<Option<Mock>, String> {
        let system = jobspec.get("attributes").and_then(|a| a.get("system"));
        let Some(test) = system.and_then(|s| s.get("exec")).and_then(|e| e.get("test")) else {
            return Ok(None);
        };
        let spec =
            MockSpec::deserialize(test).map_err(|err| format!("attributes.system.exec.test: {err}"))?;
        let asked = match &spec.run_duration {
            Some(text) => Some(
                text.parse::<Fsd>()
                    .map_err(|_| format!("exec.test.run_duration: \"{text}\" is not a duration"))?,
            ),
            None => system
                .and_then(|s| s.get("duration"))
                .and_then(Value::as_f64)
                .and_then(Fsd::from_secs_f64),
        };
        let duration = asked.and_then(Fsd::to_duration);
        let by_hand = spec.override_ != 0;
        Ok(Some(Mock {
            duration: duration.filter(|_| !by_hand),
            spec,
            timer: None,
            running: false,
        }))
    }

    /// Returns true when start and finish only happen on request.
    pub(super) fn by_hand(&self) -> bool {
        self.spec.override_ != 0
    }

    /// Returns true when this step shall fail.
    pub(super) fn fails_at(&self, step: &str) -> bool {
        self.spec.mock_exception.as_deref() == Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn jobspec(test: &Value, duration: f64) -> Value {
        json!({"attributes": {"system": {"duration": duration, "exec": {"test": test}}}})
    }

    #[test]
    fn durations() {
        let mock = |test: Value, duration| Mock::of(&jobspec(&test, duration)).unwrap().unwrap();
        assert_eq!(
            mock(json!({"run_duration": "1ms"}), 5.0).duration,
            Some(Duration::from_millis(1))
        );
        assert_eq!(mock(json!({}), 5.0).duration, Some(Duration::from_secs(5)));
        let by_hand = mock(json!({"override": 1}), 5.0);
        assert!(by_hand.by_hand() && by_hand.duration.is_none());
        assert!(mock(json!({"mock_exception": "run"}), 0.0).fails_at("run"));
        assert!(Mock::of(&json!({})).unwrap().is_none());
        assert!(
            Mock::of(&jobspec(&json!({"run_duration": "x"}), 0.0))
                .unwrap_err()
                .contains("run_duration")
        );
    }
}
