//! What do greeting, frames, commands and metadata look like on the wire? Pure functions over bytes.
//!
//! ZeroMQ RFC 23 and 37. A decoder that has too few bytes says so; it never allocates for what a peer announces.

pub(crate) mod command;
pub(crate) mod frame;
pub(crate) mod greeting;
pub(crate) mod metadata;
