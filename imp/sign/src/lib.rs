//! What does a signed job request look like? RFC 38 key-value text and RFC 39 tokens `HEADER.PAYLOAD.SIGNATURE`.
//!
//! The IMP reads tokens with privilege on the line, so the crate depends on SHA-256 alone (and, on the feature
//! `config`, on a TOML parser), allocates no more than a small multiple of its input, and never panics.

#![forbid(unsafe_code)]

mod base64;
mod config;
#[cfg(feature = "config")]
mod flatten;
pub mod kv;
#[cfg(feature = "config")]
mod load;
pub mod munge;
mod signer;
mod token;

pub use base64::{decode as base64_decode, encode as base64_encode};
pub use config::{Config, ConfigError};
#[cfg(feature = "config")]
pub use flatten::{FlattenError, flatten};
#[cfg(feature = "config")]
pub use load::{LoadError, PathChecks, load};
pub use munge::Connect;
pub use signer::Signer;
pub use token::{Mechanism, SignError, Unwrapped, unwrap, unwrap_noverify, wrap, wrap_as};
