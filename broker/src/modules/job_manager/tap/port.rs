//! Where are the plugins? Behind a trait, so that the job manager is tested without the policy thread.

use crate::modules::job_manager::JobManager;
use crate::modules::policy_link::{self, PolicyLink};
use crate::service::{Cx, RpcError};
use flux_policy::{Answer, Command, HostConfig};
use std::path::PathBuf;
use std::sync::Arc;

/// Takes batches for the plugins.
pub(crate) trait Plugins {
    /// Returns false when there never are any.
    fn exist(&self) -> bool;
    /// Gets ready for plugins of this directory.
    ///
    /// # Errors
    /// The policy thread cannot be started.
    fn open(&mut self, cx: &mut Cx<'_>, dir: PathBuf, config: Arc<str>) -> Result<(), RpcError>;
    /// Sends a batch.
    ///
    /// # Errors
    /// The policy thread has ended.
    fn send(&mut self, cx: &mut Cx<'_>, commands: Vec<Command>) -> Result<(), RpcError>;
    /// Returns the answers so far.
    ///
    /// # Errors
    /// The policy thread has ended.
    fn receive(&mut self) -> Result<Vec<Answer>, RpcError>;
}

/// The policy thread of this process.
#[derive(Debug, Default)]
pub(in crate::modules) struct LocalPlugins(Option<PolicyLink>);

impl Plugins for LocalPlugins {
    fn exist(&self) -> bool {
        true
    }

    fn open(&mut self, cx: &mut Cx<'_>, dir: PathBuf, config: Arc<str>) -> Result<(), RpcError> {
        let host = HostConfig {
            dir,
            config,
            ..HostConfig::default()
        };
        self.0 = Some(PolicyLink::open(cx, host, JobManager::on_tap_answers)?);
        Ok(())
    }

    fn send(&mut self, _cx: &mut Cx<'_>, commands: Vec<Command>) -> Result<(), RpcError> {
        self.0.as_mut().map_or(Ok(()), |link| link.send(commands))
    }

    fn receive(&mut self) -> Result<Vec<Answer>, RpcError> {
        self.0.as_mut().map_or(Ok(Vec::new()), PolicyLink::receive)
    }
}

/// None, for tests of everything else.
#[derive(Debug)]
pub(in crate::modules) struct NoPlugins;

impl Plugins for NoPlugins {
    fn exist(&self) -> bool {
        false
    }

    fn open(&mut self, _: &mut Cx<'_>, _: PathBuf, _: Arc<str>) -> Result<(), RpcError> {
        Ok(())
    }

    fn send(&mut self, _: &mut Cx<'_>, _: Vec<Command>) -> Result<(), RpcError> {
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<Answer>, RpcError> {
        Ok(Vec::new())
    }
}

/// Returns the directory of compiled policies.
pub(super) fn directory(cx: &Cx<'_>) -> PathBuf {
    policy_link::policy_dir(cx)
}
