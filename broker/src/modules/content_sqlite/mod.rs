//! Module `content-sqlite`: blobs, checkpoints and the KVS journal in one SQLite file, on rank 0.
//! (flux-core: modules/content-sqlite, behaviour; RFC 10)
//!
//! Two threads own a connection each: one writes, in batches that are one transaction, one reads. With a
//! `statedir` the file is kept there and synchronous batches are on stable storage before they are answered;
//! else it is in the `rundir` and nothing waits for a disk.

mod blobs;
mod db;
mod lane;
mod load;
pub mod local;
mod service;

pub(crate) use blobs::{Entry, Merge};
pub(crate) use db::{Blob, Db, SpaceRow, StoreError, connect, refuse_newer};
pub use service::ContentSqlite;
