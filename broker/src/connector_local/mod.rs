//! How do clients on this host reach the broker? A UNIX socket, SO_PEERCRED, one byte of welcome, RFC 3 frames.

mod access;
mod client;
mod service;

pub use service::ConnectorLocal;
