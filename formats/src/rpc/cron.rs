//! What do requests to the cron service hold, and what does a crontab say? (flux-core: modules/cron and flux-cron(1), behaviour)

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Type of entries that run every so many seconds.
pub const INTERVAL: &str = "interval";
/// Type of entries that run after events.
pub const EVENT: &str = "event";
/// Type of entries that run at dates.
pub const DATETIME: &str = "datetime";

/// `cron.create`: adds an entry; the response is the entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CreateRequest {
    /// [`INTERVAL`], [`EVENT`] or [`DATETIME`].
    pub r#type: String,
    /// Name in lists and in the log.
    pub name: String,
    /// Given to `sh -c`.
    pub command: String,
    /// What the type needs.
    pub args: Map<String, Value>,
    /// Environment; the broker's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environ: Option<Map<String, Value>>,
    /// Working directory; the broker's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Runs before the entry stops; 0 is no limit.
    #[serde(default)]
    pub repeat: i64,
    /// Where the command runs.
    #[serde(default)]
    pub rank: u32,
    /// Finished tasks to remember.
    #[serde(default = "one")]
    pub task_history_count: i64,
    /// Failures after which the entry stops; 0 is no limit.
    #[serde(default)]
    pub stop_on_failure: i64,
    /// Seconds until a task gets SIGTERM; negative is no limit.
    #[serde(default = "no_timeout")]
    pub timeout: f64,
}

fn one() -> i64 {
    1
}

fn no_timeout() -> f64 {
    -1.0
}

/// `cron.delete`, `cron.stop` and `cron.start`: what happens to one entry; the response is the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRequest {
    /// The entry.
    pub id: i64,
    /// `delete`: its running task gets SIGTERM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill: bool,
}

/// `cron.sync`: asks for, sets or ends the event that tasks wait for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Topic, or a glob of topics, to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Tasks wait no longer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disable: bool,
    /// Seconds after the event in which tasks do not wait for the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_epsilon: Option<f64>,
}

/// A line of a crontab that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: '{text}' is not: minute hour day-of-month month day-of-week command")]
pub struct CrontabError {
    /// Number of the line, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

/// Reads a crontab: five fields of time and a command in each line. What follows the last `#` of a line is a comment,
/// as in the original; empty lines are skipped. The fields are checked by the service.
///
/// # Errors
/// The first line that has fewer than six words.
pub fn crontab(text: &str) -> Result<Vec<CreateRequest>, CrontabError> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.rsplit_once('#').map_or(line, |(content, _)| content);
        if content.trim().is_empty() {
            continue;
        }
        entries.push(entry(content).ok_or_else(|| CrontabError {
            line: index + 1,
            text: line.trim().to_owned(),
        })?);
    }
    Ok(entries)
}

fn entry(line: &str) -> Option<CreateRequest> {
    let mut rest = line;
    let mut args = Map::from_iter([("second".to_owned(), Value::from(0))]);
    for unit in ["minute", "hour", "mday", "month", "weekday"] {
        let (field, more) = rest.trim_start().split_once(char::is_whitespace)?;
        args.insert(unit.to_owned(), Value::from(field));
        rest = more;
    }
    let command = rest.trim();
    Some(CreateRequest {
        r#type: DATETIME.to_owned(),
        name: command.split_whitespace().next()?.to_owned(),
        command: command.to_owned(),
        args,
        task_history_count: one(),
        timeout: no_timeout(),
        ..CreateRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_comments_and_errors() {
        let text = "# every quarter of an hour\n\n*/15 * * * *  flux dmesg -c  # clears\n\t0 3 1 0 mon /usr/sbin/x 'a b'\n";
        let entries = crontab(text).unwrap();
        let commands: Vec<_> = entries.iter().map(|entry| entry.command.as_str()).collect();
        assert_eq!(commands, ["flux dmesg -c", "/usr/sbin/x 'a b'"]);
        assert_eq!(entries[0].name, "flux");
        assert_eq!(entries[0].args["minute"], "*/15");
        assert_eq!(entries[1].args["weekday"], "mon");
        let bad = crontab("0 0 * * * true\n0 0 * * *\n").unwrap_err();
        assert_eq!(
            bad.to_string(),
            "line 2: '0 0 * * *' is not: minute hour day-of-month month day-of-week command"
        );
    }

    #[test]
    fn defaults_of_a_request() {
        let text = r#"{"type":"interval","name":"a","command":"b","args":{}}"#;
        let request: CreateRequest = serde_json::from_str(text).unwrap();
        assert_eq!(
            (request.task_history_count, request.repeat, request.rank),
            (1, 0, 0)
        );
        assert!(request.timeout < 0.0);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _either = crontab(&text);
        }
    }
}
