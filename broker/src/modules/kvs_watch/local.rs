//! How do other services on rank 0 watch a key? Typed calls, no JSON.

use crate::modules::kvs::{Each, Kvs};
use crate::service::{Cx, RpcError, Service};
use bytes::Bytes;
use flux_formats::errno;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names a watch of [`watch_appends`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchId(u64);

/// Ids of local watches have this bit; those of clients' do not.
const LOCAL: u64 = 1 << 63;

static NEXT: AtomicU64 = AtomicU64::new(LOCAL);

/// Watches a value that grows: `each` first gets the whole value, then each appended piece.
///
/// The whole value may come in several pieces; a piece never ends inside what one operation appended.
/// With `wait_create` a missing key or namespace is waited for, else it is ENOENT or ENOTSUP. The last call
/// of `each` has an error: ENODATA after [`cancel_watch`], ENOTSUP when the namespace was removed, ENOENT
/// when the key was, EINVAL when the value was replaced, ENOSYS without a loaded `kvs` module.
pub fn watch_appends<S: Service>(
    cx: &mut Cx<'_>,
    namespace: &str,
    key: &str,
    wait_create: bool,
    each: impl FnMut(&mut S, &mut Cx<'_>, Result<Bytes, RpcError>) + 'static,
) -> WatchId {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let me = cx.slot();
    // shared with the calls that are on their way to the service
    let each = std::rc::Rc::new(std::cell::RefCell::new(each));
    let mut sink: Each = Box::new(move |cx, result| {
        let each = each.clone();
        cx.to_slot::<S>(me, move |svc, cx| (each.borrow_mut())(svc, cx, result));
    });
    if cx.provides("kvs") {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        cx.to::<Kvs>("kvs", move |kvs, cx| {
            kvs.watch_for(cx, id, &namespace, &key, wait_create, sink)
        });
    } else {
        sink(
            cx,
            Err(RpcError::new(
                errno::ENOSYS,
                "the kvs module is not loaded on this rank",
            )),
        );
    }
    WatchId(id)
}

/// Ends a watch; its `each` gets ENODATA as the last call. An id that has ended is ignored.
pub fn cancel_watch(cx: &mut Cx<'_>, WatchId(id): WatchId) {
    cx.to::<Kvs>("kvs", move |kvs, cx| kvs.watch_end_for(cx, id));
}
