//! How does what is in memory get into the store while commits go on?
//!
//! In steps, between which the store's thread writes the journal of newer transactions:
//!
//! 1. Which part of the journal does the snapshot make needless? All that was written when the snapshot was taken.
//! 2. The reading thread encodes and hashes what is not stored yet.
//! 3. The writing thread appends it, a portion of blobs at a time, then a run of the index. Nobody knows of these blobs before the last step; after
//!    a crash they are garbage for the next collection.
//! 4. Roots, checkpoint, and the end of that part of the journal, in one transaction.

use super::{Kvs, Mode, ReadyReply, Settled};
use crate::modules::content_sqlite::{Blob, Db, Entry, Merge, SpaceRow, StoreError, local as store};
use crate::modules::kvs::node::Dir;
use crate::modules::kvs::service::PRIMARY;
use crate::modules::kvs::spill::{self, Spilled};
use crate::service::{Cx, RpcError};
use flux_formats::blobref::{BlobRef, HashType};
use serde_json::json;
use std::collections::{HashSet, VecDeque};

/// Blobs of one portion: a few milliseconds, for which durable commits wait.
const PORTION_BLOBS: usize = 1024;
/// Bytes of one portion.
const PORTION_BYTES: usize = 1 << 20;
/// Entries of the index of one portion.
const PORTION_ENTRIES: usize = 4096;

/// A namespace as it is when the spill begins.
struct SpaceNow {
    name: String,
    owner: u32,
    flags: u32,
    seq: u64,
    root: Dir,
}

/// What is to be stored.
struct Snapshot {
    hash: HashType,
    spaces: Vec<SpaceNow>,
    exposed: Vec<Dir>,
}

/// What a snapshot comes to, and how much of it is stored.
struct Collected {
    /// Blobs that are not stored yet, children before their parents.
    blobs: VecDeque<Blob>,
    /// Those that were stored last.
    stored: Vec<Blob>,
    /// Index entries of those that are.
    index: Vec<Entry>,
    /// The run of the index, once all blobs are stored.
    run: Option<i64>,
    /// So many entries are in the run.
    indexed: usize,
    /// Nodes and chunks.
    spilled: Spilled,
    spaces: Vec<SpaceRow>,
    /// Root and version of the primary namespace.
    primary: Option<(String, u64)>,
}

/// A spill that could not go on; it does when the store can be written again. To begin anew would leave what it stored as garbage, on a
/// disk that may be full.
pub(super) struct Stalled(Spill, Collected);

/// A spill that is under way.
struct Spill {
    /// Write the roots, and drop the journal up to here.
    roots: bool,
    /// Add a checkpoint that `flux content checkpoint list` shows.
    checkpoint: bool,
    /// The last step waits for the disk.
    sync: bool,
    /// Newest row of the journal that the snapshot has.
    journal_end: i64,
    /// Bytes of the journal up to there.
    journal_bytes: usize,
    /// Failures of the journal when it began.
    journal_failures: u64,
    /// Period that ended with it.
    before: u32,
    dirty_bytes: usize,
    exposed: Vec<Dir>,
    waiting: Vec<Settled>,
    held: Vec<ReadyReply>,
}

impl Snapshot {
    fn collect(self) -> Collected {
        let (mut blobs, mut spilled) = (VecDeque::new(), Spilled::default());
        // a thousand jobs with one jobspec
        let mut seen = HashSet::new();
        let mut put = |blobref: BlobRef, bytes, internal| {
            let digest = blobref.digest().to_vec();
            if seen.insert(blobref) {
                blobs.push_back(Blob {
                    digest,
                    bytes,
                    internal,
                });
            }
            Ok::<(), std::convert::Infallible>(())
        };
        let roots = self.spaces.iter().map(|space| &space.root);
        for root in roots.chain(&self.exposed) {
            let Ok(()) = spill::collect(root, self.hash, &mut spilled, &mut put);
        }
        let primary = self.spaces.iter().find(|space| space.name == PRIMARY);
        let primary = primary.map(|space| (space.root.blobref(self.hash).to_string(), space.seq));
        let spaces = self.spaces.into_iter().map(|space| SpaceRow {
            root: space.root.blobref(self.hash).digest().to_vec(),
            name: space.name,
            owner: space.owner,
            flags: space.flags,
            seq: space.seq,
        });
        Collected {
            spaces: spaces.collect(),
            blobs,
            stored: Vec::new(),
            index: Vec::new(),
            run: None,
            indexed: 0,
            spilled,
            primary,
        }
    }
}

impl Kvs {
    /// Writes everything that is not stored.
    pub(super) fn spill(&mut self, cx: &mut Cx<'_>, checkpoint: bool) {
        if self.keeper.mode == Mode::Memory {
            return;
        }
        if self.keeper.spilling || self.keeper.writing {
            // were an earlier journal transaction to fail, its records would be written again after the snapshot has them
            self.keeper.spill_wanted = Some(checkpoint || self.keeper.spill_wanted == Some(true));
            return;
        }
        if let Some(Stalled(spill, collected)) = self.keeper.stalled.take() {
            // what is newer needs a spill of its own
            self.keeper.spill_wanted = Some(checkpoint || self.keeper.spill_wanted == Some(true));
            self.keeper.spilling = true;
            return self.spill_step(cx, spill, collected);
        }
        self.keeper.spill_wanted = None;
        // the snapshot has the records made so far
        self.write_journal(cx);
        let durable = self.keeper.is_durable();
        let keeper = &mut self.keeper;
        keeper.spilling = true;
        let spill = Spill {
            roots: durable || checkpoint,
            checkpoint: durable || checkpoint,
            sync: durable && checkpoint,
            journal_end: 0,
            journal_bytes: 0,
            journal_failures: keeper.journal_failures,
            before: keeper.epoch,
            dirty_bytes: std::mem::take(&mut keeper.dirty_bytes),
            exposed: std::mem::take(&mut keeper.exposed),
            waiting: std::mem::take(&mut keeper.waiting),
            held: std::mem::take(&mut keeper.held_for_checkpoint),
        };
        keeper.epoch += 1;
        let spaces = self.spaces.values().map(|space| SpaceNow {
            name: space.name.to_string(),
            owner: space.owner,
            flags: space.flags,
            seq: space.seq,
            root: space.root.clone(),
        });
        let snapshot = Snapshot {
            hash: self.hash,
            spaces: spaces.collect(),
            exposed: spill.exposed.clone(),
        };
        let journal_end = |db: &mut Db| db.journal_end();
        store::write(cx, false, journal_end, move |kvs: &mut Kvs, cx, result| {
            kvs.spill_begun(cx, spill, snapshot, result);
        });
    }

    fn spill_begun(
        &mut self,
        cx: &mut Cx<'_>,
        mut spill: Spill,
        snapshot: Snapshot,
        journal_end: Result<i64, RpcError>,
    ) {
        let failure = self.keeper.failure.clone();
        let failed = failure.filter(|_| self.keeper.journal_failures != spill.journal_failures);
        match (journal_end, failed) {
            (Ok(end), None) => spill.journal_end = end,
            (Err(err), _) | (Ok(_), Some(err)) => return self.spill_failed(cx, spill, err),
        }
        spill.journal_bytes = self.keeper.journal_bytes;
        let collect = move |_: &mut Db| Ok(snapshot.collect());
        store::read(cx, collect, move |kvs: &mut Kvs, cx, result| match result {
            Ok(collected) => kvs.spill_step(cx, spill, collected),
            Err(err) => kvs.spill_failed(cx, spill, err),
        });
    }

    /// Stores what is next: a portion of blobs, a portion of the index, the roots.
    fn spill_step(&mut self, cx: &mut Cx<'_>, spill: Spill, collected: Collected) {
        if !collected.blobs.is_empty() {
            self.spill_blobs(cx, spill, collected);
        } else if collected.run.is_none() {
            let mut index = collected.index.clone();
            let begin = move |db: &mut Db| {
                index.sort_unstable();
                db.new_run().map(|run| (run, index))
            };
            self.spill_portion(cx, (spill, collected), begin, |collected, (run, index)| {
                collected.index = index;
                collected.run = Some(run);
            });
        } else if collected.indexed < collected.index.len() {
            self.spill_index(cx, spill, collected);
        } else {
            self.spill_roots(cx, spill, collected);
        }
    }

    /// Has the store's thread do one portion, notes with `note` what it did, and goes on.
    fn spill_portion<T: Send + 'static>(
        &mut self,
        cx: &mut Cx<'_>,
        (spill, mut collected): (Spill, Collected),
        job: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
        note: impl FnOnce(&mut Collected, T) + 'static,
    ) {
        store::write(cx, false, job, move |kvs: &mut Kvs, cx, result| match result {
            Ok(done) => {
                note(&mut collected, done);
                kvs.spill_step(cx, spill, collected);
            }
            Err(err) => kvs.spill_stalled(cx, spill, collected, err),
        });
    }

    fn spill_blobs(&mut self, cx: &mut Cx<'_>, spill: Spill, mut collected: Collected) {
        let (mut portion, mut bytes) = (Vec::new(), 0);
        for blob in collected.blobs.iter().take(PORTION_BLOBS) {
            if bytes >= PORTION_BYTES {
                break;
            }
            bytes += blob.bytes.len();
            portion.push(blob.clone());
        }
        // the store's thread frees what the step before has stored
        let stored = std::mem::take(&mut collected.stored);
        let append = move |db: &mut Db| {
            drop(stored);
            portion.iter().map(|blob| db.append(blob)).collect()
        };
        self.spill_portion(
            cx,
            (spill, collected),
            append,
            |collected, entries: Vec<Entry>| {
                collected.stored = collected.blobs.drain(..entries.len()).collect();
                collected.index.extend(entries);
            },
        );
    }

    fn spill_index(&mut self, cx: &mut Cx<'_>, spill: Spill, collected: Collected) {
        let run = collected.run.unwrap_or_default();
        let left = collected.index.iter().skip(collected.indexed);
        let portion: Vec<Entry> = left.take(PORTION_ENTRIES).copied().collect();
        let add = move |db: &mut Db| db.index(run, &portion).map(|()| portion.len());
        self.spill_portion(cx, (spill, collected), add, |collected, entries| {
            collected.indexed += entries;
        });
    }

    /// Makes the stored blobs what a restart begins with.
    fn spill_roots(&mut self, cx: &mut Cx<'_>, spill: Spill, collected: Collected) {
        let (roots, journal_end) = (spill.roots, spill.journal_end);
        let spaces = collected.spaces.clone();
        let primary = collected.primary.clone().filter(|_| spill.checkpoint);
        let merging = self.keeper.merging;
        let finish = move |db: &mut Db| {
            if roots {
                db.set_spaces(&spaces)?;
                db.clear_journal(journal_end)?;
            }
            if let Some((rootref, seq)) = primary {
                let value = json!({"version": 1, "rootref": rootref, "sequence": seq, "timestamp": now()});
                let id = db.put_checkpoint(&value, 5)?;
                db.set_epoch(id + 1);
                db.set_meta("checkpoint", id)?;
            }
            if merging { Ok(None) } else { db.merge_due() }
        };
        store::write(
            cx,
            spill.sync,
            finish,
            move |kvs: &mut Kvs, cx, result| match result {
                Ok(merge) => {
                    if let Some(merge) = merge {
                        kvs.keeper.merging = true;
                        kvs.merge_runs(cx, merge);
                    }
                    // there may be 50,000 nodes to mark and to let go
                    let mark = move |_: &mut Db| {
                        collected.spilled.mark();
                        drop(collected);
                        Ok(())
                    };
                    store::read(cx, mark, |kvs: &mut Kvs, cx, _| kvs.spill_done(cx, spill));
                }
                Err(err) => kvs.spill_stalled(cx, spill, collected, err),
            },
        );
    }

    fn spill_done(&mut self, cx: &mut Cx<'_>, spill: Spill) {
        let keeper = &mut self.keeper;
        keeper.spilling = false;
        keeper.spill_failed = false;
        keeper.journal_bytes = keeper.journal_bytes.saturating_sub(spill.journal_bytes);
        self.recovered(cx);
        self.thin_all(cx, spill.before);
        spill.held.into_iter().for_each(|reply| reply.send(cx));
        self.keep(cx);
        self.spill_ended(cx, spill.waiting);
    }

    /// Gives a spill up that has stored nothing.
    fn spill_failed(&mut self, cx: &mut Cx<'_>, spill: Spill, err: RpcError) {
        self.keeper.dirty_bytes += spill.dirty_bytes;
        self.keeper.exposed.extend(spill.exposed);
        self.spill_refused(cx, (spill.held, spill.waiting), err);
    }

    /// Lays a spill aside until the store can be written.
    fn spill_stalled(&mut self, cx: &mut Cx<'_>, mut spill: Spill, collected: Collected, err: RpcError) {
        let held = std::mem::take(&mut spill.held);
        let waiting = std::mem::take(&mut spill.waiting);
        self.keeper.stalled = Some(Stalled(spill, collected));
        self.spill_refused(cx, (held, waiting), err);
    }

    fn spill_refused(
        &mut self,
        cx: &mut Cx<'_>,
        (held, waiting): (Vec<ReadyReply>, Vec<Settled>),
        err: RpcError,
    ) {
        self.keeper.spilling = false;
        self.keeper.spill_failed = true;
        held.into_iter().for_each(|reply| reply.fail(cx, &err));
        self.failed(cx, err);
        self.spill_ended(cx, waiting);
    }

    fn spill_ended(&mut self, cx: &mut Cx<'_>, waiting: Vec<Settled>) {
        for settled in waiting {
            settled(cx);
        }
        self.stop_when_kept(cx);
    }

    /// Merges runs of the store's index, a slice at a time. A merge that fails or is interrupted begins again after a later spill.
    fn merge_runs(&mut self, cx: &mut Cx<'_>, mut merge: Merge) {
        if self.keeper.stopping {
            self.keeper.merging = false;
            return;
        }
        let slice = move |db: &mut Db| db.merge_slices(&mut merge).map(|last| (!last).then_some(merge));
        store::write(cx, false, slice, |kvs: &mut Kvs, cx, result| match result {
            Ok(Some(merge)) => kvs.merge_runs(cx, merge),
            Ok(None) => kvs.keeper.merging = false,
            Err(err) => {
                kvs.keeper.merging = false;
                tracing::debug!(err = %err, "runs are not merged");
            }
        });
    }

    /// Lets go of what the store has and what was not changed since `epoch`.
    fn thin_all(&mut self, cx: &mut Cx<'_>, epoch: u32) {
        let (mut left, mut gone) = (0, Vec::from(std::mem::take(&mut self.keeper.recent)));
        for space in self.spaces.values_mut() {
            left += spill::thin(&mut space.root, epoch, self.hash, &mut gone);
        }
        tracing::debug!(bytes = left, "kvs in memory after a spill");
        // freeing thousands of nodes takes milliseconds
        let free = move |_: &mut Db| {
            drop(gone);
            Ok(())
        };
        store::read(cx, free, |_: &mut Kvs, _, _| {});
    }
}

fn now() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
