//! How is the index of jobs read, kept and made again? (Design note 0005; what it says is in [`super::index`].)

use super::JobManager;
use super::commit::After;
use super::index::{self, Dropped, Reading, VERSION, VERSION_KEY};
use super::ports::Change;
use crate::service::{Cx, RpcError};
use bytes::Bytes;
use flux_formats::errno;
use flux_formats::jobid::JobId;
use std::collections::{BTreeMap, VecDeque};

/// Segments read at a time, and written in one commit.
const WINDOW: usize = 16;

/// An index that is being read.
pub(super) struct Read {
    numbers: Vec<u64>,
    /// Segments asked for.
    asked: usize,
    /// Segments taken, in order.
    taken: usize,
    /// Segments that came before their turn.
    early: BTreeMap<usize, Bytes>,
    reading: Reading,
}

impl JobManager {
    /// Begins to find out which jobs there are: by the index, or by a walk through all of them.
    pub(super) fn begin_restart(&mut self, cx: &mut Cx<'_>) {
        self.index.on = cx.attrs.get("statedir").is_some();
        let then = Box::new(|me: &mut JobManager, cx: &mut Cx<'_>, result| me.version_read(cx, result));
        self.store.lookup(cx, VERSION_KEY, then);
    }

    fn version_read(&mut self, cx: &mut Cx<'_>, result: Result<Bytes, RpcError>) {
        let version = match result {
            Ok(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse::<u64>().ok()),
            Err(err) if err.errnum == errno::ENOENT => return self.walk_jobs(cx),
            Err(err) => return self.index_unreadable(cx, &err),
        };
        match version {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => {
                let text =
                    format!("{VERSION_KEY} is {newer}, newer than this broker knows: use a newer Flux");
                cx.log_as_me(0, &text);
                cx.request_exit(1);
                return;
            }
            _ => return self.index_damaged(cx, "its version is no number"),
        }
        self.index.on = true;
        let then = Box::new(|me: &mut JobManager, cx: &mut Cx<'_>, result| me.segments_listed(cx, result));
        self.store.lookup_dir(cx, index::DIR, then);
    }

    fn segments_listed(&mut self, cx: &mut Cx<'_>, result: Result<Vec<String>, RpcError>) {
        let names = match result {
            Ok(names) => names,
            Err(err) => return self.index_unreadable(cx, &err),
        };
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
        numbers.sort_unstable();
        if let Some(restart) = &mut self.restart {
            restart.index = Some(Read {
                numbers,
                asked: 0,
                taken: 0,
                early: BTreeMap::new(),
                reading: Reading::default(),
            });
        }
        self.read_segments(cx);
    }

    fn read_segments(&mut self, cx: &mut Cx<'_>) {
        loop {
            let Some(read) = self.restart.as_mut().and_then(|restart| restart.index.as_mut()) else {
                return;
            };
            if read.asked >= read.taken + WINDOW {
                return;
            }
            let Some(number) = read.numbers.get(read.asked).copied() else {
                break;
            };
            let at = read.asked;
            read.asked += 1;
            let then =
                Box::new(move |me: &mut JobManager, cx: &mut Cx<'_>, result| me.segment_read(cx, at, result));
            self.store.lookup(cx, &index::segment_key(number), then);
        }
        let done = |read: &mut Read| read.taken == read.numbers.len();
        let read = self
            .restart
            .as_mut()
            .and_then(|restart| restart.index.take_if(done));
        if let Some(read) = read {
            self.index_read(cx, read.reading);
        }
    }

    fn segment_read(&mut self, cx: &mut Cx<'_>, at: usize, result: Result<Bytes, RpcError>) {
        let Some(read) = self.restart.as_mut().and_then(|restart| restart.index.as_mut()) else {
            return; // given up
        };
        match result {
            Ok(bytes) => drop(read.early.insert(at, bytes)),
            Err(err) => return self.index_unreadable(cx, &err),
        }
        while let Some(bytes) = read.early.remove(&read.taken) {
            let number = read.numbers.get(read.taken).copied().unwrap_or(0);
            read.taken += 1;
            let text = String::from_utf8_lossy(&bytes);
            if let Err(err) = read.reading.segment(number, &text) {
                return self.index_damaged(cx, &format!("segment {number}: {err}"));
            }
        }
        self.read_segments(cx);
    }

    /// The index says which jobs there are: only the active ones are to be replayed.
    fn index_read(&mut self, cx: &mut Cx<'_>, reading: Reading) {
        let Reading {
            index,
            inactive,
            active,
            max_jobid,
        } = reading;
        let count = inactive.len();
        (self.index, self.inactive) = (index, inactive);
        (self.index.on, self.index.complete) = (true, true);
        self.max_jobid = self.max_jobid.max(max_jobid);
        self.replay_jobs(cx, &active, count);
    }

    /// Jobs that cannot be seen would be lost silently.
    fn index_unreadable(&mut self, cx: &mut Cx<'_>, err: &RpcError) {
        tracing::error!(err = %err, "the index of jobs cannot be read: the broker stops");
        cx.log_as_me(0, &format!("restart: could not read {}: {err}", index::DIR));
        cx.request_exit(1);
    }

    fn index_damaged(&mut self, cx: &mut Cx<'_>, why: &str) {
        let text = format!(
            "{} is damaged: {why}: it is made again from all eventlogs",
            index::DIR
        );
        cx.log_as_me(3, &text);
        if let Some(restart) = &mut self.restart {
            restart.index = None;
        }
        self.walk_jobs(cx);
    }

    /// Sees to it that there is an index, once all jobs are known; `walked` says that there was none to use.
    pub(super) fn begin_index(&mut self, cx: &mut Cx<'_>, walked: bool) {
        if !self.index.on || !(walked || self.index.is_sparse(self.inactive.len() + self.active.len())) {
            return;
        }
        let (new, old) = self.index.rewrite(&self.inactive, self.active.keys().copied());
        if walked {
            self.index.complete = false;
            if new.is_empty() {
                return; // the version comes with the first job
            }
            let lines = self.inactive.len() + self.active.len();
            cx.log_as_me(6, &format!("restart: {} is made for {lines} jobs", index::DIR));
            self.batch(cx).change(Change::Unlink(index::DIR.to_owned()));
        }
        self.index.rewriting = true;
        self.write_segments(cx, new, old);
    }

    /// Writes some segments per commit, then removes the old ones.
    fn write_segments(&mut self, cx: &mut Cx<'_>, mut new: VecDeque<(String, String)>, old: Vec<u64>) {
        for (key, text) in new.drain(..WINDOW.min(new.len())) {
            self.batch(cx).change(Change::Put(key, Bytes::from(text)));
        }
        if !new.is_empty() {
            let then = Box::new(move |me: &mut JobManager, cx: &mut Cx<'_>| me.write_segments(cx, new, old));
            self.batch(cx).after(After::Call(then));
            return;
        }
        self.index.rewriting = false;
        for number in old {
            self.batch(cx).change(Change::Unlink(index::segment_key(number)));
        }
        if !self.index.complete {
            self.index.complete = true;
            self.batch(cx).change(version_change());
        }
    }

    /// Notes that jobs were purged, and removes what of the index is about purged jobs only.
    pub(super) fn purge_from_index(&mut self, cx: &mut Cx<'_>, ids: impl Iterator<Item = JobId>) {
        if !self.index.on {
            return;
        }
        let mut text = String::new();
        ids.for_each(|id| index::purged(&mut text, id));
        let oldest = self.inactive.oldest_end();
        let mut gone = Vec::new();
        while let Some(Dropped { number, ids }) = self.index.drop_one(oldest, |first, last| {
            self.active.range(first..=last).next().is_some()
        }) {
            gone.push(number);
            if ids.0 <= ids.1 {
                for id in self.active.range(ids.0..=ids.1).map(|(id, _)| *id) {
                    index::submitted(&mut text, id);
                }
            }
        }
        let batch = self.batch(cx);
        for number in gone {
            batch.change(Change::Unlink(index::segment_key(number)));
        }
        batch.index_lines(&text);
    }
}

/// Returns the change that says that the index is complete.
pub(super) fn version_change() -> Change {
    Change::Put(VERSION_KEY.to_owned(), Bytes::from(format!("{VERSION}\n")))
}
