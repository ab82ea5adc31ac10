//! How do the broker's services live together on one thread?
//!
//! The [`Hub`] owns every service ([`Service`], an actor) and one work queue. A service gets a [`Cx`] with
//! each call: replies, RPCs with a continuation, timers, events, typed calls to other local services, tasks.
//! Nothing here awaits: sockets, children and threads feed the hub through [`Mailbox`]es.
//!
//! ```text
//! client socket ─┐                 ┌─> service A ─┐
//! overlay peer  ─┼─> Mailbox ─> queue ─> service B ─┼─> queue … ─> flush to sockets
//! thread, child ─┘                 └─> service C ─┘
//! ```

mod alarm;
mod builtin;
mod client_io;
mod clients;
mod context;
mod core;
mod hub;
mod loading;
mod logging;
mod mailbox;
mod routing;
mod spec;
#[cfg(test)]
pub(crate) mod testing;
mod timers;

pub use builtin::{Trace, glob_matches};
pub use clients::{ClientId, ClientInfo, Outbox};
pub use context::{Cx, RpcId};
pub(crate) use core::new_uuid;
pub use core::{Core, Link, ModuleStatus, SlotId};
pub use hub::Hub;
pub use loading::ModuleInfo;
pub use mailbox::{Mailbox, MailboxFull};
pub use spec::{Access, Interface, Method, RpcError, Service};
pub use timers::TimerId;
