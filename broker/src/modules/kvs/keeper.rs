//! What becomes of what is in memory: when is it durable, when does it leave memory? (DESIGN §6, design note
//! 0001.)
//!
//! * With a `statedir` every transaction goes to a journal in the store's file. Durable commits wait until
//!   their records are on stable storage; those that come meanwhile share the next transaction.
//! * A *spill* writes the directory nodes and values that are not stored yet, then the roots of all namespaces,
//!   and drops the journal that they make needless. It happens when enough has gathered in
//!   memory, when somebody asks for a blob that was only told about, and at a clean stop.
//! * After a spill, what it stored and what was not changed in the last two periods leaves memory.
//!
//! When the file cannot be written, durable commits are refused with file and cause, records wait in memory,
//! and a timer tries again until it works.

mod spilling;

use super::Kvs;
use super::commit::{Pending, ReadyReply};
use super::journal;
use super::node::Dir;
use super::service::Space;
use super::spill::{self, Spilled};
use super::txn::Change;
use crate::modules::content;
use crate::modules::content_sqlite::{Db, local as store};
use crate::service::{Cx, RpcError};
use flux_formats::blobref::{BlobRef, HashType};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of changes in memory, or of journal on disk, that start a spill.
const SPILL_BYTES: usize = 4 << 20;
/// Bytes of changes in memory above which nothing more is taken while the store cannot be written.
const MEMORY_MAX: usize = 512 << 20;
/// Records that nobody waits for are written when there are this many bytes …
const LAZY_BYTES: usize = 256 << 10;
/// … or after this time.
const LAZY_TIME: Duration = Duration::from_millis(100);
/// Time between two tries when the store cannot be written.
const RETRY_TIME: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });
/// Roots that clients were told of, which stay in memory for looking back.
const RECENT_MAX: usize = 256;

/// A call when everything that was told is stored.
pub(in crate::modules) type Settled = Box<dyn FnOnce(&mut Cx<'_>)>;

/// Where things are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    /// There is no store: everything stays in memory.
    #[default]
    Memory,
    /// The store makes room in memory, and goes with the broker.
    Scratch,
    /// The store outlives the broker.
    Durable,
}

/// What the keeper knows.
#[derive(Default)]
pub(super) struct Keeper {
    mode: Mode,
    /// Spill period; changed nodes carry it.
    epoch: u32,
    /// Bytes changed since the last spill, roughly.
    dirty_bytes: usize,
    /// Records that are not on their way yet.
    records: Vec<u8>,
    /// Answers that wait for them.
    held: Vec<ReadyReply>,
    /// Answers to clients' SYNC commits, which wait for a checkpoint.
    held_for_checkpoint: Vec<ReadyReply>,
    /// A journal transaction is under way.
    writing: bool,
    /// Bytes in the journal on disk.
    journal_bytes: usize,
    /// Journal transactions that failed so far.
    journal_failures: u64,
    /// Transactions recorded so far, and how many of them are in the store's file.
    position: u64,
    written: u64,
    lazy_timer: bool,
    retry_timer: bool,
    spilling: bool,
    /// A spill could not begin because a journal transaction is under way; true for one with a checkpoint.
    spill_wanted: Option<bool>,
    spill_failed: bool,
    /// A spill that goes on when the store can be written again.
    stalled: Option<spilling::Stalled>,
    /// Runs of the store's index are being merged.
    merging: bool,
    /// Why the store could not be written, while it cannot.
    failure: Option<RpcError>,
    recent: VecDeque<Dir>,
    /// Roots that clients may keep: the next spill stores them.
    exposed: Vec<Dir>,
    waiting: Vec<Settled>,
    stopping: bool,
}

impl Keeper {
    /// Returns the spill period.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    /// A client was told of a root and may keep what it was told.
    pub(super) fn expose(&mut self, root: &Dir) {
        let Dir::Here(node) = root else { return };
        let same = |other: &Dir| matches!(other, Dir::Here(other) if Arc::ptr_eq(node, other));
        if node.is_stored() || self.exposed.last().is_some_and(same) {
            return;
        }
        self.exposed.push(root.clone());
        self.remember(root);
    }

    /// A client was told of a root in passing.
    pub(super) fn remember(&mut self, root: &Dir) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(root.clone());
    }

    /// Returns a root by its name while it is remembered.
    pub(super) fn recall(&self, blobref: &BlobRef) -> Option<Dir> {
        self.recent
            .iter()
            .rev()
            .find(|root| root.known_as(blobref))
            .cloned()
    }

    /// Returns why a transaction cannot be taken.
    pub(super) fn refusal(&self, durable: bool) -> Option<RpcError> {
        let full = durable || self.dirty_bytes > MEMORY_MAX;
        self.failure.as_ref().filter(|_| full).cloned()
    }

    /// Writes down a transaction that was applied.
    pub(super) fn record(&mut self, name: &str, seq: u64, pending: &Pending) {
        for op in &pending.txn.ops {
            let bytes = match &op.change {
                Change::Value(bytes) | Change::Append(bytes) => bytes.len(),
                Change::Put(_) => 256,
                Change::Graft(_) | Change::Unlink => 0,
            };
            self.dirty_bytes += spill::cost(&op.key, bytes);
        }
        if self.mode != Mode::Durable {
            return;
        }
        self.position += 1;
        match (&pending.absorbs, pending.txn.ops.first()) {
            (Some(absorbed), Some(op)) => journal::put_absorb(&mut self.records, absorbed, &op.key, seq),
            _ => journal::put_commit(&mut self.records, name, seq, &pending.txn),
        }
    }

    /// Returns how many transactions were recorded, and how many of the records are in the store's file and so
    /// survive the broker's end; `None` when none is recorded.
    pub(super) fn positions(&self) -> Option<(u64, u64)> {
        self.is_durable().then_some((self.position, self.written))
    }

    /// Writes down a new namespace.
    pub(super) fn record_create(&mut self, space: &Space, hash: HashType) {
        if self.mode == Mode::Durable {
            let root = space.root.blobref(hash);
            journal::put_create(&mut self.records, &space.name, space.owner, space.flags, root);
        }
    }

    /// Writes down that a namespace was removed.
    pub(super) fn record_remove(&mut self, name: &str) {
        if self.mode == Mode::Durable {
            journal::put_remove(&mut self.records, name);
        }
    }

    /// Keeps an answer until its transaction is durable; gives it back when there is nothing to wait for.
    ///
    /// As in flux-core a client's SYNC commit makes a checkpoint, whether the store outlives the broker or not.
    pub(super) fn hold(&mut self, durable: bool, reply: ReadyReply) -> Option<ReadyReply> {
        match (&reply, self.mode) {
            _ if !durable => return Some(reply),
            (_, Mode::Memory) | (ReadyReply::Local(..), Mode::Scratch) => return Some(reply),
            (ReadyReply::Client(..), _) => {
                self.spill_wanted = Some(true);
                self.held_for_checkpoint.push(reply);
            }
            (ReadyReply::Local(..), Mode::Durable) => self.held.push(reply),
        }
        None
    }

    /// Takes the mode from what is loaded; called once, before anything is kept.
    pub(super) fn begin(&mut self, has_store: bool, has_statedir: bool) {
        self.epoch = 1;
        self.mode = match (has_store, has_statedir) {
            (false, _) => Mode::Memory,
            (true, false) => Mode::Scratch,
            (true, true) => Mode::Durable,
        };
    }

    pub(super) fn is_durable(&self) -> bool {
        self.mode == Mode::Durable
    }

    /// Returns true when there is a store that may hold a state.
    pub(super) fn has_store(&self) -> bool {
        self.mode != Mode::Memory
    }
}

impl Kvs {
    /// Called at the end of each turn that changed something: starts what is due.
    pub(super) fn keep(&mut self, cx: &mut Cx<'_>) {
        let keeper = &mut self.keeper;
        if keeper.mode == Mode::Memory {
            if keeper.exposed.len() > RECENT_MAX {
                self.spill_to_cache(cx);
            }
            return;
        }
        if keeper.failure.is_some() {
            return;
        }
        if !keeper.held.is_empty() || keeper.records.len() > LAZY_BYTES {
            self.write_journal(cx);
        } else if !keeper.records.is_empty() && !keeper.lazy_timer && !keeper.writing {
            keeper.lazy_timer = true;
            cx.timer(LAZY_TIME, |kvs: &mut Kvs, cx| {
                kvs.keeper.lazy_timer = false;
                kvs.write_journal(cx);
            });
        }
        let keeper = &self.keeper;
        let full = keeper.dirty_bytes > SPILL_BYTES
            || (keeper.journal_bytes > SPILL_BYTES && !keeper.spilling) // it shrinks at the end of the spill
            || keeper.exposed.len() > RECENT_MAX;
        if full || keeper.spill_wanted.is_some() {
            self.spill(cx, keeper.spill_wanted.unwrap_or(false));
        }
    }

    /// Sends the records to the journal, unless some are on their way.
    fn write_journal(&mut self, cx: &mut Cx<'_>) {
        let keeper = &mut self.keeper;
        if keeper.writing || (keeper.records.is_empty() && keeper.held.is_empty()) {
            return;
        }
        keeper.writing = true;
        let records = Arc::new(std::mem::take(&mut keeper.records));
        let held = std::mem::take(&mut keeper.held);
        let upto = keeper.position;
        // blobs that the transactions may name come first
        content::local::push(cx);
        let copy = records.clone();
        let job = move |db: &mut Db| {
            if copy.is_empty() {
                Ok(())
            } else {
                db.append_journal(&copy)
            }
        };
        store::write(cx, !held.is_empty(), job, move |kvs: &mut Kvs, cx, result| {
            kvs.journal_written(cx, (records, upto), held, result);
        });
    }

    fn journal_written(
        &mut self,
        cx: &mut Cx<'_>,
        (records, upto): (Arc<Vec<u8>>, u64),
        held: Vec<ReadyReply>,
        result: Result<(), RpcError>,
    ) {
        let keeper = &mut self.keeper;
        keeper.writing = false;
        match result {
            Ok(()) => {
                keeper.journal_bytes += records.len();
                keeper.written = keeper.written.max(upto);
                self.recovered(cx);
                held.into_iter().for_each(|reply| reply.send(cx));
                self.keep(cx);
            }
            Err(err) => {
                keeper.journal_failures += 1;
                // the order must stay: these come before what was recorded meanwhile
                let mut all = Arc::unwrap_or_clone(records);
                all.append(&mut keeper.records);
                keeper.records = all;
                let more = std::mem::take(&mut keeper.held);
                held.into_iter()
                    .chain(more)
                    .for_each(|reply| reply.fail(cx, &err));
                self.failed(cx, err);
            }
        }
        self.stop_when_kept(cx);
    }

    fn failed(&mut self, cx: &mut Cx<'_>, err: RpcError) {
        if self.keeper.failure.is_none() {
            let text =
                format!("{err}: no more durable work is taken until it can be written; what runs goes on");
            cx.log_as_me(2, &text);
        }
        self.keeper.failure = Some(err);
        if !self.keeper.retry_timer {
            self.keeper.retry_timer = true;
            cx.timer(RETRY_TIME, |kvs: &mut Kvs, cx| {
                kvs.keeper.retry_timer = false;
                kvs.retry(cx);
            });
        }
    }

    fn retry(&mut self, cx: &mut Cx<'_>) {
        if self.keeper.spill_failed {
            self.spill(cx, false);
        } else if self.keeper.records.is_empty() {
            // nothing is left to write: a row that does nothing tells whether the file can be written
            let probe = |db: &mut Db| db.set_meta("probe", 1);
            store::write(cx, true, probe, |kvs: &mut Kvs, cx, result| match result {
                Ok(()) => kvs.recovered(cx),
                Err(err) => kvs.failed(cx, err),
            });
        } else {
            self.write_journal(cx);
        }
    }

    fn recovered(&mut self, cx: &mut Cx<'_>) {
        if !self.keeper.spill_failed && self.keeper.failure.take().is_some() {
            cx.log_as_me(5, "the content store can be written again");
        }
    }

    /// Stores everything and makes a checkpoint of it.
    pub(super) fn checkpoint(&mut self, cx: &mut Cx<'_>) {
        self.spill(cx, true);
    }

    /// Calls `done` when every blob that a client may have been told of can be loaded.
    pub(in crate::modules) fn settle(&mut self, cx: &mut Cx<'_>, done: Settled) {
        let keeper = &mut self.keeper;
        let recent = keeper
            .recent
            .iter()
            .filter(|root| matches!(root, Dir::Here(node) if !node.is_stored()));
        let recent: Vec<Dir> = recent.cloned().collect();
        if recent.is_empty() && keeper.exposed.is_empty() && !keeper.spilling {
            done(cx);
            return;
        }
        keeper.exposed.extend(recent);
        if keeper.mode == Mode::Memory {
            self.spill_to_cache(cx);
            // the content store's calls come in order
            done(cx);
            return;
        }
        keeper.waiting.push(done);
        self.spill(cx, false);
    }

    /// Makes a checkpoint, then calls `done`.
    pub(in crate::modules) fn checkpoint_then(&mut self, cx: &mut Cx<'_>, done: Settled) {
        if self.keeper.mode == Mode::Memory {
            done(cx);
            return;
        }
        self.keeper.waiting.push(done);
        self.spill(cx, true);
    }

    /// Goes on here when every blob that a client may have been told of can be loaded.
    pub(super) fn when_settled(
        &mut self,
        cx: &mut Cx<'_>,
        then: impl FnOnce(&mut Kvs, &mut Cx<'_>) + 'static,
    ) {
        let me = cx.slot();
        self.settle(
            cx,
            Box::new(move |cx| {
                cx.to_slot::<Kvs>(me, then);
            }),
        );
    }

    /// Without a store the content cache takes what clients were told of.
    fn spill_to_cache(&mut self, cx: &mut Cx<'_>) {
        let (mut spilled, mut blobs) = (Spilled::default(), Vec::new());
        for root in std::mem::take(&mut self.keeper.exposed) {
            let collected =
                spill::collect::<std::convert::Infallible>(&root, self.hash, &mut spilled, &mut |r, b, i| {
                    blobs.push((r, b, i));
                    Ok(())
                });
            match collected {
                Ok(()) => {}
                Err(never) => match never {},
            }
        }
        spilled.mark();
        content::local::store(cx, blobs);
    }

    /// Begins to stop: writes everything down. Returns true when there is nothing to wait for.
    pub(super) fn stop_keeping(&mut self, cx: &mut Cx<'_>) -> bool {
        let dumped = cx.attrs.get("content.dump").is_some();
        if self.keeper.mode == Mode::Memory || (self.keeper.mode == Mode::Scratch && !dumped) {
            return true;
        }
        self.keeper.stopping = true;
        self.spill(cx, true);
        self.stop_when_kept(cx);
        false
    }

    fn stop_when_kept(&mut self, cx: &mut Cx<'_>) {
        let keeper = &self.keeper;
        if !keeper.stopping || keeper.writing || keeper.spilling {
            return;
        }
        let left = !keeper.records.is_empty() || keeper.dirty_bytes > 0 || keeper.spill_wanted.is_some();
        if keeper.failure.is_none() && left {
            self.spill(cx, true);
            return;
        }
        self.keeper.stopping = false;
        cx.stopped();
    }
}
