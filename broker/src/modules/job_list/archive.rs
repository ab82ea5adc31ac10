//! When does an inactive job leave memory, and what if the database is damaged? (Design note 0005.)
//!
//! ```text
//!   clean event ─> recent (memory) ─ batch ─> writer thread ─ committed ─> left to the database
//! ```
//!
//! Lists are answered from memory and from rows up to the last number that is known to be committed, so that a job
//! is seen once wherever it is. With a `statedir` the database outlives the broker; what it has is compared with the
//! job manager's inactive jobs at each start, and what is missing is read from the KVS. Without one the file is made
//! when there are more jobs than memory shall hold, and goes with the broker.

use super::JobList;
use super::db::{Comparison, Db};
use super::lane::{Lane, Which, Work};
use super::row::Row;
use crate::modules::content_sqlite::StoreError;
use crate::service::{Cx, RpcError};
use flux_formats::errno;
use flux_formats::jobid::JobId;
use indexmap::IndexMap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Inactive jobs that stay in memory when there is no `statedir`.
const SCRATCH_MEMORY_MAX: usize = if cfg!(test) { 8 } else { 1024 };
/// With a `statedir` jobs are written when there are this many …
const DURABLE_BATCH: usize = if cfg!(test) { 4 } else { 256 };
/// … or after this time; also the time between two tries when they cannot be written.
const WRITE_TIME: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });
/// Jobs in one transaction.
const BATCH_MAX: usize = 4096;
/// Name of the file.
const FILE: &str = "job-list.sqlite";
/// How often a damaged file is made anew before inactive jobs stay in memory.
const REBUILDS_MAX: u32 = 5;

/// The two threads.
struct Lanes {
    writer: Lane,
    /// Only with a file that has rows.
    reader: Option<Lane>,
}

/// Where inactive jobs are kept.
#[derive(Default)]
pub(super) struct Archive {
    /// Where the file is or will be; without it jobs stay in memory.
    path: Option<PathBuf>,
    /// The file outlives the broker.
    durable: bool,
    lanes: Option<Lanes>,
    /// Jobs that the database does not have yet, in the order in which they ended.
    pub(super) recent: IndexMap<JobId, Arc<Row>>,
    /// The first of `recent` are on their way.
    sent: usize,
    /// Number of the last row that was sent.
    seq: i64,
    /// Number of the last row that is committed.
    pub(super) confirmed: i64,
    /// Jobs that are being removed.
    pub(super) doomed: Arc<HashSet<JobId>>,
    /// The database has been compared with the truth; nothing is written before.
    compared: bool,
    timer: bool,
    /// Jobs could not be written.
    failing: bool,
    /// The file is damaged: it is made anew when the threads have nothing to do.
    damaged: bool,
    rebuilds: u32,
    stopping: bool,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive")
            .field("path", &self.path)
            .field("recent", &self.recent.len())
            .finish_non_exhaustive()
    }
}

impl Archive {
    /// Returns true when there are rows to read.
    pub(super) fn has_rows(&self) -> bool {
        self.confirmed > 0
    }

    /// Returns true while jobs are read from the KVS faster than they can be written.
    pub(super) fn is_full(&self) -> bool {
        self.lanes.is_some() && self.recent.len() > 2 * BATCH_MAX && !self.failing
    }

    fn is_idle(&self) -> bool {
        self.lanes
            .as_ref()
            .is_none_or(|lanes| lanes.writer.is_idle() && lanes.reader.as_ref().is_none_or(Lane::is_idle))
    }

    fn name(&self) -> String {
        self.path
            .as_deref()
            .map_or_else(|| FILE.to_owned(), |path| path.display().to_string())
    }

    fn close(&mut self) {
        if let Some(lanes) = self.lanes.take() {
            lanes.writer.stop();
            if let Some(reader) = lanes.reader {
                reader.stop();
            }
        }
    }
}

impl JobList {
    /// Decides where inactive jobs are kept.
    ///
    /// # Errors
    /// The file in the `statedir` was written by a newer version, or cannot be opened.
    pub(super) fn open_archive(&mut self, cx: &mut Cx<'_>) -> Result<(), RpcError> {
        let statedir = cx.attrs.get("statedir");
        let dir = statedir.or_else(|| cx.attrs.get("rundir"));
        self.archive.durable = statedir.is_some();
        self.archive.path = dir.map(|dir| Path::new(dir).join(FILE));
        let Some(path) = self.archive.path.clone() else {
            return Ok(());
        };
        if !self.archive.durable {
            // one that a killed broker left
            remove_files(&path);
            return Ok(());
        }
        let db = match Db::open(&path, true) {
            Err(err) if err.is_damage() => {
                cx.log_as_me(3, &format!("{err}: it is made anew from the KVS"));
                remove_files(&path);
                Db::open(&path, true)?
            }
            other => other?,
        };
        self.start_lanes(cx, move || Ok(db))
    }

    fn start_lanes(
        &mut self,
        cx: &mut Cx<'_>,
        open: impl FnOnce() -> Result<Db, StoreError> + Send + 'static,
    ) -> Result<(), RpcError> {
        let writer = Lane::start(Which::Writer, cx.mailbox(), open).map_err(no_thread)?;
        self.archive.lanes = Some(Lanes { writer, reader: None });
        Ok(())
    }

    /// Reads from the database on its thread. Legal when it has rows.
    pub(super) fn read_rows(&mut self, cx: &mut Cx<'_>, work: Work) {
        let (Some(lanes), Some(path)) = (&mut self.archive.lanes, &self.archive.path) else {
            return;
        };
        if lanes.reader.is_none() {
            let reader = Db::open_reader(path)
                .map_err(RpcError::from)
                .and_then(|db| Lane::start(Which::Reader, cx.mailbox(), move || Ok(db)).map_err(no_thread));
            match reader {
                Ok(reader) => lanes.reader = Some(reader),
                // the writer can read as well, only not at the same time as it writes
                Err(err) => tracing::warn!(service = "job-list", err = %err, "no second connection"),
            }
        }
        lanes.reader.as_mut().unwrap_or(&mut lanes.writer).push(work);
    }

    pub(super) fn lane_done(&mut self, which: Which) {
        let Some(lanes) = &mut self.archive.lanes else {
            return;
        };
        match which {
            Which::Writer => lanes.writer.done(),
            Which::Reader => {
                if let Some(reader) = &mut lanes.reader {
                    reader.done();
                }
            }
        }
    }

    /// The file that makes room in memory could not be opened by the thread that was to write it, which has ended.
    pub(super) fn not_opened(&mut self, cx: &mut Cx<'_>, err: &StoreError) {
        cx.log_as_me(3, &format!("{err}: inactive jobs stay in memory"));
        let archive = &mut self.archive;
        archive.close();
        archive.path = None;
        archive.sent = 0;
        if archive.stopping {
            cx.stopped();
        }
    }

    // ---- writing --------------------------------------------------------------------------------------

    /// Takes a job that has ended.
    pub(super) fn archive_job(&mut self, cx: &mut Cx<'_>, row: Row) {
        self.archive.recent.insert(row.id, Arc::new(row));
        self.write_when_due(cx);
    }

    pub(super) fn write_when_due(&mut self, cx: &mut Cx<'_>) {
        let archive = &mut self.archive;
        if archive.path.is_none() || !archive.compared || archive.failing || archive.sent > 0 {
            return;
        }
        let limit = if archive.durable {
            DURABLE_BATCH
        } else {
            SCRATCH_MEMORY_MAX
        };
        if archive.recent.len() >= limit || (archive.stopping && !archive.recent.is_empty()) {
            self.write_recent(cx);
        } else if archive.durable && !archive.recent.is_empty() {
            self.arm_writing(cx);
        }
    }

    fn arm_writing(&mut self, cx: &mut Cx<'_>) {
        if std::mem::replace(&mut self.archive.timer, true) {
            return;
        }
        cx.timer(WRITE_TIME, |me: &mut JobList, cx| {
            me.archive.timer = false;
            me.archive.failing = false;
            if me.archive.sent == 0 && me.archive.compared {
                me.write_recent(cx);
            }
        });
    }

    fn write_recent(&mut self, cx: &mut Cx<'_>) {
        let Some(path) = self.archive.path.clone() else {
            return;
        };
        if self.archive.recent.is_empty() || self.archive.damaged {
            return;
        }
        if self.archive.lanes.is_none() {
            let durable = self.archive.durable;
            if let Err(err) = self.start_lanes(cx, move || Db::open(&path, durable)) {
                self.write_failed(cx, &err.text);
                return;
            }
        }
        let archive = &mut self.archive;
        let Some(lanes) = &mut archive.lanes else { return };
        let rows: Vec<Arc<Row>> = archive.recent.values().take(BATCH_MAX).cloned().collect();
        let (count, first) = (rows.len(), archive.seq + 1);
        archive.sent = count;
        lanes.writer.push(Box::new(move |db| {
            let result = db.insert(&rows, first);
            Box::new(move |me, cx| me.written(cx, count, first, result))
        }));
    }

    fn written(&mut self, cx: &mut Cx<'_>, count: usize, first: i64, result: Result<(), StoreError>) {
        let archive = &mut self.archive;
        archive.sent = 0;
        match result {
            Ok(()) => {
                archive.seq = first - 1 + i64::try_from(count).unwrap_or(0);
                archive.confirmed = archive.seq;
                archive.recent.drain(..count);
                if archive.recent.capacity() > 4 * BATCH_MAX {
                    archive.recent.shrink_to(BATCH_MAX);
                }
                self.write_when_due(cx);
                self.read_more_missing(cx);
            }
            Err(err) if err.is_damage() => self.damage(cx, &err),
            Err(err) => self.write_failed(cx, &err.to_string()),
        }
    }

    fn write_failed(&mut self, cx: &mut Cx<'_>, why: &str) {
        if !self.archive.failing {
            cx.log_as_me(
                3,
                &format!("{why}: inactive jobs stay in memory until they can be written"),
            );
        }
        self.archive.failing = true;
        if !self.archive.stopping {
            self.arm_writing(cx);
        }
    }

    /// Removes jobs that were purged.
    pub(super) fn forget_jobs(&mut self, ids: &[JobId]) {
        let archive = &mut self.archive;
        let mut stored = Vec::new();
        for id in ids {
            match archive.recent.get_index_of(id) {
                Some(at) if at >= archive.sent => {
                    if let Some(row) = archive.recent.shift_remove(id) {
                        self.stats.purged(row.queue.as_deref(), row.result, 1);
                    }
                }
                _ => stored.push(*id),
            }
        }
        let Some(lanes) = &mut archive.lanes else { return };
        if stored.is_empty() {
            return;
        }
        Arc::make_mut(&mut archive.doomed).extend(stored.iter().copied());
        lanes.writer.push(Box::new(move |db| {
            let result = db.remove(&stored);
            Box::new(move |me, cx| match result {
                Ok(counts) => {
                    for count in counts {
                        let queue = Some(&*count.queue).filter(|queue| !queue.is_empty());
                        me.stats.purged(queue, count.result, count.jobs);
                    }
                    let doomed = Arc::make_mut(&mut me.archive.doomed);
                    for id in &stored {
                        doomed.remove(id);
                    }
                    me.changed(cx);
                }
                Err(err) if err.is_damage() => me.damage(cx, &err),
                // they stay hidden, and the next start compares with the job manager
                Err(err) => cx.log_as_me(3, &format!("{err}: purged jobs stay in the file")),
            })
        }));
    }

    // ---- the truth ------------------------------------------------------------------------------------

    /// Compares the database with the job manager's inactive jobs; legal while nothing is written.
    pub(super) fn compare(&mut self, cx: &mut Cx<'_>) {
        self.archive.compared = false;
        self.early.get_or_insert_default();
        crate::modules::job_manager::api::inactive_jobs(cx, |me: &mut JobList, cx, mut truth| {
            // what the journal brought is in memory
            truth.retain(|(id, _)| !me.archive.recent.contains_key(id) && !me.active.contains_key(id));
            match &mut me.archive.lanes {
                Some(lanes) => lanes.writer.push(Box::new(move |db| {
                    let result = db.compare(truth);
                    Box::new(move |me, cx| me.was_compared(cx, result))
                })),
                None => {
                    let missing = truth.into_iter().map(|(id, _)| id).collect();
                    me.was_compared(
                        cx,
                        Ok(Comparison {
                            missing,
                            ..Comparison::default()
                        }),
                    );
                }
            }
        });
    }

    /// Without a job manager there are no earlier jobs.
    pub(super) fn nothing_to_compare(&mut self) {
        if self.archive.durable {
            // what the file has may be of use to the next start
            self.archive.close();
            self.archive.path = None;
        }
        self.archive.compared = true;
    }

    fn was_compared(&mut self, cx: &mut Cx<'_>, result: Result<Comparison, StoreError>) {
        let comparison = match result {
            Ok(comparison) => comparison,
            Err(err) => {
                if !err.is_damage() {
                    self.archive.path = None;
                }
                return self.damage(cx, &err);
            }
        };
        let name = self.archive.name();
        if comparison.removed > 0 {
            let text = format!(
                "{name}: removed {} jobs that the KVS does not have",
                comparison.removed
            );
            cx.log_as_me(5, &text);
        }
        if !comparison.missing.is_empty() {
            let count = comparison.missing.len();
            cx.log_as_me(
                5,
                &format!("{name}: {count} inactive jobs are missing and read from the KVS"),
            );
        }
        (self.archive.seq, self.archive.confirmed) = (comparison.seq, comparison.seq);
        self.archive.compared = true;
        self.stats
            .set_inactive(&comparison.counts, self.archive.recent.values());
        self.write_when_due(cx);
        self.read_missing(cx, comparison.missing);
    }

    /// The file is damaged: it is made anew from the KVS, and lists wait for that. Without a path the jobs are read into
    /// memory.
    pub(super) fn damage(&mut self, cx: &mut Cx<'_>, err: &StoreError) {
        if std::mem::replace(&mut self.archive.damaged, true) {
            return;
        }
        cx.log_as_me(3, &format!("{err}: inactive jobs are read from the KVS again"));
        self.archive.compared = false;
        self.early.get_or_insert_default();
        self.fail_streams(cx, &RpcError::new(errno::EAGAIN, format!("{err}: try again")));
    }

    /// Does what waits for the threads to have nothing to do.
    pub(super) fn lanes_idle(&mut self, cx: &mut Cx<'_>) {
        if !self.archive.is_idle() {
            return;
        }
        if self.archive.stopping {
            self.stop_when_written(cx);
        } else if self.archive.damaged {
            self.rebuild(cx);
        }
    }

    fn rebuild(&mut self, cx: &mut Cx<'_>) {
        let archive = &mut self.archive;
        archive.damaged = false;
        archive.close();
        (archive.sent, archive.seq, archive.confirmed) = (0, 0, 0);
        archive.doomed = Arc::default();
        if let Some(path) = &archive.path {
            remove_files(path);
        }
        archive.rebuilds += 1;
        if archive.rebuilds > REBUILDS_MAX {
            let text = format!("{}: damaged again: inactive jobs stay in memory", archive.name());
            cx.log_as_me(3, &text);
            archive.path = None;
        } else if archive.durable
            && let Err(err) = self.open_archive(cx)
        {
            cx.log_as_me(3, &format!("{err}: inactive jobs stay in memory"));
            self.archive.path = None;
        }
        self.compare(cx);
    }

    // ---- the end --------------------------------------------------------------------------------------

    /// Begins to stop; returns true when there is nothing to wait for.
    pub(super) fn stop_archive(&mut self, cx: &mut Cx<'_>) -> bool {
        self.archive.stopping = true;
        if self.archive.durable && !self.archive.failing {
            self.write_when_due(cx);
        }
        if !self.archive.is_idle() {
            return false;
        }
        self.close_archive();
        true
    }

    fn stop_when_written(&mut self, cx: &mut Cx<'_>) {
        if self.archive.is_idle() {
            self.close_archive();
            cx.stopped();
        }
    }

    fn close_archive(&mut self) {
        self.archive.close();
        if let Some(path) = self.archive.path.as_deref().filter(|_| !self.archive.durable) {
            remove_files(path);
        }
    }
}

fn no_thread(err: std::io::Error) -> RpcError {
    RpcError::new(errno::EAGAIN, format!("job-list thread: {err}"))
}

fn remove_files(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Ok(()) => {}
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => tracing::warn!(path = %path.display(), err = %err, "file not removed"),
        }
    }
}
