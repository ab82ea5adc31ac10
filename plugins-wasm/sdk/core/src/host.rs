//! What can every policy ask of the broker?

/// Severity of a log message, as in RFC 5424.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Someone must act.
    Err,
    /// Something is degraded.
    Warning,
    /// Worth knowing.
    Notice,
    /// State transitions.
    Info,
    /// For developers.
    Debug,
}

/// The broker, as every policy sees it.
pub trait Host {
    /// Writes one line to the broker's log, under the policy's name; rate limited.
    fn log(&self, level: Level, message: &str);
    /// Returns the time of the event that is handled, in seconds since the epoch.
    fn now(&self) -> f64;
    /// Returns the JSON text at a dotted path of the broker's configuration; the empty path is all of it.
    fn config(&self, path: &str) -> Option<String>;
    /// Returns the JSON text of the arguments that the site gave this policy.
    fn args(&self) -> String;
}
