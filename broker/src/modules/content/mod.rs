//! Module `content`: blobs by hash, with a cache on every rank (RFC 10; flux-core: modules/content, behaviour).
//!
//! Followers keep what they have seen and ask their parent for the rest. Rank 0 keeps what is not stored yet
//! and asks the backing store, which is `content-sqlite`; without one it keeps everything.
//!
//! Directories of the KVS that are too large for one RFC 11 object have a form of their own in the store
//! (design note 0001). Whoever loads one here gets the RFC 11 object that it stands for.

mod cache;
pub mod local;
mod mmap;
mod service;
#[cfg(test)]
mod tests;

pub use service::Content;
