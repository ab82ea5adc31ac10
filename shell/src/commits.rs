//! Which events has the broker, and which must be sent again when it comes back?
//!
//! A broker with a state directory answers a commit when it is visible, and writes it down a little later. A shell
//! that outlives its broker (`--reconnect`) therefore keeps its transactions until the broker says that they are
//! written. Each transaction sets a mark to its number; a broker that came back is asked for the mark, and what comes
//! after it is sent again: nothing is lost, nothing is there twice.
//!
//! ```text
//!           connection or way to the store lost            mark known
//!   Open ─────────────────────────────────────▶ Broken ─▶ Asking ─────▶ Open
//! ```

use std::collections::VecDeque;
use std::io::Write;
use std::time::{Duration, Instant};

use flux_client::kvs::{self, Transaction, commit_start, lookup_start};
use flux_client::{Handle, Message, Rpc};
use flux_formats::errno::{EDQUOT, EHOSTUNREACH, EIO, ENOENT, ENOSPC, ENOSYS, EROFS, Errnum};
use serde::Deserialize;
use serde_json::Value;

use crate::ctx::{Ctx, Purpose, error_text};

/// Key of the mark in the guest namespace, before the shell's rank.
const MARK: &str = "shell-commits-";
/// Bytes in unanswered commits above which tasks' output is left in their pipes.
const IN_FLIGHT_MAX: usize = 4 << 20;
/// Bytes that the broker may lose above which tasks' output is left in their pipes.
const KEPT_MAX: usize = 16 << 20;
/// Time after which the broker is asked how far it has written, when that is what everything waits for.
const REFRESH: Duration = Duration::from_millis(200);

/// Whether transactions may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// An answer is missing for ever: nobody knows what the store has.
    Broken,
    /// The store is asked for the mark.
    Asking,
}

/// A transaction that the broker may still lose.
#[derive(Debug)]
struct Kept {
    number: u64,
    bytes: usize,
    transaction: Transaction,
    /// Its place in the broker's journal, once it is answered.
    position: Option<u64>,
}

/// The transactions of this shell.
#[derive(Debug)]
pub(crate) struct Commits {
    namespace: String,
    mark: String,
    keeps: bool,
    flow: Flow,
    /// Transactions made so far.
    made: u64,
    in_flight: usize,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    /// A commit was refused: the namespace is gone or closed, and further events have nowhere to go.
    refused: bool,
    refresh_at: Option<Instant>,
}

/// What a broker with a state directory adds to the answer to a commit.
#[derive(Debug, Default, Deserialize)]
struct Journal {
    #[serde(default)]
    position: Option<u64>,
    #[serde(default)]
    written: u64,
}

impl Commits {
    /// Returns the transactions into a namespace; `keeps` is true for a shell that outlives its broker.
    pub(crate) fn new(namespace: String, shell_rank: u32, keeps: bool) -> Self {
        Commits {
            namespace,
            mark: format!("{MARK}{shell_rank}"),
            keeps,
            flow: Flow::Open,
            made: 0,
            in_flight: 0,
            kept: VecDeque::new(),
            kept_bytes: 0,
            refused: false,
            refresh_at: None,
        }
    }

    /// Returns true while tasks' output should stay where it is.
    pub(crate) fn is_congested(&self, waiting: usize) -> bool {
        self.in_flight > IN_FLIGHT_MAX || waiting > IN_FLIGHT_MAX || self.kept_bytes > KEPT_MAX
    }

    /// Returns true while transactions are to be sent again.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.flow != Flow::Open
    }

    /// Returns when the broker is to be asked how far it has written.
    pub(crate) fn refresh_at(&self) -> Option<Instant> {
        self.refresh_at
    }

    /// Forgets which answers are awaited: they do not come any more.
    pub(crate) fn interrupt(&mut self) {
        if self.keeps {
            self.flow = Flow::Broken;
        }
        self.in_flight = 0;
        self.refresh_at = None;
        // another broker counts anew
        self.kept.iter_mut().for_each(|kept| kept.position = None);
    }

    fn send(
        &mut self,
        handle: &mut Handle,
        mut transaction: Transaction,
        bytes: usize,
    ) -> Option<(Rpc, u64)> {
        self.made += 1;
        if self.keeps {
            transaction.put(self.mark.as_str(), &self.made.to_string());
        }
        let rpc = commit_start(handle, &self.namespace, 0, &transaction).ok();
        if rpc.is_some() {
            self.in_flight += bytes;
        }
        if self.keeps {
            self.kept_bytes += bytes;
            self.kept.push_back(Kept {
                number: self.made,
                bytes,
                transaction,
                position: None,
            });
        }
        rpc.map(|rpc| (rpc, self.made))
    }

    /// Takes a good answer to transaction `number`.
    fn answered(&mut self, number: u64, journal: &Journal, now: Instant) {
        let Some(position) = journal.position else {
            // this broker's store goes with it: there is nothing that could be sent again
            self.kept.clear();
            self.kept_bytes = 0;
            return;
        };
        for kept in self.kept.iter_mut().take_while(|kept| kept.number <= number) {
            kept.position.get_or_insert(position);
        }
        while let Some(kept) = self
            .kept
            .pop_front_if(|kept| kept.position.is_some_and(|position| position <= journal.written))
        {
            self.kept_bytes -= kept.bytes;
        }
        self.refresh_at = (self.kept_bytes > KEPT_MAX && self.in_flight == 0).then(|| now + REFRESH);
    }

    /// Sends again what comes after the mark; returns the RPCs with number and size.
    fn resume(&mut self, handle: &mut Handle, mark: u64) -> Vec<(Rpc, u64, usize)> {
        self.flow = Flow::Open;
        let mut sent = Vec::new();
        for kept in self.kept.iter().filter(|kept| kept.number > mark) {
            if let Ok(rpc) = commit_start(handle, &self.namespace, 0, &kept.transaction) {
                self.in_flight += kept.bytes;
                sent.push((rpc, kept.number, kept.bytes));
            }
        }
        sent
    }
}

impl Ctx {
    /// Commits the waiting events now; the request leaves with the next poll.
    pub(crate) fn commit(&mut self) {
        self.set_flush_at(None);
        if self.events.is_empty() || (self.reconnects && self.commits.is_interrupted()) {
            return;
        }
        let bytes = self.events.len();
        let transaction = self.events.take();
        if self.commits.refused {
            return;
        }
        self.send_commit(transaction, bytes);
    }

    fn send_commit(&mut self, transaction: Transaction, bytes: usize) {
        if let Some((rpc, number)) = self.commits.send(&mut self.handle, transaction, bytes) {
            self.track(&rpc, Purpose::Commit { number, bytes });
        }
    }

    /// Takes the answer to a commit.
    pub(crate) fn on_committed(&mut self, number: u64, bytes: usize, response: &Message, now: Instant) {
        self.commits.in_flight = self.commits.in_flight.saturating_sub(bytes);
        match response.errnum() {
            0 if self.reconnects => {
                let journal = response.payload_json::<Journal>().unwrap_or_default();
                self.commits.answered(number, &journal, now);
            }
            0 => {}
            errnum if self.reconnects && is_passing(errnum) => {
                self.commits.interrupt();
                self.retry_later(now);
            }
            _ => self.commit_refused(response),
        }
    }

    /// Asks the store for the mark, when an answer is missing.
    pub(crate) fn ask_mark(&mut self) {
        if self.commits.flow != Flow::Broken {
            return;
        }
        let from = kvs::From::Namespace(&self.commits.namespace);
        if let Ok(rpc) = lookup_start(&mut self.handle, from, &self.commits.mark, 0) {
            self.commits.flow = Flow::Asking;
            self.track(&rpc, Purpose::Mark);
        }
    }

    /// Takes the mark and sends what comes after it.
    pub(crate) fn on_mark(&mut self, response: &Message, now: Instant) {
        #[derive(Deserialize)]
        struct Found {
            val: Value,
        }
        let mark = match response.errnum() {
            0 => {
                let found = response.payload_json::<Found>().ok();
                let bytes = found.and_then(|found| kvs::value_of(&found.val));
                bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok())
            }
            // none of this shell's transactions is there
            ENOENT => Some(0),
            errnum if is_passing(errnum) => {
                self.commits.flow = Flow::Broken;
                self.retry_later(now);
                return;
            }
            _ => None,
        };
        let Some(mark) = mark else {
            self.commits.flow = Flow::Open;
            self.commit_refused(response);
            return;
        };
        for (rpc, number, bytes) in self.commits.resume(&mut self.handle, mark) {
            self.track(&rpc, Purpose::Commit { number, bytes });
        }
        self.commit();
    }

    /// Asks how far the broker has written, with a transaction that holds nothing but its mark.
    pub(crate) fn refresh_commits(&mut self, now: Instant) {
        if self.commits.refresh_at.is_some_and(|at| at <= now) {
            self.commits.refresh_at = None;
            if self.commits.flow == Flow::Open && !self.commits.refused {
                self.send_commit(Transaction::new(), 0);
            }
        }
    }

    /// Gives up committing after a refusal; the reason goes to standard error, the only place left.
    fn commit_refused(&mut self, response: &Message) {
        self.exit_code = self.exit_code.max(1);
        if std::mem::replace(&mut self.commits.refused, true) {
            return;
        }
        drop(self.events.take());
        self.commits.kept.clear();
        self.commits.kept_bytes = 0;
        let text = error_text(response);
        // Nobody to tell when standard error is closed.
        let _written = writeln!(std::io::stderr(), "flux-shell: ERROR: eventlog commit: {text}");
    }
}

/// Returns true for errors that pass: the way to the store is broken, or the store is full.
fn is_passing(errnum: Errnum) -> bool {
    matches!(errnum, EHOSTUNREACH | ENOSYS | ENOSPC | EDQUOT | EROFS | EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commits(count: u64) -> Commits {
        let mut commits = Commits::new("ns".into(), 0, true);
        for number in 1..=count {
            commits.made = number;
            commits.kept_bytes += 10;
            commits.kept.push_back(Kept {
                number,
                bytes: 10,
                transaction: Transaction::new(),
                position: None,
            });
        }
        commits
    }

    fn left(commits: &Commits) -> Vec<u64> {
        commits.kept.iter().map(|kept| kept.number).collect()
    }

    #[test]
    fn what_is_written_is_forgotten() {
        let now = Instant::now();
        let mut commits = commits(4);
        let answer = |position, written| Journal {
            position: Some(position),
            written,
        };
        commits.answered(1, &answer(7, 3), now);
        assert_eq!(left(&commits), [1, 2, 3, 4], "visible is not written");
        commits.answered(2, &answer(9, 8), now);
        assert_eq!(left(&commits), [2, 3, 4]);
        // the answers to 3 were lost; 4 comes after it in the journal
        commits.answered(4, &answer(12, 9), now);
        assert_eq!(left(&commits), [3, 4]);
        assert_eq!(commits.kept_bytes, 20);
        commits.interrupt();
        assert!(commits.is_interrupted());
        // the next broker counts from one
        commits.answered(4, &answer(1, 1), now);
        assert_eq!(left(&commits), [0; 0]);
    }

    #[test]
    fn a_store_that_goes_with_its_broker_keeps_nothing() {
        let mut commits = commits(3);
        commits.answered(1, &Journal::default(), Instant::now());
        assert!(commits.kept.is_empty() && commits.kept_bytes == 0);
    }
}
