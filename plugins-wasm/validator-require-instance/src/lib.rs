//! Jobs of a certain size must be new instances of Flux (`flux batch`, `flux alloc`): `ingest.validator.require-instance.minnodes` and `mincores`, all jobs
//! when neither is set.

use flux_policy_sdk::{Host, Job, Refusal, Validator, export_validator};
use serde_json::Value;

/// Cores for each of `minnodes` when `mincores` is not set.
const CORES_PER_NODE: u64 = 16;

/// The policy.
#[derive(Debug)]
pub struct RequireInstance {
    nodes_min: u64,
    cores_min: u64,
}

impl RequireInstance {
    fn text(&self) -> String {
        let (nodes, cores) = (self.nodes_min, self.cores_min);
        let which = match (nodes, cores) {
            (0, 0) => " for all jobs in this instance".to_owned(),
            (0, cores) => format!(" for jobs >= {cores} cores"),
            (nodes, 0) => format!(" for jobs >= {nodes} nodes"),
            (nodes, cores) => format!(" for jobs >= {nodes} nodes or {cores} cores"),
        };
        format!("Direct job submission disabled{which}. Please use flux-batch(1) or flux-alloc(1)")
    }

    /// Returns true for jobs that are too small to matter.
    fn passes_over(&self, resources: &Value) -> bool {
        let (mut nodes, mut cores) = (None, None);
        count(resources, 1, &mut nodes, &mut cores);
        let small = |size: Option<u64>, least: u64| size.is_none_or(|size| size < least);
        small(nodes, self.nodes_min) && small(cores, self.cores_min)
    }
}

fn count(list: &Value, factor: u64, nodes: &mut Option<u64>, cores: &mut Option<u64>) {
    for vertex in list.as_array().map(Vec::as_slice).unwrap_or_default() {
        let all = factor.saturating_mul(vertex.get("count").and_then(Value::as_u64).unwrap_or(1));
        let sum = match vertex.get("type").and_then(Value::as_str) {
            Some("node") => Some(&mut *nodes),
            Some("core") => Some(&mut *cores),
            _ => None,
        };
        if let Some(sum) = sum {
            *sum = Some(sum.unwrap_or(0).saturating_add(all));
        }
        if let Some(with) = vertex.get("with") {
            count(with, all, nodes, cores);
        }
    }
}

impl Validator for RequireInstance {
    fn configure(host: &dyn Host) -> Result<Self, Refusal> {
        let number = |key: &str| {
            let Some(text) = host.config(&format!("ingest.validator.require-instance.{key}")) else {
                return Ok(0);
            };
            text.parse::<u64>().map_err(|_| {
                Refusal::invalid(format!(
                    "ingest.validator.require-instance.{key}: must be a number >= 0"
                ))
            })
        };
        let (nodes_min, mut cores_min) = (number("minnodes")?, number("mincores")?);
        if nodes_min > 0 && cores_min == 0 {
            // or a job that asks for cores alone would slip through
            cores_min = CORES_PER_NODE * nodes_min;
        }
        Ok(RequireInstance { nodes_min, cores_min })
    }

    fn validate(&mut self, _: &dyn Host, job: &dyn Job) -> Result<(), Refusal> {
        let read = |path: &str| {
            job.attribute(path)
                .and_then(|text| serde_json::from_str::<Value>(&text).ok())
        };
        if job.attribute("attributes.system.batch").is_some()
            || self.passes_over(&read("resources").unwrap_or_default())
        {
            return Ok(());
        }
        let tasks = read("tasks").unwrap_or_default();
        let word = |index: usize| {
            tasks
                .pointer(&format!("/0/command/{index}"))
                .and_then(Value::as_str)
        };
        let program = word(0).map(|path| path.rsplit('/').next().unwrap_or(path));
        if program == Some("flux") && matches!(word(1), Some("broker" | "start")) {
            return Ok(());
        }
        Err(Refusal::invalid(self.text()))
    }
}

export_validator!(RequireInstance);

#[cfg(test)]
mod tests {
    use super::*;
    use flux_policy_sdk::fake::{FakeHost, FakeJob};
    use serde_json::json;

    fn job(nodes: u64, cores: u64, command: &[&str]) -> FakeJob {
        let slot = json!({"type": "slot", "count": 1, "with": [{"type": "core", "count": cores}]});
        let resources = if nodes == 0 {
            slot
        } else {
            json!({"type": "node", "count": nodes, "with": [slot]})
        };
        FakeJob::new(
            json!({"resources": [resources], "tasks": [{"command": command}], "attributes": {"system": {}}})
                .to_string(),
        )
    }

    fn policy(config: Value) -> (FakeHost, RequireInstance) {
        let host = FakeHost::new(json!({"ingest": {"validator": {"require-instance": config}}}));
        let policy = RequireInstance::configure(&host).unwrap();
        (host, policy)
    }

    #[test]
    fn all_jobs() {
        let (host, mut policy) = policy(json!({}));
        assert_eq!(
            policy.validate(&host, &job(0, 1, &["true"])).unwrap_err().text,
            "Direct job submission disabled for all jobs in this instance. Please use flux-batch(1) or flux-alloc(1)"
        );
        assert_eq!(
            policy.validate(&host, &job(1, 1, &["/usr/bin/flux", "broker"])),
            Ok(())
        );
        assert_eq!(
            policy.validate(&host, &job(1, 1, &["flux", "start", "x"])),
            Ok(())
        );
        assert!(policy.validate(&host, &job(1, 1, &["flux", "run"])).is_err());
        let batch = FakeJob::new(r#"{"resources":[],"tasks":[],"attributes":{"system":{"batch":{}}}}"#);
        assert_eq!(policy.validate(&host, &batch), Ok(()));
    }

    #[test]
    fn large_jobs() {
        let (host, mut policy) = policy(json!({"minnodes": 2}));
        assert_eq!(policy.validate(&host, &job(1, 8, &["true"])), Ok(()));
        assert_eq!(
            policy.validate(&host, &job(2, 1, &["true"])).unwrap_err().text,
            "Direct job submission disabled for jobs >= 2 nodes or 32 cores. Please use flux-batch(1) or flux-alloc(1)"
        );
        assert!(policy.validate(&host, &job(0, 32, &["true"])).is_err());
        assert_eq!(policy.validate(&host, &job(0, 31, &["true"])), Ok(()));
        let bad = FakeHost::new(json!({"ingest": {"validator": {"require-instance": {"minnodes": "x"}}}}));
        assert!(RequireInstance::configure(&bad).is_err());
    }
}
