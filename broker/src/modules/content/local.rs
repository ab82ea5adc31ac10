//! How do other services on this rank use the content store? Typed calls.

use super::Content;
use crate::service::{Cx, RpcError, Service};
use bytes::Bytes;
use flux_formats::blobref::BlobRef;
use flux_formats::errno;

fn unavailable() -> RpcError {
    RpcError::new(errno::ENOSYS, "the content module is not loaded on this rank")
}

/// Loads a blob as it is stored: directory nodes are not explained.
///
/// # Errors
/// ENOENT, EIO, ENOSYS without the module.
pub(crate) fn load_raw<S: Service>(
    cx: &mut Cx<'_>,
    blobref: BlobRef,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<Bytes, RpcError>) + 'static,
) {
    let me = cx.slot();
    if !cx.provides("content") {
        cx.to_slot::<S>(me, move |svc, cx| done(svc, cx, Err(unavailable())));
        return;
    }
    cx.to::<Content>("content", move |content, cx| {
        let answer = Box::new(move |cx: &mut Cx<'_>, result: Result<Bytes, RpcError>| {
            cx.to_slot::<S>(me, move |svc, cx| done(svc, cx, result));
        });
        content.load_raw(cx, blobref, answer);
    });
}

/// Adds blobs that no store has yet, each with true when it is a directory node of the KVS's own form.
pub(crate) fn store(cx: &mut Cx<'_>, blobs: Vec<(BlobRef, Bytes, bool)>) {
    cx.to::<Content>("content", move |content, cx| content.store_all(cx, blobs));
}

/// Hands everything that is not stored yet to the backing store, before the caller's next job for it.
pub(crate) fn push(cx: &mut Cx<'_>) {
    cx.to::<Content>("content", |content, cx| content.push(cx));
}

/// Tells which backing store is there, `None` for none.
pub(crate) fn set_backing(cx: &mut Cx<'_>, name: Option<&'static str>) {
    cx.to::<Content>("content", move |content, cx| content.set_backing(cx, name));
}
