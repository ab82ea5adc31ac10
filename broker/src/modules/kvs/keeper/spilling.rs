//! How does what is in memory get into the store while commits go on?
//!
//! In steps, between which the store's thread writes the journal of newer transactions:
//!
//! 1. Which part of the journal does the snapshot make needless? All that was written when the snapshot was taken.
//! 2. The reading thread encodes and hashes what is not stored yet.
//! 3. The writing thread stores it, a run of blobs at a time, in the order of their digests: the store's index has that order, and blobs that
//!    come as they are in the tree would visit its pages at random. Nobody knows of these blobs before the last step; after a crash they are
//!    garbage for the next collection.
//! 4. Roots, checkpoint, and the end of that part of the journal, in one transaction.

use super::{Kvs, Mode, ReadyReply, Settled};
use crate::modules::content_sqlite::{Blob, Db, SpaceRow, StoreError, local as store};
use crate::modules::kvs::node::Dir;
use crate::modules::kvs::service::PRIMARY;
use crate::modules::kvs::spill::{self, Spilled};
use crate::service::{Cx, RpcError};
use flux_formats::blobref::{BlobRef, HashType};
use serde_json::json;

/// Blobs of one run: a few milliseconds, for which durable commits wait.
const RUN_BLOBS: usize = 1024;
/// Bytes of one run.
const RUN_BYTES: usize = 1 << 20;

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

/// What a snapshot comes to.
struct Collected {
    /// Blobs that are not stored yet, last ones first.
    blobs: Vec<Blob>,
    /// Their nodes and chunks.
    spilled: Spilled,
    spaces: Vec<SpaceRow>,
    /// Root and version of the primary namespace.
    primary: Option<(String, u64)>,
}

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
        let (mut blobs, mut spilled) = (Vec::new(), Spilled::default());
        let mut put = |blobref: BlobRef, bytes, internal| {
            blobs.push(Blob {
                digest: blobref.digest().to_vec(),
                bytes,
                internal,
            });
            Ok::<(), std::convert::Infallible>(())
        };
        let roots = self.spaces.iter().map(|space| &space.root);
        for root in roots.chain(&self.exposed) {
            let Ok(()) = spill::collect(root, self.hash, &mut spilled, &mut put);
        }
        // runs are taken from the end
        blobs.sort_unstable_by(|a, b| b.digest.cmp(&a.digest));
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
            Ok(collected) => kvs.spill_run(cx, spill, collected),
            Err(err) => kvs.spill_failed(cx, spill, err),
        });
    }

    /// Stores the next run.
    fn spill_run(&mut self, cx: &mut Cx<'_>, spill: Spill, mut collected: Collected) {
        let mut run = Vec::new();
        let mut bytes = 0;
        while run.len() < RUN_BLOBS && bytes < RUN_BYTES {
            let Some(blob) = collected.blobs.pop() else { break };
            bytes += blob.bytes.len();
            run.push(blob);
        }
        if run.is_empty() {
            return self.spill_roots(cx, spill, collected);
        }
        let store = move |db: &mut Db| run.iter().try_for_each(|blob| db.store(blob));
        store::write(cx, false, store, move |kvs: &mut Kvs, cx, result| match result {
            Ok(()) => kvs.spill_run(cx, spill, collected),
            Err(err) => kvs.spill_failed(cx, spill, err),
        });
    }

    /// Makes the stored blobs what a restart begins with.
    fn spill_roots(&mut self, cx: &mut Cx<'_>, spill: Spill, collected: Collected) {
        let Collected {
            spilled,
            spaces,
            primary,
            ..
        } = collected;
        let (roots, journal_end) = (spill.roots, spill.journal_end);
        let primary = primary.filter(|_| spill.checkpoint);
        let finish = move |db: &mut Db| -> Result<(), StoreError> {
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
            Ok(())
        };
        store::write(
            cx,
            spill.sync,
            finish,
            move |kvs: &mut Kvs, cx, result| match result {
                Ok(()) => kvs.spill_done(cx, spill, &spilled),
                Err(err) => kvs.spill_failed(cx, spill, err),
            },
        );
    }

    fn spill_done(&mut self, cx: &mut Cx<'_>, spill: Spill, spilled: &Spilled) {
        spilled.mark();
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

    fn spill_failed(&mut self, cx: &mut Cx<'_>, spill: Spill, err: RpcError) {
        let keeper = &mut self.keeper;
        keeper.spilling = false;
        keeper.spill_failed = true;
        keeper.dirty_bytes += spill.dirty_bytes;
        keeper.exposed.extend(spill.exposed);
        spill.held.into_iter().for_each(|reply| reply.fail(cx, &err));
        self.failed(cx, err);
        self.spill_ended(cx, spill.waiting);
    }

    fn spill_ended(&mut self, cx: &mut Cx<'_>, waiting: Vec<Settled>) {
        for settled in waiting {
            settled(cx);
        }
        self.stop_when_kept(cx);
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
