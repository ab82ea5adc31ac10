//! What does the `[resource]` table say? (flux-config-resource(5))

use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::hostlist::Hostlist;
use flux_formats::idset::IdSet;
use flux_formats::resource_set::{Children, Group, ResourceSet};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Events kept in memory for `resource.journal`.
const JOURNAL_MAX: usize = 100_000;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    config: Option<Vec<Entry>>,
    #[serde(default)]
    scheduling: Option<String>,
    #[serde(default)]
    exclude: Option<String>,
    #[serde(default)]
    norestrict: bool,
    #[serde(default)]
    noverify: bool,
    #[serde(default)]
    #[expect(
        dead_code,
        reason = "accepted: discovery costs nothing here and is always fresh"
    )]
    rediscover: bool,
    #[serde(default)]
    verify: Option<Value>,
    #[serde(default)]
    journal_max: Option<usize>,
    #[serde(default)]
    #[expect(
        dead_code,
        reason = "accepted for compatibility: a temporary key of flux-core"
    )]
    history: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    hosts: String,
    #[serde(default)]
    cores: Option<String>,
    #[serde(default)]
    gpus: Option<String>,
    #[serde(default)]
    properties: Vec<String>,
}

/// How a difference between configured and found resources is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    /// More and less than configured drain the node.
    Strict,
    /// Less than configured drains the node.
    AllowExtra,
    /// More than configured drains the node.
    AllowMissing,
    /// Nothing does.
    Ignore,
}

impl Strictness {
    fn parse(key: &str, value: &Value) -> Result<Self, RpcError> {
        match value.as_str() {
            Some("strict") => Ok(Strictness::Strict),
            Some("allow-extra") => Ok(Strictness::AllowExtra),
            Some("allow-missing") => Ok(Strictness::AllowMissing),
            Some("ignore") => Ok(Strictness::Ignore),
            _ => Err(bad(&format!(
                "resource.verify.{key}: {value} is none of \"strict\", \"allow-extra\", \"allow-missing\", \"ignore\""
            ))),
        }
    }
}

/// The checked table.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// R from `config` or `path`.
    pub(super) r: Option<ResourceSet>,
    /// Targets never used for jobs, an idset or a hostlist.
    pub(super) exclude: Option<String>,
    /// Count all cores, whatever this process's affinity is.
    pub(super) norestrict: bool,
    /// How cores and GPUs are verified.
    pub(super) verify_core: Strictness,
    pub(super) verify_gpu: Strictness,
    /// Events kept in memory.
    pub(super) journal_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            r: None,
            exclude: None,
            norestrict: false,
            verify_core: Strictness::AllowExtra,
            verify_gpu: Strictness::Ignore,
            journal_max: JOURNAL_MAX,
        }
    }
}

fn bad(text: &str) -> RpcError {
    RpcError::new(errno::EINVAL, text)
}

impl Config {
    /// Reads the table of a configuration object. Files named in it are read, on rank 0 only (`with_files`).
    ///
    /// # Errors
    /// EINVAL with the key and what is wrong with it.
    pub(super) fn read(config: &Value, with_files: bool) -> Result<Self, RpcError> {
        if config.get("fake-resources").is_some() {
            return Err(bad(
                "fake-resources: fake resources are not supported; list hosts in resource.config and set resource.noverify",
            ));
        }
        let Some(table) = config.get("resource") else {
            return Ok(Config::default());
        };
        let table = Table::deserialize(table).map_err(|err| bad(&format!("resource: {err}")))?;
        let mut out = Config {
            exclude: table.exclude,
            norestrict: table.norestrict,
            ..Config::default()
        };
        if let Some(max) = table.journal_max {
            out.journal_max = max;
        }
        out.read_verify(table.verify.as_ref(), table.noverify)?;
        if let Some(entries) = table.config.filter(|entries| !entries.is_empty()) {
            out.r = Some(from_entries(&entries)?);
        } else if let Some(path) = table.path.filter(|_| with_files) {
            out.r = Some(from_file(&path)?);
        }
        if let (Some(path), Some(r), true) = (table.scheduling, out.r.as_mut(), with_files) {
            r.scheduling = Some(scheduling(&path)?);
        }
        Ok(out)
    }

    /// Takes nodes as they are, whatever they have.
    pub(super) fn verify_nothing(&mut self) {
        (self.verify_core, self.verify_gpu) = (Strictness::Ignore, Strictness::Ignore);
    }

    fn read_verify(&mut self, verify: Option<&Value>, noverify: bool) -> Result<(), RpcError> {
        match verify {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => {
                (self.verify_core, self.verify_gpu) = (Strictness::Ignore, Strictness::Ignore)
            }
            Some(Value::Object(keys)) => {
                if let Some(value) = keys.get("default") {
                    let default = Strictness::parse("default", value)?;
                    (self.verify_core, self.verify_gpu) = (default, default);
                }
                for (key, value) in keys {
                    let strictness = Strictness::parse(key, value)?;
                    match key.as_str() {
                        "core" => self.verify_core = strictness,
                        "gpu" => self.verify_gpu = strictness,
                        // host names come from the brokers themselves: there is nothing to compare
                        "default" | "hostname" => {}
                        _ => return Err(bad(&format!("resource.verify.{key}: unknown key"))),
                    }
                }
            }
            Some(other) => {
                return Err(bad(&format!(
                    "resource.verify: {other} is neither a boolean nor a table"
                )));
            }
        }
        if noverify {
            self.verify_nothing();
        }
        Ok(())
    }
}

/// Builds R from the `config` array. Ranks are given in the order of the hosts; a host may be named again.
fn from_entries(entries: &[Entry]) -> Result<ResourceSet, RpcError> {
    let mut hosts = Hostlist::new();
    for entry in entries {
        let list: Hostlist = entry
            .hosts
            .parse()
            .map_err(|err| bad(&format!("resource.config: hosts \"{}\": {err}", entry.hosts)))?;
        let names = list
            .expand()
            .map_err(|err| bad(&format!("resource.config: hosts: {err}")))?;
        if names.is_empty() {
            return Err(bad("resource.config: an entry names no hosts"));
        }
        for name in names
            .iter()
            .filter(|name| !hosts.contains(name))
            .cloned()
            .collect::<Vec<_>>()
        {
            hosts
                .push(&name)
                .map_err(|err| bad(&format!("resource.config: {name}: {err}")))?;
        }
    }
    let index = hosts
        .index()
        .map_err(|err| bad(&format!("resource.config: {err}")))?;
    let mut groups = Vec::new();
    let mut properties: Vec<(String, IdSet)> = Vec::new();
    for entry in entries {
        let list: Hostlist = entry.hosts.parse().unwrap_or_default();
        let ranks: IdSet = list
            .expand()
            .unwrap_or_default()
            .iter()
            .filter_map(|name| index.get(name).and_then(|at| at.first().copied()))
            .collect();
        let ids = |what: &str, text: &Option<String>| match text {
            None => Ok(IdSet::default()),
            Some(text) => text.parse::<IdSet>().map_err(|err| {
                bad(&format!(
                    "resource.config: {what} \"{text}\" is not an idset: {err}"
                ))
            }),
        };
        let children = Children {
            core: ids("cores", &entry.cores)?,
            gpu: ids("gpus", &entry.gpus)?,
        };
        for name in &entry.properties {
            properties.push((name.clone(), ranks.clone()));
        }
        if !children.is_empty() {
            groups.push(Group { ranks, children });
        }
    }
    let covered: IdSet = groups
        .iter()
        .fold(IdSet::default(), |all, group| all.union(&group.ranks));
    let all = IdSet::first_n(u32::try_from(hosts.count()).unwrap_or(u32::MAX));
    if let Some(rank) = all.difference(&covered).first() {
        let host = hosts.nth(u64::from(rank)).unwrap_or_default();
        return Err(bad(&format!(
            "resource.config: no resources for host {host}: set cores"
        )));
    }
    let mut r =
        ResourceSet::from_groups(groups, hosts).map_err(|err| bad(&format!("resource.config: {err}")))?;
    for (name, ranks) in properties {
        r.add_property(&name, &ranks)
            .map_err(|err| bad(&format!("resource.config: {err}")))?;
    }
    Ok(r)
}

/// Reads R from a JSON file.
pub(super) fn from_file(path: &str) -> Result<ResourceSet, RpcError> {
    let text = std::fs::read(path).map_err(|err| bad(&format!("{path}: {err}")))?;
    ResourceSet::decode(&text).map_err(|err| match err {
        flux_formats::resource_set::ResourceSetError::Json(json) => bad(&format!("{path}: {json}")),
        other => bad(&format!("{path}: {other}")),
    })
}

fn scheduling(path: &str) -> Result<Map<String, Value>, RpcError> {
    let text =
        std::fs::read(Path::new(path)).map_err(|err| bad(&format!("resource.scheduling: {path}: {err}")))?;
    serde_json::from_slice(&text).map_err(|err| bad(&format!("resource.scheduling: {path}: {err}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn config_array() {
        let config = json!({"resource": {"noverify": true, "exclude": "0", "config": [
            {"hosts": "foo[0-3]", "cores": "0-7"},
            {"hosts": "foo[2-3]", "gpus": "0-1", "properties": ["gpu"]},
        ]}});
        let config = Config::read(&config, true).unwrap();
        let r = config.r.unwrap();
        assert_eq!(r.to_string(), "rank[0-1]/core[0-7] rank[2-3]/core[0-7],gpu[0-1]");
        assert_eq!(
            r.property_ranks("gpu").map(ToString::to_string).as_deref(),
            Some("2-3")
        );
        assert_eq!(r.nodelist().to_string(), "foo[0-3]");
        assert_eq!(
            (config.verify_core, config.exclude.as_deref()),
            (Strictness::Ignore, Some("0"))
        );
    }

    #[test]
    fn mistakes_name_their_key() {
        let text = |config: Value| Config::read(&config, true).unwrap_err().text;
        assert!(text(json!({"resource": {"pathh": "x"}})).contains("pathh"));
        assert!(
            text(json!({"resource": {"config": [{"hosts": "a", "cores": "x"}]}})).contains("cores \"x\"")
        );
        assert!(text(json!({"resource": {"config": [{"hosts": "a"}]}})).contains("host a"));
        assert!(text(json!({"resource": {"path": "/nonexistent/R"}})).starts_with("/nonexistent/R: "));
        assert!(text(json!({"resource": {"verify": {"core": "maybe"}}})).contains("resource.verify.core"));
        assert!(text(json!({"fake-resources": {"nnodes": 4}})).contains("resource.config"));
    }
}
