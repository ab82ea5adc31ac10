//! The actor behind `content.*`.

use super::cache::Cache;
use super::mmap::Files;
use crate::modules::content_sqlite::{Blob, Db, local as backing};
use crate::modules::kvs::{Kvs, blob as node_blob};
use crate::service::{Cx, Interface, Method, RpcError, Service};
use bytes::Bytes;
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::errno;
use flux_formats::msg::{Message, NODEID_ANY, Topic};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Largest blob in bytes (RFC 10 says 1 MiB, flux-core accepts 1 GiB).
const BLOB_SIZE_MAX: usize = 1 << 30;
/// Bytes that may wait to be stored when nothing needs them on disk.
const DIRTY_BYTES_MAX: usize = 8 << 20;

/// A local service that waits for a blob.
pub(super) type Answer = Box<dyn FnOnce(&mut Cx<'_>, Result<Bytes, RpcError>)>;

/// Who waits for a blob.
enum Waiter {
    Client(Message),
    Local(Answer),
}

/// The `content` module.
#[derive(Default)]
pub struct Content {
    pub(super) hash: HashType,
    pub(super) rank: u32,
    durable: bool,
    cache: Cache,
    /// Files whose pieces can be loaded.
    pub(super) files: Files,
    /// Blobs that are being loaded; of one kind per key: explained for clients, raw for local services.
    loading: HashMap<(BlobRef, bool), Vec<Waiter>>,
    /// Name of the backing store of rank 0.
    backing: Option<String>,
    /// Blobs on their way to the backing store or to the parent.
    storing: usize,
    /// Requests that wait until nothing is on its way.
    flushing: Vec<Message>,
    flush_error: Option<RpcError>,
    /// The last attempt to store failed, and the log says so.
    failing: bool,
    push_scheduled: bool,
    pushing: std::collections::HashSet<BlobRef>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content")
            .field("cache", &self.cache.figures())
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct RegisterRequest {
    name: String,
}

impl Content {
    // ---- load ---------------------------------------------------------------------------------------

    fn load_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        let digest = req.payload.as_deref().unwrap_or_default();
        let Ok(blobref) = BlobRef::from_digest(self.hash, digest) else {
            cx.fail(&req, errno::EPROTO, "");
            return;
        };
        match self.cache.get(&blobref) {
            Some((bytes, false)) => cx.respond_payload(&req, Some(bytes)),
            Some((bytes, true)) => {
                let mut read = |blobref: &BlobRef| Ok(self.cache.peek(blobref).map(|bytes| bytes.to_vec()));
                match node_blob::explain(&bytes, blobref, &mut read) {
                    Ok(object) => cx.respond_payload(&req, Some(object.into())),
                    Err(err) => cx.fail_with(&req, &err.into()),
                }
            }
            None => self.fetch(cx, blobref, false, Waiter::Client(req)),
        }
    }

    /// Loads a blob for a local service of rank 0.
    pub(super) fn load_raw(&mut self, cx: &mut Cx<'_>, blobref: BlobRef, answer: Answer) {
        match self.cache.get(&blobref) {
            Some((bytes, _)) => answer(cx, Ok(bytes)),
            None => self.fetch(cx, blobref, true, Waiter::Local(answer)),
        }
    }

    fn fetch(&mut self, cx: &mut Cx<'_>, blobref: BlobRef, raw: bool, waiter: Waiter) {
        let waiters = self.loading.entry((blobref, raw)).or_default();
        waiters.push(waiter);
        if waiters.len() > 1 {
            return;
        }
        if self.rank > 0 {
            let digest = Bytes::copy_from_slice(blobref.digest());
            let req = Message::request(Topic::from_static("content.load"), NODEID_ANY, Some(digest));
            cx.rpc_upstream(req, move |content: &mut Content, cx, result| {
                let result = result.map(|msg| (msg.payload.unwrap_or_default(), false));
                content.fetched(cx, blobref, raw, result);
            });
        } else if self.fetch_from_file(cx, blobref, raw) {
            // it is being read
        } else if self.backing.is_some() {
            self.read_backing(cx, blobref, raw, false);
        } else if raw {
            self.fetched(cx, blobref, raw, Err(RpcError::bare(errno::ENOENT)));
        } else {
            self.settle(cx, blobref);
        }
    }

    fn read_backing(&mut self, cx: &mut Cx<'_>, blobref: BlobRef, raw: bool, settled: bool) {
        let job = move |db: &mut Db| {
            let Some((bytes, internal)) = db.load(blobref.digest())? else {
                return Ok(None);
            };
            if raw || !internal {
                return Ok(Some((bytes, internal)));
            }
            let mut read = |blobref: &BlobRef| Ok(db.load(blobref.digest())?.map(|(bytes, _)| bytes));
            Ok(Some((node_blob::explain(&bytes, blobref, &mut read)?, internal)))
        };
        backing::read(cx, job, move |content: &mut Content, cx, result| match result {
            Ok(Some((bytes, internal))) => content.fetched(cx, blobref, raw, Ok((bytes.into(), internal))),
            Ok(None) if !raw && !settled => content.settle(cx, blobref),
            Ok(None) => content.fetched(cx, blobref, raw, Err(RpcError::bare(errno::ENOENT))),
            Err(err) => content.fetched(cx, blobref, raw, Err(err)),
        });
    }

    /// The blob may be part of a root that the KVS has told about but not stored: asks it to store those.
    fn settle(&mut self, cx: &mut Cx<'_>, blobref: BlobRef) {
        let me = cx.slot();
        let asked = cx.to::<Kvs>("kvs", move |kvs, cx| {
            kvs.settle(
                cx,
                Box::new(move |cx| {
                    cx.to_slot::<Content>(me, move |content, cx| content.settled(cx, blobref));
                }),
            );
        });
        if !asked {
            self.fetched(cx, blobref, false, Err(RpcError::bare(errno::ENOENT)));
        }
    }

    fn settled(&mut self, cx: &mut Cx<'_>, blobref: BlobRef) {
        if self.backing.is_some() {
            self.read_backing(cx, blobref, false, true);
            return;
        }
        let waiters = self.loading.remove(&(blobref, false)).unwrap_or_default();
        let known = self.cache.peek(&blobref).is_some();
        for waiter in waiters {
            match waiter {
                Waiter::Client(req) if known => self.load_request(cx, req),
                waiter => waiter.answer(cx, Err(RpcError::bare(errno::ENOENT))),
            }
        }
    }

    pub(super) fn fetched(
        &mut self,
        cx: &mut Cx<'_>,
        blobref: BlobRef,
        raw: bool,
        result: Result<(Bytes, bool), RpcError>,
    ) {
        let waiters = self.loading.remove(&(blobref, raw)).unwrap_or_default();
        if let Ok((bytes, internal)) = &result {
            // the KVS keeps its own nodes decoded; their explanation is not worth keeping on rank 0
            if !internal {
                self.cache.insert(blobref, bytes.clone(), false, false);
            }
        }
        for waiter in waiters {
            waiter.answer(cx, result.clone().map(|(bytes, _)| bytes));
        }
    }

    // ---- store --------------------------------------------------------------------------------------

    fn store_request(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let bytes = req.payload.clone().unwrap_or_default();
        if bytes.len() > BLOB_SIZE_MAX {
            cx.fail(req, errno::EFBIG, "");
            return;
        }
        let blobref = BlobRef::compute(self.hash, &bytes);
        let digest = Bytes::copy_from_slice(blobref.digest());
        if self.rank == 0 {
            self.store_all(cx, vec![(blobref, bytes, false)]);
            cx.respond_payload(req, Some(digest));
            return;
        }
        self.cache.insert(blobref, bytes.clone(), false, false);
        self.storing += 1;
        let upstream = Message::request(Topic::from_static("content.store"), NODEID_ANY, Some(bytes));
        let req = req.clone();
        cx.rpc_upstream(upstream, move |content: &mut Content, cx, result| {
            match result {
                Ok(_) => cx.respond_payload(&req, Some(digest)),
                Err(err) => cx.fail_with(&req, &err),
            }
            content.stored(cx, 1);
        });
    }

    /// Adds blobs on rank 0.
    pub(super) fn store_all(&mut self, cx: &mut Cx<'_>, blobs: Vec<(BlobRef, Bytes, bool)>) {
        for (blobref, bytes, internal) in blobs {
            self.cache.insert(blobref, bytes, internal, true);
        }
        let due = self.durable || self.cache.dirty_bytes() > DIRTY_BYTES_MAX;
        if due && self.backing.is_some() && !self.push_scheduled {
            self.push_scheduled = true;
            cx.later(|content: &mut Content, cx| content.push(cx));
        }
    }

    /// Sends what is dirty to the backing store.
    pub(super) fn push(&mut self, cx: &mut Cx<'_>) {
        self.push_scheduled = false;
        if self.backing.is_none() {
            return;
        }
        let mut dirty = self.cache.dirty_blobs();
        dirty.retain(|(blobref, _, _)| !self.pushing.contains(blobref));
        if dirty.is_empty() {
            return;
        }
        let names: Vec<BlobRef> = dirty.iter().map(|(blobref, _, _)| *blobref).collect();
        self.pushing.extend(&names);
        self.storing += names.len();
        let job = move |db: &mut Db| {
            dirty.into_iter().try_for_each(|(blobref, bytes, internal)| {
                db.store(&Blob {
                    digest: blobref.digest().to_vec(),
                    bytes,
                    internal,
                })
            })
        };
        backing::write(cx, false, job, move |content: &mut Content, cx, result| {
            for blobref in &names {
                content.pushing.remove(blobref);
                if result.is_ok() {
                    content.cache.stored(blobref);
                }
            }
            match result {
                Ok(()) => content.failing = false,
                Err(err) => {
                    if !std::mem::replace(&mut content.failing, true) {
                        cx.log_as_me(3, &format!("blobs not stored: {err}; they stay in memory"));
                    }
                    content.flush_error = Some(err);
                }
            }
            content.stored(cx, names.len());
        });
    }

    fn stored(&mut self, cx: &mut Cx<'_>, count: usize) {
        self.storing -= count;
        if self.storing > 0 {
            return;
        }
        let err = self.flush_error.take();
        for req in std::mem::take(&mut self.flushing) {
            match &err {
                Some(err) => cx.fail_with(&req, err),
                None => cx.respond_empty(&req),
            }
        }
    }

    fn flush_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        if self.rank == 0 && self.backing.is_none() {
            cx.fail(&req, errno::ENOSYS, "");
            return;
        }
        self.push(cx);
        if self.storing == 0 {
            cx.respond_empty(&req);
        } else {
            self.flushing.push(req);
        }
    }

    // ---- backing store ------------------------------------------------------------------------------

    /// The backing store came or went.
    pub(super) fn set_backing(&mut self, cx: &mut Cx<'_>, name: Option<&'static str>) {
        self.push(cx);
        self.backing = name.map(str::to_owned);
        self.push(cx);
    }

    fn register(&mut self, cx: &mut Cx<'_>, req: &Message) -> Result<(), RpcError> {
        let RegisterRequest { name } = req.payload_json()?;
        if self.rank != 0 {
            let text = "content backing store can only be registered on rank 0";
            return Err(RpcError::new(errno::EINVAL, text));
        }
        if self.backing.is_some() {
            return Err(RpcError::new(
                errno::EBUSY,
                "content backing store is already active",
            ));
        }
        if cx
            .attrs
            .get("content.backing-module")
            .is_some_and(|given| given != name)
        {
            return Err(RpcError::new(
                errno::EINVAL,
                "content backing store cannot be changed on the fly",
            ));
        }
        let text =
            format!("content backing store {name}: only content-sqlite is supported, which registers itself");
        Err(RpcError::new(errno::ENOSYS, text))
    }

    fn unregister(&mut self) -> Result<(), RpcError> {
        match self.backing.take() {
            Some(_) => Ok(()),
            None => Err(RpcError::new(
                errno::EINVAL,
                "content backing store is not active",
            )),
        }
    }

    fn checkpoint(&mut self, cx: &mut Cx<'_>, req: Message) {
        let put = req.topic.method() == "checkpoint-put";
        if self.rank == 0 && self.backing.is_none() {
            let verb = if put { "put" } else { "get" };
            cx.fail(
                &req,
                errno::ENOSYS,
                &format!("checkpoint {verb} unavailable, no backing store"),
            );
            return;
        }
        self.push(cx);
        let topic = match (self.rank, put) {
            (0, false) => "content-backing.checkpoint-get",
            (0, true) => "content-backing.checkpoint-put",
            (_, false) => "content.checkpoint-get",
            (_, true) => "content.checkpoint-put",
        };
        let onward = Message::request(Topic::from_static(topic), NODEID_ANY, req.payload.clone());
        let answer = move |_: &mut Content, cx: &mut Cx<'_>, result: Result<Message, RpcError>| match result {
            Ok(msg) => cx.respond_payload(&req, msg.payload),
            Err(err) => cx.fail_with(&req, &err),
        };
        if self.rank == 0 {
            cx.rpc(onward, answer);
        } else {
            cx.rpc_upstream(onward, answer);
        }
    }
}

impl Waiter {
    fn answer(self, cx: &mut Cx<'_>, result: Result<Bytes, RpcError>) {
        match (self, result) {
            (Waiter::Client(req), Ok(bytes)) => cx.respond_payload(&req, Some(bytes)),
            (Waiter::Client(req), Err(err)) => cx.fail_with(&req, &err),
            (Waiter::Local(answer), result) => answer(cx, result),
        }
    }
}

impl Service for Content {
    fn interfaces(&self) -> Vec<Interface> {
        const METHODS: &[Method] = &[
            Method::owner("load"),
            Method::owner("store"),
            Method::owner("flush"),
            Method::owner("dropcache"),
            Method::owner("stats-get"),
            Method::owner("register-backing"),
            Method::owner("unregister-backing"),
            Method::owner("checkpoint-get"),
            Method::owner("checkpoint-put"),
            Method::owner("mmap-add"),
            Method::owner("mmap-remove"),
        ];
        vec![Interface {
            service: "content",
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        if let Some(name) = cx.attrs.get("content.hash") {
            self.hash = name.parse().map_err(|_| {
                RpcError::new(
                    errno::EINVAL,
                    format!("content.hash: '{name}' is not sha1 or sha256"),
                )
            })?;
        }
        self.rank = cx.rank();
        self.durable = cx.attrs.get("statedir").is_some();
        if cx.provides("content-sqlite") {
            self.backing = Some("content-sqlite".to_owned());
        }
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "load" => self.load_request(cx, req),
            "store" => self.store_request(cx, &req),
            "flush" => self.flush_request(cx, req),
            "dropcache" => {
                self.cache.drop_clean();
                cx.respond_empty(&req);
            }
            "stats-get" => {
                let stats = self.figures();
                cx.respond(&req, &stats);
            }
            "register-backing" => {
                if let Err(err) = self.register(cx, &req) {
                    cx.fail_with(&req, &err);
                }
            }
            "unregister-backing" => match self.unregister() {
                Ok(()) => cx.respond_empty(&req),
                Err(err) => cx.fail_with(&req, &err),
            },
            "checkpoint-get" | "checkpoint-put" => self.checkpoint(cx, req),
            "mmap-add" => self.mmap_add(cx, req),
            _ => self.mmap_remove(cx, &req),
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        self.push(cx);
        true
    }
}

impl Content {
    fn figures(&self) -> Value {
        let (count, dirty, size) = self.cache.figures();
        let mmap = if self.rank == 0 {
            let (tags, blobs) = self.files.figures();
            json!({"tags": tags, "blobs": blobs})
        } else {
            Value::Null
        };
        json!({
            "count": count + self.loading.len(), "valid": count, "dirty": dirty, "size": size,
            "flush-batch-count": self.storing, "mmap": mmap,
        })
    }
}
