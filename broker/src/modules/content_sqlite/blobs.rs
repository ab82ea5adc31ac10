//! Where is a blob in the file, and how is it found by its digest?
//!
//! Rows of `blobs` are only appended. `blob_index` finds them by the first eight bytes of their digest. Digests come in no order, and one index in
//! their order would have a page read, changed and written back twice for each new blob, once it is larger than the cache (after a
//! million jobs that took more time than all the rest). So the index is made of *runs*: each spill appends one, sorted; when there are sixteen of a level, they
//! are merged into one of the next level, a slice of the digests at a time. A lookup asks each run, the newest first: some thirty after a million jobs. Run 0 takes
//! blobs that come alone (`content.store`).
//!
//! The same bytes may be there once per spill. `objects` is the table of flux-core, and ours up to layout 1: read, and never added to.

use super::db::{Blob, Db, StoreError};
use rusqlite::{OptionalExtension, Row, params};

/// Blobs of at least this size in bytes are compressed.
const COMPRESS_MIN: usize = 256;
/// Runs of a level that become one of the next.
const MERGE_RUNS: usize = 16;
/// Slices that a merge of the lowest level is cut into: some 700,000 entries, and durable commits wait for a slice.
const MERGE_SLICES: u64 = 256;

/// Tables of this file.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS objects(hash BLOB PRIMARY KEY, size INT, object BLOB, epoch INT DEFAULT 0, kind INT DEFAULT 0);
CREATE TABLE IF NOT EXISTS blobs(id INTEGER PRIMARY KEY, hash BLOB, size INT, object BLOB, epoch INT, kind INT);
CREATE TABLE IF NOT EXISTS runs(run INTEGER PRIMARY KEY, level INT);
CREATE TABLE IF NOT EXISTS blob_index(run INT, prefix INT, id INT, PRIMARY KEY(run, prefix, id)) WITHOUT ROWID;
INSERT OR IGNORE INTO runs(run, level) VALUES(0, 0);
";

/// Finds rows of `blobs` by prefix ?1 and digest ?2, the newest run first.
macro_rules! find {
    ($columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM runs CROSS JOIN blob_index ON blob_index.run = runs.run AND prefix = ?1",
            " CROSS JOIN blobs ON blobs.id = blob_index.id WHERE hash = ?2 ORDER BY runs.run DESC LIMIT 1"
        )
    };
}

/// An entry of the index: the beginning of a digest and the id of its row.
pub(crate) type Entry = (i64, i64);

/// Runs that are being merged into one.
#[derive(Debug)]
pub(crate) struct Merge {
    from: Vec<i64>,
    into: i64,
    slices: u64,
    done: u64,
}

/// Returns what the index knows of a digest.
fn prefix(digest: &[u8]) -> i64 {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    i64::from_be_bytes(bytes)
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
        if let Some(id) = self.find(&blob.digest)? {
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

    /// Adds entries to a run; sorted ones cost least.
    pub(crate) fn index(&self, run: i64, entries: &[Entry]) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO blob_index(run, prefix, id) VALUES(?1, ?2, ?3)";
        entries
            .iter()
            .try_for_each(|(prefix, id)| self.change(sql, params![run, prefix, id]).map(drop))
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
            from,
            into: self.add_run(level + 1)?,
            slices: MERGE_SLICES << (4 * level.clamp(0, 8)),
            done: 0,
        }))
    }

    /// Merges the next slice; returns true when it was the last.
    pub(crate) fn merge_slice(&self, merge: &mut Merge) -> Result<bool, StoreError> {
        // digests are spread evenly over all numbers
        let width = u64::MAX / merge.slices;
        let at = |slice: u64| i64::MIN.wrapping_add_unsigned(slice * width);
        let last = merge.done + 1 >= merge.slices;
        let (low, high) = (
            at(merge.done),
            if last { i64::MAX } else { at(merge.done + 1) - 1 },
        );
        merge.done += 1;
        let mut entries: Vec<Entry> = Vec::new();
        let find = "SELECT prefix, id FROM blob_index WHERE run = ?1 AND prefix BETWEEN ?2 AND ?3";
        for run in &merge.from {
            let mut statement = self.prepare(find)?;
            let rows = statement.query_map(params![run, low, high], |row| Ok((row.get(0)?, row.get(1)?)));
            let rows = self.check(rows.and_then(Iterator::collect::<Result<Vec<Entry>, _>>))?;
            entries.extend(rows);
            let forget = "DELETE FROM blob_index WHERE run = ?1 AND prefix BETWEEN ?2 AND ?3";
            self.change(forget, params![run, low, high])?;
            if last && *run != 0 {
                self.change("DELETE FROM runs WHERE run = ?1", params![run])?;
            }
        }
        entries.sort_unstable();
        self.index(merge.into, &entries)?;
        Ok(last)
    }

    /// Returns the row of a blob in `blobs`.
    fn find(&self, digest: &[u8]) -> Result<Option<i64>, StoreError> {
        self.query(find!("blobs.id"), params![prefix(digest), digest], |row| {
            row.get(0)
        })
    }

    /// Returns a blob and whether it is a directory node of the KVS's own form.
    pub(crate) fn load(&self, digest: &[u8]) -> Result<Option<(Vec<u8>, bool)>, StoreError> {
        let sql = find!("object, size, kind");
        let mut row = self.query(sql, params![prefix(digest), digest], Packed::read)?;
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
        if self.find(digest)?.is_some() {
            return Ok(true);
        }
        let sql = "SELECT 1 FROM objects WHERE hash = ?1";
        let row = self.query(sql, params![digest], |row| row.get::<_, i64>(0))?;
        Ok(row.is_some())
    }

    /// Marks a blob as reached by the garbage collection `epoch`; returns whether it is a directory node of
    /// the KVS's own form, `None` when there is no such blob.
    pub(crate) fn mark(&self, epoch: i64, digest: &[u8]) -> Result<Option<bool>, StoreError> {
        if let Some(id) = self.find(digest)? {
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
            let forget = "DELETE FROM blob_index WHERE (run, prefix, id) IN (SELECT run, ?1, ?2 FROM runs)";
            self.change(forget, params![prefix(hash), id])?;
        }
        let full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= sweep.delete_cap;
        let cursor = match rows.last() {
            Some((id, _)) if full => *id,
            _ => end,
        };
        Ok((rows.len(), cursor))
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
mod tests {
    use super::*;
    use flux_formats::blobref::{BlobRef, HashType};

    fn blob(text: String) -> Blob {
        Blob {
            digest: BlobRef::compute(HashType::Sha1, text.as_bytes())
                .digest()
                .to_vec(),
            bytes: text.into(),
            internal: false,
        }
    }

    fn db() -> (tempfile::TempDir, Db) {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("content.sqlite"), true).unwrap();
        (dir, db)
    }

    /// Stores blobs `from..to` as a spill does.
    fn spill(db: &Db, from: usize, to: usize) {
        let mut entries: Vec<Entry> = (from..to)
            .map(|n| db.append(&blob(format!("blob {n}"))).unwrap())
            .collect();
        entries.sort_unstable();
        let run = db.new_run().unwrap();
        db.index(run, &entries).unwrap();
    }

    fn missing(db: &Db, count: usize) -> usize {
        let there = |n: &usize| {
            let blob = blob(format!("blob {n}"));
            let loaded = db.load(&blob.digest).unwrap();
            loaded.is_some_and(|(bytes, internal)| bytes == blob.bytes && !internal)
        };
        (0..count).filter(|n| !there(n)).count()
    }

    #[test]
    fn runs_are_found_before_during_and_after_a_merge() {
        let (_dir, db) = db();
        // neighbours overlap, as when the same bytes are stored twice
        for run in 0..15 {
            spill(&db, run * 40, run * 40 + 50);
            assert!(db.merge_due().unwrap().is_none() || run == 14);
        }
        db.store(&blob("alone".to_owned())).unwrap();
        let runs = |db: &Db| db.number("SELECT count(*) FROM runs").unwrap();
        let entries = |db: &Db| db.number("SELECT count(*) FROM blob_index").unwrap();
        let before = entries(&db);
        // as after a crash in the middle of a merge
        let mut merge = db.merge_due().unwrap().unwrap();
        for _ in 0..100 {
            assert!(!db.merge_slice(&mut merge).unwrap());
        }
        assert_eq!((missing(&db, 610), entries(&db)), (0, before));
        let mut merge = db.merge_due().unwrap().unwrap();
        spill(&db, 610, 620);
        while !db.merge_slice(&mut merge).unwrap() {}
        assert_eq!((missing(&db, 620), entries(&db)), (0, before + 10));
        assert!(db.has(&blob("alone".to_owned()).digest).unwrap());
        assert!(db.merge_due().unwrap().is_none());
        // the loose ones, that which came meanwhile, and the three that merges made
        assert!(runs(&db) <= 5, "{}", runs(&db));
    }

    #[test]
    fn collection_finds_all_tables() {
        let (_dir, mut db) = db();
        let old = blob("of flux-core".to_owned());
        let sql = "INSERT INTO objects(hash, size, object) VALUES(?1, -1, ?2)";
        db.change(sql, params![old.digest, old.bytes.as_ref()]).unwrap();
        spill(&db, 0, 20);
        db.set_epoch(7);
        assert_eq!((db.count().unwrap(), db.count_older(7).unwrap()), (21, 21));
        // an old blob that is stored again stays where it is
        db.store(&old).unwrap();
        db.store(&blob("blob 3".to_owned())).unwrap();
        assert_eq!((db.count().unwrap(), db.count_older(7).unwrap()), (21, 19));
        assert_eq!(
            db.mark(7, &blob("blob 4".to_owned()).digest).unwrap(),
            Some(false)
        );
        assert_eq!(db.mark(7, &[5; 20]).unwrap(), None);
        let (mut cursor, mut deleted) = (0, 0);
        while cursor < db.high_water().unwrap() {
            let sweep = Sweep {
                epoch: 7,
                cursor,
                high_water: db.high_water().unwrap(),
                delete_cap: 4,
                window: 10,
            };
            let (count, next) = db.sweep(&sweep).unwrap();
            (cursor, deleted) = (next, deleted + count);
        }
        assert_eq!((deleted, db.count().unwrap()), (18, 3));
        assert_eq!(db.number("SELECT count(*) FROM blob_index").unwrap(), 2);
        for kept in [old, blob("blob 3".to_owned()), blob("blob 4".to_owned())] {
            assert_eq!(db.load(&kept.digest).unwrap(), Some((kept.bytes.to_vec(), false)));
        }
    }
}
