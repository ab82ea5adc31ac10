//! How do pending jobs become allocations? The policy orders, the pool allocates.

mod annotate;
mod engine;
mod message;
mod settings;
mod slot;

pub use engine::SchedEngine;
pub use message::{SchedAnswer, SchedCommand, Submit};
pub(crate) use slot::SchedSlot;
