//! What does the shell tell the user about its own doings, and at which level?

use serde::Serialize;

/// Levels of the shell's log, numbered as the severities of RFC 5424 (RFC 24).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "u8")]
pub(crate) enum Level {
    /// The job cannot go on.
    Fatal = 0,
    /// Something that was asked for is not done.
    Error = 3,
    /// Something that was asked for is done differently.
    Warn = 4,
    /// Something that the user will want to know.
    Notice = 5,
    /// With `-o verbose`.
    Debug = 6,
    /// With `-o verbose=2`.
    Trace = 7,
}

impl From<Level> for u8 {
    fn from(level: Level) -> u8 {
        match level {
            Level::Fatal => 0,
            Level::Error => 3,
            Level::Warn => 4,
            Level::Notice => 5,
            Level::Debug => 6,
            Level::Trace => 7,
        }
    }
}

/// Context of a `log` event (RFC 24).
#[derive(Debug, Serialize)]
pub(crate) struct LogContext<'a> {
    pub(crate) rank: u32,
    pub(crate) level: Level,
    pub(crate) message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) component: Option<&'a str>,
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

/// Where in the source a message comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

/// Logs through a [`crate::ctx::Ctx`]: `log!(ctx, Warn, "rlimit", "text {value}")`; "" means no component.
macro_rules! log {
    ($ctx:expr, $level:ident, $component:expr, $($text:tt)+) => {
        if $ctx.logs($crate::log::Level::$level) {
            let place = $crate::log::Place { file: file!(), line: line!() };
            $ctx.log($crate::log::Level::$level, $component, &format!($($text)+), place);
        }
    };
}
pub(crate) use log;
