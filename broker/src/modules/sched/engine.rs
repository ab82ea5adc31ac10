//! What decides: the engine on the policy thread.

use super::Sched;
use crate::modules::policy_link::{self, PolicyLink};
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_policy::{Answer, Command, HostConfig, World};
use serde_json::{Value, json};

/// Takes batches of commands; answers are fetched when [`Sched::on_answers`] is called.
pub(super) trait Engine: std::fmt::Debug {
    /// Sends a batch.
    ///
    /// # Errors
    /// The engine is gone.
    fn send(&mut self, cx: &mut Cx<'_>, commands: Vec<Command>) -> Result<(), RpcError>;
    /// Returns the answers so far.
    ///
    /// # Errors
    /// The engine is gone.
    fn receive(&mut self) -> Result<Vec<Answer>, RpcError>;
}

/// The policy thread with a scheduler component.
#[derive(Debug)]
pub(super) struct PolicyEngine {
    link: PolicyLink,
}

impl PolicyEngine {
    /// Starts to load the component.
    ///
    /// # Errors
    /// The policy thread cannot be started.
    pub(super) fn open(cx: &mut Cx<'_>, name: &str) -> Result<Self, RpcError> {
        let args = cx
            .config
            .pointer("/sched-simple/args")
            .cloned()
            .unwrap_or_else(|| json!({}));
        let config = HostConfig {
            dir: policy_link::policy_dir(cx),
            scheduler: Some(policy_link::plugin(World::Scheduler, name, args)),
            config: policy_link::config_text(cx),
            ..HostConfig::default()
        };
        Ok(PolicyEngine {
            link: PolicyLink::open(cx, config, Sched::on_answers)?,
        })
    }
}

/// Returns the policy that the configuration names: `sched-simple.policy`, else Fluxion's `sched-fluxion-qmanager.queue-policy`, else fcfs.
///
/// # Errors
/// EINVAL when the name is not a string.
pub(super) fn policy(config: &Value) -> Result<String, RpcError> {
    let keys = [
        ("/sched-simple/policy", "sched-simple.policy"),
        (
            "/sched-fluxion-qmanager/queue-policy",
            "sched-fluxion-qmanager.queue-policy",
        ),
    ];
    for (pointer, key) in keys {
        match config.pointer(pointer) {
            None => {}
            Some(Value::String(name)) => return Ok(name.clone()),
            Some(other) => {
                let text = format!("{key} must be the name of a policy such as \"easy\", not {other}");
                return Err(RpcError::new(errno::EINVAL, text));
            }
        }
    }
    Ok("fcfs".to_owned())
}

/// Says whether a configuration names a policy that is there.
///
/// # Errors
/// EINVAL with the name.
pub(super) fn check(cx: &Cx<'_>, config: &Value) -> Result<(), RpcError> {
    let name = policy(config)?;
    let spec = policy_link::plugin(World::Scheduler, &name, Value::Null);
    let dir = spec.dir.unwrap_or_else(|| policy_link::policy_dir(cx));
    if dir.join(format!("{}.json", spec.name)).is_file() {
        return Ok(());
    }
    let text = format!("there is no scheduler policy \"{name}\" in {}", dir.display());
    Err(RpcError::new(errno::EINVAL, text))
}

impl Engine for PolicyEngine {
    fn send(&mut self, _cx: &mut Cx<'_>, commands: Vec<Command>) -> Result<(), RpcError> {
        self.link.send(commands)
    }

    fn receive(&mut self) -> Result<Vec<Answer>, RpcError> {
        self.link.receive()
    }
}
