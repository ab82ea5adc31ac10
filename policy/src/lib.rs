//! The policy host: validators, frobnicators and schedulers as WebAssembly components behind `flux:policy`.
//!
//! A service of the broker makes a [`PolicyHost`] with the plugins it needs, sends it batches of [`Command`]s and takes [`Answer`]s. Guest
//! code runs on the policy thread, under a memory cap and a CPU deadline; it cannot reach anything but the interfaces in `wit/`. What a
//! scheduler policy decides is carried out by the trusted [`pool`], which checks every allocation.
//!
//! The broker holds no compiler: components are compiled by `flux-policy-compile` and loaded from a directory that only root or this user
//! can write.

mod engine;
mod error;
mod guest;
mod host;
mod load;
mod plugin;
pub mod pool;
mod sched;
mod tap;

pub use error::PolicyError;
pub use host::{
    Accepted, Answer, Command, HostConfig, IngestJob, LogRecord, PolicyHost, Refusal, SendError, Wake,
};
pub use load::Manifest;
pub use plugin::{Grant, Limits, OnFailure, PluginSpec, WIT_VERSIONS, World};
pub use sched::{SchedAnswer, SchedCommand, SchedEngine, Submit};
pub use tap::{
    Action, Admitted, Dependency, Effect, EndedBy, PluginInfo, PluginState, PluginStats, Posted, Priority,
    STANDARD_TAP, TapAnswer, TapCall, TapCommand, TapJob, Topic, TopicError, Verdict, own_grants,
};
