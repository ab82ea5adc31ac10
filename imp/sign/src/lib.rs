//! What does a signed job request look like? RFC 38 key-value text and RFC 39 tokens `HEADER.PAYLOAD.SIGNATURE`.
//!
//! The IMP reads these with privilege on the line, so the crate depends on nothing, allocates no more than a small
//! multiple of its input, and never panics.

#![forbid(unsafe_code)]

mod base64;
pub mod kv;
mod token;

pub use base64::{decode as base64_decode, encode as base64_encode};
pub use token::{Mechanism, SignError, Unwrapped, unwrap, unwrap_noverify, wrap, wrap_as};
