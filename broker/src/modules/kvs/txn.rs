//! What does one transaction change? A list of operations in order (RFC 11 keys and values).

use super::node::Dir;
use bytes::Bytes;
use flux_formats::treeobj::TreeObj;

/// What happens to a key.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// The key becomes this object; a directory replaces what was there.
    Put(TreeObj),
    /// The key becomes this value.
    Value(Bytes),
    /// The bytes are appended to the value.
    Append(Bytes),
    /// The key becomes this directory, the root of another namespace.
    Graft(Dir),
    /// The key goes, and what is below it; a missing key is no error.
    Unlink,
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) key: Box<str>,
    pub(super) change: Change,
}

/// Changes that take effect together or not at all.
///
/// Keys are RFC 11 keys (dots separate); a bad key fails the commit with EINVAL, not the builder.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    pub(super) ops: Vec<Op>,
}

impl Txn {
    /// Returns a transaction that changes nothing.
    pub fn new() -> Self {
        Txn::default()
    }

    /// Returns true when nothing would change.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Sets `key` to a value.
    pub fn put(&mut self, key: &str, value: impl Into<Bytes>) -> &mut Self {
        self.push(key, Change::Value(value.into()))
    }

    /// Appends to the value of `key`, which is made when it does not exist.
    pub fn append(&mut self, key: &str, data: &[u8]) -> &mut Self {
        self.push(key, Change::Append(Bytes::copy_from_slice(data)))
    }

    /// Sets `key` to a tree object as it is.
    pub fn put_treeobj(&mut self, key: &str, object: TreeObj) -> &mut Self {
        self.push(key, Change::Put(object))
    }

    /// Removes `key` and what is below it; a missing key is no error.
    pub fn unlink(&mut self, key: &str) -> &mut Self {
        self.push(key, Change::Unlink)
    }

    /// Makes `key` a link to `target`, in the namespace `ns` when given.
    pub fn symlink(&mut self, key: &str, ns: Option<&str>, target: &str) -> &mut Self {
        self.push(key, Change::Put(TreeObj::symlink(ns, target)))
    }

    /// Makes `key` an empty directory.
    pub fn mkdir(&mut self, key: &str) -> &mut Self {
        self.push(key, Change::Put(TreeObj::empty_dir()))
    }

    /// Takes the operations of another transaction after its own.
    pub fn merge(&mut self, mut other: Txn) -> &mut Self {
        self.ops.append(&mut other.ops);
        self
    }

    fn push(&mut self, key: &str, change: Change) -> &mut Self {
        self.ops.push(Op {
            key: key.into(),
            change,
        });
        self
    }
}
