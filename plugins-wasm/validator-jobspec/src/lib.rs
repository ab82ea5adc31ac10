//! Validator `jobspec`: refuses what is not a jobspec of RFC 25 (or, with `--require-version=any`, of RFC 14).
//!
//! Each text says where in the jobspec the fault is and what is wrong, in the words of flux-core's validator.

mod constraint;
mod resources;
mod system;
mod tasks;

use flux_policy_sdk::json::Object;
use flux_policy_sdk::{Host, Job, Refusal, Validator};
use serde_json::Value;

flux_policy_sdk::export_validator!(JobspecValidator);

/// Keys that a jobspec has, all of them and no others.
const KEYS: [&str; 4] = ["resources", "tasks", "attributes", "version"];

/// The policy.
#[derive(Debug)]
pub struct JobspecValidator {
    /// The version that every jobspec must have; none takes any.
    require_version: Option<i64>,
}

impl Validator for JobspecValidator {
    fn configure(host: &dyn Host) -> Result<Self, Refusal> {
        let args: Value = serde_json::from_str(&host.args()).unwrap_or_default();
        let mut require_version = Some(1);
        let mut words = args.as_array().into_iter().flatten().filter_map(Value::as_str);
        while let Some(word) = words.next() {
            // the site's arguments are for all validators: others are not ours
            let value = match word.split_once('=') {
                Some(("--require-version", value)) => value,
                None if word == "--require-version" => words.next().unwrap_or(""),
                _ => continue,
            };
            require_version = match (value, value.parse::<i64>()) {
                ("any", _) => None,
                (_, Ok(1)) => Some(1),
                (_, Ok(low)) if low < 1 => {
                    return Err(Refusal::invalid(format!(
                        "Required jobspec version too low: {value} is < 1"
                    )));
                }
                (_, Ok(_)) => {
                    return Err(Refusal::invalid(format!(
                        "Required jobspec version too high: {value} is > 1"
                    )));
                }
                (_, Err(_)) => return Err(Refusal::invalid("Invalid argument to --require-version")),
            };
        }
        Ok(JobspecValidator { require_version })
    }

    fn validate(&mut self, _host: &dyn Host, job: &dyn Job) -> Result<(), Refusal> {
        self.check(&job.jobspec()).map_err(Refusal::invalid)
    }
}

impl JobspecValidator {
    /// Checks a jobspec; the error is the text for the user.
    fn check(&self, text: &str) -> Result<(), String> {
        let jobspec = Object::parse(text).ok_or("jobspec must be a JSON object")?;
        if let Some(missing) = KEYS.iter().find(|key| !jobspec.contains(key)) {
            return Err(format!("Missing key ({missing})"));
        }
        if let Some((extra, _)) = jobspec.iter().find(|(key, _)| !KEYS.contains(key)) {
            return Err(format!("Extraneous key ({extra})"));
        }
        let read =
            |key: &str| serde_json::from_str::<Value>(jobspec.get(key).unwrap_or("null")).unwrap_or_default();
        let (resources, tasks) = (read("resources"), read("tasks"));
        let resources = resources.as_array().ok_or("resources must be a sequence")?;
        let tasks = tasks.as_array().ok_or("tasks must be a sequence")?;
        let attributes =
            Object::parse(jobspec.get("attributes").unwrap_or("")).ok_or("attributes must be a mapping")?;
        let version = read("version").as_i64().ok_or("version must be an integer")?;
        if version < 1 {
            return Err("version must be >= 1".to_owned());
        }
        let v1 = version == 1 || self.require_version == Some(1);
        if v1 && version != 1 {
            return Err("version must be 1".to_owned());
        }
        resources::check(resources, "resources", v1)?;
        tasks::check(tasks, v1)?;
        system::check(&attributes, v1)
    }
}

#[cfg(test)]
mod tests;
