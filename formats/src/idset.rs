//! How is a set of small integers held and written? (RFC 22 idset.)
//!
//! An [`IdSet`] is a sorted vector of disjoint ranges, so `0-4294967295` costs as much as `0`.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// Why a text is not an idset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdSetError {
    /// An opening or closing bracket has no partner or is in the wrong place.
    #[error("unbalanced bracket in idset")]
    Bracket,
    /// Something other than a decimal number stands where an id belongs.
    #[error("bad id at offset {0} in idset")]
    BadId(usize),
    /// An id exceeds 4294967295.
    #[error("id at offset {0} in idset is too large")]
    TooLarge(usize),
}

/// A set of ids from 0 to 4294967295, in ascending order (RFC 22).
///
/// Invariant: ranges are sorted, disjoint and never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdSet {
    /// Inclusive ranges.
    ranges: Vec<(u32, u32)>,
}

impl IdSet {
    /// Returns the empty set.
    pub const fn new() -> Self {
        IdSet { ranges: Vec::new() }
    }

    /// Returns the set of `first..=last`; empty when `last < first`.
    pub fn from_range(first: u32, last: u32) -> Self {
        IdSet {
            ranges: if first <= last {
                vec![(first, last)]
            } else {
                Vec::new()
            },
        }
    }

    /// Returns the set `0..size`.
    pub fn first_n(size: u32) -> Self {
        size.checked_sub(1)
            .map_or_else(IdSet::new, |last| IdSet::from_range(0, last))
    }

    /// Returns the set of inclusive ranges in any order; reversed ranges are turned round.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut all: Vec<(u32, u32)> = ranges
            .into_iter()
            .map(|(a, b)| if a <= b { (a, b) } else { (b, a) })
            .collect();
        if !all.is_sorted() {
            all.sort_unstable();
        }
        let mut set = IdSet::new();
        for range in all {
            set.push_range(range);
        }
        set
    }

    /// Appends a range whose start is not below the last start.
    fn push_range(&mut self, (lo, hi): (u32, u32)) {
        match self.ranges.last_mut() {
            Some((_, last)) if lo <= last.saturating_add(1) => *last = (*last).max(hi),
            _ => self.ranges.push((lo, hi)),
        }
    }

    /// Returns the inclusive ranges in ascending order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + DoubleEndedIterator + '_ {
        self.ranges.iter().copied()
    }

    /// Returns the position of the range that holds `id`, or where such a range belongs.
    fn position(&self, id: u32) -> Result<usize, usize> {
        let pos = self.ranges.partition_point(|&(_, hi)| hi < id);
        match self.ranges.get(pos) {
            Some(&(lo, _)) if lo <= id => Ok(pos),
            _ => Err(pos),
        }
    }

    /// Returns true when `id` is in the set.
    pub fn contains(&self, id: u32) -> bool {
        self.position(id).is_ok()
    }

    /// Adds `id`; returns true when it was not in the set before.
    pub fn insert(&mut self, id: u32) -> bool {
        let Err(pos) = self.position(id) else {
            return false;
        };
        let joins_left = pos.checked_sub(1).filter(|&left| {
            self.ranges
                .get(left)
                .is_some_and(|r| r.1.checked_add(1) == Some(id))
        });
        let joins_right = self
            .ranges
            .get(pos)
            .is_some_and(|r| id.checked_add(1) == Some(r.0));
        match (joins_left, joins_right) {
            (Some(left), true) => {
                let (_, hi) = self.ranges.remove(pos);
                if let Some(range) = self.ranges.get_mut(left) {
                    range.1 = hi;
                }
            }
            (Some(left), false) => {
                if let Some(range) = self.ranges.get_mut(left) {
                    range.1 = id;
                }
            }
            (None, true) => {
                if let Some(range) = self.ranges.get_mut(pos) {
                    range.0 = id;
                }
            }
            (None, false) => self.ranges.insert(pos, (id, id)),
        }
        true
    }

    /// Adds all of `first..=last`.
    pub fn insert_range(&mut self, first: u32, last: u32) {
        if first <= last {
            *self = self.union(&IdSet::from_range(first, last));
        }
    }

    /// Removes `id`; returns true when it was in the set.
    pub fn remove(&mut self, id: u32) -> bool {
        let Ok(pos) = self.position(id) else {
            return false;
        };
        let Some(&(lo, hi)) = self.ranges.get(pos) else {
            return false;
        };
        match (lo == id, hi == id) {
            (true, true) => {
                self.ranges.remove(pos);
            }
            (true, false) => {
                if let Some(range) = self.ranges.get_mut(pos) {
                    range.0 = id.saturating_add(1);
                }
            }
            (false, true) => {
                if let Some(range) = self.ranges.get_mut(pos) {
                    range.1 = id.saturating_sub(1);
                }
            }
            (false, false) => {
                if let Some(range) = self.ranges.get_mut(pos) {
                    range.1 = id.saturating_sub(1);
                }
                self.ranges
                    .insert(pos.saturating_add(1), (id.saturating_add(1), hi));
            }
        }
        true
    }

    /// Removes all ids.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Returns true for the empty set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the number of ids.
    pub fn count(&self) -> u64 {
        self.ranges
            .iter()
            .map(|&(lo, hi)| u64::from(hi) - u64::from(lo) + 1)
            .sum()
    }

    /// Returns the lowest id.
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|r| r.0)
    }

    /// Returns the highest id.
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|r| r.1)
    }

    /// Returns the lowest id above `id`.
    pub fn next(&self, id: u32) -> Option<u32> {
        let next = id.checked_add(1)?;
        match self.position(next) {
            Ok(_) => Some(next),
            Err(pos) => self.ranges.get(pos).map(|r| r.0),
        }
    }

    /// Returns the id at `index` in ascending order.
    pub fn nth(&self, index: u64) -> Option<u32> {
        let mut left = index;
        for &(lo, hi) in &self.ranges {
            let size = u64::from(hi) - u64::from(lo) + 1;
            if left < size {
                return u32::try_from(u64::from(lo) + left).ok();
            }
            left -= size;
        }
        None
    }

    /// Returns how many ids of the set are below `id`.
    pub fn rank_of(&self, id: u32) -> u64 {
        let mut below = 0;
        for &(lo, hi) in &self.ranges {
            if lo >= id {
                break;
            }
            below += u64::from(hi.min(id - 1)) - u64::from(lo) + 1;
        }
        below
    }

    /// Returns the ids in ascending order.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            ranges: self.ranges.iter(),
            current: None,
        }
    }

    /// Removes and returns the `n` lowest ids (fewer when the set is smaller).
    pub fn take_first(&mut self, n: u64) -> IdSet {
        let mut left = n;
        let mut whole = 0;
        let mut split = None;
        for range in &mut self.ranges {
            if left == 0 {
                break;
            }
            let size = u64::from(range.1) - u64::from(range.0) + 1;
            if size <= left {
                left -= size;
                whole += 1;
                continue;
            }
            // left < size <= 2^32, so the sum stays below range.1
            let end = range
                .0
                .saturating_add(u32::try_from(left - 1).unwrap_or(u32::MAX));
            split = Some((range.0, end));
            range.0 = end.saturating_add(1);
            break;
        }
        let mut taken: Vec<(u32, u32)> = self.ranges.drain(..whole).collect();
        taken.extend(split);
        IdSet { ranges: taken }
    }

    /// Returns the ids that are in either set.
    pub fn union(&self, other: &IdSet) -> IdSet {
        let mut out = IdSet {
            ranges: Vec::with_capacity(self.ranges.len() + other.ranges.len()),
        };
        let (mut a, mut b) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        loop {
            let from_a = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) => x <= y,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            if let Some(&range) = if from_a { a.next() } else { b.next() } {
                out.push_range(range);
            }
        }
        out
    }

    /// Returns the ids that are in both sets.
    pub fn intersection(&self, other: &IdSet) -> IdSet {
        let mut out = IdSet::new();
        self.overlaps(other, |range| {
            out.push_range(range);
            true
        });
        out
    }

    /// Returns true when the sets share an id.
    pub fn intersects(&self, other: &IdSet) -> bool {
        let mut found = false;
        self.overlaps(other, |_| {
            found = true;
            false
        });
        found
    }

    /// Calls `visit` with each common range until it returns false.
    fn overlaps(&self, other: &IdSet, mut visit: impl FnMut((u32, u32)) -> bool) {
        let (mut a, mut b) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(&&(alo, ahi)), Some(&&(blo, bhi))) = (a.peek(), b.peek()) {
            let (lo, hi) = (alo.max(blo), ahi.min(bhi));
            if lo <= hi && !visit((lo, hi)) {
                return;
            }
            if ahi <= bhi {
                a.next();
            } else {
                b.next();
            }
        }
    }

    /// Returns the ids of this set that are not in `other`.
    pub fn difference(&self, other: &IdSet) -> IdSet {
        let mut out = IdSet::new();
        let mut b = other.ranges.iter().peekable();
        for &(lo, hi) in &self.ranges {
            let mut start = Some(lo);
            while let (Some(from), Some(&&(blo, bhi))) = (start, b.peek()) {
                if bhi < from {
                    b.next();
                    continue;
                }
                if blo > hi {
                    break;
                }
                if blo > from {
                    out.ranges.push((from, blo - 1));
                }
                start = bhi.checked_add(1).filter(|&next| next <= hi);
            }
            if let Some(from) = start {
                out.ranges.push((from, hi));
            }
        }
        out
    }

    /// Returns true when every id of this set is in `other`.
    pub fn is_subset(&self, other: &IdSet) -> bool {
        self.ranges.iter().all(|&(lo, hi)| {
            other
                .position(lo)
                .is_ok_and(|pos| other.ranges.get(pos).is_some_and(|range| range.1 >= hi))
        })
    }

    /// Returns the set in brackets when it has more than one id, as host and rank lists show it (`[0-3]`, `7`).
    pub fn bracketed(&self) -> String {
        if self.count() > 1 {
            format!("[{self}]")
        } else {
            self.to_string()
        }
    }

    /// Returns the number of bytes of heap memory in use.
    pub fn heap_size_bytes(&self) -> usize {
        self.ranges.capacity() * size_of::<(u32, u32)>()
    }
}

/// Iterates over the ids of an [`IdSet`] in ascending order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    ranges: std::slice::Iter<'a, (u32, u32)>,
    current: Option<(u32, u32)>,
}

impl Iterator for Iter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (lo, hi) = match self.current.take() {
            Some(range) => range,
            None => *self.ranges.next()?,
        };
        if lo < hi {
            self.current = Some((lo + 1, hi));
        }
        Some(lo)
    }
}

impl<'a> IntoIterator for &'a IdSet {
    type Item = u32;
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl FromIterator<u32> for IdSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut set = IdSet::new();
        set.extend(ids);
        set
    }
}

impl Extend<u32> for IdSet {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, ids: I) {
        for id in ids {
            if self.last().is_none_or(|last| last < id) {
                self.push_range((id, id));
            } else {
                self.insert(id);
            }
        }
    }
}

impl From<u32> for IdSet {
    fn from(id: u32) -> Self {
        IdSet::from_range(id, id)
    }
}

impl fmt::Display for IdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &(lo, hi)) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if lo == hi {
                write!(f, "{lo}")?;
            } else {
                write!(f, "{lo}-{hi}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for IdSet {
    type Err = IdSetError;

    /// Parses an idset, with or without brackets; "" and "[]" are the empty set.
    ///
    /// Like flux-core, and wider than RFC 22, it accepts ids in any order, repeated ids and reversed ranges.
    fn from_str(text: &str) -> Result<Self, IdSetError> {
        let (body, base) = match (text.strip_prefix('['), text.ends_with(']')) {
            (Some(rest), true) => (rest.strip_suffix(']').unwrap_or(rest), 1),
            (None, false) => (text, 0),
            _ => return Err(IdSetError::Bracket),
        };
        let mut set = IdSet::new();
        if body.is_empty() {
            return Ok(set);
        }
        let mut unsorted = Vec::new();
        let mut offset = base;
        for part in body.split(',') {
            let range = match part.split_once('-') {
                Some((lo, hi)) => {
                    let (lo, hi) = (parse_id(lo, offset)?, parse_id(hi, offset + lo.len() + 1)?);
                    (lo.min(hi), lo.max(hi))
                }
                None => {
                    let id = parse_id(part, offset)?;
                    (id, id)
                }
            };
            if unsorted.is_empty() && set.ranges.last().is_none_or(|last| last.0 <= range.0) {
                set.push_range(range);
            } else {
                unsorted.push(range);
            }
            offset += part.len() + 1;
        }
        if unsorted.is_empty() {
            return Ok(set);
        }
        unsorted.append(&mut set.ranges);
        Ok(IdSet::from_ranges(unsorted))
    }
}

/// Parses one decimal id without sign or leading zeros.
fn parse_id(digits: &str, offset: usize) -> Result<u32, IdSetError> {
    let valid = digits.bytes().all(|c| c.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
    if digits.is_empty() || !valid {
        return Err(IdSetError::BadId(offset));
    }
    digits.parse().map_err(|_| IdSetError::TooLarge(offset))
}

impl Serialize for IdSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = IdSet;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an idset string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<IdSet, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(text: &str) -> IdSet {
        text.parse().unwrap()
    }

    #[test]
    fn parse_and_display() {
        for (input, output) in [
            ("", ""),
            ("[]", ""),
            ("2", "2"),
            ("[2]", "2"),
            ("1,2,3,5,6,42", "1-3,5-6,42"),
            ("[1-3,5-6,42]", "1-3,5-6,42"),
            ("9-7", "7-9"),
            ("3,2,4,5", "2-5"),
            ("1-5,3-9", "1-9"),
            ("0-4294967295", "0-4294967295"),
            ("4294967295,0", "0,4294967295"),
        ] {
            assert_eq!(set(input).to_string(), output, "{input}");
        }
        for bad in [
            "[",
            "]",
            "[0",
            "0]",
            "[[0]]",
            "a",
            "1,,2",
            ",",
            "1,",
            "-1",
            "1-",
            "1-2-3",
            "01",
            "+1",
            " 1",
            "4294967296",
            "-",
        ] {
            assert!(bad.parse::<IdSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn huge_ranges_are_cheap() {
        let mut all = set("0-4294967295");
        assert_eq!(all.count(), 1 << 32);
        assert!(all.contains(u32::MAX) && !all.insert(7));
        assert!(all.remove(u32::MAX) && all.remove(0) && all.remove(100));
        assert_eq!(all.to_string(), "1-99,101-4294967294");
        assert_eq!(all.take_first(100).to_string(), "1-99,101");
        assert_eq!(all.to_string(), "102-4294967294");
        assert_eq!(
            set("0-4294967295").difference(&set("5")).to_string(),
            "0-4,6-4294967295"
        );
        assert_eq!(set("0-4294967295").nth(u64::from(u32::MAX)), Some(u32::MAX));
        assert_eq!(set("4294967295").next(u32::MAX), None);
    }

    #[test]
    fn takes_bracketed_form() {
        assert_eq!(set("0-3").bracketed(), "[0-3]");
        assert_eq!(set("7").bracketed(), "7");
    }

    proptest! {
        #[test]
        fn round_trip_and_algebra(a in prop::collection::btree_set(0u32..200, 0..60),
                                  b in prop::collection::btree_set(0u32..200, 0..60),
                                  n in 0usize..80) {
            let (x, y): (IdSet, IdSet) = (a.iter().copied().collect(), b.iter().rev().copied().collect());
            prop_assert_eq!(&set(&x.to_string()), &x);
            prop_assert_eq!(x.iter().collect::<BTreeSet<_>>(), a.clone());
            prop_assert_eq!(y.iter().collect::<BTreeSet<_>>(), b.clone());
            prop_assert_eq!(x.count(), a.len() as u64);
            prop_assert_eq!(x.union(&y).iter().collect::<Vec<_>>(), a.union(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(x.intersection(&y).iter().collect::<Vec<_>>(), a.intersection(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(x.difference(&y).iter().collect::<Vec<_>>(), a.difference(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            // the invariant makes equal sets equal values
            prop_assert_eq!(x.union(&y), set(&x.union(&y).to_string()));
            prop_assert_eq!(x.difference(&y), set(&x.difference(&y).to_string()));
            let mut rest = x.clone();
            let taken = rest.take_first(n as u64);
            prop_assert_eq!(taken.iter().collect::<Vec<_>>(), a.iter().copied().take(n).collect::<Vec<_>>());
            prop_assert_eq!(taken.union(&rest), x.clone());
            for id in 0..200 {
                prop_assert_eq!(x.contains(id), a.contains(&id));
                prop_assert_eq!(x.next(id), a.range(id + 1..).next().copied());
                prop_assert_eq!(x.rank_of(id), a.range(..id).count() as u64);
            }
            for (index, id) in a.iter().enumerate() {
                prop_assert_eq!(x.nth(index as u64), Some(*id));
            }
            let mut edited = x.clone();
            let mut model = a.clone();
            for id in b {
                prop_assert_eq!(edited.remove(id), model.remove(&id));
            }
            prop_assert_eq!(edited.iter().collect::<BTreeSet<_>>(), model);
        }

        #[test]
        fn never_panics(text in "[0-9,\\[\\]-]{0,30}") {
            drop(text.parse::<IdSet>());
        }
    }
}
