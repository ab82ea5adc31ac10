//! Module `kvs`: the key-value store of an instance, on rank 0 (RFC 11; flux-core: modules/kvs, behaviour).
//!
//! Other services use [`local`]; clients use the `kvs.*` topics. How directories are held and stored is
//! design note 0001.
//!
//! ```text
//! request, commit ─> queue per namespace ─> end of turn: apply (pure) ─> new root ─> replies, watches
//!                                                             │
//!                       keeper: journal, group commit, spill ─┘─> content-sqlite's thread
//! ```

mod apply;
#[cfg(test)]
mod bench_tests;
pub(crate) mod blob;
mod commit;
mod fault;
mod journal;
mod keeper;
pub mod local;
mod lookup;
#[cfg(test)]
mod model_tests;
mod namespace;
mod node;
mod period;
mod request;
mod restore;
mod service;
mod spill;
pub(crate) mod stats;
#[cfg(test)]
mod tests;
mod txn;
mod value;
mod watch;
mod watch_sink;

pub(in crate::modules) use keeper::Settled;
pub use local::{
    CommitInfo, commit, commit_durable, lookup, lookup_dir, namespace_create, namespace_remove,
    snapshot_namespace,
};
pub use service::Kvs;
pub use txn::Txn;
pub(in crate::modules) use watch_sink::Each;
