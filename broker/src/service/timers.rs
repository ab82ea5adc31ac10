//! When does which timer fire? A heap of deadlines, ordered by time and then by creation.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Instant;

/// Names a timer so that it can be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId(u64);

/// Deadlines with a value each. Cancelled entries stay in the heap until their time comes.
#[derive(Debug)]
pub(super) struct Timers<T> {
    heap: BinaryHeap<Reverse<(Instant, TimerId)>>,
    values: HashMap<TimerId, T>,
    next: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Timers {
            heap: BinaryHeap::new(),
            values: HashMap::new(),
            next: 1,
        }
    }
}

impl<T> Timers<T> {
    pub(super) fn insert(&mut self, at: Instant, value: T) -> TimerId {
        let id = TimerId(self.next);
        self.next += 1;
        self.heap.push(Reverse((at, id)));
        self.values.insert(id, value);
        id
    }

    pub(super) fn cancel(&mut self, id: TimerId) -> Option<T> {
        let value = self.values.remove(&id);
        if self.heap.len() > 64 && self.heap.len() > 4 * self.values.len() {
            let values = &self.values;
            self.heap.retain(|Reverse((_, id))| values.contains_key(id));
        }
        value
    }

    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, id))) = self.heap.peek() {
            if self.values.contains_key(id) {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.next_deadline()? > now {
            return None;
        }
        let Reverse((_, id)) = self.heap.pop()?;
        self.values.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn fires_in_order_and_skips_cancelled() {
        let start = Instant::now();
        let mut timers = Timers::default();
        let late = timers.insert(start + Duration::from_secs(2), 'c');
        timers.insert(start, 'a');
        let cancelled = timers.insert(start, 'x');
        timers.insert(start, 'b');
        assert_eq!(timers.cancel(cancelled), Some('x'));
        assert_eq!(timers.pop_due(start), Some('a'));
        assert_eq!(timers.pop_due(start), Some('b'));
        assert_eq!(timers.pop_due(start), None);
        assert_eq!(timers.next_deadline(), Some(start + Duration::from_secs(2)));
        timers.cancel(late);
        assert_eq!(timers.next_deadline(), None);
    }
}
