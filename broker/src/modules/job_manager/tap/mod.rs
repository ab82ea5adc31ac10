//! How do jobtap plugins take part in a job's life? (flux-jobtap-plugins(7); DESIGN §8.)
//!
//! Plugins are components on the policy thread. Everything of a turn crosses to them in one batch; what they answer is applied as events.
//!
//! ```text
//!   submission ─> wanted by a plugin? ─ no ──────────────────────────────────> accepted, as without plugins
//!                        │ yes                                                    ▲
//!                        └─> batch ─> create, validate, dependencies, new,        │
//!                                     depend, priority, priority.get ─> answer ───┘ (or refused)
//!   a new state, an event, a priority, an update ─> wanted? ─> batch ─> answer ─> wishes applied, the job goes on
//! ```
//!
//! A job of which an answer is outstanding takes no step ([`super::job::Job::tap`]); what happens to it from outside (exceptions, the end of its
//! tasks) is recorded all the same. A callback that no plugin wants costs a look at an empty list.

mod admit;
mod apply;
mod calls;
mod config;
mod load;
mod names;
mod port;
mod programs;
mod query;
mod raw;
mod state;
mod timers;
mod update;
mod view;
mod wants;
mod wishes;

pub(super) use admit::Stored;
pub(super) use config::check as check_config;
pub(crate) use port::Plugins;
pub(in crate::modules) use port::{LocalPlugins, NoPlugins};
pub(super) use state::Tap;
