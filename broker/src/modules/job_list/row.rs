//! How is an inactive job kept, in memory until the database has it, and in the database?

use super::job::Job;
use super::view::{Cause, Dependencies, Place, View};
use flux_formats::jobid::JobId;
use flux_formats::jobstate::{JobResult, JobState};
use rusqlite::types::{FromSql, FromSqlResult, Type, ValueRef};
use rusqlite::{Row as SqlRow, Statement, params};

/// Columns in the order of [`read`] and [`Row::insert`], after `seq`.
pub(super) const COLUMNS: &str = "id, userid, urgency, priority, t_submit, t_depend, t_priority, t_sched, t_run, \
    t_cleanup, t_inactive, expiration, waitstatus, result, name, cwd, queue, project, bank, ntasks, ncores, nnodes, \
    duration, ranks, nodelist, exception_severity, exception_type, exception_note, annotations, dependencies";

/// Where a job stands among the inactive ones: the last one that ended comes first, and of two that ended at the same
/// time the one with the greater id.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Rank {
    /// Seconds since the epoch.
    pub(super) t_inactive: f64,
    /// The id as SQLite keeps it.
    pub(super) id: i64,
}

impl Rank {
    /// Before all jobs.
    pub(super) const FIRST: Rank = Rank {
        t_inactive: f64::INFINITY,
        id: i64::MAX,
    };
    /// After all jobs.
    pub(super) const LAST: Rank = Rank {
        t_inactive: f64::NEG_INFINITY,
        id: i64::MIN,
    };

    /// Returns true when this job comes before the other one in a list.
    pub(super) fn precedes(self, other: Rank) -> bool {
        self > other
    }
}

/// Returns a job id as SQLite, whose integers are signed, keeps it.
pub(super) fn signed(id: JobId) -> i64 {
    id.0.cast_signed()
}

/// Returns the job id that SQLite keeps as this integer.
pub(super) fn unsigned(id: i64) -> JobId {
    JobId(id.cast_unsigned())
}

/// An inactive job on its own: what [`Job`] shares is copied, so that it can cross threads.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: JobId,
    pub(super) userid: u32,
    urgency: u8,
    priority: i64,
    times: [f64; 7],
    expiration: f64,
    waitstatus: Option<i32>,
    pub(super) result: JobResult,
    name: Box<str>,
    cwd: Option<Box<str>>,
    pub(super) queue: Option<Box<str>>,
    project: Option<Box<str>>,
    bank: Option<Box<str>>,
    /// Tasks, cores, nodes.
    counts: [u32; 3],
    duration: f64,
    /// Ranks and node list.
    place: Option<[Box<str>; 2]>,
    /// Severity, type and note.
    fault: Option<(u8, [Box<str>; 2])>,
    annotations: Option<Box<str>>,
    dependencies: Option<Box<str>>,
}

impl Row {
    /// Returns what is kept of a job that is over.
    pub(super) fn of(job: &Job) -> Self {
        let view = job.view();
        let own = |text: Option<&str>| text.map(Into::into);
        Row {
            id: view.id,
            userid: view.userid,
            urgency: view.urgency,
            priority: view.priority,
            times: [
                view.t_submit,
                view.t_depend,
                view.t_priority,
                view.t_sched,
                view.t_run,
                view.t_cleanup,
                view.t_inactive,
            ],
            expiration: view.expiration,
            waitstatus: view.waitstatus,
            result: job.result(),
            name: view.name.into(),
            cwd: own(view.cwd),
            queue: own(view.queue),
            project: own(view.project),
            bank: own(view.bank),
            counts: [view.ntasks, view.ncores, view.nnodes],
            duration: view.duration,
            place: view
                .place
                .map(|place| [place.ranks.into(), place.nodelist.into()]),
            fault: view
                .fault
                .map(|fault| (fault.severity, [fault.kind.into(), fault.note.into()])),
            annotations: own(view.annotations),
            dependencies: job
                .dependencies
                .as_ref()
                .and_then(|list| serde_json::to_string(list).ok())
                .map(Into::into),
        }
    }

    pub(super) fn rank(&self) -> Rank {
        let [.., t_inactive] = self.times;
        Rank {
            t_inactive,
            id: signed(self.id),
        }
    }

    /// Returns what a list shows of it.
    pub(super) fn view(&self) -> View<'_> {
        let [
            t_submit,
            t_depend,
            t_priority,
            t_sched,
            t_run,
            t_cleanup,
            t_inactive,
        ] = self.times;
        let [ntasks, ncores, nnodes] = self.counts;
        View {
            id: self.id,
            userid: self.userid,
            urgency: self.urgency,
            state: JobState::Inactive,
            priority: self.priority,
            t_submit,
            t_depend,
            t_priority,
            t_sched,
            t_run,
            t_cleanup,
            t_inactive,
            expiration: self.expiration,
            waitstatus: self.waitstatus,
            name: &self.name,
            cwd: self.cwd.as_deref(),
            queue: self.queue.as_deref(),
            project: self.project.as_deref(),
            bank: self.bank.as_deref(),
            ntasks,
            ncores,
            nnodes,
            duration: self.duration,
            place: self
                .place
                .as_ref()
                .map(|[ranks, nodelist]| Place { ranks, nodelist }),
            fault: self.fault.as_ref().map(|(severity, [kind, note])| Cause {
                severity: *severity,
                kind,
                note,
            }),
            result: Some(self.result),
            annotations: self.annotations.as_deref(),
            dependencies: self
                .dependencies
                .as_deref()
                .map_or(Dependencies::None, Dependencies::Text),
        }
    }

    /// Adds it to the table with a statement for `seq` and [`COLUMNS`].
    pub(super) fn insert(&self, statement: &mut Statement<'_>, seq: i64) -> rusqlite::Result<()> {
        let view = self.view();
        let place = view.place.map(|place| (place.ranks, place.nodelist)).unzip();
        let fault = view.fault;
        statement.execute(params![
            seq,
            signed(view.id),
            view.userid,
            view.urgency,
            view.priority,
            view.t_submit,
            view.t_depend,
            view.t_priority,
            view.t_sched,
            view.t_run,
            view.t_cleanup,
            view.t_inactive,
            view.expiration,
            view.waitstatus,
            self.result.bit(),
            view.name,
            view.cwd,
            view.queue,
            view.project,
            view.bank,
            view.ntasks,
            view.ncores,
            view.nnodes,
            view.duration,
            place.0,
            place.1,
            fault.map(|fault| fault.severity),
            fault.map(|fault| fault.kind),
            fault.map(|fault| fault.note),
            view.annotations,
            self.dependencies.as_deref(),
        ])?;
        Ok(())
    }
}

/// A result as a column holds it.
struct Outcome(JobResult);

impl FromSql for Outcome {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bits = u32::column_result(value)?;
        // a row that we did not write so: it failed as far as anyone can tell
        Ok(Outcome(JobResult::from_bit(bits).unwrap_or(JobResult::Failed)))
    }
}

/// Takes the columns of a row one after the other.
struct Columns<'a, 'b> {
    row: &'a SqlRow<'b>,
    at: usize,
}

impl<'a> Columns<'a, '_> {
    fn next<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let at = self.at;
        self.at += 1;
        self.row.get(at)
    }

    fn text(&mut self) -> rusqlite::Result<Option<&'a str>> {
        let at = self.at;
        self.at += 1;
        let value = self.row.get_ref(at)?;
        value
            .as_str_or_null()
            .map_err(|err| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(err)))
    }
}

/// Returns the job in a row of [`COLUMNS`].
pub(super) fn read<'a>(row: &'a SqlRow<'_>) -> rusqlite::Result<View<'a>> {
    let mut columns = Columns { row, at: 0 };
    let next = &mut columns;
    // members are evaluated in the order written, which is that of the columns
    Ok(View {
        id: unsigned(next.next()?),
        userid: next.next()?,
        urgency: next.next()?,
        state: JobState::Inactive,
        priority: next.next()?,
        t_submit: next.next()?,
        t_depend: next.next()?,
        t_priority: next.next()?,
        t_sched: next.next()?,
        t_run: next.next()?,
        t_cleanup: next.next()?,
        t_inactive: next.next()?,
        expiration: next.next()?,
        waitstatus: next.next()?,
        result: Some(next.next::<Outcome>()?.0),
        name: next.text()?.unwrap_or_default(),
        cwd: next.text()?,
        queue: next.text()?,
        project: next.text()?,
        bank: next.text()?,
        ntasks: next.next()?,
        ncores: next.next()?,
        nnodes: next.next()?,
        duration: next.next()?,
        place: match (next.text()?, next.text()?) {
            (Some(ranks), nodelist) => Some(Place {
                ranks,
                nodelist: nodelist.unwrap_or_default(),
            }),
            (None, _) => None,
        },
        fault: match (next.next::<Option<u8>>()?, next.text()?, next.text()?) {
            (Some(severity), kind, note) => Some(Cause {
                severity,
                kind: kind.unwrap_or_default(),
                note: note.unwrap_or_default(),
            }),
            (None, ..) => None,
        },
        annotations: next.text()?,
        dependencies: next.text()?.map_or(Dependencies::None, Dependencies::Text),
    })
}
