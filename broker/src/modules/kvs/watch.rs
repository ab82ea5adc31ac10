//! Who is told when a key changes? The engine behind `kvs-watch.lookup` and [`crate::modules::kvs_watch`].
//! (flux-core: modules/kvs-watch/kvs-watch.c, behaviour)
//!
//! A watch is found by namespace and key, so that a commit costs one look-up per operation however many
//! watches there are. Each answers from the root that was current when its key changed; while it loads blobs,
//! later roots wait in its backlog.

use super::Kvs;
use super::commit::Pending;
use super::fault::{Cred, Pins, View};
use super::lookup::{self, Found, flags};
use super::node::{Dir, Entry, Stop};
use super::txn::Change;
use super::value::Value;
use super::watch_sink::Sink;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::treeobj::normalize_key;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// One watch.
pub(super) struct Watch {
    space: Rc<str>,
    key: Box<str>,
    pub(super) flags: u32,
    pub(super) cred: Cred,
    pub(super) sink: Sink,
    /// It got a value.
    responded: bool,
    sentinel_sent: bool,
    /// Bytes of a growing value that were sent.
    sent: usize,
    /// The last answer, for comparing.
    last: Option<Bytes>,
    /// Roots to answer from; the first one is being loaded.
    backlog: VecDeque<Turn>,
    busy: bool,
    pins: Pins,
}

/// A root at which the watched key changed.
#[derive(Clone)]
struct Turn {
    root: Dir,
    /// The value was not only appended to.
    replaced: bool,
}

/// Watches of one namespace, which may not exist yet.
#[derive(Default)]
struct SpaceWatches {
    by_key: HashMap<Box<str>, Vec<u64>>,
    full: Vec<u64>,
    count: usize,
}

/// All watches.
#[derive(Default)]
pub(super) struct Watches {
    by_id: HashMap<u64, Watch>,
    by_space: HashMap<Rc<str>, SpaceWatches>,
    next: u64,
}

/// What an evaluation tells the watch to do next.
enum Next {
    /// Wait for the next change.
    Wait,
    /// It is over; with an error for whoever watches.
    End(Option<RpcError>),
}

impl Watch {
    pub(super) fn new(space: &str, key: &str, flags: u32, cred: Cred, sink: Sink) -> Self {
        let key = normalize_key(key).map_or_else(|_| Box::from(key), |(key, _)| Box::from(key));
        Watch {
            space: Rc::from(space),
            key,
            flags,
            cred,
            sink,
            responded: false,
            sentinel_sent: false,
            sent: 0,
            last: None,
            backlog: VecDeque::new(),
            busy: false,
            pins: Pins::default(),
        }
    }

    fn has(&self, bits: u32) -> bool {
        self.flags & bits != 0
    }

    fn sentinel(&mut self, cx: &mut Cx<'_>) {
        if self.has(flags::INITIAL_SENTINEL) && !self.sentinel_sent {
            self.sentinel_sent = true;
            self.sink.sentinel(cx);
        }
    }

    /// Answers a lookup that found nothing.
    fn absent(&mut self, cx: &mut Cx<'_>) -> Next {
        if self.has(flags::WAITCREATE) && !self.responded {
            self.sentinel(cx);
            return Next::Wait;
        }
        Next::End(Some(RpcError::bare(errno::ENOENT)))
    }

    /// Answers with what a lookup found.
    fn found(&mut self, cx: &mut Cx<'_>, found: &Found) -> Next {
        if self.has(flags::WATCH_FULL | flags::WATCH_UNIQ) {
            let mut text = Vec::new();
            found.encode_to(&mut text);
            let text = Bytes::from(text);
            if self.last.as_ref() == Some(&text) {
                return Next::Wait;
            }
            self.last = Some(text);
        }
        self.sink.object(cx, found);
        self.responded = true;
        if self.has(flags::WATCH) {
            Next::Wait
        } else {
            Next::End(None)
        }
    }

    /// Answers with what was added to a value since the last answer.
    fn grown(&mut self, cx: &mut Cx<'_>, pieces: Vec<Bytes>, replaced: bool) -> Next {
        if self.responded && replaced {
            let text = "value of key watched with WATCH_APPEND overwritten";
            return Next::End(Some(RpcError::new(errno::EINVAL, text)));
        }
        if pieces.is_empty() && !self.responded {
            self.sink.piece(cx, Bytes::new());
        }
        for piece in pieces {
            self.sent += piece.len();
            self.sink.piece(cx, piece);
        }
        self.responded = true;
        self.sentinel(cx);
        if self.has(flags::STREAM) {
            Next::End(Some(RpcError::bare(errno::ENODATA)))
        } else {
            Next::Wait
        }
    }

    fn wrong_type(&self, entry: &Entry) -> RpcError {
        let verb = if self.has(flags::WATCH_APPEND) {
            "watched with WATCH_APPEND"
        } else {
            "streamed"
        };
        match entry {
            Entry::Dir(_) => RpcError::new(errno::EISDIR, format!("dirref cannot be {verb}")),
            Entry::Link(_) | Entry::Value(_) => {
                RpcError::new(errno::EINVAL, format!("symlink cannot be {verb}"))
            }
        }
    }
}

/// Returns the parts of a value from `offset` on, one per chunk so that lines stay whole.
fn pieces(value: &Value, offset: usize, kvs: &Kvs, world: &View<'_>) -> Result<Vec<Bytes>, Stop> {
    if value.chunks().len() < 2 {
        let bytes = lookup::read(value, offset, kvs.hash, world)?;
        return Ok(if bytes.is_empty() { Vec::new() } else { vec![bytes] });
    }
    // everything at once, so that all missing blobs are loaded together
    let all = lookup::read(value, offset, kvs.hash, world)?;
    let (mut at, mut cut, mut out) = (0, 0, Vec::new());
    for chunk in value.chunks() {
        let size = chunk
            .size()
            .or_else(|| Some(lookup::World::blob(world, &chunk.blobref(kvs.hash))?.len()));
        at += size.unwrap_or(0);
        let end = at.saturating_sub(offset).min(all.len());
        if end > cut {
            out.push(all.slice(cut..end));
            cut = end;
        }
    }
    if cut < all.len() {
        out.push(all.slice(cut..));
    }
    Ok(out)
}

impl Watches {
    /// Returns the number of watches.
    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    /// Visits each watched namespace with its number of watches.
    pub(super) fn each_space(&self, mut visit: impl FnMut(&Rc<str>, usize)) {
        self.by_space
            .iter()
            .for_each(|(name, watches)| visit(name, watches.count));
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn insert(&mut self, id: u64, watch: Watch) {
        let space = self.by_space.entry(watch.space.clone()).or_default();
        space.count += 1;
        if watch.has(flags::WATCH_FULL) {
            space.full.push(id);
        } else {
            space.by_key.entry(watch.key.clone()).or_default().push(id);
        }
        self.by_id.insert(id, watch);
    }

    fn remove(&mut self, id: u64) -> Option<Watch> {
        let watch = self.by_id.remove(&id)?;
        let Some(space) = self.by_space.get_mut(&watch.space) else {
            return Some(watch);
        };
        space.count -= 1;
        if watch.has(flags::WATCH_FULL) {
            space.full.retain(|other| *other != id);
        } else if let Some(ids) = space.by_key.get_mut(&watch.key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                space.by_key.remove(&watch.key);
            }
        }
        if space.count == 0 {
            self.by_space.remove(&watch.space);
        }
        Some(watch)
    }

    /// Returns the watches that `matches` picks.
    pub(super) fn select(&self, matches: impl Fn(&Watch) -> bool) -> Vec<u64> {
        self.by_id
            .iter()
            .filter(|(_, watch)| matches(watch))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Returns the watches that a group of transactions concerns, each with true when its key was replaced.
    fn concerned(&self, name: &Rc<str>, group: &[Pending]) -> Vec<(u64, bool)> {
        let Some(space) = self.by_space.get(name) else {
            return Vec::new();
        };
        let mut found: Vec<(u64, bool)> = space.full.iter().map(|id| (*id, true)).collect();
        if space.by_key.is_empty() {
            return found;
        }
        for op in group.iter().flat_map(|pending| &pending.txn.ops) {
            let Ok((key, _)) = normalize_key(&op.key) else {
                continue;
            };
            let Some(ids) = space.by_key.get(key.as_ref()) else {
                continue;
            };
            let replaced = !matches!(op.change, Change::Append(_));
            for id in ids {
                match found.iter_mut().find(|(other, _)| other == id) {
                    Some((_, before)) => *before |= replaced,
                    None => found.push((*id, replaced)),
                }
            }
        }
        found
    }
}

impl Kvs {
    /// Adds a watch and gives it what is there now.
    pub(super) fn add_watch(&mut self, cx: &mut Cx<'_>, id: u64, watch: Watch) {
        let wait_create = watch.has(flags::WAITCREATE);
        let name = watch.space.clone();
        self.watches.insert(id, watch);
        match self.spaces.contains_key(&name) {
            true => self.watch_initial(cx, id),
            false if wait_create => {}
            false => self.end_watch(cx, id, Some(&RpcError::bare(errno::ENOTSUP))),
        }
    }

    fn watch_initial(&mut self, cx: &mut Cx<'_>, id: u64) {
        let Some(watch) = self.watches.by_id.get_mut(&id) else {
            return;
        };
        let Some(space) = self.spaces.get(&watch.space) else {
            return;
        };
        if !watch.cred.may(space.owner) {
            self.end_watch(cx, id, Some(&RpcError::bare(errno::EPERM)));
            return;
        }
        let root = space.root.clone();
        watch.backlog.push_back(Turn {
            root,
            replaced: false,
        });
        self.run_watch(cx, id);
    }

    pub(super) fn watches_created(&mut self, cx: &mut Cx<'_>, name: &Rc<str>) {
        for id in self.watches.select(|watch| watch.space == *name) {
            self.watch_initial(cx, id);
        }
    }

    pub(super) fn watches_removed(&mut self, cx: &mut Cx<'_>, name: &str) {
        if !self.watches.by_space.contains_key(name) {
            return;
        }
        for id in self.watches.select(|watch| &*watch.space == name) {
            // one that still loads gets its values first
            match self.watches.by_id.get_mut(&id) {
                Some(watch) if watch.busy => watch.sink.close_with(errno::ENOTSUP),
                _ => self.end_watch(cx, id, Some(&RpcError::bare(errno::ENOTSUP))),
            }
        }
    }

    /// A group of transactions became a root.
    pub(super) fn watches_changed(&mut self, cx: &mut Cx<'_>, name: &Rc<str>, group: &[Pending]) {
        let concerned = self.watches.concerned(name, group);
        if concerned.is_empty() {
            return;
        }
        let Some(root) = self.spaces.get(name).map(|space| space.root.clone()) else {
            return;
        };
        for (id, replaced) in concerned {
            if let Some(watch) = self.watches.by_id.get_mut(&id) {
                watch.backlog.push_back(Turn {
                    root: root.clone(),
                    replaced,
                });
            }
            self.run_watch(cx, id);
        }
    }

    /// Answers from the roots in the backlog, until it is empty or something must be loaded.
    fn run_watch(&mut self, cx: &mut Cx<'_>, id: u64) {
        loop {
            let Some(mut watch) = self.watches.by_id.remove(&id) else {
                return;
            };
            if watch.busy || watch.backlog.is_empty() {
                self.watches.by_id.insert(id, watch);
                return;
            }
            let result = self.evaluate(cx, &mut watch);
            if let Err(Stop::Missing(_)) = result {
                watch.busy = true;
            } else {
                watch.backlog.pop_front();
                watch.pins = Pins::default();
            }
            let closing = watch
                .sink
                .closing()
                .filter(|_| !watch.busy && watch.backlog.is_empty());
            self.watches.by_id.insert(id, watch);
            match result {
                Ok(Next::Wait) => {}
                Ok(Next::End(err)) => return self.end_watch(cx, id, err.as_ref()),
                Err(Stop::Errno(errnum)) => return self.end_watch(cx, id, Some(&RpcError::bare(errnum))),
                Err(Stop::Missing(missing)) => {
                    return self.load(cx, missing, move |kvs, cx, result| {
                        kvs.resume_watch(cx, id, result)
                    });
                }
            }
            if let Some(errnum) = closing {
                return self.end_watch(cx, id, Some(&RpcError::bare(errnum)));
            }
        }
    }

    fn resume_watch(&mut self, cx: &mut Cx<'_>, id: u64, result: Result<Pins, RpcError>) {
        let Some(watch) = self.watches.by_id.get_mut(&id) else {
            return;
        };
        watch.busy = false;
        match result {
            Ok(pins) => {
                watch.pins.extend(pins);
                self.run_watch(cx, id);
            }
            Err(err) => self.end_watch(cx, id, Some(&err)),
        }
    }

    fn evaluate(&self, cx: &mut Cx<'_>, watch: &mut Watch) -> Result<Next, Stop> {
        let Some(Turn { root, replaced }) = watch.backlog.front().cloned() else {
            return Ok(Next::Wait);
        };
        let pins = std::mem::take(&mut watch.pins);
        let view = View {
            cache: &self.cache,
            spaces: &self.spaces,
            pins: &pins,
            cred: watch.cred,
        };
        let next = self.evaluate_in(cx, watch, &root, replaced, &view);
        watch.pins = pins;
        next
    }

    fn evaluate_in(
        &self,
        cx: &mut Cx<'_>,
        watch: &mut Watch,
        root: &Dir,
        replaced: bool,
        view: &View<'_>,
    ) -> Result<Next, Stop> {
        if !watch.has(flags::WATCH_APPEND | flags::STREAM) {
            return Ok(
                match lookup::lookup(root, &watch.key, watch.flags, self.hash, view)? {
                    Some(found) => watch.found(cx, &found),
                    None => watch.absent(cx),
                },
            );
        }
        let Some(entry) = lookup::walk(root, &watch.key, false, view)? else {
            return Ok(watch.absent(cx));
        };
        let Entry::Value(value) = &entry else {
            return Ok(Next::End(Some(watch.wrong_type(&entry))));
        };
        if let Some(size) = value.size()
            && size < watch.sent
            && !replaced
        {
            let text = "key watched with WATCH_APPEND shortened";
            return Ok(Next::End(Some(RpcError::new(errno::EINVAL, text))));
        }
        let pieces = pieces(value, watch.sent, self, view)?;
        Ok(watch.grown(cx, pieces, replaced))
    }

    /// Ends a watch; `err` is its last answer.
    pub(super) fn end_watch(&mut self, cx: &mut Cx<'_>, id: u64, err: Option<&RpcError>) {
        if let Some(mut watch) = self.watches.remove(id)
            && let Some(err) = err
        {
            watch.sink.end(cx, err);
        }
    }
}
