//! How is a directory node written as a blob? (Design note 0001.)
//!
//! A directory that fits one leaf is its RFC 11 object, canonical JSON as flux-core writes it. Parts of a
//! larger one have a binary form that only the store and this module know:
//!
//! ```text
//! blob   = MAGIC kind:u8 item*          kind 0 = leaf, 1 = branch
//! leaf   item = name tag:u8 body        tag 0 value: size bytes | 1 valref: count (digest size+1|0)*
//!                                       tag 2 dirref: digest | 3 link: size JSON
//! branch item = name digest             name = size bytes, sizes and counts are LEB128
//! ```
//!
//! Clients that load such a blob by `content.load` get the RFC 11 object of the directory it begins.

use super::node::{Dir, Entry, Kind, Name, Node};
use super::value::{Chunk, Value};
use crate::modules::content_sqlite::StoreError;
use bytes::Bytes;
use flux_formats::blobref::{BlobRef, HashType};
use flux_formats::treeobj::{self, TreeObj};
use std::sync::Arc;

/// Begins every blob of the internal form; no JSON text does.
const MAGIC: &[u8] = b"\0flux-kvs-node\x01";
const LEAF: u8 = 0;
const BRANCH: u8 = 1;

/// Why a blob is not a directory node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    /// It is neither a directory object nor the internal form.
    #[error("blob is not a directory")]
    NotDirectory,
    /// The internal form is cut short or damaged.
    #[error("directory node is damaged")]
    Damaged,
    /// The JSON is no tree object.
    #[error(transparent)]
    TreeObj(#[from] treeobj::TreeObjError),
}

/// Returns the blob of a node; hashes what is below.
pub(super) fn encode(node: &Node, hash: HashType) -> Vec<u8> {
    match &node.kind {
        Kind::Whole(entries) => encode_object(entries, hash),
        Kind::Leaf(entries) => {
            let mut out = begin(LEAF, entries.len());
            for (name, entry) in entries {
                put_bytes(&mut out, name.as_bytes());
                put_entry(&mut out, entry, hash);
            }
            out
        }
        Kind::Branch(children) => {
            let mut out = begin(BRANCH, children.len());
            for (name, child) in children {
                put_bytes(&mut out, name.as_bytes());
                out.extend_from_slice(child.blobref(hash).digest());
            }
            out
        }
    }
}

fn begin(kind: u8, count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(MAGIC.len() + 1 + count * 48);
    out.extend_from_slice(MAGIC);
    out.push(kind);
    out
}

/// Returns the RFC 11 object of a directory with these entries, which are in ascending order.
pub(super) fn encode_object(entries: &[(Name, Entry)], hash: HashType) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + entries.len() * 110);
    out.extend_from_slice(b"{\"data\":{");
    for (index, (name, entry)) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_json_string(&mut out, name);
        out.push(b':');
        entry.to_treeobj(hash).encode_to(&mut out);
    }
    out.extend_from_slice(b"},\"type\":\"dir\",\"ver\":1}");
    out
}

fn put_json_string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|c| c >= 0x20 && c != b'"' && c != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else if let Ok(quoted) = serde_json::to_string(text) {
        out.extend_from_slice(quoted.as_bytes());
    }
}

/// Appends a LEB128 number.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or(0);
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends a size and the bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry, hash: HashType) {
    match entry {
        Entry::Value(Value::Inline(bytes)) => {
            out.push(0);
            put_bytes(out, bytes);
        }
        Entry::Value(value) => {
            out.push(1);
            put_number(out, value.chunks().len());
            for chunk in value.chunks() {
                out.extend_from_slice(chunk.blobref(hash).digest());
                put_number(out, chunk.size().map_or(0, |size| size + 1));
            }
        }
        Entry::Dir(dir) => {
            out.push(2);
            out.extend_from_slice(dir.blobref(hash).digest());
        }
        Entry::Link(link) => {
            out.push(3);
            put_bytes(out, &TreeObj::Symlink(link.as_ref().clone()).encode());
        }
    }
}

/// Returns the node that a blob holds.
///
/// # Errors
/// The blob is no directory or damaged.
pub(super) fn decode(blob: &[u8], blobref: BlobRef) -> Result<Arc<Node>, BlobError> {
    let hash = blobref.hash_type();
    let Some(body) = blob.strip_prefix(MAGIC) else {
        if blob.first() != Some(&b'{') {
            return Err(BlobError::NotDirectory);
        }
        return decode_object(blob, blobref);
    };
    let (kind, body) = body.split_first().ok_or(BlobError::Damaged)?;
    let mut reader = Reader { rest: body };
    let kind = match *kind {
        LEAF => {
            let mut entries = Vec::new();
            while !reader.rest.is_empty() {
                entries.push((reader.name()?, reader.entry(hash)?));
            }
            Kind::Leaf(entries)
        }
        BRANCH => {
            let mut children = Vec::new();
            while !reader.rest.is_empty() {
                children.push((reader.name()?, Dir::There(reader.digest(hash)?)));
            }
            Kind::Branch(children)
        }
        _ => return Err(BlobError::Damaged),
    };
    Ok(Arc::new(Node::loaded(kind, blobref)))
}

/// Takes a directory object of any size, as flux-core and `flux restore` write them.
fn decode_object(blob: &[u8], blobref: BlobRef) -> Result<Arc<Node>, BlobError> {
    let dir = TreeObj::decode_dir(blob)?;
    let entries = dir
        .into_iter()
        .map(|(name, object)| (Name::from(name), Entry::from_treeobj(object, 0)))
        .collect::<Vec<_>>();
    let plain = entries
        .iter()
        .all(|(_, entry)| !matches!(entry, Entry::Dir(Dir::Here(_))));
    let node = Dir::build(entries, 0);
    // nested directories would not be written back as they are here
    let canonical = plain && matches!(node.kind, Kind::Whole(_));
    if !canonical {
        return Ok(node);
    }
    Ok(Arc::new(Node::loaded(node.kind.clone(), blobref)))
}

/// Reads the binary form.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn number(&mut self) -> Result<usize, BlobError> {
        let mut number = 0usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f)
                .checked_shl(shift)
                .ok_or(BlobError::Damaged)?;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(BlobError::Damaged)
    }

    pub(super) fn byte(&mut self) -> Result<u8, BlobError> {
        let (first, rest) = self.rest.split_first().ok_or(BlobError::Damaged)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], BlobError> {
        let (taken, rest) = self.rest.split_at_checked(size).ok_or(BlobError::Damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], BlobError> {
        let size = self.number()?;
        self.take(size)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, BlobError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| BlobError::Damaged)
    }

    fn name(&mut self) -> Result<Name, BlobError> {
        self.text().map(Name::from)
    }

    pub(super) fn digest(&mut self, hash: HashType) -> Result<BlobRef, BlobError> {
        BlobRef::from_digest(hash, self.take(hash.digest_size())?).map_err(|_| BlobError::Damaged)
    }

    fn entry(&mut self, hash: HashType) -> Result<Entry, BlobError> {
        Ok(match self.byte()? {
            0 => Entry::Value(Value::Inline(Bytes::copy_from_slice(self.bytes()?))),
            1 => {
                let count = self.number()?;
                let mut chunks = Vec::new();
                for _ in 0..count {
                    let blobref = self.digest(hash)?;
                    chunks.push(Chunk::absent(blobref, self.number()?.checked_sub(1)));
                }
                Entry::Value(Value::from_chunks(chunks))
            }
            2 => Entry::Dir(Dir::There(self.digest(hash)?)),
            3 => match TreeObj::decode(self.bytes()?)? {
                TreeObj::Symlink(link) => Entry::Link(Arc::new(link)),
                _ => return Err(BlobError::Damaged),
            },
            _ => return Err(BlobError::Damaged),
        })
    }
}

/// Gives blobs by name, `None` for one that is not there.
pub(crate) type ReadBlob<'a> = dyn FnMut(&BlobRef) -> Result<Option<Vec<u8>>, StoreError> + 'a;

/// Returns the RFC 11 object of the directory that an internal node begins; `read` gives blobs by name.
///
/// # Errors
/// A node below is missing or damaged; those of `read`.
pub(crate) fn explain(blob: &[u8], blobref: BlobRef, read: &mut ReadBlob<'_>) -> Result<Vec<u8>, StoreError> {
    let mut entries = Vec::new();
    let mut todo = vec![decode(blob, blobref).map_err(|err| unreadable(&blobref, &err.to_string()))?];
    while let Some(node) = todo.pop() {
        match &node.kind {
            Kind::Whole(more) | Kind::Leaf(more) => entries.extend_from_slice(more),
            Kind::Branch(children) => {
                // taken from the end: the first child comes next
                for (_, child) in children.iter().rev() {
                    let blobref = child.blobref(blobref.hash_type());
                    let blob = read(&blobref)?.ok_or_else(|| unreadable(&blobref, "not in the store"))?;
                    todo.push(decode(&blob, blobref).map_err(|err| unreadable(&blobref, &err.to_string()))?);
                }
            }
        }
    }
    Ok(encode_object(&entries, blobref.hash_type()))
}

fn unreadable(blobref: &BlobRef, why: &str) -> StoreError {
    StoreError::Job(format!("directory node {blobref}: {why}").into())
}
