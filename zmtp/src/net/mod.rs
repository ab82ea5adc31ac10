//! How does the pure protocol meet sockets? The tokio side: servers, clients, connection tasks and events.
//!
//! ```text
//!              send (seals at once)                  written in batches
//!  caller ---------------------------> Outbox (conn) ------------------> socket
//!  caller <------ Events <---- one bounded channel <---- connection task <---- socket
//! ```
//!
//! One task per connection: it reads, writes and keeps the heartbeat. The table of peers is changed only where events
//! are handed out ([`Events`]), so that what a caller knows and what `send` accepts are always the same.

mod accept;
mod client;
mod conn;
mod event;
mod hub;
mod opening;
mod server;

pub use client::{Client, ClientConfig, ConnectError};
pub use event::{Credit, Down, Event, Events, Lane, PeerId, SendError};
pub use server::{BindError, CloseReport, Server, ServerConfig, ServerStats};
