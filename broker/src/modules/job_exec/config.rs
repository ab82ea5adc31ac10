//! What does the `[exec]` table say? (flux-config-exec(5))

use crate::service::RpcError;
use flux_formats::errno;
use flux_formats::fsd::Fsd;
use flux_process::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Name of the shell's program.
const SHELL: &str = "flux-shell";

/// The checked table.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// The IMP, for jobs of other users than the instance owner.
    pub(super) imp: Option<String>,
    /// The shell.
    pub(super) job_shell: String,
    /// How long after the first signal the tasks are killed.
    pub(super) kill_timeout: Duration,
    /// How often a shell is killed before its node is drained.
    pub(super) max_kill_count: u32,
    /// How long all attempts together may take; `None` derives it from the two above.
    pub(super) max_kill_timeout: Option<Duration>,
    /// The first signal.
    pub(super) term_signal: Signal,
    /// The following ones.
    pub(super) kill_signal: Signal,
    /// How long shells may wait for each other.
    pub(super) barrier_timeout: Option<Duration>,
    /// How long remaining shells may run after the first exited; only shown.
    pub(super) shell_exit_timeout: Option<Duration>,
    /// How long a node that is gone may take to come back before its jobs get their exception; only with a state
    /// directory. An addition to flux-core's table.
    pub(super) reattach_timeout: Duration,
    /// Guests may use mock execution.
    pub(super) mock_guests: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            imp: None,
            job_shell: default_shell(),
            kill_timeout: Duration::from_secs(5),
            max_kill_count: 8,
            max_kill_timeout: None,
            term_signal: Signal::SIGTERM,
            kill_signal: Signal::SIGKILL,
            barrier_timeout: Some(Duration::from_secs(1800)),
            shell_exit_timeout: Some(Duration::from_secs(30)),
            reattach_timeout: Duration::from_secs(60),
            mock_guests: false,
        }
    }
}

/// Returns the shell's path: `FLUX_SHELL_PATH`, else beside the broker, else where it was installed.
fn default_shell() -> String {
    if let Ok(path) = std::env::var("FLUX_SHELL_PATH") {
        return path;
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(SHELL)));
    let path = beside.filter(|path| path.exists());
    path.unwrap_or_else(|| PathBuf::from(flux_formats::paths::libexecdir()).join(SHELL))
        .display()
        .to_string()
}

fn bad(key: &str, value: &Value, wanted: &str) -> RpcError {
    RpcError::new(errno::EINVAL, format!("exec.{key}: {value} is not {wanted}"))
}

fn text(table: &Value, key: &str) -> Result<Option<String>, RpcError> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(bad(key, other, "a string")),
    }
}

/// Returns a duration; "none" is no limit. A plain number of seconds is accepted as well.
fn duration(table: &Value, key: &str) -> Result<Option<Option<Duration>>, RpcError> {
    let Some(value) = table.get(key) else {
        return Ok(None);
    };
    if value.as_str() == Some("none") {
        return Ok(Some(None));
    }
    let fsd = match value {
        Value::String(text) => text.parse::<Fsd>().ok(),
        Value::Number(number) => number.as_f64().and_then(Fsd::from_secs_f64),
        _ => None,
    };
    let fsd = fsd.ok_or_else(|| bad(key, value, "a duration (FSD)"))?;
    Ok(Some(fsd.to_duration()))
}

fn signal(table: &Value, key: &str, default: Signal) -> Result<Signal, RpcError> {
    let Some(value) = table.get(key) else {
        return Ok(default);
    };
    let signal = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number
            .as_i64()
            .and_then(|n| i32::try_from(n).ok())
            .and_then(Signal::new),
        _ => None,
    };
    signal.ok_or_else(|| bad(key, value, "a signal"))
}

impl Config {
    /// Reads the table of a configuration object.
    ///
    /// # Errors
    /// EINVAL with the key and what is wrong with it.
    pub(super) fn read(config: &Value) -> Result<Self, RpcError> {
        let mut out = Config::default();
        if config.pointer("/systemd/enable") == Some(&Value::Bool(true)) {
            let text = "systemd.enable: jobs cannot be run as units of systemd by this version: remove the key, and leave \
                        exec.service at \"rexec\"";
            return Err(RpcError::new(errno::EINVAL, text));
        }
        let Some(table) = config.get("exec") else {
            return Ok(out);
        };
        if !table.is_object() {
            return Err(RpcError::new(errno::EINVAL, "exec: not a table"));
        }
        match text(table, "service")?.as_deref() {
            None | Some("rexec") => {}
            Some(other) => {
                let text =
                    format!("exec.service: \"{other}\" is not supported: the only service is \"rexec\"");
                return Err(RpcError::new(errno::EINVAL, text));
            }
        }
        if let Some(method) = text(table, "method")?.filter(|m| m != "bulk-exec" && m != "bgexec") {
            let text = format!("exec.method: unknown method \"{method}\"");
            return Err(RpcError::new(errno::EINVAL, text));
        }
        out.imp = text(table, "imp")?;
        if let Some(path) = text(table, "job-shell")? {
            out.job_shell = path;
        }
        if let Some(limit) = duration(table, "kill-timeout")? {
            out.kill_timeout = limit.unwrap_or(Duration::MAX);
        }
        if let Some(value) = table.get("max-kill-count") {
            let count = value
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| *n > 0);
            out.max_kill_count = count.ok_or_else(|| bad("max-kill-count", value, "a positive count"))?;
        }
        out.max_kill_timeout = duration(table, "max-kill-timeout")?.flatten();
        out.term_signal = signal(table, "term-signal", out.term_signal)?;
        out.kill_signal = signal(table, "kill-signal", out.kill_signal)?;
        if let Some(limit) = duration(table, "barrier-timeout")? {
            out.barrier_timeout = limit;
        }
        if let Some(limit) = duration(table, "shell-exit-timeout")? {
            out.shell_exit_timeout = limit;
        }
        if let Some(limit) = duration(table, "reattach-timeout")? {
            out.reattach_timeout = limit.unwrap_or(Duration::MAX);
        }
        if let Some(value) = table.get("testexec").and_then(|t| t.get("allow-guests")) {
            out.mock_guests = value
                .as_bool()
                .ok_or_else(|| bad("testexec.allow-guests", value, "a boolean"))?;
        }
        Ok(out)
    }

    /// Returns when attempts to kill a job are given up: the timeout doubled at each attempt.
    pub(super) fn effective_max_kill_timeout(&self) -> Duration {
        let doublings = self.max_kill_count.saturating_sub(1).min(20);
        self.max_kill_timeout
            .unwrap_or_else(|| self.kill_timeout.saturating_mul(1 << doublings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_and_mistakes() {
        let config = Config::read(&json!({"exec": {
            "kill-timeout": "0.5s", "max-kill-count": 3, "term-signal": "SIGINT", "barrier-timeout": "none",
            "job-shell": "/x/flux-shell", "testexec": {"allow-guests": true}}}))
        .unwrap();
        assert_eq!(config.kill_timeout, Duration::from_millis(500));
        assert_eq!(config.effective_max_kill_timeout(), Duration::from_secs(2));
        assert_eq!(
            (config.term_signal, config.barrier_timeout),
            (Signal::SIGINT, None)
        );
        assert!(config.mock_guests && config.job_shell == "/x/flux-shell");
        let text = |table: Value| Config::read(&json!({ "exec": table })).unwrap_err().text;
        assert!(text(json!({"service": "sdexec"})).contains("exec.service"));
        let systemd = Config::read(&json!({"systemd": {"enable": true}})).unwrap_err();
        assert!(systemd.text.starts_with("systemd.enable:"), "{}", systemd.text);
        assert!(Config::read(&json!({"systemd": {"enable": false}})).is_ok());
        assert!(text(json!({"kill-timeout": "soon"})).contains("exec.kill-timeout"));
        assert!(text(json!({"kill-signal": "SIGNOPE"})).contains("exec.kill-signal"));
        assert_eq!(
            Config::default().effective_max_kill_timeout(),
            Duration::from_secs(640)
        );
    }
}
