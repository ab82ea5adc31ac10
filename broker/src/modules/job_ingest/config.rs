//! Which plugins look at a submission? (`[ingest]`, module arguments; flux-core: job-ingest/pipeline.c, behaviour.)

use crate::modules::policy_link;
use crate::service::RpcError;
use flux_formats::errno;
use flux_policy::{HostConfig, PluginSpec, World};
use serde_json::{Value, json};

/// Largest schema that is read.
const SCHEMA_BYTES_MAX: u64 = 1 << 20;

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
        let schema = validator.plugins.as_ref();
        if !validator.disable && schema.is_some_and(|plugins| plugins.iter().any(|name| name == "schema")) {
            validator.args = validator
                .args
                .into_iter()
                .map(read_schema)
                .collect::<Result<_, _>>()?;
        }
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

/// Puts the content of a file into the place of `--schema=FILE`: components read no files.
fn read_schema(arg: Value) -> Result<Value, RpcError> {
    let Some(path) = arg.as_str().and_then(|text| text.strip_prefix("--schema=")) else {
        return Ok(arg);
    };
    let fail =
        |why: String| RpcError::new(errno::EINVAL, format!("ingest.validator: --schema={path}: {why}"));
    let read = || {
        use std::io::Read;
        let mut text = String::new();
        let file = std::fs::File::open(path)?;
        file.take(SCHEMA_BYTES_MAX + 1).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let text = read().map_err(|err| fail(err.to_string()))?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > SCHEMA_BYTES_MAX {
        return Err(fail("larger than 1 MiB".to_owned()));
    }
    let schema: Value = serde_json::from_str(&text).map_err(|err| fail(format!("not JSON: {err}")))?;
    Ok(json!({"file": path, "schema": schema}))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_schema_is_read_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs.json");
        let read = |plugin: &str| {
            let arg = format!("--schema={}", path.display());
            let table = json!({"plugins": [plugin], "args": ["--a", arg]});
            Config::read(&json!({"ingest": {"validator": table}}), &[])
        };
        assert!(
            read("schema")
                .unwrap_err()
                .text
                .contains("jobs.json: No such file")
        );
        std::fs::write(&path, "{").unwrap();
        assert!(read("schema").unwrap_err().text.contains("not JSON"));
        std::fs::write(&path, r#"{"type": "object"}"#).unwrap();
        let expected = json!(["--a", {"file": path.to_str().unwrap(), "schema": {"type": "object"}}]);
        assert_eq!(read("schema").unwrap().validators[0].args, expected);
        // nobody else asks for the file
        std::fs::remove_file(&path).unwrap();
        read("jobspec").unwrap();
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
