//! How do other services load blobs?

use crate::service::{Cx, RpcError, Service};
use bytes::Bytes;
use flux_formats::blobref::BlobRef;
use flux_formats::errno;

/// Loads a blob as it is stored.
pub fn load_raw<S: Service>(
    cx: &mut Cx<'_>,
    _blobref: BlobRef,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<Bytes, RpcError>) + 'static,
) {
    let me = cx.slot();
    cx.to_slot::<S>(me, move |svc, cx| done(svc, cx, Err(RpcError::bare(errno::ENOENT))));
}
