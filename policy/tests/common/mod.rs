//! What the tests of real components share.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod component;
pub(crate) mod sched;

use std::path::PathBuf;
use std::sync::Arc;

use flux_policy::{
    Accepted, Answer, Command, HostConfig, IngestJob, LogRecord, PluginSpec, PolicyHost, Refusal, World,
};

/// Returns where `cargo xtask wasm` has put the policies, or those that only tests use.
pub(crate) fn policies(test: bool) -> PathBuf {
    let root = std::env::var_os("FLUX_POLICY_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/policies")),
        PathBuf::from,
    );
    let mut name = root.into_os_string();
    if test {
        name.push("-test");
    }
    let dir = PathBuf::from(name);
    assert!(
        dir.is_dir(),
        "{} is missing: run `cargo xtask wasm` first",
        dir.display()
    );
    dir
}

pub(crate) fn ingest_config(config: &str) -> HostConfig {
    HostConfig {
        dir: policies(false),
        frobnicators: vec![
            PluginSpec::new("frobnicator-defaults", World::Frobnicator),
            PluginSpec::new("frobnicator-constraints", World::Frobnicator),
        ],
        validators: vec![PluginSpec::new("validator-jobspec", World::Validator)],
        scheduler: None,
        config: Arc::from(config),
    }
}

pub(crate) fn hostile_config(spec: PluginSpec) -> HostConfig {
    let mut config = HostConfig {
        dir: policies(true),
        config: Arc::from("{}"),
        ..HostConfig::default()
    };
    match spec.world {
        World::Scheduler => config.scheduler = Some(spec),
        _ => config.validators = vec![spec],
    }
    config
}

pub(crate) fn job(jobspec: &str) -> Box<IngestJob> {
    Box::new(IngestJob {
        userid: 1000,
        rolemask: 2,
        urgency: 16,
        flags: 0,
        novalidate: false,
        jobspec: Arc::from(jobspec),
    })
}

pub(crate) const JOBSPEC: &str = r#"{"resources":[{"type":"slot","count":1,"with":[{"type":"core","count":1}],"label":"task"}],"tasks":[{"command":["true"],"slot":"task","count":{"per_slot":1}}],"attributes":{"system":{"duration":0,"environment":{"PATH":"/usr/bin:/bin","HOME":"/home/user"},"cwd":"/home/user","shell":{"options":{"rlimit":{"cpu":-1,"core":0}}}}},"version":1}"#;

/// Sends one submission to an inline host and returns its end.
pub(crate) fn ingest(
    host: &mut PolicyHost,
    now: f64,
    jobspec: &str,
) -> (Result<Accepted, Refusal>, Vec<LogRecord>) {
    host.send(
        now,
        vec![Command::Ingest {
            token: 7,
            job: job(jobspec),
        }],
    )
    .unwrap();
    let mut answers = Vec::new();
    host.receive(&mut answers);
    let mut end = None;
    let mut logs = Vec::new();
    for answer in answers {
        match answer {
            Answer::Ingest { token: 7, result } => end = Some(result),
            Answer::Log(record) => logs.push(record),
            Answer::Ready(result) => result.unwrap(),
            other => panic!("{other:?}"),
        }
    }
    (end.unwrap(), logs)
}
