//! Who gets the answers of a watch, and how do the requests of `kvs-watch` reach the engine?

use super::Kvs;
use super::fault::Cred;
use super::lookup::{Found, flags};
use super::request::{decode, val_payload};
use super::watch::Watch;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno::{self, Errnum};
use flux_formats::msg::Message;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// A local service that watches a value.
pub(in crate::modules) type Each = Box<dyn FnMut(&mut Cx<'_>, Result<Bytes, RpcError>)>;

/// Where answers go.
pub(super) struct Sink {
    kind: Kind,
    closing: Option<Errnum>,
}

enum Kind {
    Client(Message),
    Local(Each),
}

#[derive(Deserialize)]
struct LookupRequest<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    flags: u32,
}

#[derive(Deserialize)]
struct CancelRequest {
    matchtag: u32,
}

impl Sink {
    /// Sends a found object.
    pub(super) fn object(&mut self, cx: &mut Cx<'_>, found: &Found) {
        match (&mut self.kind, found) {
            (Kind::Client(req), _) => cx.respond_payload(req, Some(val_payload(found))),
            (Kind::Local(each), Found::Value(bytes)) => each(cx, Ok(bytes.clone())),
            (Kind::Local(_), _) => {}
        }
    }

    /// Sends a part of a growing value.
    pub(super) fn piece(&mut self, cx: &mut Cx<'_>, piece: Bytes) {
        match &mut self.kind {
            Kind::Client(req) => cx.respond_payload(req, Some(val_payload(&Found::Value(piece)))),
            Kind::Local(each) => each(cx, Ok(piece)),
        }
    }

    /// Says that everything which was there at first has been sent.
    pub(super) fn sentinel(&mut self, cx: &mut Cx<'_>) {
        if let Kind::Client(req) = &self.kind {
            cx.respond_empty(req);
        }
    }

    /// Sends the last answer.
    pub(super) fn end(&mut self, cx: &mut Cx<'_>, err: &RpcError) {
        match &mut self.kind {
            Kind::Client(req) => cx.fail_with(req, err),
            Kind::Local(each) => each(cx, Err(err.clone())),
        }
    }

    /// Notes the error to end with when the backlog is done.
    pub(super) fn close_with(&mut self, errnum: Errnum) {
        self.closing = Some(errnum);
    }

    pub(super) fn closing(&self) -> Option<Errnum> {
        self.closing
    }

    fn belongs_to(&self, msg: &Message, matchtag: Option<u32>) -> bool {
        match &self.kind {
            Kind::Client(req) => {
                req.sender() == msg.sender() && matchtag.is_none_or(|matchtag| req.matchtag() == matchtag)
            }
            Kind::Local(_) => false,
        }
    }
}

fn check(req: &Message, bits: u32) -> Result<(), RpcError> {
    let extra = flags::WATCH_FULL | flags::WATCH_UNIQ | flags::WATCH_APPEND | flags::INITIAL_SENTINEL;
    let has = |bit: u32| bits & bit != 0;
    let refusal = if has(flags::WATCH) && !req.is_streaming() {
        Some((
            errno::EPROTO,
            "KVS watch request rejected without streaming RPC flag",
        ))
    } else if has(flags::STREAM) && !req.is_streaming() {
        Some((
            errno::EPROTO,
            "KVS stream request rejected without streaming RPC flag",
        ))
    } else if has(flags::WATCH) && has(flags::STREAM) {
        Some((errno::EINVAL, "Cannot KVS watch and stream at the same time"))
    } else if !has(flags::WATCH) && has(extra) {
        Some((errno::EINVAL, "Must set KVS watch flag with other watch flags"))
    } else if !has(flags::WATCH_APPEND) && has(flags::INITIAL_SENTINEL) {
        Some((
            errno::EINVAL,
            "Must set KVS watch append flag with initial sentinel flag",
        ))
    } else {
        None
    };
    refusal.map_or(Ok(()), |(errnum, text)| Err(RpcError::new(errnum, text)))
}

impl Kvs {
    /// Takes a request of the `kvs-watch` service.
    pub(in crate::modules) fn watch_request(&mut self, cx: &mut Cx<'_>, req: &Message) {
        self.when_restored(cx, {
            let req = req.clone();
            move |kvs, cx| match req.topic.method() {
                "lookup" => kvs.watch_lookup(cx, &req),
                "cancel" => kvs.watch_cancel(cx, &req),
                _ => {
                    let stats = kvs.watch_stats();
                    cx.respond(&req, &stats);
                }
            }
        });
    }

    fn watch_lookup(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let watch = decode::<LookupRequest<'_>>(req).and_then(
            |LookupRequest {
                 namespace,
                 key,
                 flags,
             }| {
                check(req, flags)?;
                let mut header = req.clone();
                header.payload = None;
                let sink = Sink {
                    kind: Kind::Client(header),
                    closing: None,
                };
                Ok(Watch::new(&namespace, &key, flags, Cred::of(req), sink))
            },
        );
        match watch {
            Ok(watch) => {
                let id = self.watches.next_id();
                self.add_watch(cx, id, watch);
            }
            Err(err) => cx.fail_with(req, &err),
        }
    }

    fn watch_cancel(&mut self, cx: &mut Cx<'_>, req: &Message) {
        // a cancel has no answer, not even for a bad payload
        let Ok(CancelRequest { matchtag }) = req.payload_json() else {
            return;
        };
        for id in self
            .watches
            .select(|watch| watch.sink.belongs_to(req, Some(matchtag)))
        {
            self.end_watch(cx, id, Some(&RpcError::bare(errno::ENODATA)));
        }
    }

    /// Forgets the watches of a client that went away.
    pub(in crate::modules) fn watch_disconnect(&mut self, cx: &mut Cx<'_>, msg: &Message) {
        for id in self.watches.select(|watch| watch.sink.belongs_to(msg, None)) {
            self.end_watch(cx, id, None);
        }
    }

    fn watch_stats(&self) -> Value {
        let mut spaces = Map::new();
        self.watches.each_space(|name, count| {
            let space = self.spaces.get(name);
            let stats = json!({
                "owner": space.map_or(-1, |space| i64::from(space.owner)),
                "rootseq": space.map_or(-1, |space| i64::try_from(space.seq).unwrap_or(i64::MAX)),
                "rootref": space.map_or_else(
                    || "(null)".to_owned(),
                    |space| space.root.blobref(self.hash).to_string(),
                ),
                "watchers": count,
            });
            spaces.insert(name.to_string(), stats);
        });
        json!({"watchers": self.watches.count(), "namespace-count": spaces.len(), "namespaces": spaces})
    }

    /// Watches a growing value for a local service.
    pub(in crate::modules) fn watch_for(
        &mut self,
        cx: &mut Cx<'_>,
        id: u64,
        namespace: &str,
        key: &str,
        wait_create: bool,
        each: Each,
    ) {
        let mut bits = flags::WATCH | flags::WATCH_APPEND;
        if wait_create {
            bits |= flags::WAITCREATE;
        }
        let sink = Sink {
            kind: Kind::Local(each),
            closing: None,
        };
        let watch = Watch::new(namespace, key, bits, Cred::OWNER, sink);
        self.when_restored(cx, move |kvs, cx| kvs.add_watch(cx, id, watch));
    }

    /// Ends a watch of a local service.
    pub(in crate::modules) fn watch_end_for(&mut self, cx: &mut Cx<'_>, id: u64) {
        self.when_restored(cx, move |kvs, cx| {
            kvs.end_watch(cx, id, Some(&RpcError::bare(errno::ENODATA)))
        });
    }
}
