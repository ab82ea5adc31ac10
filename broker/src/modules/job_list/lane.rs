//! How does work reach a thread that owns a connection, and come back? One piece at a time; what it has to say comes
//! back as a call into the job list.

use super::JobList;
use super::db::Db;
use crate::modules::content_sqlite::StoreError;
use crate::service::{Cx, Mailbox};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// What is to be done with an outcome, on the broker's thread.
pub(super) type Reply = Box<dyn FnOnce(&mut JobList, &mut Cx<'_>) + Send>;
/// Work on a connection.
pub(super) type Work = Box<dyn FnOnce(&mut Db) -> Reply + Send>;

/// Which thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Writer,
    Reader,
}

/// One thread and what waits for it. The channel holds one piece, because the next is sent when one is done.
pub(super) struct Lane {
    sender: Option<SyncSender<Work>>,
    waiting: VecDeque<Work>,
    busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    /// Starts a thread, which opens its connection first.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn start(
        which: Which,
        mailbox: Mailbox<JobList>,
        open: impl FnOnce() -> Result<Db, StoreError> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(1);
        let name = match which {
            Which::Writer => "job-list-write",
            Which::Reader => "job-list-read",
        };
        let serve = move || match open() {
            Ok(db) => serve(db, &receiver, &mailbox, which),
            Err(err) => {
                // the hub is gone only when the broker exits
                let _gone = mailbox.blocking_post(move |list, cx| list.not_opened(cx, &err));
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(serve)?;
        Ok(Lane {
            sender: Some(sender),
            waiting: VecDeque::new(),
            busy: false,
            thread: Some(thread),
        })
    }

    /// Takes work; it is done in the order of the calls.
    pub(super) fn push(&mut self, work: Work) {
        self.waiting.push_back(work);
        self.send();
    }

    fn send(&mut self) {
        if self.busy {
            return;
        }
        if let (Some(sender), Some(work)) = (&self.sender, self.waiting.pop_front()) {
            self.busy = sender.try_send(work).is_ok();
        }
    }

    /// A piece of work is done.
    pub(super) fn done(&mut self) {
        self.busy = false;
        self.send();
    }

    /// Returns true when nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        !self.busy && self.waiting.is_empty()
    }

    /// Ends the thread, which has nothing to do.
    pub(super) fn stop(mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(service = "job-list", "a thread panicked");
        }
    }
}

fn serve(mut db: Db, work: &Receiver<Work>, mailbox: &Mailbox<JobList>, which: Which) {
    while let Ok(work) = work.recv() {
        let reply = work(&mut db);
        let posted = mailbox.blocking_post(move |list, cx| {
            list.lane_done(which);
            reply(list, cx);
            list.lanes_idle(cx);
        });
        if posted.is_err() {
            return;
        }
    }
}
