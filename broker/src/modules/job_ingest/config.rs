//! Which plugins look at a submission? (`[ingest]`, module arguments; flux-core: job-ingest/pipeline.c, behaviour.)

use crate::modules::policy_link;
use crate::service::RpcError;
use flux_formats::errno;
use flux_policy::{HostConfig, PluginSpec, World};
use serde_json::Value;

/// What the configuration and the module's arguments say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    /// In order.
    pub(super) frobnicators: Vec<PluginSpec>,
    /// In order.
    pub(super) validators: Vec<PluginSpec>,
    /// The scheduler is asked whether a job can ever run, after all validators.
    pub(super) feasibility: bool,
    /// User root may submit to another user's instance.
    pub(super) allow_root_jobs: bool,
}

/// One of the tables `[ingest.frobnicator]` and `[ingest.validator]`.
#[derive(Debug, Default)]
struct Stage {
    disable: bool,
    plugins: Option<Vec<String>>,
    args: Vec<Value>,
}

fn bad(key: &str, what: &str) -> RpcError {
    RpcError::new(
        errno::EINVAL,
        format!("error parsing [ingest] config table: {key} {what}"),
    )
}

impl Stage {
    fn read(config: &Value, name: &str) -> Result<Self, RpcError> {
        let Some(table) = config.pointer(&format!("/ingest/{name}")) else {
            return Ok(Stage::default());
        };
        let key = |key: &str| format!("{name}.{key}");
        let strings = |value: &Value, name: &str| -> Result<Vec<String>, RpcError> {
            let items = value
                .as_array()
                .ok_or_else(|| bad(&key(name), "must be an array of strings"))?;
            items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or_else(|| bad(&key(name), "must be an array of strings"))
        };
        let mut stage = Stage::default();
        if let Some(disable) = table.get("disable") {
            stage.disable = disable
                .as_bool()
                .ok_or_else(|| bad(&key("disable"), "must be a boolean"))?;
        }
        if let Some(plugins) = table.get("plugins") {
            stage.plugins = Some(strings(plugins, "plugins")?);
        }
        if let Some(args) = table.get("args") {
            stage.args = strings(args, "args")?.into_iter().map(Value::from).collect();
        }
        Ok(stage)
    }

    /// Takes a plugin out of the list; returns true when it was there.
    fn take(&mut self, name: &str) -> bool {
        let Some(plugins) = &mut self.plugins else {
            return false;
        };
        let before = plugins.len();
        plugins.retain(|plugin| plugin != name);
        plugins.len() < before
    }

    fn specs(&self, world: World, default: &[&str]) -> Vec<PluginSpec> {
        let default = || default.iter().map(|name| (*name).to_owned()).collect();
        let names = self.plugins.clone().unwrap_or_else(default);
        names
            .iter()
            .map(|name| policy_link::plugin(world, name, Value::Array(self.args.clone())))
            .collect()
    }
}

impl Config {
    /// Reads and checks both.
    ///
    /// # Errors
    /// EINVAL with a text that names the key or argument.
    pub(super) fn read(config: &Value, args: &[String]) -> Result<Self, RpcError> {
        let frobnicator = Stage::read(config, "frobnicator")?;
        let mut validator = Stage::read(config, "validator")?;
        let mut allow_root_jobs = false;
        for arg in args {
            match arg.split_once('=') {
                Some(("validator-plugins", names)) => {
                    validator.plugins = Some(
                        names
                            .split(',')
                            .filter(|n| !n.is_empty())
                            .map(str::to_owned)
                            .collect(),
                    );
                }
                Some(("validator-args", list)) => validator.args = list.split(',').map(Value::from).collect(),
                // submissions of one turn are one batch, and bytes are bounded at the socket
                Some(("batch-count" | "buffer-size" | "max-fluid-generator-id", _)) => {}
                None if arg == "disable-validator" => validator.disable = true,
                None if arg == "allow-root-jobs" => allow_root_jobs = true,
                _ => return Err(RpcError::new(errno::EINVAL, format!("Invalid option: {arg}"))),
            }
        }
        // without queues and defaults there is nothing for the default frobnicators to do
        let has_table = |path: &str| {
            config
                .pointer(path)
                .and_then(Value::as_object)
                .is_some_and(|table| !table.is_empty())
        };
        let wanted = frobnicator
            .plugins
            .as_ref()
            .is_some_and(|plugins| !plugins.is_empty())
            || has_table("/queues")
            || has_table("/policy/jobspec/defaults");
        let frobnicators = if wanted && !frobnicator.disable {
            frobnicator.specs(World::Frobnicator, &["defaults", "constraints"])
        } else {
            Vec::new()
        };
        // nothing of this one is policy: it is a question to the scheduler
        let feasibility = !validator.disable && validator.take("feasibility");
        let validators = if validator.disable {
            Vec::new()
        } else {
            validator.specs(World::Validator, &["jobspec"])
        };
        Ok(Config {
            frobnicators,
            validators,
            feasibility,
            allow_root_jobs,
        })
    }

    /// Returns what the policy host loads.
    pub(super) fn host(&self, dir: std::path::PathBuf, config: std::sync::Arc<str>) -> HostConfig {
        HostConfig {
            dir,
            frobnicators: self.frobnicators.clone(),
            validators: self.validators.clone(),
            scheduler: None,
            config,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(specs: &[PluginSpec]) -> Vec<&str> {
        specs.iter().map(|spec| spec.name.as_str()).collect()
    }

    #[test]
    fn defaults_and_tables() {
        let config = Config::read(&json!({}), &[]).unwrap();
        assert_eq!(names(&config.validators), ["validator-jobspec"]);
        assert!(config.frobnicators.is_empty());
        let config = Config::read(&json!({"queues": {"batch": {}}}), &[]).unwrap();
        assert_eq!(
            names(&config.frobnicators),
            ["frobnicator-defaults", "frobnicator-constraints"]
        );
        let table = json!({"queues": {"a": {}}, "ingest": {
            "frobnicator": {"disable": true}, "validator": {"plugins": ["x"], "args": ["--a"]}}});
        let config = Config::read(&table, &[]).unwrap();
        assert!(config.frobnicators.is_empty());
        assert_eq!(names(&config.validators), ["validator-x"]);
        assert_eq!(config.validators[0].args, json!(["--a"]));
    }

    #[test]
    fn arguments() {
        let args = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let config = Config::read(
            &json!({}),
            &args(&["validator-plugins=a,b", "batch-count=3", "allow-root-jobs"]),
        );
        let config = config.unwrap();
        assert_eq!(names(&config.validators), ["validator-a", "validator-b"]);
        assert!(config.allow_root_jobs);
        assert!(
            Config::read(&json!({}), &args(&["disable-validator"]))
                .unwrap()
                .validators
                .is_empty()
        );
        let err = Config::read(&json!({}), &args(&["foo"])).unwrap_err();
        assert_eq!(err.text, "Invalid option: foo");
        for bad in [
            json!({"plugins": "x"}),
            json!({"plugins": [1]}),
            json!({"disable": "x"}),
            json!({"args": {}}),
        ] {
            assert!(Config::read(&json!({"ingest": {"validator": bad}}), &[]).is_err());
        }
    }
}
