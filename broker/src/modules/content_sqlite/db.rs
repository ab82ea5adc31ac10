//! What is in the file, and how is it read and written?
//!
//! Blobs are in the tables of `blobs.rs` (size -1 = as it is, else the size before LZ4 compression; `kind` 1 marks
//! directory nodes of the form that only the KVS knows, design note 0001). `checkpt_v2` holds what `flux content checkpoint list` shows. `spaces` holds the roots of all namespaces at
//! the last spill, `journal` the transactions since.

use flux_formats::errno::{self, Errnum};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of the layout; a file with a higher one is refused.
pub(crate) const LAYOUT_VERSION: u32 = 4;
/// How an SQLite file begins.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Where the user version is in the header of an SQLite file.
const VERSION_AT: usize = 60;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS checkpt_v2(id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, value TEXT);
CREATE TABLE IF NOT EXISTS spaces(name TEXT PRIMARY KEY, owner INT, flags INT, seq INT, root BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal(id INTEGER PRIMARY KEY, records BLOB);
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value INT) WITHOUT ROWID;
";

/// Why the store did not do its work.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// SQLite failed.
    #[error("{path}: {source}")]
    Sqlite {
        /// The file.
        path: Arc<Path>,
        /// The cause.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The file was written by a newer version.
    #[error("{path}: layout version {found} is newer than {known}; it was not changed. Use a newer Flux")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The file could not be looked at.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A compressed blob does not decompress.
    #[error("{path}: blob {digest} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Digest in hexadecimal.
        digest: String,
    },
    /// A job that ran on the store's thread failed for a reason of its own.
    #[error("{0}")]
    Job(Arc<str>),
}

impl StoreError {
    /// Returns the error of a statement on the file at `path`.
    pub(crate) fn sqlite(path: &Arc<Path>, source: rusqlite::Error) -> Self {
        StoreError::Sqlite {
            path: path.clone(),
            source: Arc::new(source),
        }
    }

    /// Returns true when the file is no database, a damaged one, or has values of other types than it should.
    pub(crate) fn is_damage(&self) -> bool {
        let StoreError::Sqlite { source, .. } = self else {
            return false;
        };
        match source.sqlite_error_code() {
            Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase),
            None => true,
        }
    }

    /// Returns the error number that clients get.
    pub(crate) fn errnum(&self) -> Errnum {
        match self {
            StoreError::Sqlite { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => errno::ENOSPC,
                Some(ErrorCode::PermissionDenied) => errno::EACCES,
                Some(ErrorCode::ReadOnly) => errno::EROFS,
                _ => errno::EIO,
            },
            StoreError::Newer { .. } => errno::EINVAL,
            StoreError::Io { source, .. } => source
                .raw_os_error()
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(errno::EIO),
            StoreError::Damaged { .. } | StoreError::Job(_) => errno::EIO,
        }
    }
}

/// A blob to store.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    /// Its digest.
    pub(crate) digest: Vec<u8>,
    /// Its bytes.
    pub(crate) bytes: bytes::Bytes,
    /// A directory node of the KVS's own form.
    pub(crate) internal: bool,
}

/// The last known root of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpaceRow {
    /// Its name.
    pub(crate) name: String,
    /// User id of its owner.
    pub(crate) owner: u32,
    /// Its flags.
    pub(crate) flags: u32,
    /// Its version.
    pub(crate) seq: u64,
    /// Digest of its root directory.
    pub(crate) root: Vec<u8>,
}

/// Opens a connection as all stores of the broker have it.
///
/// A statement keeps the plan that it was prepared with: else SQLite would plan those with ranges again for each new value.
pub(crate) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// A connection to the file.
#[derive(Debug)]
pub(crate) struct Db {
    pub(super) connection: Connection,
    path: Arc<Path>,
    epoch: i64,
}

/// Converts for SQLite, whose integers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Db {
    /// Opens the file for writing, making it if needed.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a file of a later layout, which stays untouched; what SQLite says.
    pub(crate) fn open(path: &Path, durable: bool) -> Result<Self, StoreError> {
        refuse_newer(path, LAYOUT_VERSION)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Db::connect(path, flags)?;
        let version: u32 = db.check(
            db.connection
                .query_row("PRAGMA user_version", [], |row| row.get(0)),
        )?;
        if version > LAYOUT_VERSION {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                found: version,
                known: LAYOUT_VERSION,
            });
        }
        let synchronous = if durable { "NORMAL" } else { "OFF" };
        let setup = format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = OFF;
             PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 16777216; PRAGMA wal_autocheckpoint = 4000;
             PRAGMA cache_size = -8000;
             BEGIN; {SCHEMA} {}",
            super::blobs::SCHEMA
        );
        db.check(db.connection.execute_batch(&setup))?;
        for (column, kind) in [("epoch", "INT DEFAULT 0"), ("kind", "INT DEFAULT 0")] {
            // a file of flux-core has fewer columns
            let known: i64 = db.check(db.connection.query_row(
                "SELECT count(*) FROM pragma_table_info('objects') WHERE name = ?1",
                [column],
                |row| row.get(0),
            ))?;
            if known == 0 {
                db.check(
                    db.connection
                        .execute_batch(&format!("ALTER TABLE objects ADD COLUMN {column} {kind}")),
                )?;
            }
        }
        if version == 3 {
            db.take_slices()?;
        }
        db.check(
            db.connection
                .execute_batch(&format!("PRAGMA user_version = {LAYOUT_VERSION}; COMMIT")),
        )?;
        let newest = db
            .connection
            .query_row("SELECT MAX(id) FROM checkpt_v2", [], |row| {
                row.get::<_, Option<i64>>(0)
            });
        db.epoch = db.check(newest)?.unwrap_or(0) + 1;
        Ok(db)
    }

    /// Opens the file for reading beside the writer.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn open_reader(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Db::connect(path, flags)?;
        // the index of a million jobs is read at random
        db.check(db.connection.execute_batch("PRAGMA cache_size = -16000"))?;
        Ok(db)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, StoreError> {
        let shared: Arc<Path> = Arc::from(path);
        let connection = connect(path, flags).map_err(|source| StoreError::sqlite(&shared, source))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Db {
            connection,
            path: shared,
            epoch: 0,
        })
    }

    pub(super) fn check<T>(&self, result: Result<T, rusqlite::Error>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Sqlite {
            path: self.path.clone(),
            source: Arc::new(source),
        })
    }

    /// Returns the error of a blob that does not decompress.
    pub(super) fn damaged(&self, digest: &[u8]) -> StoreError {
        StoreError::Damaged {
            path: self.path.to_path_buf(),
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// Begins a batch. `sync`: its commit waits for the disk, and so do those before it.
    pub(crate) fn begin(&self, sync: bool, durable: bool) -> Result<(), StoreError> {
        if durable {
            let level = if sync {
                "PRAGMA synchronous = FULL"
            } else {
                "PRAGMA synchronous = NORMAL"
            };
            self.check(self.connection.execute_batch(level))?;
        }
        self.check(self.connection.execute_batch("BEGIN IMMEDIATE"))
    }

    /// Begins a batch that only reads; [`Db::rollback`] ends it.
    pub(crate) fn begin_reading(&self) -> Result<(), StoreError> {
        self.check(self.connection.execute_batch("BEGIN"))
    }

    /// Commits the batch.
    pub(crate) fn commit(&self) -> Result<(), StoreError> {
        self.check(self.connection.execute_batch("COMMIT"))
    }

    /// Gives the batch up.
    pub(crate) fn rollback(&self) {
        if !self.connection.is_autocommit()
            && let Err(err) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::warn!(path = %self.path.display(), err = %err, "rollback");
        }
    }

    /// Returns the checkpoints with their ids, newest first.
    pub(crate) fn checkpoints(&self) -> Result<Vec<(i64, Value)>, StoreError> {
        let mut statement = self.check(
            self.connection
                .prepare_cached("SELECT id, value FROM checkpt_v2 ORDER BY id DESC"),
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
        let rows = self.check(rows.and_then(Iterator::collect::<Result<Vec<(i64, String)>, _>>))?;
        Ok(rows
            .into_iter()
            .filter_map(|(id, text)| Some((id, serde_json::from_str(&text).ok()?)))
            .collect())
    }

    /// Adds a checkpoint, drops the oldest above `keep` and returns the id.
    pub(crate) fn put_checkpoint(&self, value: &Value, keep: usize) -> Result<i64, StoreError> {
        let text = value.to_string();
        self.check(
            self.connection
                .execute("INSERT INTO checkpt_v2(value) VALUES(?1)", [text]),
        )?;
        let id = self.connection.last_insert_rowid();
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        self.check(self.connection.execute(
            "DELETE FROM checkpt_v2 WHERE id IN (SELECT id FROM checkpt_v2 ORDER BY id DESC LIMIT -1 OFFSET ?1)",
            [keep],
        ))?;
        Ok(id)
    }

    /// Returns a number kept under `name`.
    pub(crate) fn meta(&self, name: &str) -> Result<Option<i64>, StoreError> {
        let row = self
            .connection
            .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0));
        self.check(row.optional())
    }

    /// Keeps a number under `name`.
    pub(crate) fn set_meta(&self, name: &str, value: i64) -> Result<(), StoreError> {
        let put = "INSERT INTO meta(name, value) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = excluded.value";
        self.check(self.connection.execute(put, params![name, value]))
            .map(|_| ())
    }

    /// Replaces the roots of all namespaces.
    pub(crate) fn set_spaces(&self, rows: &[SpaceRow]) -> Result<(), StoreError> {
        self.check(self.connection.execute("DELETE FROM spaces", []))?;
        let put = "INSERT INTO spaces(name, owner, flags, seq, root) VALUES(?1, ?2, ?3, ?4, ?5)";
        let mut statement = self.check(self.connection.prepare_cached(put))?;
        for row in rows {
            self.check(statement.execute(params![
                row.name,
                row.owner,
                row.flags,
                signed(row.seq),
                row.root
            ]))?;
        }
        Ok(())
    }

    /// Returns the roots of all namespaces at the last spill.
    pub(crate) fn spaces(&self) -> Result<Vec<SpaceRow>, StoreError> {
        let mut statement = self.check(
            self.connection
                .prepare("SELECT name, owner, flags, seq, root FROM spaces"),
        )?;
        let rows = statement.query_map([], |row| {
            Ok(SpaceRow {
                name: row.get(0)?,
                owner: row.get(1)?,
                flags: row.get(2)?,
                seq: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                root: row.get(4)?,
            })
        });
        self.check(rows.and_then(Iterator::collect))
    }

    /// Appends records to the journal.
    pub(crate) fn append_journal(&self, records: &[u8]) -> Result<(), StoreError> {
        let mut statement = self.check(
            self.connection
                .prepare_cached("INSERT INTO journal(records) VALUES(?1)"),
        )?;
        self.check(statement.execute([records])).map(|_| ())
    }

    /// Returns the journal in order.
    pub(crate) fn journal(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut statement = self.check(self.connection.prepare("SELECT records FROM journal ORDER BY id"))?;
        let rows = statement.query_map([], |row| row.get(0));
        self.check(rows.and_then(Iterator::collect))
    }

    /// Returns the id of the newest row of the journal; 0 when it is empty.
    pub(crate) fn journal_end(&self) -> Result<i64, StoreError> {
        self.number("SELECT MAX(id) FROM journal")
    }

    /// Drops the rows of the journal up to `end`.
    pub(crate) fn clear_journal(&self, end: i64) -> Result<(), StoreError> {
        self.check(
            self.connection
                .execute("DELETE FROM journal WHERE id <= ?1", [end]),
        )
        .map(|_| ())
    }

    /// Returns a single number.
    pub(crate) fn number(&self, sql: &str) -> Result<i64, StoreError> {
        let row = self
            .connection
            .query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
        Ok(self.check(row)?.unwrap_or(0))
    }

    /// Returns the epoch that new blobs get: the id of the next checkpoint.
    pub(crate) fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Sets the epoch that new blobs get.
    pub(crate) fn set_epoch(&mut self, epoch: i64) {
        self.epoch = epoch;
    }
}

#[cfg(test)]
impl Db {
    /// Makes the disk look full when the file has this many pages; 0 = the size that it has.
    pub(crate) fn limit_pages(&self, pages: u32) {
        let now: u32 = self
            .connection
            .query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap();
        let limit = if pages == 0 { now } else { pages };
        let set: u32 = self
            .connection
            .query_row(&format!("PRAGMA max_page_count = {limit}"), [], |row| row.get(0))
            .unwrap();
        assert_eq!(set, limit);
    }
}

/// Refuses a file whose user version is above `known`: looks at its header without opening it as a database.
///
/// # Errors
/// [`StoreError::Newer`]; [`StoreError::Io`] when the file cannot be read.
pub(crate) fn refuse_newer(path: &Path, known: u32) -> Result<(), StoreError> {
    use std::io::Read;
    let io = |source| StoreError::Io {
        path: path.to_owned(),
        source: Arc::new(source),
    };
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(io(err)),
    };
    let mut header = Vec::new();
    file.by_ref().take(100).read_to_end(&mut header).map_err(io)?;
    if !header.starts_with(MAGIC) {
        return Ok(()); // no database; opening it says so
    }
    let version = header
        .get(VERSION_AT..VERSION_AT + 4)
        .and_then(|bytes| bytes.try_into().ok());
    match version.map(u32::from_be_bytes) {
        Some(found) if found > known => Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(digest: u8, bytes: Vec<u8>) -> Blob {
        Blob {
            digest: vec![digest; 20],
            bytes: bytes.into(),
            internal: false,
        }
    }

    #[test]
    fn blobs_checkpoints_and_journal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content.sqlite");
        let db = Db::open(&path, true).unwrap();
        db.begin(true, true).unwrap();
        db.store(&blob(1, vec![7; 1000])).unwrap();
        db.store(&blob(2, Vec::new())).unwrap();
        db.store(&Blob {
            internal: true,
            ..blob(2, Vec::new())
        })
        .unwrap();
        for n in 0..7 {
            db.put_checkpoint(&serde_json::json!({ "n": n }), 5).unwrap();
        }
        db.append_journal(b"abc").unwrap();
        let row = SpaceRow {
            name: "primary".into(),
            owner: 1,
            flags: 2,
            seq: 3,
            root: vec![1; 20],
        };
        db.set_spaces(std::slice::from_ref(&row)).unwrap();
        db.commit().unwrap();
        let reader = Db::open_reader(&path).unwrap();
        assert_eq!(reader.load(&[1; 20]).unwrap(), Some((vec![7; 1000], false)));
        assert_eq!(reader.load(&[2; 20]).unwrap(), Some((Vec::new(), true)));
        assert_eq!(reader.load(&[3; 20]).unwrap(), None);
        assert_eq!(reader.checkpoints().unwrap().len(), 5);
        assert_eq!(reader.checkpoints().unwrap()[0].0, 7);
        assert_eq!(reader.journal().unwrap(), vec![b"abc".to_vec()]);
        assert_eq!(reader.spaces().unwrap(), vec![row]);
        drop(db);
        assert_eq!(Db::open(&path, true).unwrap().epoch(), 8);
    }

    #[test]
    fn newer_layout_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content.sqlite");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA user_version = 99; CREATE TABLE t(x)")
            .unwrap();
        drop(db);
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(
            Db::open(&path, true),
            Err(StoreError::Newer { found: 99, .. })
        ));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn takes_over_a_file_of_flux_core() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content.sqlite");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE objects(hash BLOB PRIMARY KEY, size INT, object BLOB)")
            .unwrap();
        db.execute(
            "INSERT INTO objects VALUES(?1, -1, ?2)",
            params![vec![9u8; 20], b"x".to_vec()],
        )
        .unwrap();
        drop(db);
        assert_eq!(
            Db::open(&path, true).unwrap().load(&[9; 20]).unwrap(),
            Some((b"x".to_vec(), false))
        );
    }
}
