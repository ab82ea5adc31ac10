//! What happens when a request needs blobs that are not in memory? They are loaded, then it begins again.

use super::Kvs;
use super::blob;
use super::lookup::World;
use super::node::{Dir, Fetch, Missing, Node, Stop};
use super::service::Space;
use crate::modules::content;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::blobref::BlobRef;
use flux_formats::errno;
use flux_formats::msg::role;
use indexmap::IndexMap;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of decoded nodes to keep that are not part of a tree in memory.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// Decoded directory nodes, by use; the oldest half goes when there are too many.
#[derive(Debug, Default)]
pub(super) struct NodeCache {
    nodes: HashMap<BlobRef, Cached>,
    bytes: usize,
    clock: std::cell::Cell<u64>,
}

#[derive(Debug)]
struct Cached {
    node: Arc<Node>,
    weight: usize,
    used: std::cell::Cell<u64>,
}

impl NodeCache {
    fn insert(&mut self, blobref: BlobRef, node: Arc<Node>) {
        let weight = node.weight();
        self.clock.set(self.clock.get() + 1);
        let cached = Cached {
            node,
            weight,
            used: self.clock.clone(),
        };
        self.bytes += weight;
        if let Some(old) = self.nodes.insert(blobref, cached) {
            self.bytes -= old.weight;
        }
        if self.bytes > CACHE_BYTES_MAX {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let mut uses: Vec<u64> = self.nodes.values().map(|cached| cached.used.get()).collect();
        let middle = uses.len() / 2;
        let (_, median, _) = uses.select_nth_unstable(middle);
        let limit = *median;
        self.nodes.retain(|_, cached| cached.used.get() > limit);
        self.bytes = self.nodes.values().map(|cached| cached.weight).sum();
    }

    fn get(&self, blobref: &BlobRef) -> Option<Arc<Node>> {
        let cached = self.nodes.get(blobref)?;
        self.clock.set(self.clock.get() + 1);
        cached.used.set(self.clock.get());
        Some(cached.node.clone())
    }

    /// Visits the size of each node.
    pub(super) fn each(&self, mut visit: impl FnMut(usize)) {
        self.nodes.values().for_each(|cached| visit(cached.weight));
    }
}

/// What was loaded for one request; it stays until that is answered, so that it cannot starve.
#[derive(Debug, Default)]
pub(super) struct Pins {
    nodes: HashMap<BlobRef, Arc<Node>>,
    blobs: HashMap<BlobRef, Bytes>,
}

impl Pins {
    pub(super) fn extend(&mut self, more: Pins) {
        self.nodes.extend(more.nodes);
        self.blobs.extend(more.blobs);
    }
}

/// On whose behalf a key is walked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cred {
    pub(super) userid: u32,
    pub(super) rolemask: u32,
}

impl Cred {
    pub(super) const OWNER: Cred = Cred {
        userid: 0,
        rolemask: role::OWNER,
    };

    pub(super) fn of(req: &flux_formats::msg::Message) -> Self {
        Cred {
            userid: req.userid,
            rolemask: req.rolemask,
        }
    }

    /// Returns true for the instance owner and for the user `owner`.
    pub(super) fn may(self, owner: u32) -> bool {
        self.rolemask & role::OWNER != 0
            || (self.rolemask & role::USER != 0
                && self.userid != flux_formats::msg::USERID_UNKNOWN
                && self.userid == owner)
    }
}

/// Nodes in memory that are not linked from their parents.
pub(super) struct Nodes<'a> {
    pub(super) cache: &'a NodeCache,
    pub(super) pins: &'a Pins,
}

impl Fetch for Nodes<'_> {
    fn node(&self, blobref: &BlobRef) -> Option<Arc<Node>> {
        self.pins
            .nodes
            .get(blobref)
            .cloned()
            .or_else(|| self.cache.get(blobref))
    }
}

/// What a walk sees.
pub(super) struct View<'a> {
    pub(super) cache: &'a NodeCache,
    pub(super) spaces: &'a IndexMap<Rc<str>, Space>,
    pub(super) pins: &'a Pins,
    pub(super) cred: Cred,
}

impl Fetch for View<'_> {
    fn node(&self, blobref: &BlobRef) -> Option<Arc<Node>> {
        Nodes {
            cache: self.cache,
            pins: self.pins,
        }
        .node(blobref)
    }
}

impl World for View<'_> {
    fn root(&self, namespace: &str) -> Result<Dir, Stop> {
        let space = self.spaces.get(namespace).ok_or(Stop::Errno(errno::ENOTSUP))?;
        if self.cred.may(space.owner) {
            Ok(space.root.clone())
        } else {
            Err(Stop::Errno(errno::EPERM))
        }
    }

    fn blob(&self, blobref: &BlobRef) -> Option<Bytes> {
        self.pins.blobs.get(blobref).cloned()
    }
}

/// Loads that one request waits for.
struct Gather {
    left: usize,
    pins: Pins,
    failed: Option<RpcError>,
    done: Option<Loaded>,
}

/// Called with everything that was missing.
pub(super) type Loaded = Box<dyn FnOnce(&mut Kvs, &mut Cx<'_>, Result<Pins, RpcError>)>;

impl Kvs {
    /// Loads what is missing, then calls `done`.
    pub(super) fn load(
        &mut self,
        cx: &mut Cx<'_>,
        missing: Missing,
        done: impl FnOnce(&mut Kvs, &mut Cx<'_>, Result<Pins, RpcError>) + 'static,
    ) {
        let Missing { mut nodes, mut blobs } = missing;
        for list in [&mut nodes, &mut blobs] {
            list.sort_unstable();
            list.dedup();
        }
        let left = nodes.len() + blobs.len();
        self.stats.faults += u64::try_from(left).unwrap_or(0);
        self.stats.pending += 1;
        let gather = Gather {
            left,
            pins: Pins::default(),
            failed: None,
            done: Some(Box::new(done)),
        };
        let gather = Rc::new(std::cell::RefCell::new(gather));
        for (blobref, is_node) in nodes
            .into_iter()
            .map(|blobref| (blobref, true))
            .chain(blobs.into_iter().map(|blobref| (blobref, false)))
        {
            self.load_one(cx, gather.clone(), blobref, is_node, false);
        }
    }

    /// Loads one blob. A client may name one that it was told of and that is not stored yet: then that is done first.
    fn load_one(
        &mut self,
        cx: &mut Cx<'_>,
        gather: Rc<std::cell::RefCell<Gather>>,
        blobref: BlobRef,
        is_node: bool,
        settled: bool,
    ) {
        content::local::load_raw(cx, blobref, move |kvs: &mut Kvs, cx, result| {
            if !settled && result.as_ref().is_err_and(|err| err.errnum == errno::ENOENT) {
                kvs.when_settled(cx, move |kvs, cx| {
                    kvs.load_one(cx, gather, blobref, is_node, true)
                });
                return;
            }
            let done = kvs.gathered(&gather, blobref, is_node, result);
            if let Some((done, result)) = done {
                kvs.stats.pending -= 1;
                done(kvs, cx, result);
            }
        });
    }

    fn gathered(
        &mut self,
        gather: &std::cell::RefCell<Gather>,
        blobref: BlobRef,
        is_node: bool,
        result: Result<Bytes, RpcError>,
    ) -> Option<(Loaded, Result<Pins, RpcError>)> {
        let mut gather = gather.borrow_mut();
        let node = match result {
            Ok(bytes) if is_node => match blob::decode(&bytes, blobref) {
                Ok(node) => Some(node),
                Err(err) => {
                    gather.failed = Some(RpcError::new(errno::EINVAL, format!("{blobref}: {err}")));
                    None
                }
            },
            Ok(bytes) => {
                gather.pins.blobs.insert(blobref, bytes);
                None
            }
            Err(err) => {
                gather.failed = Some(err);
                None
            }
        };
        if let Some(node) = node {
            self.cache.insert(blobref, node.clone());
            gather.pins.nodes.insert(blobref, node);
        }
        gather.left -= 1;
        if gather.left > 0 {
            return None;
        }
        let result = match gather.failed.take() {
            Some(err) => Err(err),
            None => Ok(std::mem::take(&mut gather.pins)),
        };
        gather.done.take().map(|done| (done, result))
    }
}
