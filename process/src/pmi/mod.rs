//! How do the processes of a parallel program find each other? (RFC 13 "PMI-1", the "simple" wire)
//!
//! The text protocol is [`flux_formats::pmi`]; [`Server`] is a pure state machine for the ranks of one launcher;
//! [`Driver`] runs it over descriptors that any event loop polls; [`Client`] is the blocking other side.

mod client;
mod driver;
mod server;

pub use client::{Client, ClientError, ClientTrace};
pub use driver::{Driver, Event};
pub use server::{Direction, Output, Server, ServerConfig, ServerTrace};
