//! What do `[job-manager.prolog]`, `[job-manager.epilog]` and `[job-manager.perilog]` say?

use flux_policy_sdk::{JobtapHost, Refusal, fsd};
use serde_json::{Map, Value};

/// A prolog or epilog.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Procedure {
    pub(crate) command: Vec<String>,
    /// On each rank of the job; else on the first broker alone.
    pub(crate) per_rank: bool,
    pub(crate) cancel_on_exception: bool,
    /// Seconds; 0 is for ever.
    pub(crate) timeout: f64,
    pub(crate) kill_timeout: f64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Config {
    pub(crate) prolog: Option<Procedure>,
    pub(crate) epilog: Option<Procedure>,
    pub(crate) log_ignore: Vec<String>,
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|word| word.as_str().map(str::to_owned))
        .collect()
}

impl Config {
    /// Reads the configuration and the plugin's arguments, which go first.
    pub(crate) fn read(host: &dyn JobtapHost) -> Result<Config, Refusal> {
        let part = |path: &str| {
            host.config(path)
                .and_then(|text| serde_json::from_str::<Value>(&text).ok())
        };
        let args: Value = serde_json::from_str(&host.args()).unwrap_or_default();
        let imp = part("exec.imp").and_then(|imp| imp.as_str().map(str::to_owned));
        let table = |name: &str| {
            let own = args.get(name).cloned();
            own.or_else(|| part(&format!("job-manager.{name}")))
        };
        let read = |name: &str| {
            table(name)
                .map(|table| Procedure::read(&table, name, imp.as_deref()))
                .transpose()
        };
        let ignore = table("perilog").and_then(|table| table.get("log-ignore").cloned());
        let log_ignore = match &ignore {
            None => Vec::new(),
            Some(list) => strings(list).ok_or_else(|| {
                Refusal::invalid("job-manager.perilog.log-ignore: must be a list of strings")
            })?,
        };
        Ok(Config {
            prolog: read("prolog")?,
            epilog: read("epilog")?,
            log_ignore,
        })
    }
}

impl Procedure {
    fn read(table: &Value, name: &str, imp: Option<&str>) -> Result<Procedure, Refusal> {
        let bad = |what: String| Refusal::invalid(format!("job-manager.{name}: {what}"));
        let none = Map::new();
        let table = match table {
            Value::Object(table) => table,
            Value::Null => &none,
            _ => return Err(bad("must be a table".to_owned())),
        };
        let is_prolog = name == "prolog";
        let mut read = Procedure {
            command: Vec::new(),
            per_rank: false,
            cancel_on_exception: is_prolog,
            timeout: if is_prolog { 1800.0 } else { 0.0 },
            kill_timeout: 60.0,
        };
        let flag = |value: &Value, key: &str| {
            value
                .as_bool()
                .ok_or_else(|| bad(format!("{key}: must be true or false")))
        };
        for (key, value) in table {
            match key.as_str() {
                "command" => {
                    let words = strings(value).filter(|words| !words.is_empty());
                    read.command =
                        words.ok_or_else(|| bad("command must be an array of strings".to_owned()))?;
                }
                "timeout" => {
                    let time = value.as_str().and_then(fsd::parse);
                    let time = time.ok_or_else(|| bad(format!("invalid {name} timeout")))?;
                    read.timeout = if time.is_finite() { time } else { 0.0 };
                }
                "kill-timeout" => {
                    let time = value.as_f64().filter(|time| *time >= 0.0);
                    read.kill_timeout =
                        time.ok_or_else(|| bad("kill-timeout: must be seconds".to_owned()))?;
                }
                "per-rank" => read.per_rank = flag(value, key)?,
                "cancel-on-exception" => read.cancel_on_exception = flag(value, key)?,
                "exit-on-first-error" => drop(flag(value, key)?),
                _ => return Err(bad(format!("unknown key {key}"))),
            }
        }
        if read.command.is_empty() {
            let imp = imp.ok_or_else(|| bad("no command specified and exec.imp not defined".to_owned()))?;
            read.command = vec![imp.to_owned(), "run".to_owned(), name.to_owned()];
        }
        Ok(read)
    }
}
