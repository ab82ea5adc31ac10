//! The actor behind `kvs.*`: which request goes where?

use super::commit::Pending;
use super::fault::{NodeCache, Pins};
use super::local::{CommitInfo, Done};
use super::node::Dir;
use super::request::Reply;
use super::stats::Stats;
use super::watch::Watches;
use crate::service::{Cx, Interface, Method, RpcError, Service};
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::msg::Message;
use indexmap::IndexMap;
use serde_json::Value;
use std::collections::VecDeque;
use std::rc::Rc;

/// Name of the namespace that always exists.
pub(super) const PRIMARY: &str = "primary";

/// A root directory at some time.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) dir: Dir,
    pub(super) hash: HashType,
}

impl Root {
    pub(super) fn blobref(&self) -> BlobRef {
        self.dir.blobref(self.hash)
    }
}

/// A namespace.
pub(super) struct Space {
    pub(super) name: Rc<str>,
    pub(super) owner: u32,
    pub(super) flags: u32,
    pub(super) seq: u64,
    pub(super) root: Dir,
    /// Transactions that are not applied yet, in order.
    pub(super) queue: VecDeque<Pending>,
    /// The first transaction waits for blobs.
    pub(super) blocked: bool,
    /// In the list of namespaces to process at the end of the turn.
    pub(super) scheduled: bool,
    /// Test aid `kvs.setroot-pause`: transactions wait.
    pub(super) paused: bool,
    /// Requests that wait for a version.
    pub(super) waiters: Vec<(u64, Message)>,
    /// What was loaded for the first transaction.
    pub(super) pins: Pins,
    /// It is moving into another namespace and takes no more transactions.
    pub(super) closing: bool,
    /// Key in the primary namespace that it moves to, and who wants to know.
    pub(super) absorber: Option<(Box<str>, Done<CommitInfo>)>,
}

impl Space {
    pub(super) fn new(name: &str, owner: u32, flags: u32, seq: u64, root: Dir) -> Self {
        Space {
            name: Rc::from(name),
            owner,
            flags,
            seq,
            root,
            queue: VecDeque::new(),
            blocked: false,
            scheduled: false,
            paused: false,
            waiters: Vec::new(),
            pins: Pins::default(),
            closing: false,
            absorber: None,
        }
    }
}

/// A call that came before the state was restored.
type Early = Box<dyn FnOnce(&mut Kvs, &mut Cx<'_>)>;

/// The `kvs` module.
pub struct Kvs {
    pub(super) hash: HashType,
    pub(super) owner: u32,
    pub(super) spaces: IndexMap<Rc<str>, Space>,
    /// Namespaces with transactions to apply at the end of this turn.
    pub(super) ready: Vec<Rc<str>>,
    pub(super) cache: NodeCache,
    pub(super) watches: Watches,
    pub(super) keeper: super::keeper::Keeper,
    pub(super) stats: Stats,
    pub(super) period: super::period::Period,
    /// Requests that came before the state was restored.
    early: Vec<Early>,
    restored: bool,
}

impl std::fmt::Debug for Kvs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kvs")
            .field("namespaces", &self.spaces.len())
            .finish_non_exhaustive()
    }
}

impl Default for Kvs {
    fn default() -> Self {
        Kvs {
            hash: HashType::Sha1,
            owner: 0,
            spaces: IndexMap::new(),
            ready: Vec::new(),
            cache: NodeCache::default(),
            watches: Watches::default(),
            keeper: super::keeper::Keeper::default(),
            stats: Stats::default(),
            period: super::period::Period::default(),
            early: Vec::new(),
            restored: false,
        }
    }
}

impl Kvs {
    /// Runs `call` now, or when the state is restored.
    pub(super) fn when_restored(
        &mut self,
        cx: &mut Cx<'_>,
        call: impl FnOnce(&mut Kvs, &mut Cx<'_>) + 'static,
    ) {
        if self.restored {
            call(self, cx);
        } else {
            self.early.push(Box::new(call));
        }
    }

    /// Returns true when what the store had is there.
    pub(super) fn is_restored(&self) -> bool {
        self.restored
    }

    /// The state is there: requests that waited are served.
    pub(super) fn set_restored(&mut self, cx: &mut Cx<'_>) {
        self.restored = true;
        if !self.spaces.contains_key(PRIMARY) {
            let root = Dir::empty(self.keeper.epoch());
            self.spaces
                .insert(Rc::from(PRIMARY), Space::new(PRIMARY, self.owner, 0, 0, root));
        }
        for call in std::mem::take(&mut self.early) {
            call(self, cx);
        }
    }

    fn handle(&mut self, cx: &mut Cx<'_>, req: Message) {
        match req.topic.method() {
            "lookup" => self.lookup_request(cx, &req, Reply::Plain(req.clone())),
            "lookup-plus" => self.lookup_request(cx, &req, Reply::Plus(req.clone())),
            "commit" => self.commit_request(cx, &req),
            "relaycommit" => self.relaycommit_request(cx, &req),
            "getroot" => self.getroot_request(cx, &req),
            "wait-version" => self.wait_version_request(cx, req),
            "namespace-create" => self.namespace_create_request(cx, &req),
            "namespace-remove" => self.namespace_remove_request(cx, &req),
            "namespace-list" => self.namespace_list_request(cx, &req),
            "setroot-pause" => self.pause_request(cx, &req, true),
            _ => self.pause_request(cx, &req, false),
        }
    }
}

impl Service for Kvs {
    fn interfaces(&self) -> Vec<Interface> {
        const METHODS: &[Method] = &[
            Method::user("lookup"),
            Method::user("lookup-plus"),
            Method::user("commit"),
            Method::owner("relaycommit"),
            Method::user("getroot"),
            Method::user("wait-version"),
            Method::owner("namespace-create"),
            Method::owner("namespace-remove"),
            Method::owner("namespace-list"),
            Method::user("setroot-pause"),
            Method::user("setroot-unpause"),
        ];
        vec![Interface {
            service: "kvs",
            methods: METHODS,
        }]
    }

    fn start(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        if let Some(name) = cx.attrs.get("content.hash") {
            self.hash = name.parse().map_err(|_| {
                RpcError::new(
                    flux_formats::errno::EINVAL,
                    format!("content.hash: '{name}' is not sha1 or sha256"),
                )
            })?;
        }
        self.owner = cx.owner;
        let every = super::period::read(&cx.config)?;
        self.set_period(cx, every);
        self.restore(cx);
        Ok(())
    }

    fn on_request(&mut self, cx: &mut Cx<'_>, req: Message) {
        if self.restored {
            self.handle(cx, req);
        } else {
            self.when_restored(cx, |kvs, cx| kvs.handle(cx, req));
        }
    }

    fn config_prepare(&mut self, _cx: &mut Cx<'_>, config: &Rc<Value>) -> Result<(), RpcError> {
        super::period::read(config).map(|_| ())
    }

    fn config_commit(&mut self, cx: &mut Cx<'_>) {
        // it has been read a moment ago
        if let Ok(every) = super::period::read(&cx.config) {
            self.set_period(cx, every);
        }
    }

    fn on_disconnect(&mut self, _cx: &mut Cx<'_>, msg: &Message) {
        for space in self.spaces.values_mut() {
            space.waiters.retain(|(_, req)| req.sender() != msg.sender());
        }
    }

    fn stats(&mut self, _cx: &mut Cx<'_>) -> Option<Value> {
        Some(self.stats_value())
    }

    fn stats_clear(&mut self, _cx: &mut Cx<'_>) {
        self.stats = Stats::default();
    }

    fn stop(&mut self, cx: &mut Cx<'_>) -> bool {
        self.stop_keeping(cx)
    }
}
