//! How is a value held so that appending does not cost its size?
//!
//! A value is inline bytes, or a short list of chunks, each of which becomes one blob. Appending copies at
//! most [`TAIL_MAX`] bytes; [`FAN_IN`] small chunks are merged into one of the next size, so that a value has
//! at most a few dozen chunks per MiB whatever the number of appends, and each byte is copied three times.

use bytes::{Bytes, BytesMut};
use flux_formats::blobref::{BlobRef, HashType};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Longest value in bytes that stays inside its directory object: flux-core makes a blob when the base64 text
/// is longer than a blobref can be (72 characters).
pub(super) const INLINE_MAX: usize = 54;
/// An append is copied into the last chunk while that stays within this size in bytes.
const TAIL_MAX: usize = 4096;
/// Sizes in bytes at which chunks are no longer merged with equals.
const CLASSES: [usize; 2] = [64 << 10, 1 << 20];
/// Number of chunks of one class that are merged.
const FAN_IN: usize = 16;

/// A part of a value that is, or will be, one blob.
#[derive(Debug)]
pub(super) struct Chunk {
    /// `None` when only the store has them.
    bytes: Option<Bytes>,
    /// `None` when the chunk came from a valref and was never loaded.
    size: Option<usize>,
    blobref: OnceLock<BlobRef>,
    stored: AtomicBool,
    epoch: u32,
}

impl Chunk {
    fn new(bytes: Bytes, epoch: u32) -> Arc<Self> {
        let size = Some(bytes.len());
        Arc::new(Chunk {
            bytes: Some(bytes),
            size,
            blobref: OnceLock::new(),
            stored: AtomicBool::new(false),
            epoch,
        })
    }

    /// Returns a chunk that only the store has.
    pub(super) fn absent(blobref: BlobRef, size: Option<usize>) -> Arc<Self> {
        Arc::new(Chunk {
            bytes: None,
            size,
            blobref: OnceLock::from(blobref),
            stored: AtomicBool::new(true),
            epoch: 0,
        })
    }

    /// Returns the blobref, hashing at the first call.
    pub(super) fn blobref(&self, hash: HashType) -> BlobRef {
        *self
            .blobref
            .get_or_init(|| BlobRef::compute(hash, self.bytes.as_deref().unwrap_or_default()))
    }

    /// Returns the bytes when they are in memory.
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        self.bytes.as_ref()
    }

    /// Returns the size in bytes when it is known.
    pub(super) fn size(&self) -> Option<usize> {
        self.size
    }

    /// Returns true when the store has the blob.
    pub(super) fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Acquire)
    }

    /// Notes that the store has the blob.
    pub(super) fn set_stored(&self) {
        self.stored.store(true, Ordering::Release);
    }

    fn is_droppable(&self, epoch: u32) -> bool {
        self.bytes.is_some() && self.epoch < epoch && self.is_stored()
    }

    fn below(&self, limit: usize) -> bool {
        self.bytes.as_ref().is_some_and(|bytes| bytes.len() < limit)
    }
}

/// The bytes of a key.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Inside the directory object.
    Inline(Bytes),
    /// One blob.
    One(Arc<Chunk>),
    /// The concatenation of blobs; none is the empty value of an empty valref.
    Many(Arc<[Arc<Chunk>]>),
}

impl Value {
    /// Returns a value of these bytes.
    pub(super) fn new(bytes: Bytes, epoch: u32) -> Self {
        if bytes.len() <= INLINE_MAX {
            Value::Inline(bytes)
        } else {
            Value::One(Chunk::new(bytes, epoch))
        }
    }

    /// Returns the value that a valref names.
    pub(super) fn from_refs(refs: &[BlobRef]) -> Self {
        match refs {
            [blobref] => Value::One(Chunk::absent(*blobref, None)),
            _ => Value::Many(refs.iter().map(|blobref| Chunk::absent(*blobref, None)).collect()),
        }
    }

    /// Returns the value that consists of these chunks.
    pub(super) fn from_chunks(mut chunks: Vec<Arc<Chunk>>) -> Self {
        match (chunks.pop(), chunks.is_empty()) {
            (Some(only), true) => Value::One(only),
            (Some(last), false) => {
                chunks.push(last);
                Value::Many(chunks.into())
            }
            (None, _) => Value::Many(Arc::new([])),
        }
    }

    /// Returns the chunks; none for an inline value.
    pub(super) fn chunks(&self) -> &[Arc<Chunk>] {
        match self {
            Value::Inline(_) => &[],
            Value::One(chunk) => std::slice::from_ref(chunk),
            Value::Many(chunks) => chunks,
        }
    }

    /// Returns the value with `data` appended.
    #[must_use]
    pub(super) fn append(&self, data: &Bytes, epoch: u32) -> Self {
        if data.is_empty() {
            return self.clone();
        }
        match self {
            Value::Inline(old) if old.is_empty() => Value::new(data.clone(), epoch),
            Value::Inline(old) if old.len() + data.len() <= TAIL_MAX => Value::new(join(&[old, data]), epoch),
            Value::Inline(old) => Value::Many(Arc::new([
                Chunk::new(old.clone(), epoch),
                Chunk::new(data.clone(), epoch),
            ])),
            Value::One(_) | Value::Many(_) => Value::from_chunks(append_chunks(self.chunks(), data, epoch)),
        }
    }

    /// Returns the size in bytes, `None` when a chunk that was never loaded is part of it.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Value::Inline(bytes) => Some(bytes.len()),
            Value::One(chunk) => chunk.size(),
            Value::Many(chunks) => chunks.iter().map(|chunk| chunk.size()).sum(),
        }
    }

    /// Returns the bytes from `offset` on; `absent` supplies chunks that are not in memory.
    ///
    /// # Errors
    /// The blobrefs of chunks which are neither in memory nor supplied.
    pub(super) fn read(
        &self,
        offset: usize,
        absent: &dyn Fn(&BlobRef) -> Option<Bytes>,
        hash: HashType,
    ) -> Result<Bytes, Vec<BlobRef>> {
        if let Value::Inline(bytes) = self {
            return Ok(bytes.slice(offset.min(bytes.len())..));
        }
        let (mut at, mut parts, mut missing) = (0, Vec::new(), Vec::new());
        for chunk in self.chunks() {
            if let Some(size) = chunk.size()
                && at + size <= offset
            {
                at += size;
                continue;
            }
            match chunk.bytes().cloned().or_else(|| absent(&chunk.blobref(hash))) {
                Some(bytes) => {
                    let skip = offset.saturating_sub(at).min(bytes.len());
                    at += bytes.len();
                    parts.push(bytes.slice(skip..));
                }
                None => missing.push(chunk.blobref(hash)),
            }
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        Ok(match (parts.pop(), parts.is_empty()) {
            (None, _) => Bytes::new(),
            (Some(only), true) => only,
            (Some(last), false) => {
                parts.push(last);
                join(&parts.iter().collect::<Vec<_>>())
            }
        })
    }

    /// Returns true when [`Value::thin`] would drop something.
    pub(super) fn may_thin(&self, epoch: u32) -> bool {
        self.chunks().iter().any(|chunk| chunk.is_droppable(epoch))
    }

    /// Returns the value without the bytes of chunks that the store has and that are older than `epoch`;
    /// `None` when nothing can be dropped.
    pub(super) fn thin(&self, epoch: u32, hash: HashType) -> Option<Self> {
        if !self.may_thin(epoch) {
            return None;
        }
        let thinned = self.chunks().iter().map(|chunk| {
            if chunk.is_droppable(epoch) {
                Chunk::absent(chunk.blobref(hash), chunk.size)
            } else {
                chunk.clone()
            }
        });
        Some(Value::from_chunks(thinned.collect()))
    }

    /// Returns the number of bytes that the value occupies in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        match self {
            Value::Inline(bytes) => bytes.len(),
            _ => self
                .chunks()
                .iter()
                .map(|chunk| 150 + chunk.bytes.as_ref().map_or(0, Bytes::len))
                .sum(),
        }
    }
}

fn append_chunks(old: &[Arc<Chunk>], data: &Bytes, epoch: u32) -> Vec<Arc<Chunk>> {
    let mut chunks = Vec::with_capacity(old.len() + 1);
    chunks.extend_from_slice(old);
    let tail = chunks
        .last()
        .and_then(|chunk| chunk.bytes.clone())
        .filter(|tail| tail.len() + data.len() <= TAIL_MAX);
    if let Some(tail) = tail {
        chunks.pop();
        chunks.push(Chunk::new(join(&[&tail, data]), epoch));
        return chunks;
    }
    chunks.push(Chunk::new(data.clone(), epoch));
    for limit in CLASSES {
        let count = chunks.iter().rev().take_while(|chunk| chunk.below(limit)).count();
        if count < FAN_IN {
            break;
        }
        let small = chunks.split_off(chunks.len() - count);
        let parts: Vec<&Bytes> = small.iter().filter_map(|chunk| chunk.bytes()).collect();
        chunks.push(Chunk::new(join(&parts), epoch));
    }
    chunks
}

fn join(parts: &[&Bytes]) -> Bytes {
    let mut all = BytesMut::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        all.extend_from_slice(part);
    }
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(value: &Value, offset: usize) -> Bytes {
        value.read(offset, &|_| None, HashType::Sha1).unwrap()
    }

    #[test]
    fn many_appends_few_chunks() {
        let mut value = Value::new(Bytes::new(), 0);
        let line = Bytes::from(vec![b'x'; 100]);
        for _ in 0..50_000 {
            value = value.append(&line, 0);
        }
        assert_eq!(value.size(), Some(5_000_000));
        assert!(value.chunks().len() < 5 + 2 * FAN_IN, "{}", value.chunks().len());
        assert_eq!(all(&value, 4_999_950).len(), 50);
    }

    #[test]
    fn thin_keeps_size_and_asks_for_the_rest() {
        let value = Value::new(Bytes::from(vec![7; 100]), 1);
        assert!(value.thin(2, HashType::Sha1).is_none());
        value.chunks()[0].set_stored();
        let thin = value.thin(2, HashType::Sha1).unwrap();
        assert_eq!(thin.size(), Some(100));
        let want = BlobRef::compute(HashType::Sha1, &[7; 100]);
        assert_eq!(thin.read(0, &|_| None, HashType::Sha1), Err(vec![want]));
        assert_eq!(thin.read(100, &|_| None, HashType::Sha1), Ok(Bytes::new()));
        let grown = thin.append(&Bytes::from_static(b"abc"), 3);
        assert_eq!(
            grown.read(100, &|_| None, HashType::Sha1),
            Ok(Bytes::from_static(b"abc"))
        );
    }

    proptest! {
        #[test]
        fn append_is_concatenation(parts: Vec<Vec<u8>>, big in 0usize..9000, from in 0usize..200) {
            let mut value = Value::new(Bytes::new(), 0);
            let mut model = Vec::new();
            for part in parts.into_iter().chain([vec![1; big], vec![2; 60], vec![3; big]]) {
                value = value.append(&Bytes::from(part.clone()), 0);
                model.extend(part);
                prop_assert_eq!(value.size(), Some(model.len()));
            }
            let from = from.min(model.len());
            prop_assert_eq!(all(&value, from), &model[from..]);
        }
    }
}
