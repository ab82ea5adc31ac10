//! What does `[job-manager.housekeeping]` say?

use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::fsd::Fsd;
use serde_json::Value;
use std::time::Duration;

/// When ranks go back to the scheduler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum ReleaseAfter {
    /// All of a job's at once.
    All,
    /// Each when it is done.
    Each,
    /// All at once, or each when it is done from this time after the first on.
    Time(Duration),
}

impl ReleaseAfter {
    /// Returns the seconds that `job-manager.stats-get` tells; -1 for never.
    pub(super) fn seconds(self) -> f64 {
        match self {
            ReleaseAfter::All => -1.0,
            ReleaseAfter::Each => 0.0,
            ReleaseAfter::Time(time) => time.as_secs_f64(),
        }
    }
}

/// Table `[job-manager.housekeeping]`.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Config {
    /// `command`, or `IMP run housekeeping`.
    pub(super) command: Vec<String>,
    /// `release-after`.
    pub(super) release_after: ReleaseAfter,
}

impl Config {
    /// Reads the table; `None` when there is none.
    ///
    /// # Errors
    /// EINVAL with a text that names the key.
    pub(in super::super) fn read(config: &Value) -> Result<Option<Self>, RpcError> {
        let bad = |what: String| RpcError::new(errno::EINVAL, format!("job-manager.housekeeping{what}"));
        let Some(table) = config.pointer("/job-manager/housekeeping") else {
            return Ok(None);
        };
        let table = table
            .as_object()
            .ok_or_else(|| bad(": must be a table".to_owned()))?;
        let mut command = None;
        let mut release_after = ReleaseAfter::All;
        for (key, value) in table {
            match key.as_str() {
                "command" => {
                    let words: Option<Vec<String>> = value.as_array().and_then(|words| {
                        words
                            .iter()
                            .map(|word| word.as_str().map(str::to_owned))
                            .collect()
                    });
                    let words = words.filter(|words| words.first().is_some_and(|word| !word.is_empty()));
                    command =
                        Some(words.ok_or_else(|| bad(".command: must be an array of strings".to_owned()))?);
                }
                "release-after" => {
                    let time = value.as_str().and_then(|text| text.parse::<Fsd>().ok());
                    let time = time.ok_or_else(|| bad(".release-after: FSD parse error".to_owned()))?;
                    let seconds = time.as_secs_f64();
                    release_after = match Duration::try_from_secs_f64(seconds) {
                        Ok(Duration::ZERO) => ReleaseAfter::Each,
                        Ok(time) => ReleaseAfter::Time(time),
                        Err(_) => ReleaseAfter::All, // infinity
                    };
                }
                // the second is for the script alone
                "use-systemd-unit" | "exit-on-first-error" if value.is_boolean() => {}
                "use-systemd-unit" | "exit-on-first-error" => {
                    return Err(bad(format!(".{key}: must be true or false")));
                }
                _ => return Err(bad(format!(": unknown key {key}"))),
            }
        }
        let imp = config.pointer("/exec/imp").and_then(Value::as_str);
        let command = match (command, imp) {
            (Some(command), _) => command,
            (None, Some(imp)) => vec![imp.to_owned(), "run".to_owned(), "housekeeping".to_owned()],
            (None, None) => return Err(bad(" implies IMP but exec.imp is undefined".to_owned())),
        };
        Ok(Some(Config {
            command,
            release_after,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(table: Value) -> Result<Config, String> {
        let config = json!({"exec": {"imp": "/imp"}, "job-manager": {"housekeeping": table}});
        let read = Config::read(&config).map_err(|err| err.text)?;
        Ok(read.unwrap())
    }

    #[test]
    fn tables() {
        assert_eq!(Config::read(&json!({"job-manager": {}})).unwrap(), None);
        let imp = read(json!({"exit-on-first-error": true})).unwrap();
        assert_eq!(imp.command, ["/imp", "run", "housekeeping"]);
        assert_eq!(imp.release_after.seconds(), -1.0);
        let after = |text: &str| {
            read(json!({"command": ["x"], "release-after": text}))
                .unwrap()
                .release_after
        };
        assert_eq!(after("0"), ReleaseAfter::Each);
        assert_eq!(after("1m"), ReleaseAfter::Time(Duration::from_secs(60)));
        assert_eq!(after("infinity"), ReleaseAfter::All);
        for (bad, text) in [
            (json!({"command": "x"}), ".command: must be"),
            (json!({"command": []}), ".command: must be"),
            (json!({"command": [""]}), ".command: must be"),
            (json!({"command": [1]}), ".command: must be"),
            (json!({"release-after": "soon"}), ".release-after: FSD"),
            (json!({"release-after": 1}), ".release-after: FSD"),
            (json!({"exit-on-first-error": 1}), ".exit-on-first-error: must"),
            (json!({"colour": 1}), ": unknown key colour"),
            (json!(1), ": must be a table"),
        ] {
            let refused = read(bad).unwrap_err();
            assert!(
                refused.starts_with("job-manager.housekeeping") && refused.contains(text),
                "{refused}"
            );
        }
        let none = Config::read(&json!({"job-manager": {"housekeeping": {}}})).unwrap_err();
        assert!(
            none.text.contains("implies IMP but exec.imp is undefined"),
            "{}",
            none.text
        );
    }
}
