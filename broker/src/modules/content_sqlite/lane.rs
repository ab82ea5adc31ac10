//! How do jobs reach a thread that owns a connection, and come back? In batches: while one is at work the next
//! ones gather, so that waiting commits share one transaction.

use super::db::{Db, StoreError};
use super::service::ContentSqlite;
use crate::service::Mailbox;
use std::any::Any;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// What a job gives back.
pub(super) type Output = Box<dyn Any + Send>;
/// Work on the store's thread.
pub(super) type Run = Box<dyn FnOnce(&mut Db) -> Result<Output, StoreError> + Send>;

/// A job with the id of whoever waits for it.
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) sync: bool,
    pub(super) run: Run,
}

/// Outcomes of a batch.
pub(super) type Outcomes = Vec<(u64, Result<Output, StoreError>)>;

/// One thread and what waits for it. The channel holds one batch, because the next is sent when one is done.
pub(super) struct Lane {
    sender: Option<SyncSender<Vec<Job>>>,
    waiting: Vec<Job>,
    busy: bool,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Lane {
    /// Starts a thread for `db`; outcomes come by `mailbox`. Only a `writer` makes transactions.
    pub(super) fn start(
        name: &str,
        db: Db,
        mailbox: Mailbox<ContentSqlite>,
        writer: Option<Writer>,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(db, &receiver, &mailbox, writer.as_ref()))?;
        Ok(Lane {
            sender: Some(sender),
            waiting: Vec::new(),
            busy: false,
            thread: Some(thread),
        })
    }

    /// Takes a job; it goes to the thread with [`Lane::send`].
    pub(super) fn push(&mut self, job: Job) {
        self.waiting.push(job);
    }

    /// Sends what waits, unless the thread is at work.
    pub(super) fn send(&mut self) {
        if self.busy || self.waiting.is_empty() {
            return;
        }
        let Some(sender) = &self.sender else { return };
        self.busy = sender.try_send(std::mem::take(&mut self.waiting)).is_ok();
    }

    /// The thread has finished a batch.
    pub(super) fn finished(&mut self) {
        self.busy = false;
    }

    /// Returns true when nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        !self.busy && self.waiting.is_empty()
    }

    /// Ends the thread, which has nothing to do.
    pub(super) fn stop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of content-sqlite panicked");
        }
    }
}

/// How a writer commits.
pub(super) struct Writer {
    pub(super) durable: bool,
}

fn serve(mut db: Db, jobs: &Receiver<Vec<Job>>, mailbox: &Mailbox<ContentSqlite>, writer: Option<&Writer>) {
    let is_writer = writer.is_some();
    while let Ok(batch) = jobs.recv() {
        let outcomes = match writer {
            Some(writer) => write(&mut db, batch, writer),
            None => read(&mut db, batch),
        };
        let posted = mailbox.blocking_post(move |service, cx| service.finished(cx, is_writer, outcomes));
        if posted.is_err() {
            return;
        }
    }
}

/// Runs a batch that looks at one state of the file: locks are taken once, not for each statement.
fn read(db: &mut Db, batch: Vec<Job>) -> Outcomes {
    // without it each statement looks at the newest state, which is as good
    let _each_by_itself = db.begin_reading();
    let outcomes = batch.into_iter().map(|job| (job.id, (job.run)(db))).collect();
    db.rollback();
    outcomes
}

/// Runs a batch as one transaction: all of it happens or none.
fn write(db: &mut Db, batch: Vec<Job>, writer: &Writer) -> Outcomes {
    let ids: Vec<u64> = batch.iter().map(|job| job.id).collect();
    let run = |db: &mut Db| {
        db.begin(batch.iter().any(|job| job.sync), writer.durable)?;
        let outputs = batch
            .into_iter()
            .map(|job| (job.run)(db))
            .collect::<Result<Vec<_>, _>>()?;
        db.commit()?;
        Ok(outputs)
    };
    match run(db) {
        Ok(outputs) => ids.into_iter().zip(outputs.into_iter().map(Ok)).collect(),
        Err(err) => {
            db.rollback();
            let err: StoreError = err;
            ids.into_iter().map(|id| (id, Err(err.clone()))).collect()
        }
    }
}
