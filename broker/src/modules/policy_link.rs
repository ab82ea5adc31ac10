//! How does a module reach its plugins on the policy thread?
//!
//! Commands go out in batches. Answers come back by a wake-up that only sets a flag: a task on the broker's runtime
//! then calls the module, however many answers there are.

use crate::service::{Cx, RpcError, Service};
use flux_formats::errno;
use flux_policy::{Answer, Command, HostConfig, LogRecord, PluginSpec, PolicyHost, World};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A module's plugins.
#[derive(Debug)]
pub(crate) struct PolicyLink {
    host: PolicyHost,
    /// Commands that the thread had no room for.
    waiting: Vec<Command>,
}

impl PolicyLink {
    /// Starts to load plugins. `receive` is called on the module whenever [`PolicyLink::receive`] has something.
    ///
    /// # Errors
    /// The thread or the engine cannot be started.
    pub(crate) fn open<S: Service>(
        cx: &mut Cx<'_>,
        config: HostConfig,
        receive: fn(&mut S, &mut Cx<'_>),
    ) -> Result<Self, RpcError> {
        let flag = Arc::new(tokio::sync::Notify::new());
        let wake = flag.clone();
        let host = PolicyHost::spawn(config, Box::new(move || wake.notify_one()))
            .map_err(|err| RpcError::new(errno::EIO, chain(&err)))?;
        let mailbox = cx.mailbox::<S>();
        cx.spawn_task(async move {
            loop {
                flag.notified().await;
                if mailbox.post(receive).await.is_err() {
                    return;
                }
            }
        });
        Ok(PolicyLink {
            host,
            waiting: Vec::new(),
        })
    }

    /// Sends a batch, after what waits already.
    ///
    /// # Errors
    /// EIO when the policy thread has ended.
    pub(crate) fn send(&mut self, commands: impl IntoIterator<Item = Command>) -> Result<(), RpcError> {
        self.waiting.extend(commands);
        if self.waiting.is_empty() {
            return Ok(());
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        match self.host.send(now, std::mem::take(&mut self.waiting)) {
            Ok(()) => Ok(()),
            Err(err) if err.gone => Err(RpcError::new(errno::EIO, "the policy thread has ended")),
            Err(err) => {
                // taken up again when answers make room
                self.waiting = err.commands;
                Ok(())
            }
        }
    }

    /// Returns the answers so far; what the thread had no room for is sent again.
    ///
    /// # Errors
    /// EIO when the policy thread has ended.
    pub(crate) fn receive(&mut self) -> Result<Vec<Answer>, RpcError> {
        let mut answers = Vec::new();
        self.host.receive(&mut answers);
        self.send([])?;
        Ok(answers)
    }
}

/// Writes a plugin's line to the broker's log.
pub(crate) fn log(cx: &mut Cx<'_>, record: &LogRecord) {
    cx.log(record.level, &record.plugin, &record.message);
}

/// Returns the configuration as the plugins get it.
pub(crate) fn config_text(cx: &Cx<'_>) -> Arc<str> {
    Arc::from(cx.config.to_string())
}

/// Returns the directory of compiled policies: `policies.directory` of the configuration, else that of the build
/// tree which this program is in, else the installed one.
pub(crate) fn policy_dir(cx: &Cx<'_>) -> PathBuf {
    if let Some(dir) = cx
        .config
        .pointer("/policies/directory")
        .and_then(serde_json::Value::as_str)
    {
        return PathBuf::from(dir);
    }
    let exe = std::env::current_exe().ok();
    let beside = exe.as_deref().and_then(|exe| {
        // target/debug/flux-broker and target/debug/deps/TEST: target/policies
        let dirs = exe.ancestors().skip(1).take(3);
        dirs.map(|dir| dir.join("policies")).find(|dir| dir.is_dir())
    });
    beside.unwrap_or_else(|| flux_formats::paths::prefix_of(exe.as_deref()).join("lib/flux/policies"))
}

/// Returns a plugin of a world by the name that the configuration uses: `jobspec` is `validator-jobspec`; `/a/b/hour` is `hour` in `/a/b`.
pub(crate) fn plugin(world: World, name: &str, args: serde_json::Value) -> PluginSpec {
    let prefix = match world {
        World::Validator => "validator",
        World::Frobnicator => "frobnicator",
        World::Scheduler => "sched",
        World::Jobtap => "jobtap",
    };
    let path = Path::new(name);
    let mut spec = match (path.is_absolute(), path.parent(), path.file_name()) {
        (true, Some(dir), Some(file)) => {
            let mut spec = PluginSpec::new(file.to_string_lossy(), world);
            spec.dir = Some(dir.to_owned());
            spec
        }
        _ => PluginSpec::new(format!("{prefix}-{name}"), world),
    };
    spec.args = args;
    spec
}

/// Returns an error with all its causes in one line.
pub(crate) fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
