//! What does the broker do in each state of its life? Drives [`crate::state_machine`]; services `state-machine`,
//! `runat` and `shutdown`.

mod announce;
mod cleanup;
mod crontab;
mod dump;
mod modules;
mod notify;
mod program;
mod service;
mod startlog;

pub(crate) use program::environment as program_environment;
pub use service::begin;
pub use service::{Lifecycle, Options, post, scheduler_settled};
