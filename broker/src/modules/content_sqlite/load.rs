//! What is in the store? (`content-backing.load`, `validate`, `checkpoint-get`; flux-core: modules/content-sqlite, behaviour)
//!
//! `flux dump --no-cache` and `flux fsck` walk from a root that the KVS told of but has not stored yet: a blob that is
//! missing is looked for once more when everything that was told is stored.

use super::ContentSqlite;
use super::service::load_explained;
use crate::modules::kvs::{Kvs, Settled};
use crate::service::Cx;
use flux_formats::blobref::BlobRef;
use flux_formats::errno;
use flux_formats::msg::Message;
use serde_json::{Value, json};
use std::time::Instant;

/// Handles a request; the last argument tells that nothing is left to be stored.
type Handler = fn(&mut ContentSqlite, &mut Cx<'_>, Message, bool);
/// Makes the KVS store what it has.
type Store = fn(&mut Kvs, &mut Cx<'_>, Settled);

impl ContentSqlite {
    /// Handles `content-backing.load`.
    pub(super) fn load(&mut self, cx: &mut Cx<'_>, req: Message, settled: bool) {
        let digest = req.payload.as_deref().unwrap_or_default();
        let Ok(blobref) = BlobRef::from_digest(self.hash, digest) else {
            cx.fail(&req, errno::EPROTO, "digest has the wrong size");
            return;
        };
        let start = Instant::now();
        self.submit(
            cx,
            None,
            move |db| load_explained(db, blobref),
            move |cx, result| {
                cx.to::<ContentSqlite>("content-sqlite", move |store, _| {
                    store.load_time.push(start.elapsed().as_secs_f64() * 1e3);
                });
                match result {
                    Ok(Some(bytes)) => cx.respond_payload(&req, Some(bytes.into())),
                    Ok(None) => missing(cx, req, settled, Kvs::settle, ContentSqlite::load),
                    Err(err) => cx.fail_with(&req, &err.into()),
                }
            },
        );
    }

    /// Handles `content-backing.validate`.
    pub(super) fn validate(&mut self, cx: &mut Cx<'_>, req: Message, settled: bool) {
        let digest = req
            .payload
            .as_ref()
            .map(|payload| payload.to_vec())
            .unwrap_or_default();
        self.submit(
            cx,
            None,
            move |db| db.has(&digest),
            move |cx, result| match result {
                Ok(true) => cx.respond_empty(&req),
                Ok(false) => missing(cx, req, settled, Kvs::settle, ContentSqlite::validate),
                Err(err) => cx.fail_with(&req, &err.into()),
            },
        );
    }

    /// Handles `content-backing.checkpoint-get`. A store without a checkpoint gets its first one now: in flux-core the
    /// start of an instance makes one.
    pub(super) fn checkpoint_get(&mut self, cx: &mut Cx<'_>, req: Message, settled: bool) {
        self.submit(
            cx,
            None,
            |db| db.checkpoints(),
            move |cx, result| match result {
                Ok(list) if list.is_empty() => {
                    missing(
                        cx,
                        req,
                        settled,
                        Kvs::checkpoint_then,
                        ContentSqlite::checkpoint_get,
                    );
                }
                Ok(list) => {
                    let values: Vec<Value> = list.into_iter().map(|(_, value)| value).collect();
                    cx.respond(&req, &json!({ "value": values }));
                }
                Err(err) => cx.fail_with(&req, &err.into()),
            },
        );
    }
}

/// Answers that something is not there, or lets the KVS store what it has and handles the request again.
fn missing(cx: &mut Cx<'_>, req: Message, settled: bool, store: Store, again: Handler) {
    let header = Message {
        payload: None,
        ..req.clone()
    };
    let retry = move |cx: &mut Cx<'_>| {
        cx.to::<ContentSqlite>("content-sqlite", move |store, cx| again(store, cx, req, true));
    };
    if settled || !cx.to::<Kvs>("kvs", move |kvs, cx| store(kvs, cx, Box::new(retry))) {
        cx.fail(&header, errno::ENOENT, "");
    }
}
