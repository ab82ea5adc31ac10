//! How do inactive jobs come into the list that the database does not have? Their eventlogs are read from the KVS.

use super::JobList;
use super::job::Job;
use super::row::Row;
use crate::modules::job_manager::api::{self as manager, JobEvent};
use crate::service::Cx;
use flux_formats::jobid::JobId;

/// Jobs read at a time.
const WINDOW: usize = 64;

/// Jobs that are being read.
#[derive(Debug, Default)]
pub(super) struct Missing {
    ids: std::vec::IntoIter<JobId>,
    outstanding: usize,
    read: usize,
}

impl JobList {
    /// Reads these jobs from the KVS, then answers what was asked meanwhile.
    pub(super) fn read_missing(&mut self, cx: &mut Cx<'_>, ids: Vec<JobId>) {
        self.missing = Some(Missing {
            ids: ids.into_iter(),
            ..Missing::default()
        });
        self.read_more_missing(cx);
    }

    pub(super) fn read_more_missing(&mut self, cx: &mut Cx<'_>) {
        let full = self.archive.is_full();
        let Some(missing) = &mut self.missing else { return };
        while missing.outstanding < WINDOW && !full {
            let Some(id) = missing.ids.next() else { break };
            missing.outstanding += 1;
            manager::stored_job(cx, id, move |me: &mut JobList, cx, events| {
                me.missing_read(cx, id, events)
            });
        }
        if missing.outstanding > 0 || missing.ids.len() > 0 {
            return;
        }
        let read = missing.read;
        self.missing = None;
        if read > 0 {
            cx.log_as_me(5, &format!("{read} inactive jobs were read from the KVS"));
        }
        self.changed(cx);
        for req in self.early.take().unwrap_or_default() {
            self.handle(cx, req);
        }
    }

    fn missing_read(&mut self, cx: &mut Cx<'_>, id: JobId, events: Option<Vec<JobEvent>>) {
        let Some(missing) = &mut self.missing else { return };
        missing.outstanding -= 1;
        // one that was purged meanwhile has no events
        if let Some(job) = self.replayed(events.as_deref().unwrap_or_default())
            && !self.archive.recent.contains_key(&id)
        {
            if let Some(missing) = &mut self.missing {
                missing.read += 1;
            }
            self.stats.add(&job);
            self.archive_job(cx, Row::of(&job));
        }
        self.read_more_missing(cx);
    }

    fn replayed(&mut self, events: &[JobEvent]) -> Option<Job> {
        let (first, rest) = events.split_first()?;
        let mut job = self.shared.submitted(first)?;
        for event in rest {
            self.shared.apply(&mut job, event);
        }
        job.is_inactive().then_some(job)
    }
}
