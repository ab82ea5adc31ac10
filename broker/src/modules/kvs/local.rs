//! How do other services on rank 0 use the KVS? Typed calls, no JSON.
//!
//! Every call answers through its `done`, after the current call and in the order of the calls. Without a
//! loaded `kvs` module `done` gets ENOSYS.

use super::request::Reply;
use super::{Kvs, Txn};
use crate::service::{Cx, RpcError, Service};
use bytes::Bytes;
use flux_formats::blobref::BlobRef;
use flux_formats::errno;

/// A namespace after a commit. Holding it keeps that version in memory.
#[derive(Clone, Debug)]
pub struct CommitInfo {
    /// Version of the namespace in which the commit is visible.
    pub rootseq: u64,
    pub(super) root: super::service::Root,
}

impl CommitInfo {
    /// Returns the blobref of the root directory, hashing what was not hashed yet.
    pub fn rootref(&self) -> BlobRef {
        self.root.blobref()
    }
}

/// An answer on its way to the service that asked.
pub(super) type Done<T> = Box<dyn FnOnce(&mut Cx<'_>, Result<T, RpcError>)>;

fn call<S: Service, T: 'static>(
    cx: &mut Cx<'_>,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<T, RpcError>) + 'static,
    run: impl FnOnce(&mut Kvs, &mut Cx<'_>, Done<T>) + 'static,
) {
    let me = cx.slot();
    let answer: Done<T> =
        Box::new(move |cx, result| cx.to_slot::<S>(me, move |svc, cx| done(svc, cx, result)));
    if cx.provides("kvs") {
        cx.to::<Kvs>("kvs", move |kvs, cx| run(kvs, cx, answer));
    } else {
        answer(
            cx,
            Err(RpcError::new(
                errno::ENOSYS,
                "the kvs module is not loaded on this rank",
            )),
        );
    }
}

/// Commits a transaction; `done` runs when it is visible.
///
/// # Errors
/// ENOTSUP for an unknown namespace, EINVAL for a bad key, EISDIR and ENOTSUP for an append to a directory
/// or link, ELOOP, EINVAL for a key that crosses a link to another namespace.
pub fn commit<S: Service>(
    cx: &mut Cx<'_>,
    namespace: &str,
    txn: Txn,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<CommitInfo, RpcError>) + 'static,
) {
    let namespace = namespace.to_owned();
    call(cx, done, move |kvs, cx, answer| {
        kvs.when_restored(cx, move |kvs, cx| {
            kvs.commit_for(cx, &namespace, txn, false, answer)
        })
    });
}

/// Commits a transaction; `done` runs when it is visible and, with a `statedir`, on stable storage.
///
/// Without a `statedir` the same as [`commit`].
///
/// # Errors
/// Those of [`commit`]; ENOSPC or EIO with the file and cause while the store cannot be written: a commit
/// made after the failure was noticed has no effect, one in flight is visible but not durable yet.
pub fn commit_durable<S: Service>(
    cx: &mut Cx<'_>,
    namespace: &str,
    txn: Txn,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<CommitInfo, RpcError>) + 'static,
) {
    let namespace = namespace.to_owned();
    call(cx, done, move |kvs, cx, answer| {
        kvs.when_restored(cx, move |kvs, cx| {
            kvs.commit_for(cx, &namespace, txn, true, answer)
        })
    });
}

/// Looks up a value; links are followed.
///
/// # Errors
/// ENOENT, EISDIR, ENOTDIR, ENOTSUP for an unknown namespace, ELOOP.
pub fn lookup<S: Service>(
    cx: &mut Cx<'_>,
    namespace: &str,
    key: &str,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<Bytes, RpcError>) + 'static,
) {
    let (namespace, key) = (namespace.to_owned(), key.to_owned());
    call(cx, done, move |kvs, cx, answer| {
        kvs.when_restored(cx, move |kvs, cx| {
            kvs.lookup_for(cx, &namespace, &key, 0, Reply::Bytes(answer))
        });
    });
}

/// Looks up the names in a directory, sorted; links are followed.
///
/// # Errors
/// ENOENT, ENOTDIR, ENOTSUP for an unknown namespace, ELOOP.
pub fn lookup_dir<S: Service>(
    cx: &mut Cx<'_>,
    namespace: &str,
    key: &str,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<Vec<String>, RpcError>) + 'static,
) {
    let (namespace, key) = (namespace.to_owned(), key.to_owned());
    call(cx, done, move |kvs, cx, answer| {
        kvs.when_restored(cx, move |kvs, cx| {
            kvs.lookup_for(cx, &namespace, &key, 0, Reply::Names(answer))
        });
    });
}

/// Makes an empty namespace that belongs to the user `owner`.
///
/// # Errors
/// EEXIST.
pub fn namespace_create<S: Service>(
    cx: &mut Cx<'_>,
    namespace: &str,
    owner: u32,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<(), RpcError>) + 'static,
) {
    let namespace = namespace.to_owned();
    call(cx, done, move |kvs, cx, answer| {
        kvs.when_restored(cx, move |kvs, cx| {
            kvs.namespace_create_for(cx, &namespace, owner, answer)
        })
    });
}

/// Removes a namespace with all it holds; its watchers get ENOTSUP. An unknown one is no error.
///
/// # Errors
/// ENOTSUP for `primary`.
pub fn namespace_remove<S: Service>(
    cx: &mut Cx<'_>,
    namespace: &str,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<(), RpcError>) + 'static,
) {
    let namespace = namespace.to_owned();
    call(cx, done, move |kvs, cx, answer| {
        kvs.when_restored(cx, move |kvs, cx| {
            kvs.namespace_remove_for(cx, &namespace, answer)
        })
    });
}

/// Puts the root directory of a namespace at `dest_key` in `primary` and removes the namespace, in one
/// commit; its watchers first get what was committed before, then ENOTSUP.
///
/// # Errors
/// ENOTSUP for an unknown namespace or `primary` itself; those of [`commit`].
pub fn snapshot_namespace<S: Service>(
    cx: &mut Cx<'_>,
    namespace: &str,
    dest_key: &str,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<CommitInfo, RpcError>) + 'static,
) {
    let (namespace, key) = (namespace.to_owned(), dest_key.to_owned());
    call(cx, done, move |kvs, cx, answer| {
        kvs.when_restored(cx, move |kvs, cx| kvs.snapshot_for(cx, &namespace, &key, answer))
    });
}
