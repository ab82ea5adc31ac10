//! How do jobtap plugins follow jobs? A stack of plugins with a long-lived instance each.
//!
//! The job manager sends [`TapCommand`]s in batches and applies what comes back: the plugins' wishes ([`Effect`]) and a [`Verdict`]. An instance that
//! failed is dropped; if the plugin counts jobs, all active jobs are told to its successor ([`TapAnswer::Rebuilt`]) before anything else happens in the stack.

mod admit;
mod job;
mod message;
mod plugin;
mod single;
mod stack;
mod standard;
mod stats;
mod topic;

pub(crate) use job::value_at;
pub use job::{EndedBy, Posted, TapJob};
pub use message::{
    Action, Admitted, Dependency, Effect, PluginInfo, PluginState, Priority, TapAnswer, TapCall, TapCommand,
    Verdict,
};
pub(crate) use stack::Stack;
pub use standard::{STANDARD_TAP, own_grants};
pub use stats::PluginStats;
pub use topic::{Topic, TopicError};
