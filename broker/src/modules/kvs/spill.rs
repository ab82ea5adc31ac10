//! How does what is in memory get into the store, and out of memory? (Design note 0001.) Pure.
//!
//! [`collect`] runs on the store's thread: it walks what is not stored yet and encodes it. [`thin`] runs on
//! the broker's thread afterwards: what is stored and was not changed lately is left to the store.

use super::blob;
use super::node::{Dir, Entry, Kind, Node};
use super::value::Chunk;
use bytes::Bytes;
use flux_formats::blobref::{BlobRef, HashType};
use std::sync::Arc;

/// What was put into the store by one spill, to be marked when it is committed.
#[derive(Debug, Default)]
pub(super) struct Spilled {
    nodes: Vec<Arc<Node>>,
    chunks: Vec<Arc<Chunk>>,
}

impl Spilled {
    /// Notes that the store has all of it.
    pub(super) fn mark(&self) {
        self.nodes.iter().for_each(|node| node.set_stored());
        self.chunks.iter().for_each(|chunk| chunk.set_stored());
    }
}

/// Gives every blob below `dir` that is not stored yet to `put`, children before their parents.
///
/// # Errors
/// Those of `put`.
pub(super) fn collect<E>(
    dir: &Dir,
    hash: HashType,
    spilled: &mut Spilled,
    put: &mut dyn FnMut(BlobRef, Bytes, bool) -> Result<(), E>,
) -> Result<(), E> {
    let Dir::Here(node) = dir else { return Ok(()) };
    if node.is_stored() {
        return Ok(());
    }
    match &node.kind {
        Kind::Whole(entries) | Kind::Leaf(entries) => {
            for (_, entry) in entries {
                match entry {
                    Entry::Dir(sub) => collect(sub, hash, spilled, put)?,
                    Entry::Value(value) => {
                        for chunk in value.chunks().iter().filter(|chunk| !chunk.is_stored()) {
                            put(
                                chunk.blobref(hash),
                                chunk.bytes().cloned().unwrap_or_default(),
                                false,
                            )?;
                            spilled.chunks.push(chunk.clone());
                        }
                    }
                    Entry::Link(_) => {}
                }
            }
        }
        Kind::Branch(children) => {
            for (_, child) in children {
                collect(child, hash, spilled, put)?;
            }
        }
    }
    put(
        node.blobref(hash),
        blob::encode(node, hash).into(),
        node.is_internal(),
    )?;
    spilled.nodes.push(node.clone());
    Ok(())
}

/// Leaves to the store what it has and what was not changed since `epoch`; returns the bytes that stay in
/// memory, roughly. What goes is put into `gone`, so that freeing it can be somebody else's work.
pub(super) fn thin(dir: &mut Dir, epoch: u32, hash: HashType, gone: &mut Vec<Dir>) -> usize {
    let Dir::Here(node) = dir else { return 0 };
    if node.is_stored() && node.epoch() < epoch {
        let stub = Dir::There(node.blobref(hash));
        gone.push(std::mem::replace(dir, stub));
        return 0;
    }
    if !has_old(node, epoch) {
        return node.weight();
    }
    let mut kept = 0;
    match Node::edit_residence(node) {
        Kind::Whole(entries) | Kind::Leaf(entries) => {
            for (_, entry) in entries {
                match entry {
                    Entry::Dir(sub) => kept += thin(sub, epoch, hash, gone),
                    Entry::Value(value) => {
                        if let Some(thinned) = value.thin(epoch, hash) {
                            *value = thinned;
                        }
                    }
                    Entry::Link(_) => {}
                }
            }
        }
        Kind::Branch(children) => {
            for (_, child) in children {
                kept += thin(child, epoch, hash, gone);
            }
        }
    }
    kept + node.weight()
}

/// Returns true when something directly below can be left to the store, or may contain such.
fn has_old(node: &Node, epoch: u32) -> bool {
    match &node.kind {
        Kind::Whole(entries) | Kind::Leaf(entries) => entries.iter().any(|(_, entry)| match entry {
            Entry::Dir(sub) => matches!(sub, Dir::Here(_)),
            Entry::Value(value) => value.may_thin(epoch),
            Entry::Link(_) => false,
        }),
        Kind::Branch(children) => children.iter().any(|(_, child)| matches!(child, Dir::Here(_))),
    }
}

/// Returns an estimate of the bytes in memory that a change of this many bytes adds.
pub(super) fn cost(key: &str, bytes: usize) -> usize {
    256 + 2 * key.len() + bytes
}
