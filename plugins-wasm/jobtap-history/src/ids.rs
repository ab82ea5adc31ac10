//! The ids of each user's jobs, in pieces: nothing large is ever moved, and millions fit into the plugin's memory.

use std::collections::HashMap;

/// Ids in a piece.
const PIECE: usize = 1024;
/// Ids in all; beyond, the oldest of a user are forgotten. 8 bytes each, far below the 64 MiB that a plugin has.
const IDS_MAX: usize = if cfg!(test) { 8 * PIECE } else { 5_000_000 };

/// One user's ids, ascending.
#[derive(Debug, Default)]
struct Ids {
    pieces: Vec<Vec<u64>>,
    len: usize,
}

impl Ids {
    /// Returns the piece that an id is in, or would be.
    fn piece(&self, id: u64) -> usize {
        let at = self
            .pieces
            .partition_point(|piece| piece.last().is_some_and(|last| *last < id));
        at.min(self.pieces.len().saturating_sub(1))
    }

    fn add(&mut self, id: u64) -> bool {
        let at = self.piece(id);
        let Some(piece) = self.pieces.get_mut(at) else {
            self.pieces.push(vec![id]);
            self.len = 1;
            return true;
        };
        let Err(place) = piece.binary_search(&id) else {
            return false;
        };
        self.len += 1;
        if piece.len() < PIECE {
            piece.insert(place, id);
        } else if place == piece.len() {
            self.pieces.insert(at + 1, vec![id]);
        } else {
            let upper = piece.split_off(PIECE / 2);
            self.pieces.insert(at + 1, upper);
            self.len -= 1;
            return self.add(id);
        }
        true
    }

    fn forget(&mut self, id: u64) -> bool {
        let at = self.piece(id);
        let Some(piece) = self.pieces.get_mut(at) else {
            return false;
        };
        let Ok(place) = piece.binary_search(&id) else {
            return false;
        };
        piece.remove(place);
        self.len -= 1;
        if piece.is_empty() {
            self.pieces.remove(at);
        }
        true
    }
}

/// All users' jobs.
#[derive(Debug, Default)]
pub(crate) struct History {
    users: HashMap<u32, Ids>,
    len: usize,
}

impl History {
    /// Adds a job; one that is there already stays.
    pub(crate) fn add(&mut self, userid: u32, id: u64) {
        self.len += usize::from(self.users.entry(userid).or_default().add(id));
        while self.len > IDS_MAX {
            let Some(ids) = self.users.values_mut().max_by_key(|ids| ids.len) else {
                return;
            };
            let oldest = ids.pieces.remove(0).len();
            ids.len -= oldest;
            self.len -= oldest;
        }
    }

    /// Removes a job, whosever it was.
    pub(crate) fn forget(&mut self, id: u64) {
        let Some(userid) = self
            .users
            .iter_mut()
            .find_map(|(userid, ids)| ids.forget(id).then_some(*userid))
        else {
            return;
        };
        self.len -= 1;
        if self.len(userid) == 0 {
            self.users.remove(&userid);
        }
    }

    /// Returns how many jobs a user has.
    pub(crate) fn len(&self, userid: u32) -> usize {
        self.users.get(&userid).map_or(0, |ids| ids.len)
    }

    /// Returns the job that so many newer ones follow.
    pub(crate) fn newest(&self, userid: u32, mut index: usize) -> Option<u64> {
        for piece in self.users.get(&userid)?.pieces.iter().rev() {
            if let Some(at) = piece.len().checked_sub(index + 1) {
                return piece.get(at).copied();
            }
            index -= piece.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_order() {
        let mut history = History::default();
        // each id below 4999 once, scattered
        let ids = (0..4999u64).map(|number| number * 1237 % 4999);
        for id in ids.clone() {
            history.add(7, id);
            history.add(7, id);
        }
        assert_eq!(history.len(7), 4999);
        for index in [0, 1, 1023, 1024, 3000, 4998] {
            assert_eq!(
                history.newest(7, index),
                Some(4998 - u64::try_from(index).unwrap())
            );
        }
        assert_eq!(history.newest(7, 4999), None);
        for id in ids.filter(|id| id % 2 == 0) {
            history.forget(id);
            history.forget(id);
        }
        assert_eq!((history.len(7), history.newest(7, 1)), (2499, Some(4995)));
        for id in 0..4999 {
            history.forget(id);
        }
        assert!(history.users.is_empty() && history.len == 0);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut history = History::default();
        let many = u64::try_from(IDS_MAX).unwrap() * 2;
        history.add(8, 1);
        for id in 0..many {
            history.add(7, id);
        }
        assert!(history.len <= IDS_MAX && history.len(7) > IDS_MAX - 2 * PIECE && history.len(8) == 1);
        assert_eq!(history.newest(7, 0), Some(many - 1));
    }
}
