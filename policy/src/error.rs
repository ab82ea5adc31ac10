//! What can go wrong with a plugin?

use std::io;
use std::path::PathBuf;

use crate::plugin::World;

/// Why a plugin cannot be loaded or a call failed. Every text names the plugin or the file.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The engine cannot be made on this machine.
    #[error("failed to start the policy engine")]
    Engine(#[source] wasmtime::Error),
    /// The policy thread cannot be started.
    #[error("failed to start the policy thread")]
    Thread(#[source] io::Error),
    /// The policy thread has ended.
    #[error("the policy thread has ended")]
    Gone,
    /// The plugins could not be loaded before; the reason was given with `Answer::Ready`.
    #[error("policies are not loaded: {0}")]
    NotLoaded(String),
    /// A file or directory cannot be read.
    #[error("policy file {path}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than root and this user may change compiled code.
    #[error("policy file {path} {problem}: refused, as it could have been changed by others")]
    Unsafe {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The name could leave the policy directory.
    #[error("plugin name '{0}' may have letters, digits, '-', '_' and '.' only and must not start with '.'")]
    Name(String),
    /// The manifest is not the JSON that the build writes.
    #[error("manifest {path}")]
    Manifest {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The compiled code is not what the manifest was written for.
    #[error("compiled code {path} does not match its manifest (expected sha256 {expected}, found {found})")]
    Hash {
        /// Which file.
        path: PathBuf,
        /// From the manifest.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// The component implements another world.
    #[error("plugin {name} is a {found}, not a {wanted}")]
    World {
        /// Plugin.
        name: String,
        /// What the configuration says.
        wanted: World,
        /// What the manifest says.
        found: World,
    },
    /// The component was built for an interface version that this host does not speak.
    #[error(
        "plugin {name} was built for flux:policy@{found}; this host speaks {speaks}: build it again with this version of Flux"
    )]
    Version {
        /// Plugin.
        name: String,
        /// Its version.
        found: String,
        /// Ours, separated by commas.
        speaks: String,
    },
    /// The code was compiled for another engine than the broker has.
    #[error(
        "plugin {name} was compiled for another version of Flux: rebuild the policies (your own with 'flux policy build')"
    )]
    Compiled {
        /// Plugin.
        name: String,
        /// In what they differ.
        #[source]
        source: wasmtime::Error,
    },
    /// The code cannot be used by this engine, or imports what its world does not grant.
    #[error("plugin {name}")]
    Load {
        /// Plugin.
        name: String,
        /// Why.
        #[source]
        source: wasmtime::Error,
    },
    /// The file is another one than the site's configuration says.
    #[error("plugin {name} has sha256 {found}, but the configuration pins {pinned}")]
    Pinned {
        /// Plugin.
        name: String,
        /// From the configuration.
        pinned: String,
        /// From the manifest.
        found: String,
    },
    /// The plugin wants a callback that does not exist or is not granted.
    #[error("plugin {name} wants {topic:?}, {problem}")]
    Topic {
        /// Plugin.
        name: String,
        /// What it wants.
        topic: String,
        /// Why that cannot be.
        problem: &'static str,
    },
    /// There is no plugin of this name.
    #[error("{0}: plugin not found")]
    NotFound(String),
    /// The plugin failed too often.
    #[error("plugin {0} is in quarantine after repeated failures; load it again to try once more")]
    Quarantined(String),
    /// The plugin lacks a function of its world.
    #[error("plugin {name} does not export {function}")]
    Export {
        /// Plugin.
        name: String,
        /// What is missing.
        function: String,
    },
    /// The plugin refused its configuration.
    #[error("plugin {name}: {text}")]
    Refused {
        /// Plugin.
        name: String,
        /// Error number that it gave.
        errnum: u32,
        /// Its words.
        text: String,
    },
    /// A call trapped, took too long or too much.
    #[error("plugin {name} failed in {function}: {reason}")]
    Trapped {
        /// Plugin.
        name: String,
        /// The function that was called.
        function: &'static str,
        /// What happened, in one line.
        reason: String,
        /// Where: the innermost functions of the plugin, the one that failed first; empty where that is not known. For the log,
        /// not for the user whose request it was.
        backtrace: String,
    },
    /// A value of the configuration cannot be used; the text names the key.
    #[error("{0}")]
    Settings(String),
    /// The configuration is not JSON.
    #[error("configuration")]
    Config(#[source] serde_json::Error),
}

impl PolicyError {
    /// Says everything in one line, for the log.
    pub(crate) fn report(&self) -> String {
        let text = crate::host::one_line(self);
        match self {
            PolicyError::Trapped { backtrace, .. } if !backtrace.is_empty() => {
                format!("{text} (in {backtrace})")
            }
            _ => text,
        }
    }
}
