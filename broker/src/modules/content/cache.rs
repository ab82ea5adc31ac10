//! Which blobs are in memory? Pure; clean ones go when they are too many.

use bytes::Bytes;
use flux_formats::blobref::BlobRef;
use std::collections::HashMap;

/// Bytes of clean blobs to keep.
const CLEAN_BYTES_MAX: usize = 32 << 20;

/// One blob.
#[derive(Clone, Debug)]
struct Entry {
    bytes: Bytes,
    /// It is a directory node of the KVS's own form.
    internal: bool,
    /// No store has it yet.
    dirty: bool,
    used: u64,
}

/// Blobs by name.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<BlobRef, Entry>,
    clean_bytes: usize,
    dirty_bytes: usize,
    dirty: usize,
    clock: u64,
}

impl Cache {
    /// Returns a blob and whether it is a directory node of the KVS's own form.
    pub(super) fn get(&mut self, blobref: &BlobRef) -> Option<(Bytes, bool)> {
        self.clock += 1;
        let entry = self.entries.get_mut(blobref)?;
        entry.used = self.clock;
        Some((entry.bytes.clone(), entry.internal))
    }

    /// Returns a blob without counting it as used.
    pub(super) fn peek(&self, blobref: &BlobRef) -> Option<Bytes> {
        self.entries.get(blobref).map(|entry| entry.bytes.clone())
    }

    /// Adds a blob; one that is there stays as it is, but becomes dirty when `dirty` and it was not stored.
    pub(super) fn insert(&mut self, blobref: BlobRef, bytes: Bytes, internal: bool, dirty: bool) {
        self.clock += 1;
        if let Some(entry) = self.entries.get_mut(&blobref) {
            entry.used = self.clock;
            entry.internal |= internal;
            return;
        }
        if dirty {
            self.dirty += 1;
            self.dirty_bytes += bytes.len();
        } else {
            self.clean_bytes += bytes.len();
        }
        self.entries.insert(
            blobref,
            Entry {
                bytes,
                internal,
                dirty,
                used: self.clock,
            },
        );
        if self.clean_bytes > CLEAN_BYTES_MAX {
            self.trim();
        }
    }

    /// Drops the older half of the clean blobs.
    fn trim(&mut self) {
        let mut uses: Vec<u64> = self
            .entries
            .values()
            .filter(|entry| !entry.dirty)
            .map(|entry| entry.used)
            .collect();
        if uses.is_empty() {
            return;
        }
        let middle = uses.len() / 2;
        let (_, median, _) = uses.select_nth_unstable(middle);
        let limit = *median;
        self.entries.retain(|_, entry| entry.dirty || entry.used > limit);
        self.count_clean();
    }

    fn count_clean(&mut self) {
        self.clean_bytes = self
            .entries
            .values()
            .filter(|entry| !entry.dirty)
            .map(|entry| entry.bytes.len())
            .sum();
    }

    /// Returns the dirty blobs; they stay dirty until [`Cache::stored`].
    pub(super) fn dirty_blobs(&self) -> Vec<(BlobRef, Bytes, bool)> {
        let dirty = self.entries.iter().filter(|(_, entry)| entry.dirty);
        dirty
            .map(|(blobref, entry)| (*blobref, entry.bytes.clone(), entry.internal))
            .collect()
    }

    /// Notes that the store has a blob.
    pub(super) fn stored(&mut self, blobref: &BlobRef) {
        if let Some(entry) = self.entries.get_mut(blobref).filter(|entry| entry.dirty) {
            entry.dirty = false;
            self.dirty -= 1;
            self.dirty_bytes -= entry.bytes.len();
            self.clean_bytes += entry.bytes.len();
        }
        if self.clean_bytes > CLEAN_BYTES_MAX {
            self.trim();
        }
    }

    /// Drops all clean blobs.
    pub(super) fn drop_clean(&mut self) {
        self.entries.retain(|_, entry| entry.dirty);
        self.clean_bytes = 0;
    }

    /// Returns the number of blobs, of dirty ones, and the bytes of all.
    pub(super) fn figures(&self) -> (usize, usize, usize) {
        (
            self.entries.len(),
            self.dirty,
            self.clean_bytes + self.dirty_bytes,
        )
    }

    /// Returns the bytes of dirty blobs.
    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flux_formats::blobref::HashType;

    #[test]
    fn clean_is_bounded_dirty_stays() {
        let mut cache = Cache::default();
        let name = |n: u32| BlobRef::compute(HashType::Sha1, &n.to_be_bytes());
        for n in 0..100 {
            cache.insert(name(n), Bytes::from(vec![0; 1 << 20]), false, n < 3);
        }
        assert!(cache.clean_bytes <= CLEAN_BYTES_MAX);
        assert!((0..3).all(|n| cache.get(&name(n)).is_some()));
        assert!(cache.get(&name(99)).is_some());
        assert_eq!((cache.dirty, cache.dirty_bytes()), (3, 3 << 20));
        (0..3).for_each(|n| cache.stored(&name(n)));
        assert_eq!((cache.dirty, cache.dirty_bytes()), (0, 0));
        cache.drop_clean();
        assert_eq!(cache.figures(), (0, 0, 0));
    }
}
