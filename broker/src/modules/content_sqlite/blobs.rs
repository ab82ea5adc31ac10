//! Where is a blob in the file, and how is it found by its digest?
//!
//! Rows of `blobs` are only appended. An index finds them by the first eight bytes of their digest. Digests come in no order, and one index in
//! their order would have a page read, changed and written back twice for each new blob, once it is larger than the cache (after a
//! million jobs that took more time than all the rest). So the index is made of *runs*: each spill appends one; when there are sixteen of a level, they
//! are merged into one of the next level. A lookup asks each run: some thirty after a million jobs.
//!
//! A run is cut into *slices* by the first bits of the digests, 256 for a run of level 0 and sixteen times as many for each further level, so that a slice has about
//! twenty entries whatever the level. A row of `index_slices` is one of them: its id is the number of the run, then that of the slice; sorted entries of 16 bytes,
//! prefix and row id, both big-endian. (An integer as key, since inner pages of SQLite hold whole keys: with the slice in the key there were five children to a page.) A merge
//! takes the same slice of all runs, a few rows, and cuts it into sixteen. Blobs that come alone (`content.store`) are rows of `blob_index`, as run 0, until the
//! next merge; layout 2 had all runs there. Layout 3 had the same slices in a table with a key of two columns: they are copied when the file is opened.
//!
//! The same bytes may be there once per spill. `objects` is the table of flux-core, and ours up to layout 1: read, and never added to.

use super::db::{Blob, Db, StoreError};
use rusqlite::{OptionalExtension, Row, params};

/// Blobs of at least this size in bytes are compressed.
const COMPRESS_MIN: usize = 256;
/// Runs of a level that become one of the next.
const MERGE_RUNS: usize = 16;
/// Bits of a digest that name a slice of a run of level 0 ...
const SLICE_BITS: u32 = 8;
/// ... and how many there are more for each level: a slice is cut into as many as there are runs in a merge.
const LEVEL_BITS: u32 = 4;
/// Runs of this level and above are cut alike.
const LEVEL_MAX: i64 = 5;
/// Bits of a row id of `index_slices` that name the slice; the run is above them.
const RUN_SHIFT: u32 = 28;
/// Bytes of an entry of a slice.
const ENTRY_BYTES: usize = 16;
/// Slices that are merged between two transactions of others.
const MERGE_STEP: u64 = 16;

/// Tables of this file.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS objects(hash BLOB PRIMARY KEY, size INT, object BLOB, epoch INT DEFAULT 0, kind INT DEFAULT 0);
CREATE TABLE IF NOT EXISTS blobs(id INTEGER PRIMARY KEY, hash BLOB, size INT, object BLOB, epoch INT, kind INT);
CREATE TABLE IF NOT EXISTS runs(run INTEGER PRIMARY KEY, level INT);
CREATE TABLE IF NOT EXISTS blob_index(run INT, prefix INT, id INT, PRIMARY KEY(run, prefix, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS index_slices(id INTEGER PRIMARY KEY, entries BLOB);
INSERT OR IGNORE INTO runs(run, level) VALUES(0, 0);
";

/// The slices in which prefix ?1 would be, the newest run first; the other parameters are those of [`slices_of`].
const SLICES_OF_PREFIX: &str = "SELECT id, entries FROM runs CROSS JOIN index_slices ON id = (run << ?5)
     + ((?1 >> (64 - ?2 - ?3 * MIN(level, ?4))) & ((1 << (?2 + ?3 * MIN(level, ?4))) - 1)) ORDER BY run DESC";

const FORGET_SLICE: &str = "DELETE FROM index_slices WHERE id = ?1";

/// An entry of the index: the beginning of a digest and the id of its row.
pub(crate) type Entry = (i64, i64);

/// Runs that are being merged into one.
#[derive(Debug)]
pub(crate) struct Merge {
    level: i64,
    from: Vec<i64>,
    into: i64,
    done: u64,
}

/// Returns how many bits name a slice of a run of this level.
fn slice_bits(level: i64) -> u32 {
    SLICE_BITS + LEVEL_BITS * u32::try_from(level.clamp(0, LEVEL_MAX)).unwrap_or(0)
}

/// Returns the slice of a run of this level that a prefix belongs to.
fn slice_of(prefix: i64, level: i64) -> u64 {
    prefix.cast_unsigned() >> (64 - slice_bits(level))
}

/// Returns the parameters of [`SLICES_OF_PREFIX`].
fn slices_of(prefix: i64) -> [i64; 5] {
    [
        prefix,
        i64::from(SLICE_BITS),
        i64::from(LEVEL_BITS),
        LEVEL_MAX,
        i64::from(RUN_SHIFT),
    ]
}

/// Returns the row of a slice in `index_slices`.
fn slice_row(run: i64, slice: u64) -> i64 {
    (run << RUN_SHIFT) | slice.cast_signed()
}

fn pack(entries: &[Entry]) -> Vec<u8> {
    let numbers = entries.iter().flat_map(|(prefix, id)| [*prefix, *id]);
    numbers.flat_map(i64::to_be_bytes).collect()
}

/// Reads the entries of a slice; bytes that are no whole entry are not looked at.
fn unpack(entries: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0_i64, |number, byte| (number << 8) | i64::from(*byte))
    };
    entries.chunks_exact(ENTRY_BYTES).map(move |entry| {
        let (prefix, id) = entry.split_at(ENTRY_BYTES / 2);
        (number(prefix), number(id))
    })
}

/// Returns what the index knows of a digest.
fn prefix(digest: &[u8]) -> i64 {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    i64::from_be_bytes(bytes)
}

fn read_id(row: &Row<'_>) -> rusqlite::Result<i64> {
    row.get(0)
}

/// A row as it is stored.
struct Packed {
    bytes: Vec<u8>,
    size: i64,
    internal: bool,
}

impl Packed {
    fn read(row: &Row<'_>) -> rusqlite::Result<Packed> {
        let object = row.get_ref(0)?;
        Ok(Packed {
            bytes: object.as_blob_or_null()?.unwrap_or_default().to_vec(),
            size: row.get(1)?,
            internal: row.get(2)?,
        })
    }
}

impl Db {
    /// Stores a blob; one that is there keeps its place and becomes young for garbage collection.
    pub(crate) fn store(&self, blob: &Blob) -> Result<(), StoreError> {
        let young = "SET epoch = MAX(epoch, ?2), kind = MAX(kind, ?3)";
        if let Some(id) = self.find(&blob.digest, "id", read_id)? {
            let sql = format!("UPDATE blobs {young} WHERE id = ?1");
            return self
                .change(&sql, params![id, self.epoch(), blob.internal])
                .map(drop);
        }
        let sql = format!("UPDATE objects {young} WHERE hash = ?1");
        if self.change(&sql, params![blob.digest, self.epoch(), blob.internal])? > 0 {
            return Ok(());
        }
        let entry = self.append(blob)?;
        self.index(0, &[entry])
    }

    /// Adds a blob that [`Db::index`] makes known.
    pub(crate) fn append(&self, blob: &Blob) -> Result<Entry, StoreError> {
        let packed = (blob.bytes.len() >= COMPRESS_MIN).then(|| lz4_flex::block::compress(&blob.bytes));
        let (size, object) = match &packed {
            Some(packed) if packed.len() < blob.bytes.len() => (
                i64::try_from(blob.bytes.len()).unwrap_or(i64::MAX),
                packed.as_slice(),
            ),
            _ => (-1, blob.bytes.as_ref()),
        };
        let sql = "INSERT INTO blobs(hash, size, object, epoch, kind) VALUES(?1, ?2, ?3, ?4, ?5)";
        self.change(
            sql,
            params![blob.digest, size, object, self.epoch(), blob.internal],
        )?;
        Ok((prefix(&blob.digest), self.connection.last_insert_rowid()))
    }

    /// Begins a run of the index.
    pub(crate) fn new_run(&self) -> Result<i64, StoreError> {
        self.add_run(0)
    }

    fn add_run(&self, level: i64) -> Result<i64, StoreError> {
        self.change("INSERT INTO runs(level) VALUES(?1)", params![level])?;
        Ok(self.connection.last_insert_rowid())
    }

    /// Adds sorted entries to run 0 or one that [`Db::new_run`] began.
    pub(crate) fn index(&self, run: i64, entries: &[Entry]) -> Result<(), StoreError> {
        if run != 0 {
            return self.add_slices(run, 0, entries);
        }
        let sql = "INSERT OR IGNORE INTO blob_index(run, prefix, id) VALUES(?1, ?2, ?3)";
        entries
            .iter()
            .try_for_each(|(prefix, id)| self.change(sql, params![run, prefix, id]).map(drop))
    }

    /// Adds sorted entries to a run of some level.
    fn add_slices(&self, run: i64, level: i64, entries: &[Entry]) -> Result<(), StoreError> {
        for entries in entries.chunk_by(|(a, _), (b, _)| slice_of(*a, level) == slice_of(*b, level)) {
            let slice = entries.first().map_or(0, |(prefix, _)| slice_of(*prefix, level));
            // a portion may have ended within it
            let mut all = self.slice(run, slice)?;
            all.extend(entries);
            all.sort_unstable();
            all.dedup();
            let put = "INSERT OR REPLACE INTO index_slices(id, entries) VALUES(?1, ?2)";
            self.change(put, params![slice_row(run, slice), pack(&all)])?;
        }
        Ok(())
    }

    fn slice(&self, run: i64, slice: u64) -> Result<Vec<Entry>, StoreError> {
        let sql = "SELECT entries FROM index_slices WHERE id = ?1";
        let read = |row: &Row<'_>| -> rusqlite::Result<Vec<Entry>> {
            Ok(unpack(row.get_ref(0)?.as_blob()?).collect())
        };
        let entries = self.query(sql, params![slice_row(run, slice)], read)?;
        Ok(entries.unwrap_or_default())
    }

    /// Moves the slices of a file of layout 3 to where they are now.
    pub(super) fn take_slices(&self) -> Result<(), StoreError> {
        let sql = "INSERT INTO index_slices(id, entries) SELECT (run << ?1) + slice, entries FROM slices";
        self.change(sql, params![RUN_SHIFT])?;
        self.check(self.connection.execute_batch("DROP TABLE slices"))
    }

    /// Returns a merge when a level has enough runs.
    pub(crate) fn merge_due(&self) -> Result<Option<Merge>, StoreError> {
        let sql = "SELECT level FROM runs GROUP BY level HAVING COUNT(*) >= ?1 ORDER BY level LIMIT 1";
        let due = self.query(
            sql,
            params![i64::try_from(MERGE_RUNS).unwrap_or(i64::MAX)],
            |row| row.get(0),
        )?;
        let Some(level): Option<i64> = due else {
            return Ok(None);
        };
        let mut statement = self.prepare("SELECT run FROM runs WHERE level = ?1")?;
        let rows = statement.query_map([level], |row| row.get(0));
        let from = self.check(rows.and_then(Iterator::collect))?;
        Ok(Some(Merge {
            level,
            from,
            into: self.add_run(level + 1)?,
            done: 0,
        }))
    }

    /// Merges the next slices; returns true when those were the last.
    pub(crate) fn merge_slices(&self, merge: &mut Merge) -> Result<bool, StoreError> {
        let all = 1_u64 << slice_bits(merge.level);
        let end = all.min(merge.done + MERGE_STEP);
        for slice in merge.done..end {
            self.merge_slice(merge, slice)?;
        }
        merge.done = end;
        if end < all {
            return Ok(false);
        }
        for run in merge.from.iter().filter(|run| **run != 0) {
            self.change("DELETE FROM runs WHERE run = ?1", params![run])?;
        }
        Ok(true)
    }

    fn merge_slice(&self, merge: &Merge, slice: u64) -> Result<(), StoreError> {
        let shift = 64 - slice_bits(merge.level);
        let low = (slice << shift).cast_signed();
        let high = low.wrapping_add_unsigned((1_u64 << shift) - 1);
        let mut entries: Vec<Entry> = Vec::new();
        for run in &merge.from {
            let packed = self.slice(*run, slice)?;
            if !packed.is_empty() {
                entries.extend(packed);
                self.change(FORGET_SLICE, params![slice_row(*run, slice)])?;
            }
            let before = entries.len();
            let find = "SELECT prefix, id FROM blob_index WHERE run = ?1 AND prefix BETWEEN ?2 AND ?3";
            let mut statement = self.prepare(find)?;
            let rows = statement.query_map(params![run, low, high], |row| Ok((row.get(0)?, row.get(1)?)));
            entries.extend(self.check(rows.and_then(Iterator::collect::<Result<Vec<Entry>, _>>))?);
            if entries.len() > before {
                let forget = "DELETE FROM blob_index WHERE run = ?1 AND prefix BETWEEN ?2 AND ?3";
                self.change(forget, params![run, low, high])?;
            }
        }
        entries.sort_unstable();
        self.add_slices(merge.into, merge.level + 1, &entries)
    }

    /// Returns what `read` takes from the columns of a blob's row in `blobs`.
    ///
    /// A reader may be without a transaction, and a merge may move entries while it looks: they only ever move from `blob_index` to `index_slices`, so it looks there in
    /// this order, and all slices are one statement.
    fn find<T>(
        &self,
        digest: &[u8],
        columns: &str,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let prefix = prefix(digest);
        let first = prefix.to_be_bytes();
        let row = format!("SELECT {columns} FROM blobs WHERE id = ?1 AND hash = ?2");
        let sql = "SELECT id FROM runs CROSS JOIN blob_index ON blob_index.run = runs.run AND prefix = ?1 ORDER BY runs.run DESC";
        let mut alone = self.prepare(sql)?;
        let mut rows = self.check(alone.query([prefix]))?;
        while let Some(index) = self.check(rows.next())? {
            let id: i64 = self.check(index.get(0))?;
            if let Some(found) = self.query(&row, params![id, digest], read)? {
                return Ok(Some(found));
            }
        }
        let mut slices = self.prepare(SLICES_OF_PREFIX)?;
        let mut rows = self.check(slices.query(slices_of(prefix)))?;
        while let Some(slice) = self.check(rows.next())? {
            let entries = self.check(slice.get_ref(1).and_then(|entries| Ok(entries.as_blob()?)))?;
            // compared as they are: there are dozens in each slice, and one at most is meant
            let entries = entries.chunks_exact(ENTRY_BYTES);
            for (_, id) in entries.filter(|entry| entry.starts_with(&first)).flat_map(unpack) {
                if let Some(found) = self.query(&row, params![id, digest], read)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Returns a blob and whether it is a directory node of the KVS's own form.
    pub(crate) fn load(&self, digest: &[u8]) -> Result<Option<(Vec<u8>, bool)>, StoreError> {
        let mut row = self.find(digest, "object, size, kind", Packed::read)?;
        if row.is_none() {
            let sql = "SELECT object, size, kind FROM objects WHERE hash = ?1";
            row = self.query(sql, params![digest], Packed::read)?;
        }
        let Some(Packed {
            bytes,
            size,
            internal,
        }) = row
        else {
            return Ok(None);
        };
        let Ok(size) = usize::try_from(size) else {
            return Ok(Some((bytes, internal)));
        };
        // a block of LZ4 never grows more than 255 times
        if size > bytes.len().saturating_mul(255).saturating_add(64) {
            return Err(self.damaged(digest));
        }
        match lz4_flex::block::decompress(&bytes, size) {
            Ok(plain) if plain.len() == size => Ok(Some((plain, internal))),
            _ => Err(self.damaged(digest)),
        }
    }

    /// Returns true when the blob is there.
    pub(crate) fn has(&self, digest: &[u8]) -> Result<bool, StoreError> {
        if self.find(digest, "id", read_id)?.is_some() {
            return Ok(true);
        }
        let sql = "SELECT 1 FROM objects WHERE hash = ?1";
        let row = self.query(sql, params![digest], |row| row.get::<_, i64>(0))?;
        Ok(row.is_some())
    }

    /// Marks a blob as reached by the garbage collection `epoch`; returns whether it is a directory node of
    /// the KVS's own form, `None` when there is no such blob.
    pub(crate) fn mark(&self, epoch: i64, digest: &[u8]) -> Result<Option<bool>, StoreError> {
        if let Some(id) = self.find(digest, "id", read_id)? {
            let sql = "UPDATE blobs SET epoch = MAX(epoch, ?1) WHERE id = ?2 RETURNING kind";
            return self.query(sql, params![epoch, id], |row| row.get(0));
        }
        let sql = "UPDATE objects SET epoch = MAX(epoch, ?1) WHERE hash = ?2 RETURNING kind";
        self.query(sql, params![epoch, digest], |row| row.get(0))
    }

    /// Deletes at most `delete_cap` blobs older than `epoch` with row ids above `cursor` and up to
    /// `high_water`, looking at `window` of them; returns the number deleted and the new cursor.
    pub(crate) fn sweep(&self, sweep: &Sweep) -> Result<(usize, i64), StoreError> {
        let end = sweep.cursor.saturating_add(sweep.window).min(sweep.high_water);
        let find = "SELECT rowid, NULL FROM objects WHERE epoch < ?1 AND rowid > ?2 AND rowid <= ?3
             UNION ALL SELECT id, hash FROM blobs WHERE epoch < ?1 AND id > ?2 AND id <= ?3 ORDER BY 1 LIMIT ?4";
        let mut statement = self.prepare(find)?;
        let bounds = params![sweep.epoch, sweep.cursor, end, sweep.delete_cap];
        let rows = statement.query_map(bounds, |row| Ok((row.get(0)?, row.get(1)?)));
        let rows = self.check(rows.and_then(Iterator::collect::<Result<Vec<(i64, Option<Vec<u8>>)>, _>>))?;
        for (id, hash) in &rows {
            let Some(hash) = hash else {
                self.change("DELETE FROM objects WHERE rowid = ?1", params![id])?;
                continue;
            };
            self.change("DELETE FROM blobs WHERE id = ?1", params![id])?;
            self.forget((prefix(hash), *id))?;
        }
        let full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= sweep.delete_cap;
        let cursor = match rows.last() {
            Some((id, _)) if full => *id,
            _ => end,
        };
        Ok((rows.len(), cursor))
    }

    /// Takes an entry out of the index.
    fn forget(&self, entry: Entry) -> Result<(), StoreError> {
        let sql = "DELETE FROM blob_index WHERE (run, prefix, id) IN (SELECT run, ?1, ?2 FROM runs)";
        self.change(sql, params![entry.0, entry.1])?;
        let mut statement = self.prepare(SLICES_OF_PREFIX)?;
        let rows = statement.query_map(slices_of(entry.0), |row| {
            let entries: Vec<Entry> = unpack(row.get_ref(1)?.as_blob()?).collect();
            Ok((row.get(0)?, entries))
        });
        let slices = self.check(rows.and_then(Iterator::collect::<Result<Vec<(i64, Vec<Entry>)>, _>>))?;
        for (id, mut entries) in slices {
            let before = entries.len();
            entries.retain(|known| *known != entry);
            if entries.is_empty() {
                self.change(FORGET_SLICE, params![id])?;
            } else if entries.len() < before {
                let put = "UPDATE index_slices SET entries = ?2 WHERE id = ?1";
                self.change(put, params![id, pack(&entries)])?;
            }
        }
        Ok(())
    }

    /// Returns the number of blobs.
    pub(crate) fn count(&self) -> Result<i64, StoreError> {
        self.number("SELECT (SELECT count(1) FROM objects) + (SELECT count(1) FROM blobs)")
    }

    /// Returns the highest row id of a blob.
    pub(crate) fn high_water(&self) -> Result<i64, StoreError> {
        self.number(
            "SELECT MAX(IFNULL((SELECT MAX(rowid) FROM objects), 0), IFNULL((SELECT MAX(id) FROM blobs), 0))",
        )
    }

    /// Returns the number of blobs older than `epoch`.
    pub(crate) fn count_older(&self, epoch: i64) -> Result<i64, StoreError> {
        let sql = "SELECT (SELECT COUNT(*) FROM objects WHERE epoch < ?1) + (SELECT COUNT(*) FROM blobs WHERE epoch < ?1)";
        Ok(self.query(sql, params![epoch], |row| row.get(0))?.unwrap_or(0))
    }

    fn prepare(&self, sql: &str) -> Result<rusqlite::CachedStatement<'_>, StoreError> {
        self.check(self.connection.prepare_cached(sql))
    }

    fn change(&self, sql: &str, parameters: impl rusqlite::Params) -> Result<usize, StoreError> {
        let mut statement = self.prepare(sql)?;
        self.check(statement.execute(parameters))
    }

    fn query<T>(
        &self,
        sql: &str,
        parameters: impl rusqlite::Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self.prepare(sql)?;
        self.check(statement.query_row(parameters, read).optional())
    }
}

/// Bounds of one step of a garbage collection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sweep {
    pub(crate) epoch: i64,
    pub(crate) cursor: i64,
    pub(crate) high_water: i64,
    pub(crate) delete_cap: i64,
    pub(crate) window: i64,
}

#[cfg(test)]
mod tests;
