//! What is in the database of inactive jobs, and how is it read and written? (Design note 0005.)
//!
//! `jobs` has a row per job, numbered by `seq` in the order in which they were written; `counts` how many there are of
//! each queue and result. All of it can be made again from the KVS.

use super::attrs::{Attrs, encode};
use super::constraint::Constraint;
use super::row::{COLUMNS, Rank, Row, read, signed, unsigned};
use super::sql;
use crate::modules::content_sqlite::{StoreError, connect, refuse_newer};
use bytes::Bytes;
use flux_formats::jobid::JobId;
use flux_formats::jobstate::JobResult;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params, params_from_iter};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// Version of the layout; a file with a higher one is refused.
const LAYOUT_VERSION: u32 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS jobs(
    seq INTEGER PRIMARY KEY, id INT NOT NULL, userid INT NOT NULL, urgency INT NOT NULL, priority INT NOT NULL,
    t_submit REAL NOT NULL, t_depend REAL NOT NULL, t_priority REAL NOT NULL, t_sched REAL NOT NULL,
    t_run REAL NOT NULL, t_cleanup REAL NOT NULL, t_inactive REAL NOT NULL, expiration REAL NOT NULL,
    waitstatus INT, result INT NOT NULL, name TEXT NOT NULL, cwd TEXT, queue TEXT, project TEXT, bank TEXT,
    ntasks INT NOT NULL, ncores INT NOT NULL, nnodes INT NOT NULL, duration REAL NOT NULL, ranks TEXT, nodelist TEXT,
    exception_severity INT, exception_type TEXT, exception_note TEXT, annotations TEXT, dependencies TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_by_id ON jobs(id);
CREATE INDEX IF NOT EXISTS jobs_by_end ON jobs(t_inactive, id);
CREATE INDEX IF NOT EXISTS jobs_by_user ON jobs(userid, t_inactive, id);
CREATE TABLE IF NOT EXISTS counts(queue TEXT NOT NULL, result INT NOT NULL, jobs INT NOT NULL,
    PRIMARY KEY(queue, result)) WITHOUT ROWID;
";

/// A connection to the file.
#[derive(Debug)]
pub(super) struct Db {
    connection: Connection,
    path: Arc<Path>,
}

/// Jobs of one queue (empty for none) that ended in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) queue: Box<str>,
    pub(super) result: JobResult,
    pub(super) jobs: u64,
}

/// What a list wants of inactive jobs.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) attrs: Attrs,
    pub(super) constraint: Constraint,
    /// Leave out jobs that were inactive by then.
    pub(super) since: f64,
    /// Only this user's jobs, in private mode.
    pub(super) only: Option<u32>,
}

/// A part of what a query wants.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Jobs after this one in the list.
    pub(super) after: Rank,
    /// Rows up to this number; later ones are known otherwise.
    pub(super) seq_max: i64,
    /// Jobs to look at.
    pub(super) window: usize,
    /// Jobs to return.
    pub(super) limit: usize,
    /// Jobs that are being purged.
    pub(super) without: Arc<HashSet<JobId>>,
}

/// Jobs found.
#[derive(Debug)]
pub(super) struct Found {
    /// Each as the JSON object that was asked for.
    pub(super) jobs: Vec<(Rank, Bytes)>,
    /// Where to go on, unless all was looked at.
    pub(super) next: Option<Rank>,
}

/// What the database has and does not have, compared with the truth.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) missing: Vec<JobId>,
    /// Rows of jobs that are not inactive, or not any more; they were removed.
    pub(super) removed: usize,
    /// What is left.
    pub(super) counts: Vec<Count>,
    /// The largest `seq`.
    pub(super) seq: i64,
}

impl Db {
    /// Opens the file, making it if needed. With `durable` a crash of the machine loses recent jobs at most.
    ///
    /// # Errors
    /// [`StoreError::Newer`] for a file of a later layout, which stays untouched; what SQLite says.
    pub(super) fn open(path: &Path, durable: bool) -> Result<Self, StoreError> {
        refuse_newer(path, LAYOUT_VERSION)?;
        let db = Db::connect(path)?;
        let synchronous = if durable { "NORMAL" } else { "OFF" };
        let setup = format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA temp_store = MEMORY;
             PRAGMA journal_size_limit = 4194304; PRAGMA cache_size = -2000;
             BEGIN; {SCHEMA} PRAGMA user_version = {LAYOUT_VERSION}; COMMIT"
        );
        db.check(db.connection.execute_batch(&setup))?;
        Ok(db)
    }

    /// Opens the file for reading beside the writer.
    ///
    /// # Errors
    /// What SQLite says.
    pub(super) fn open_reader(path: &Path) -> Result<Self, StoreError> {
        let db = Db::connect(path)?;
        db.check(db.connection.execute_batch("PRAGMA cache_size = -2000"))?;
        Ok(db)
    }

    fn connect(path: &Path) -> Result<Self, StoreError> {
        let shared: Arc<Path> = Arc::from(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = connect(path, flags).map_err(|source| StoreError::sqlite(&shared, source))?;
        Ok(Db {
            connection,
            path: shared,
        })
    }

    fn check<T>(&self, result: rusqlite::Result<T>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::sqlite(&self.path, source))
    }

    fn transaction<T>(
        &mut self,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let path = self.path.clone();
        let all = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            let value = run(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        all(&mut self.connection).map_err(|source| StoreError::sqlite(&path, source))
    }

    /// Adds jobs, numbered from `seq` on, in one transaction; a job that is there is replaced.
    ///
    /// # Errors
    /// What SQLite says; nothing was added.
    pub(super) fn insert(&mut self, rows: &[Arc<Row>], seq: i64) -> Result<(), StoreError> {
        self.transaction(|connection| {
            let mut counts = Tally::default();
            let marks = vec!["?"; COLUMNS.split(',').count()].join(",");
            let mut put =
                connection.prepare_cached(&format!("INSERT INTO jobs(seq, {COLUMNS}) VALUES(?,{marks})"))?;
            for (row, seq) in rows.iter().zip(seq..) {
                match row.insert(&mut put, seq) {
                    Err(err) if err.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                        take(connection, row.id, &mut counts)?;
                        row.insert(&mut put, seq)?;
                    }
                    other => other?,
                }
                counts.add(row.queue.as_deref().unwrap_or_default(), row.result.bit(), 1);
            }
            counts.write(connection)
        })
    }

    /// Removes jobs in one transaction; returns how many there were of which kind.
    ///
    /// # Errors
    /// What SQLite says; nothing was removed.
    pub(super) fn remove(&mut self, ids: &[JobId]) -> Result<Vec<Count>, StoreError> {
        self.transaction(|connection| {
            let mut counts = Tally::default();
            for id in ids {
                take(connection, *id, &mut counts)?;
            }
            counts.write(connection)?;
            Ok(counts
                .0
                .into_iter()
                .filter_map(|(queue, result, jobs)| count(&queue, result, jobs.checked_neg()?))
                .collect())
        })
    }

    /// Removes what is not among `truth`, the ids and ends of all inactive jobs, and tells what is not there.
    ///
    /// # Errors
    /// What SQLite says.
    pub(super) fn compare(&mut self, mut truth: Vec<(JobId, f64)>) -> Result<Comparison, StoreError> {
        let order =
            |a: &(JobId, f64), b: &(JobId, f64)| a.1.total_cmp(&b.1).then(signed(a.0).cmp(&signed(b.0)));
        truth.sort_unstable_by(order);
        let mut comparison = Comparison::default();
        let extra = {
            let mut wanted = truth.into_iter().peekable();
            let mut extra = Vec::new();
            let find = "SELECT id, t_inactive FROM jobs ORDER BY t_inactive, id";
            let mut statement = self.check(self.connection.prepare(find))?;
            let rows = statement.query_map([], |row| Ok((unsigned(row.get(0)?), row.get::<_, f64>(1)?)));
            for row in self.check(rows)? {
                let row = self.check(row)?;
                while let Some(job) = wanted.next_if(|job| order(job, &row).is_lt()) {
                    comparison.missing.push(job.0);
                }
                if wanted.next_if(|job| order(job, &row).is_eq()).is_none() {
                    extra.push(row.0);
                }
            }
            comparison.missing.extend(wanted.map(|job| job.0));
            extra
        };
        comparison.removed = extra.len();
        if !extra.is_empty() {
            self.remove(&extra)?;
        }
        comparison.counts = self.counts()?;
        let seq = "SELECT coalesce(max(seq), 0) FROM jobs";
        comparison.seq = self.check(self.connection.query_row(seq, [], |row| row.get(0)))?;
        Ok(comparison)
    }

    fn counts(&self) -> Result<Vec<Count>, StoreError> {
        let mut statement = self.check(
            self.connection
                .prepare_cached("SELECT queue, result, jobs FROM counts"),
        )?;
        let rows = statement.query_map([], |row| {
            let queue: String = row.get(0)?;
            Ok(count(&queue, row.get(1)?, row.get(2)?))
        });
        let rows: Vec<Option<Count>> = self.check(rows.and_then(Iterator::collect))?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Returns one job as a JSON object with these attributes, and its user.
    ///
    /// # Errors
    /// What SQLite says.
    pub(super) fn find(&self, id: JobId, attrs: Attrs) -> Result<Option<(u32, Bytes)>, StoreError> {
        let find = format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1");
        let mut statement = self.check(self.connection.prepare_cached(&find))?;
        let found = statement.query_row([signed(id)], |row| {
            let job = read(row)?;
            let mut out = Vec::with_capacity(512);
            encode(&mut out, &job, attrs);
            Ok((job.userid, Bytes::from(out)))
        });
        self.check(found.optional())
    }

    /// Returns the next jobs that a query wants, in the order of the list.
    ///
    /// # Errors
    /// What SQLite says.
    pub(super) fn select(&self, query: &Query, part: &Part) -> Result<Found, StoreError> {
        self.check(self.select_rows(query, part))
    }

    fn select_rows(&self, query: &Query, part: &Part) -> rusqlite::Result<Found> {
        let Part { after, limit, .. } = part;
        // the window ends with this job, so that a query which finds little does not keep the others waiting
        let end: Option<Rank> = self
            .connection
            .prepare_cached(
                "SELECT t_inactive, id FROM jobs WHERE (t_inactive, id) < (?1, ?2) AND t_inactive > ?3
                 ORDER BY t_inactive DESC, id DESC LIMIT 1 OFFSET ?4",
            )?
            .query_row(
                params![
                    after.t_inactive,
                    after.id,
                    query.since,
                    integer(part.window.saturating_sub(1))
                ],
                |row| {
                    Ok(Rank {
                        t_inactive: row.get(0)?,
                        id: row.get(1)?,
                    })
                },
            )
            .optional()?;
        let condition = sql::condition(&query.constraint);
        let only = if query.only.is_some() {
            "AND userid = ?"
        } else {
            ""
        };
        let text = format!(
            "SELECT {COLUMNS} FROM jobs WHERE (t_inactive, id) < (?, ?) AND (t_inactive, id) >= (?, ?)
             AND t_inactive > ? AND seq <= ? {only} AND {} ORDER BY t_inactive DESC, id DESC",
            condition.text
        );
        let last = end.unwrap_or(Rank::LAST);
        let mut values: Vec<Value> = vec![
            after.t_inactive.into(),
            after.id.into(),
            last.t_inactive.into(),
            last.id.into(),
            query.since.into(),
            part.seq_max.into(),
        ];
        values.extend(query.only.map(Value::from));
        values.extend(condition.values);
        let mut statement = self.connection.prepare_cached(&text)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let (mut jobs, mut next) = (Vec::new(), end);
        while let Some(row) = rows.next()? {
            let job = read(row)?;
            if part.without.contains(&job.id) || !(condition.exact || query.constraint.matches(&job)) {
                continue;
            }
            let rank = Rank {
                t_inactive: job.t_inactive,
                id: signed(job.id),
            };
            let mut out = Vec::with_capacity(384);
            encode(&mut out, &job, query.attrs);
            jobs.push((rank, Bytes::from(out)));
            if jobs.len() >= *limit {
                next = Some(rank);
                break;
            }
        }
        Ok(Found { jobs, next })
    }
}

fn integer(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(queue: &str, result: u32, jobs: i64) -> Option<Count> {
    let jobs = u64::try_from(jobs).ok().filter(|jobs| *jobs > 0)?;
    Some(Count {
        queue: queue.into(),
        result: JobResult::from_bit(result)?,
        jobs,
    })
}

/// Removes a job and counts it.
fn take(connection: &Connection, id: JobId, counts: &mut Tally) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare_cached("DELETE FROM jobs WHERE id = ?1 RETURNING coalesce(queue, ''), result")?;
    let gone = statement.query_row([signed(id)], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, u32>(1)?))
    });
    if let Some((queue, result)) = gone.optional()? {
        counts.add(&queue, result, -1);
    }
    Ok(())
}

/// Changes of table `counts`: queue, result, difference.
#[derive(Default)]
struct Tally(Vec<(String, u32, i64)>);

impl Tally {
    fn add(&mut self, queue: &str, result: u32, jobs: i64) {
        match self
            .0
            .iter_mut()
            .find(|(known, bit, _)| known == queue && *bit == result)
        {
            Some((_, _, sum)) => *sum += jobs,
            None => self.0.push((queue.to_owned(), result, jobs)),
        }
    }

    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "INSERT INTO counts(queue, result, jobs) VALUES(?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs",
        )?;
        for (queue, result, jobs) in &self.0 {
            statement.execute(params![queue, result, jobs])?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "db_tests.rs"]
mod tests;
