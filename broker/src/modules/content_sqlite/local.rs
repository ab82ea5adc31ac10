//! How do other services on rank 0 use the store? Jobs that run on its threads.

use super::db::{Db, StoreError};
use super::service::ContentSqlite;
use crate::service::{Cx, RpcError, Service};
use flux_formats::errno;

impl From<StoreError> for RpcError {
    fn from(err: StoreError) -> Self {
        RpcError::new(err.errnum(), err.to_string())
    }
}

/// Runs `job` in the next write transaction, with `sync` on stable storage before `done` hears of it.
///
/// Jobs of one caller run in the order of the calls. A batch fails as a whole.
///
/// # Errors
/// ENOSPC, EIO and the like with file and cause; ENOSYS without the module.
pub(crate) fn write<S: Service, T: Send + 'static>(
    cx: &mut Cx<'_>,
    sync: bool,
    job: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<T, RpcError>) + 'static,
) {
    run(cx, Some(sync), job, done);
}

/// Runs `job` on the reading connection.
///
/// # Errors
/// Those of [`write`].
pub(crate) fn read<S: Service, T: Send + 'static>(
    cx: &mut Cx<'_>,
    job: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<T, RpcError>) + 'static,
) {
    run(cx, None, job, done);
}

fn run<S: Service, T: Send + 'static>(
    cx: &mut Cx<'_>,
    sync: Option<bool>,
    job: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    done: impl FnOnce(&mut S, &mut Cx<'_>, Result<T, RpcError>) + 'static,
) {
    let me = cx.slot();
    if !cx.provides("content-sqlite") {
        let err = RpcError::new(errno::ENOSYS, "the content-sqlite module is not loaded");
        cx.to_slot::<S>(me, move |svc, cx| done(svc, cx, Err(err)));
        return;
    }
    cx.to::<ContentSqlite>("content-sqlite", move |store, cx| {
        store.submit(cx, sync, job, move |cx, result| {
            let result = result.map_err(RpcError::from);
            cx.to_slot::<S>(me, move |svc, cx| done(svc, cx, result));
        });
    });
}
