//! How are lookups, root and version requests of clients answered? (`kvs.lookup`, `lookup-plus`, `getroot`,
//! `wait-version`; flux-core: modules/kvs/kvs.c, behaviour)

use super::Kvs;
use super::fault::{Cred, Pins, View};
use super::local::Done;
use super::lookup::{self, Found};
use super::node::{Dir, Stop};
use super::service::{Root, Space};
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::blobref::BlobRef;
use flux_formats::errno;
use flux_formats::msg::Message;
use flux_formats::treeobj::TreeObj;
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;

#[derive(Deserialize)]
struct LookupRequest<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    flags: u32,
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
    rootdir: Option<Value>,
    rootseq: Option<i64>,
}

#[derive(Deserialize)]
struct NamespaceRequest<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
}

#[derive(Deserialize)]
struct VersionRequest<'a> {
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    rootseq: i64,
}

/// Decodes a payload that may borrow from the message.
///
/// # Errors
/// EPROTO.
pub(super) fn decode<'a, T: Deserialize<'a>>(req: &'a Message) -> Result<T, RpcError> {
    serde_json::from_str(req.payload_str()?)
        .map_err(|err| RpcError::new(errno::EPROTO, format!("{}: {err}", req.topic)))
}

/// Who waits for a lookup.
pub(super) enum Reply {
    /// `kvs.lookup`.
    Plain(Message),
    /// `kvs.lookup-plus`.
    Plus(Message),
    /// A local service that wants a value.
    Bytes(Done<Bytes>),
    /// A local service that wants the names in a directory.
    Names(Done<Vec<String>>),
}

/// A lookup under way.
pub(super) struct Lookup {
    /// Namespace that must still exist when blobs were loaded; `None` for a snapshot.
    space: Option<Box<str>>,
    root: Dir,
    seq: i64,
    key: Box<str>,
    flags: u32,
    cred: Cred,
    pins: Pins,
    reply: Reply,
}

/// Appends a number in decimal.
pub(super) fn push_number(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    use std::io::Write;
    // writing to a vector does not fail
    drop(write!(out, "{number}"));
}

/// Returns `{"rootref":…,"rootseq":…}`.
///
/// `kept` adds which transaction this is in the order of the journal, and up to which one the journal is written:
/// `{…,"position":…,"written":…}`.
pub(super) fn root_payload(rootref: BlobRef, seq: u64, kept: Option<(u64, u64)>) -> Bytes {
    let mut out = Vec::with_capacity(96);
    out.extend_from_slice(b"{\"rootref\":\"");
    push_number(&mut out, rootref);
    out.extend_from_slice(b"\",\"rootseq\":");
    push_number(&mut out, seq);
    if let Some((position, written)) = kept {
        out.extend_from_slice(b",\"position\":");
        push_number(&mut out, position);
        out.extend_from_slice(b",\"written\":");
        push_number(&mut out, written);
    }
    out.extend_from_slice(b"}\0");
    out.into()
}

/// Returns `{"val":…}`.
pub(super) fn val_payload(found: &Found) -> Bytes {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(b"{\"val\":");
    found.encode_to(&mut out);
    out.extend_from_slice(b"}\0");
    out.into()
}

impl Kvs {
    /// Returns a namespace in which `req` may work.
    ///
    /// # Errors
    /// ENOTSUP when there is none of that name, EPERM when it is another user's.
    pub(super) fn space_for(&self, name: &str, cred: Cred) -> Result<&Space, RpcError> {
        let space = self
            .spaces
            .get(name)
            .ok_or_else(|| RpcError::bare(errno::ENOTSUP))?;
        if cred.may(space.owner) {
            Ok(space)
        } else {
            Err(RpcError::bare(errno::EPERM))
        }
    }

    pub(super) fn lookup_request(&mut self, cx: &mut Cx<'_>, req: &Message, reply: Reply) {
        match self.lookup_begin(req, reply) {
            Ok(lookup) => self.run_lookup(cx, lookup),
            Err(err) => cx.fail_with(req, &err),
        }
    }

    fn lookup_begin(&self, req: &Message, reply: Reply) -> Result<Box<Lookup>, RpcError> {
        let LookupRequest {
            key,
            flags,
            namespace,
            rootdir,
            rootseq,
        } = decode(req)?;
        let cred = Cred::of(req);
        let (space, root, seq) = match (rootdir, namespace) {
            (Some(object), _) => {
                let object: TreeObj =
                    serde_json::from_value(object).map_err(|_| RpcError::bare(errno::EINVAL))?;
                let TreeObj::DirRef(blobref) = object else {
                    return Err(RpcError::bare(errno::EINVAL));
                };
                (None, self.snapshot(blobref), rootseq.unwrap_or(-1))
            }
            (None, Some(name)) => {
                let space = self.space_for(&name, cred)?;
                (
                    Some(Box::from(name)),
                    space.root.clone(),
                    i64::try_from(space.seq).unwrap_or(i64::MAX),
                )
            }
            (None, None) => return Err(RpcError::bare(errno::EPROTO)),
        };
        let key = Box::from(key);
        Ok(Box::new(Lookup {
            space,
            root,
            seq,
            key,
            flags,
            cred,
            pins: Pins::default(),
            reply,
        }))
    }

    /// Looks a key up for a local service.
    pub(super) fn lookup_for(
        &mut self,
        cx: &mut Cx<'_>,
        namespace: &str,
        key: &str,
        flags: u32,
        reply: Reply,
    ) {
        let root = self
            .space_for(namespace, Cred::OWNER)
            .map(|space| space.root.clone());
        let lookup = |root, reply| {
            let (space, key) = (Some(Box::from(namespace)), Box::from(key));
            Box::new(Lookup {
                space,
                root,
                seq: 0,
                key,
                flags,
                cred: Cred::OWNER,
                pins: Pins::default(),
                reply,
            })
        };
        match root {
            Ok(root) => self.run_lookup(cx, lookup(root, reply)),
            Err(err) => reply.fail(cx, &err),
        }
    }

    fn run_lookup(&mut self, cx: &mut Cx<'_>, mut lookup: Box<Lookup>) {
        let gone = lookup
            .space
            .as_ref()
            .is_some_and(|name| !self.spaces.contains_key(name.as_ref()));
        let view = View {
            cache: &self.cache,
            spaces: &self.spaces,
            pins: &lookup.pins,
            cred: lookup.cred,
        };
        let result = if gone {
            Err(Stop::Errno(errno::ENOTSUP))
        } else if let Reply::Names(_) = lookup.reply {
            names(&lookup.root, &lookup.key, &view).map(|names| names.map(Answer::Names))
        } else {
            lookup::lookup(&lookup.root, &lookup.key, lookup.flags, self.hash, &view)
                .map(|found| found.map(Answer::Found))
        };
        match result {
            Ok(answer) => self.lookup_done(cx, *lookup, answer),
            Err(Stop::Errno(errnum)) => lookup.reply.fail(cx, &RpcError::bare(errnum)),
            Err(Stop::Missing(missing)) => self.load(cx, missing, move |kvs, cx, result| match result {
                Ok(pins) => {
                    lookup.pins.extend(pins);
                    kvs.run_lookup(cx, lookup);
                }
                Err(err) => lookup.reply.fail(cx, &err),
            }),
        }
    }

    fn lookup_done(&mut self, cx: &mut Cx<'_>, lookup: Lookup, answer: Option<Answer>) {
        if let Some(Answer::Found(Found::Object(_) | Found::Directory(_))) = &answer {
            // the client may now load by content.load what it was told
            self.keeper.expose(&lookup.root);
        }
        match (lookup.reply, answer) {
            (Reply::Plain(req), Some(Answer::Found(found))) => {
                cx.respond_payload(&req, Some(val_payload(&found)));
            }
            (Reply::Plus(req), answer) => {
                let rootref = lookup.root.blobref(self.hash);
                self.keeper.expose(&lookup.root);
                cx.respond_payload(&req, Some(plus_payload(answer.as_ref(), lookup.seq, rootref)));
            }
            (Reply::Bytes(done), Some(Answer::Found(Found::Value(bytes)))) => done(cx, Ok(bytes)),
            (Reply::Names(done), Some(Answer::Names(names))) => done(cx, Ok(names)),
            (reply, _) => reply.fail(cx, &RpcError::bare(errno::ENOENT)),
        }
    }

    pub(super) fn getroot_request(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let space = decode::<NamespaceRequest<'_>>(req)
            .and_then(|NamespaceRequest { namespace }| self.space_for(&namespace, Cred::of(req)));
        match space {
            Ok(space) => {
                let root = Root {
                    dir: space.root.clone(),
                    hash: self.hash,
                };
                let body = json!({
                    "owner": space.owner, "rootseq": space.seq, "rootref": root.blobref().to_string(),
                    "flags": space.flags, "namespace": &*space.name,
                });
                self.keeper.expose(&root.dir);
                cx.respond(req, &body);
            }
            Err(err) => cx.fail_with(req, &err),
        }
    }

    pub(super) fn wait_version_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        let found = decode::<VersionRequest<'_>>(&req).and_then(|VersionRequest { namespace, rootseq }| {
            let space = self.space_for(&namespace, Cred::of(&req))?;
            let wanted = u64::try_from(rootseq).unwrap_or(0);
            Ok((space.name.clone(), wanted, space.seq >= wanted))
        });
        match found {
            Ok((name, _, true)) => self.answer_version(cx, &name, &req),
            Ok((name, wanted, false)) => {
                if let Some(space) = self.spaces.get_mut(&name) {
                    let mut req = req;
                    req.payload = None;
                    space.waiters.push((wanted, req));
                }
            }
            Err(err) => cx.fail_with(&req, &err),
        }
    }

    /// Answers with the root and version that the namespace has now.
    pub(super) fn answer_version(&mut self, cx: &mut Cx<'_>, name: &str, req: &Message) {
        let Some(space) = self.spaces.get(name) else {
            return;
        };
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(b"{\"rootseq\":");
        push_number(&mut out, space.seq);
        out.extend_from_slice(b",\"rootref\":\"");
        push_number(&mut out, space.root.blobref(self.hash));
        out.extend_from_slice(b"\"}\0");
        self.keeper.expose(&space.root);
        cx.respond_payload(req, Some(out.into()));
    }
}

/// What a lookup answers.
enum Answer {
    Found(Found),
    Names(Vec<String>),
}

fn names(root: &Dir, key: &str, view: &View<'_>) -> Result<Option<Vec<String>>, Stop> {
    match lookup::walk(root, key, true, view)? {
        None => Ok(None),
        Some(super::node::Entry::Dir(dir)) => Ok(Some(
            lookup::list(&dir, view)?
                .into_iter()
                .map(|(name, _)| name.to_string())
                .collect(),
        )),
        Some(_) => Err(Stop::Errno(errno::ENOTDIR)),
    }
}

fn plus_payload(answer: Option<&Answer>, seq: i64, rootref: BlobRef) -> Bytes {
    let mut out = Vec::with_capacity(192);
    match answer {
        Some(Answer::Found(found)) => {
            out.extend_from_slice(b"{\"val\":");
            found.encode_to(&mut out);
        }
        _ => {
            out.extend_from_slice(b"{\"errno\":");
            push_number(&mut out, errno::ENOENT);
        }
    }
    out.extend_from_slice(b",\"rootseq\":");
    push_number(&mut out, seq);
    out.extend_from_slice(b",\"rootref\":\"");
    push_number(&mut out, rootref);
    out.extend_from_slice(b"\"}\0");
    out.into()
}

impl Reply {
    /// Answers with an error.
    pub(super) fn fail(self, cx: &mut Cx<'_>, err: &RpcError) {
        match self {
            Reply::Plain(req) | Reply::Plus(req) => cx.fail_with(&req, err),
            Reply::Bytes(done) => done(cx, Err(err.clone())),
            Reply::Names(done) => done(cx, Err(err.clone())),
        }
    }
}
