//! Which jobs did a user submit, newest first? (flux-core: job-manager `.history`; `flux job last`.)

use flux_formats::jobid::JobId;
use std::collections::{HashMap, VecDeque};

/// Ids of each user's jobs, ascending; ids grow with submission time, and the oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct History {
    users: HashMap<u32, VecDeque<u64>>,
}

/// The text is no Python slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not parse python-style slice expression")]
pub(super) struct SliceError;

impl History {
    pub(super) fn add(&mut self, userid: u32, id: JobId) {
        let ids = self.users.entry(userid).or_default();
        match ids.back() {
            Some(last) if *last >= id.0 => {
                if let Err(at) = ids.binary_search(&id.0) {
                    ids.insert(at, id.0);
                }
            }
            _ => ids.push_back(id.0),
        }
    }

    pub(super) fn forget(&mut self, userid: u32, id: JobId) {
        let Some(ids) = self.users.get_mut(&userid) else {
            return;
        };
        if let Ok(at) = ids.binary_search(&id.0) {
            ids.remove(at);
        }
        if ids.is_empty() {
            self.users.remove(&userid);
        }
    }

    /// Returns the slice of a user's jobs, newest first.
    ///
    /// # Errors
    /// The text is no slice.
    pub(super) fn slice(&self, userid: u32, slice: &str) -> Result<Vec<u64>, SliceError> {
        let ids = self.users.get(&userid);
        let len = ids.map_or(0, VecDeque::len);
        let newest = |index: usize| ids?.get(len.checked_sub(index + 1)?).copied();
        Ok(indices(slice, len)?.filter_map(newest).collect())
    }
}

/// Returns the indices that a Python slice selects from a sequence of `len`.
fn indices(slice: &str, len: usize) -> Result<impl Iterator<Item = usize>, SliceError> {
    let inner = slice
        .strip_prefix('[')
        .and_then(|s| s.strip_suffix(']'))
        .ok_or(SliceError)?;
    let parts: Vec<&str> = inner.split(':').collect();
    let number = |index: usize| -> Result<Option<i64>, SliceError> {
        match parts.get(index).map(|part| part.trim()) {
            None | Some("") => Ok(None),
            Some(part) => part.parse().map(Some).map_err(|_| SliceError),
        }
    };
    let len = i64::try_from(len).map_err(|_| SliceError)?;
    let (start, stop, step) = match parts.len() {
        1 => {
            let at = number(0)?.ok_or(SliceError)?;
            let at = if at < 0 { at + len } else { at };
            if at < 0 {
                (0, 0, 1)
            } else {
                (at.min(len), at.saturating_add(1).min(len), 1)
            }
        }
        2 | 3 => {
            let step = number(2)?.unwrap_or(1);
            if step == 0 {
                return Err(SliceError);
            }
            let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
            let clamp = |value: i64| (if value < 0 { value + len } else { value }).clamp(low, high);
            let (first, last) = if step > 0 { (low, high) } else { (high, low) };
            (
                number(0)?.map_or(first, clamp),
                number(1)?.map_or(last, clamp),
                step,
            )
        }
        _ => return Err(SliceError),
    };
    let mut at = start;
    Ok(std::iter::from_fn(move || {
        let inside = if step > 0 { at < stop } else { at > stop };
        let index = inside.then_some(at);
        at = at.saturating_add(step);
        index.and_then(|index| usize::try_from(index).ok())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_as_python_takes_them() {
        for (slice, expected) in [
            ("[:1]", vec![0]),
            ("[:]", vec![0, 1, 2, 3, 4]),
            ("[-1:]", vec![4]),
            ("[1:3]", vec![1, 2]),
            ("[::2]", vec![0, 2, 4]),
            ("[::-1]", vec![4, 3, 2, 1, 0]),
            ("[3:0:-2]", vec![3, 1]),
            ("[0]", vec![0]),
            ("[-1]", vec![4]),
            ("[7]", vec![]),
            ("[-7]", vec![]),
            ("[9:]", vec![]),
        ] {
            assert_eq!(
                indices(slice, 5).unwrap().collect::<Vec<_>>(),
                expected,
                "{slice}"
            );
        }
        for bad in ["", "1", "[", "[]", "[a:]", "[::0]", "[1:2:3:4]"] {
            assert!(indices(bad, 5).is_err(), "{bad}");
        }
    }

    #[test]
    fn newest_first() {
        let mut history = History::default();
        for id in [1, 5, 3, 3] {
            history.add(7, JobId(id));
        }
        assert_eq!(history.slice(7, "[:]").unwrap(), [5, 3, 1]);
        history.forget(7, JobId(5));
        assert_eq!(history.slice(7, "[:1]").unwrap(), [3]);
        history.forget(7, JobId(3));
        history.forget(7, JobId(1));
        assert!(history.slice(7, "[:]").unwrap().is_empty());
        assert!(history.slice(8, "[:]").unwrap().is_empty());
    }
}
