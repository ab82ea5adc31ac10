//! How does the state come back when the broker starts again? The roots of the last spill, then the journal.

use super::Kvs;
use super::apply;
use super::fault::{Nodes, Pins};
use super::journal::{self, Record};
use super::node::{Dir, Editor, Stop};
use super::service::{PRIMARY, Space};
use super::txn::{Change, Op, Txn};
use crate::modules::content_sqlite::{Db, SpaceRow, StoreError, local as store};
use crate::service::{Cx, RpcError};
use flux_formats::blobref::BlobRef;
use flux_formats::treeobj::TreeObj;
use serde_json::Value;
use std::collections::VecDeque;
use std::rc::Rc;

/// What the store had.
struct Saved {
    spaces: Vec<SpaceRow>,
    journal: Vec<Vec<u8>>,
    /// The newest checkpoint, when somebody else made it while no KVS was running.
    given: Option<Value>,
}

fn read(db: &mut Db) -> Result<Saved, StoreError> {
    let newest = db.checkpoints()?.into_iter().next();
    let own = db.meta("checkpoint")?;
    let given = newest
        .filter(|(id, _)| own.is_none_or(|own| *id > own))
        .map(|(_, value)| value);
    if given.is_some() {
        return Ok(Saved {
            spaces: Vec::new(),
            journal: Vec::new(),
            given,
        });
    }
    Ok(Saved {
        spaces: db.spaces()?,
        journal: db.journal()?,
        given,
    })
}

impl Kvs {
    /// Begins to restore; requests wait until it is done.
    pub(super) fn restore(&mut self, cx: &mut Cx<'_>) {
        self.keeper
            .begin(cx.provides("content-sqlite"), cx.attrs.get("statedir").is_some());
        if !self.keeper.has_store() {
            self.set_restored(cx);
            return;
        }
        store::read(cx, read, |kvs: &mut Kvs, cx, result| match result {
            Ok(saved) => kvs.restore_from(cx, saved),
            Err(err) => cannot_restore(cx, &err),
        });
    }

    fn restore_from(&mut self, cx: &mut Cx<'_>, saved: Saved) {
        if let Some(value) = saved.given {
            match checkpoint_root(&value) {
                Some((root, seq)) => {
                    let space = Space::new(PRIMARY, self.owner, 0, seq, self.dir_of(root));
                    self.spaces.insert(Rc::from(PRIMARY), space);
                }
                None => {
                    let text = format!("the newest checkpoint is not valid: {value}");
                    cannot_restore(cx, &RpcError::new(flux_formats::errno::EINVAL, text));
                    return;
                }
            }
        }
        for row in saved.spaces {
            let Ok(root) = BlobRef::from_digest(self.hash, &row.root) else {
                let text = format!("namespace {}: root has another hash than content.hash", row.name);
                cannot_restore(cx, &RpcError::new(flux_formats::errno::EINVAL, text));
                return;
            };
            let space = Space::new(&row.name, row.owner, row.flags, row.seq, self.dir_of(root));
            self.spaces.insert(space.name.clone(), space);
        }
        if !self.spaces.contains_key(PRIMARY) {
            let root = Dir::empty(self.keeper.epoch());
            self.spaces
                .insert(Rc::from(PRIMARY), Space::new(PRIMARY, self.owner, 0, 0, root));
        }
        let mut records = VecDeque::new();
        for row in saved.journal {
            match journal::read(&row) {
                Ok(more) => records.extend(more),
                Err(err) => {
                    cannot_restore(
                        cx,
                        &RpcError::new(flux_formats::errno::EIO, format!("journal: {err}")),
                    );
                    return;
                }
            }
        }
        self.replay(cx, records, Pins::default());
    }

    fn dir_of(&self, root: BlobRef) -> Dir {
        if root == TreeObj::empty_dir().blobref(self.hash) {
            Dir::empty(self.keeper.epoch())
        } else {
            Dir::There(root)
        }
    }

    fn replay(&mut self, cx: &mut Cx<'_>, mut records: VecDeque<Record>, pins: Pins) {
        while let Some(record) = records.front() {
            match self.replay_one(record, &pins) {
                Ok(()) => {
                    records.pop_front();
                }
                Err(Stop::Missing(missing)) => {
                    self.load(cx, missing, move |kvs, cx, result| match result {
                        Ok(more) => {
                            let mut pins = pins;
                            pins.extend(more);
                            kvs.replay(cx, records, pins);
                        }
                        Err(err) => cannot_restore(cx, &err),
                    });
                    return;
                }
                Err(Stop::Errno(errnum)) => {
                    // it was applied before the crash, so this cannot be
                    cannot_restore(
                        cx,
                        &RpcError::new(errnum, format!("journal does not apply: {record:?}")),
                    );
                    return;
                }
            }
        }
        self.set_restored(cx);
    }

    fn replay_one(&mut self, record: &Record, pins: &Pins) -> Result<(), Stop> {
        let editor = Editor {
            fetch: &Nodes {
                cache: &self.cache,
                pins,
            },
            epoch: self.keeper.epoch(),
        };
        match record {
            Record::Create {
                namespace,
                owner,
                flags,
                root,
            } => {
                let space = Space::new(namespace, *owner, *flags, 0, self.dir_of(*root));
                self.spaces.insert(space.name.clone(), space);
            }
            Record::Remove { namespace } => {
                self.spaces.swap_remove(namespace.as_str());
            }
            Record::Commit { namespace, seq, txn } => {
                let Some(space) = self.spaces.get_mut(namespace.as_str()) else {
                    return Err(Stop::Errno(flux_formats::errno::ENOTSUP));
                };
                space.root = apply::apply(&space.root, namespace, txn, editor)?;
                space.seq = *seq;
            }
            Record::Absorb { namespace, key, seq } => {
                let Some(root) = self
                    .spaces
                    .get(namespace.as_str())
                    .map(|space| space.root.clone())
                else {
                    return Err(Stop::Errno(flux_formats::errno::ENOTSUP));
                };
                let txn = Txn {
                    ops: vec![Op {
                        key: key.as_str().into(),
                        change: Change::Graft(root),
                    }],
                };
                if let Some(primary) = self.spaces.get_mut(PRIMARY) {
                    primary.root = apply::apply(&primary.root, PRIMARY, &txn, editor)?;
                    primary.seq = *seq;
                }
                self.spaces.swap_remove(namespace.as_str());
            }
        }
        Ok(())
    }
}

/// Returns root and version of a checkpoint object as flux-core writes it.
fn checkpoint_root(value: &Value) -> Option<(BlobRef, u64)> {
    let root = value.get("rootref")?.as_str()?.parse().ok()?;
    Some((root, value.get("sequence").and_then(Value::as_u64).unwrap_or(0)))
}

/// The state cannot be read: going on without it would lose it, so the broker ends.
fn cannot_restore(cx: &mut Cx<'_>, err: &RpcError) {
    cx.log_as_me(
        2,
        &format!("the state cannot be restored: {err}. Nothing was changed; see flux fsck"),
    );
    cx.request_exit(1);
}
