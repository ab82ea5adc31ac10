//! How do namespaces come and go? (`kvs.namespace-*`; flux-core: modules/kvs/kvs.c, behaviour)

use super::Kvs;
use super::commit::{CommitReply, Pending};
use super::fault::Cred;
use super::local::{CommitInfo, Done};
use super::node::Dir;
use super::request::decode;
use super::service::{PRIMARY, Space};
use super::txn::{Change, Op, Txn};
use crate::service::{Cx, RpcError};
use flux_formats::blobref::BlobRef;
use flux_formats::errno;
use flux_formats::msg::{Message, USERID_UNKNOWN};
use flux_formats::treeobj::TreeObj;
use serde::Deserialize;
use serde_json::json;
use std::rc::Rc;

#[derive(Deserialize)]
struct CreateRequest {
    namespace: String,
    rootref: String,
    /// C clients send an unknown user as -1.
    #[serde(deserialize_with = "flux_formats::msg::deserialize_userid")]
    owner: u32,
    flags: u32,
}

#[derive(Deserialize)]
struct NamespaceRequest {
    namespace: String,
}

impl Kvs {
    pub(super) fn namespace_create_request(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let result = decode::<CreateRequest>(req).and_then(
            |CreateRequest {
                 namespace,
                 rootref,
                 owner,
                 flags,
             }| {
                let owner = if owner == USERID_UNKNOWN {
                    self.owner
                } else {
                    owner
                };
                let root = self.root_named(&rootref)?;
                self.create_space(cx, &namespace, owner, flags, root)
            },
        );
        match result {
            Ok(()) => cx.respond_empty(req),
            Err(err) => cx.fail_with(req, &err),
        }
    }

    /// Returns the directory with this blobref; "" is the empty one.
    fn root_named(&self, rootref: &str) -> Result<Dir, RpcError> {
        if rootref.is_empty() {
            return Ok(Dir::empty(self.keeper.epoch()));
        }
        let blobref: BlobRef = rootref.parse().map_err(|_| RpcError::bare(errno::EINVAL))?;
        Ok(self.snapshot(blobref))
    }

    /// Returns a root directory by its blobref, from memory when it is there.
    pub(super) fn snapshot(&self, blobref: BlobRef) -> Dir {
        if blobref == TreeObj::empty_dir().blobref(self.hash) {
            return Dir::empty(self.keeper.epoch());
        }
        let current = self.spaces.values().find(|space| space.root.known_as(&blobref));
        match current {
            Some(space) => space.root.clone(),
            None => self.keeper.recall(&blobref).unwrap_or(Dir::There(blobref)),
        }
    }

    /// Makes a namespace.
    ///
    /// # Errors
    /// EEXIST.
    pub(super) fn create_space(
        &mut self,
        cx: &mut Cx<'_>,
        name: &str,
        owner: u32,
        flags: u32,
        root: Dir,
    ) -> Result<(), RpcError> {
        if let Some(space) = self.spaces.get(name) {
            let text = "namespace with identical name in process of being removed. Try again later";
            return Err(if space.closing {
                RpcError::new(errno::EEXIST, text)
            } else {
                RpcError::bare(errno::EEXIST)
            });
        }
        let space = Space::new(name, owner, flags, 0, root);
        self.keeper.record_create(&space, self.hash);
        let topic = format!("kvs.namespace-{name}-created");
        if cx.event_wanted(&topic) {
            let rootref = space.root.blobref(self.hash).to_string();
            let userid = cx.owner;
            let body = json!({"namespace": name, "rootseq": 0, "rootref": rootref, "owner": owner});
            cx.publish_private(topic, userid, &body);
        }
        let name = space.name.clone();
        self.spaces.insert(name.clone(), space);
        self.watches_created(cx, &name);
        self.keep(cx);
        Ok(())
    }

    pub(super) fn namespace_remove_request(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let result = decode::<NamespaceRequest>(req).and_then(|NamespaceRequest { namespace }| {
            if namespace.eq_ignore_ascii_case(PRIMARY) {
                return Err(RpcError::bare(errno::ENOTSUP));
            }
            self.drop_space(cx, &namespace);
            Ok(())
        });
        match result {
            Ok(()) => cx.respond_empty(req),
            Err(err) => cx.fail_with(req, &err),
        }
    }

    /// Removes a namespace and writes that down.
    fn drop_space(&mut self, cx: &mut Cx<'_>, name: &str) {
        if self.spaces.contains_key(name) {
            self.keeper.record_remove(name);
            self.remove_space(cx, name);
            self.keep(cx);
        }
    }

    /// Forgets a namespace: whoever waits in it gets ENOTSUP.
    pub(super) fn remove_space(&mut self, cx: &mut Cx<'_>, name: &str) {
        let Some(space) = self.spaces.swap_remove(name) else {
            return;
        };
        let gone = RpcError::bare(errno::ENOTSUP);
        for pending in space.queue {
            pending.reply.fail(cx, &gone);
        }
        for (_, req) in space.waiters {
            cx.fail_with(&req, &gone);
        }
        let topic = format!("kvs.namespace-{name}-removed");
        if cx.event_wanted(&topic) {
            let userid = cx.owner;
            cx.publish_private(topic, userid, &json!({ "namespace": name }));
        }
        self.watches_removed(cx, name);
    }

    pub(super) fn namespace_list_request(&mut self, cx: &mut Cx<'_>, req: &Message) {
        let list: Vec<_> = self
            .spaces
            .values()
            .filter(|space| !space.closing)
            .map(|space| json!({"namespace": &*space.name, "owner": space.owner, "flags": space.flags}))
            .collect();
        cx.respond(req, &json!({ "namespaces": list }));
    }

    /// Test aid: versions of a namespace are held back while it is paused.
    pub(super) fn pause_request(&mut self, cx: &mut Cx<'_>, req: &Message, pause: bool) {
        let name = decode::<NamespaceRequest>(req).and_then(|NamespaceRequest { namespace }| {
            Ok(self.space_for(&namespace, Cred::of(req))?.name.clone())
        });
        match name {
            Ok(name) => {
                if let Some(space) = self.spaces.get_mut(&name) {
                    space.paused = pause;
                }
                self.schedule(cx, &name);
                cx.respond_empty(req);
            }
            Err(err) => cx.fail_with(req, &err),
        }
    }

    pub(super) fn namespace_create_for(&mut self, cx: &mut Cx<'_>, name: &str, owner: u32, done: Done<()>) {
        let root = Dir::empty(self.keeper.epoch());
        let result = self.create_space(cx, name, owner, 0, root);
        done(cx, result);
    }

    pub(super) fn namespace_remove_for(&mut self, cx: &mut Cx<'_>, name: &str, done: Done<()>) {
        if name.eq_ignore_ascii_case(PRIMARY) {
            done(cx, Err(RpcError::bare(errno::ENOTSUP)));
            return;
        }
        self.drop_space(cx, name);
        done(cx, Ok(()));
    }

    /// Begins to move a namespace into the primary one: it takes no more transactions, and moves when those
    /// it has are applied.
    pub(super) fn snapshot_for(&mut self, cx: &mut Cx<'_>, name: &str, key: &str, done: Done<CommitInfo>) {
        let Some(space) = self
            .spaces
            .get_mut(name)
            .filter(|space| &*space.name != PRIMARY && !space.closing)
        else {
            done(cx, Err(RpcError::bare(errno::ENOTSUP)));
            return;
        };
        space.closing = true;
        space.absorber = Some((key.into(), done));
        let name = space.name.clone();
        if space.queue.is_empty() {
            self.drained(cx, &name);
        }
    }

    fn reopen(&mut self, name: &str) {
        if let Some(space) = self.spaces.get_mut(name) {
            space.closing = false;
        }
    }

    /// A namespace that is closing moves when nothing waits in it any more.
    pub(super) fn drained(&mut self, cx: &mut Cx<'_>, name: &Rc<str>) {
        let Some(space) = self
            .spaces
            .get_mut(name)
            .filter(|space| space.closing && space.queue.is_empty())
        else {
            return;
        };
        let Some((key, done)) = space.absorber.take() else {
            return;
        };
        let ops = vec![Op {
            key,
            change: Change::Graft(space.root.clone()),
        }];
        let name = name.clone();
        // when the key is refused the namespace lives on
        let reply: Done<CommitInfo> = Box::new(move |cx, result| {
            if result.is_err() {
                cx.to::<Kvs>("kvs", move |kvs, _| kvs.reopen(&name));
            }
            done(cx, result);
        });
        let absorbs = Some(space.name.clone());
        let reply = CommitReply::Local(reply);
        self.enqueue(
            cx,
            PRIMARY,
            Pending {
                txn: Txn { ops },
                no_merge: false,
                durable: false,
                refers: false,
                absorbs,
                reply,
            },
        );
    }
}
