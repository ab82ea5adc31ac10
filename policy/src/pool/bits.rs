//! Which small integers are in a set, when speed matters more than size? (Node positions, core ids, GPU ids.)

use smallvec::{SmallVec, smallvec};

/// Bits in a word.
const WORD_BITS: usize = 64;

/// A growable set of small integers as one bit each, with its size kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    /// The cores of most nodes stand in the value itself.
    words: SmallVec<[u64; 2]>,
    count: usize,
}

impl Bits {
    /// Returns the set `0..size`.
    pub(super) fn first_n(size: usize) -> Bits {
        let mut bits = Bits {
            words: smallvec![u64::MAX; size / WORD_BITS],
            count: size,
        };
        if !size.is_multiple_of(WORD_BITS) {
            bits.words.push((1 << (size % WORD_BITS)) - 1);
        }
        bits
    }

    /// Adds `id`; returns true when it was not there.
    pub(super) fn insert(&mut self, id: usize) -> bool {
        let word = id / WORD_BITS;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let Some(slot) = self.words.get_mut(word) else {
            return false;
        };
        let bit = 1 << (id % WORD_BITS);
        let added = *slot & bit == 0;
        *slot |= bit;
        self.count += usize::from(added);
        added
    }

    /// Removes `id`; returns true when it was there.
    pub(super) fn remove(&mut self, id: usize) -> bool {
        let Some(slot) = self.words.get_mut(id / WORD_BITS) else {
            return false;
        };
        let bit = 1 << (id % WORD_BITS);
        let removed = *slot & bit != 0;
        *slot &= !bit;
        self.count -= usize::from(removed);
        removed
    }

    /// Returns true when `id` is in the set.
    pub(super) fn contains(&self, id: usize) -> bool {
        self.words
            .get(id / WORD_BITS)
            .is_some_and(|word| word >> (id % WORD_BITS) & 1 == 1)
    }

    /// Returns how many ids are in the set.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns how many ids are in this set and in every one of `others`.
    pub(super) fn count_common(&self, others: Filter<'_>) -> usize {
        if others.is_empty() {
            return self.count;
        }
        (0..self.words.len())
            .map(|at| self.word_common(at, others).count_ones() as usize)
            .sum()
    }

    /// Returns word `at` of the intersection of this set with every one of `others`.
    fn word_common(&self, at: usize, others: Filter<'_>) -> u64 {
        let word = self.words.get(at).copied().unwrap_or(0);
        others.iter().flatten().fold(word, |word, other| {
            word & other.words.get(at).copied().unwrap_or(0)
        })
    }

    /// Returns the ids that are in this set and in every one of `others`, ascending.
    pub(super) fn iter_common<'a>(&'a self, others: Filter<'a>) -> impl Iterator<Item = usize> + 'a {
        (0..self.words.len())
            .flat_map(move |at| Ones(self.word_common(at, others)).map(move |bit| at * WORD_BITS + bit))
    }

    /// Returns the ids that are in this set and in every one of `others`, descending.
    pub(super) fn iter_common_rev<'a>(&'a self, others: Filter<'a>) -> impl Iterator<Item = usize> + 'a {
        (0..self.words.len())
            .rev()
            .flat_map(move |at| OnesRev(self.word_common(at, others)).map(move |bit| at * WORD_BITS + bit))
    }

    /// Returns the ids, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.iter_common(Filter::default())
    }

    /// Keeps only what is in `other` too.
    pub(super) fn intersect(&mut self, other: &Bits) {
        for (at, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(at).copied().unwrap_or(0);
        }
        self.recount();
    }

    /// Adds all of `other`.
    pub(super) fn unite(&mut self, other: &Bits) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.recount();
    }

    /// Removes all of `other`.
    pub(super) fn subtract(&mut self, other: &Bits) {
        for (word, less) in self.words.iter_mut().zip(&other.words) {
            *word &= !less;
        }
        self.recount();
    }

    /// Returns true when every id is in `other`.
    pub(super) fn is_subset(&self, other: &Bits) -> bool {
        self.words
            .iter()
            .enumerate()
            .all(|(at, word)| word & !other.words.get(at).copied().unwrap_or(0) == 0)
    }

    /// Returns true when the sets share an id.
    pub(super) fn intersects(&self, other: &Bits) -> bool {
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    /// Returns the `n` lowest ids; fewer when the set is smaller.
    pub(super) fn lowest(&self, n: usize) -> Bits {
        let mut taken = Bits::default();
        for &word in &self.words {
            let missing = n - taken.count;
            if missing == 0 {
                break;
            }
            let mut rest = word;
            if usize::try_from(word.count_ones()).is_ok_and(|here| here > missing) {
                for _ in 0..missing {
                    rest &= rest - 1;
                }
                rest ^= word;
            }
            taken.words.push(rest);
            taken.count += rest.count_ones() as usize;
        }
        taken.trim();
        taken
    }

    /// Returns the `n` highest ids; fewer when the set is smaller.
    pub(super) fn highest(&self, n: usize) -> Bits {
        let mut taken = self.clone();
        let surplus = self.count.saturating_sub(n);
        taken.subtract(&self.lowest(surplus));
        taken.trim();
        taken
    }

    /// Drops trailing empty words, so that equal sets are equal values.
    fn trim(&mut self) {
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    /// Returns the words without trailing empty ones, to compare and hash sets.
    pub(super) fn key(&self) -> &[u64] {
        let len = self
            .words
            .iter()
            .rposition(|&word| word != 0)
            .map_or(0, |at| at + 1);
        self.words.get(..len).unwrap_or(&[])
    }

    fn recount(&mut self) {
        self.count = self.words.iter().map(|word| word.count_ones() as usize).sum();
    }
}

impl FromIterator<usize> for Bits {
    fn from_iter<I: IntoIterator<Item = usize>>(ids: I) -> Bits {
        let mut bits = Bits::default();
        for id in ids {
            bits.insert(id);
        }
        bits
    }
}

/// Up to two more sets that an id must be in.
pub(super) type Filter<'a> = [Option<&'a Bits>; 2];

/// Tells whether a filter lets everything pass.
trait FilterExt {
    fn is_empty(&self) -> bool;
}

impl FilterExt for Filter<'_> {
    fn is_empty(&self) -> bool {
        self.iter().all(Option::is_none)
    }
}

/// Positions of the ones in a word, ascending.
struct Ones(u64);

impl Iterator for Ones {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

/// Positions of the ones in a word, descending.
struct OnesRev(u64);

impl Iterator for OnesRev {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let bit = 63_u32.checked_sub(self.0.leading_zeros())?;
        self.0 ^= 1 << bit;
        Some(bit as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn same_as_a_sorted_set(a in prop::collection::btree_set(0usize..200, 0..80),
                                b in prop::collection::btree_set(0usize..200, 0..80), n in 0usize..100) {
            let (x, y): (Bits, Bits) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(x.count(), a.len());
            prop_assert_eq!(x.iter().collect::<BTreeSet<_>>(), a.clone());
            prop_assert_eq!(x.count_common([Some(&y), None]), a.intersection(&b).count());
            prop_assert_eq!(x.iter_common([None, Some(&y)]).collect::<Vec<_>>(), a.intersection(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(x.intersects(&y), !a.is_disjoint(&b));
            for (op, model) in [
                (Bits::intersect as fn(&mut Bits, &Bits), a.intersection(&b).copied().collect::<BTreeSet<_>>()),
                (Bits::unite, a.union(&b).copied().collect()),
                (Bits::subtract, a.difference(&b).copied().collect()),
            ] {
                let mut z = x.clone();
                op(&mut z, &y);
                prop_assert_eq!(z.count(), model.len());
                prop_assert_eq!(z.iter().collect::<BTreeSet<_>>(), model);
            }
            let taken = x.lowest(n);
            prop_assert_eq!(taken.iter().collect::<Vec<_>>(), a.iter().copied().take(n).collect::<Vec<_>>());
            prop_assert_eq!(taken.count(), n.min(a.len()));
            let high = x.highest(n);
            prop_assert_eq!(high.iter().collect::<BTreeSet<_>>(), a.iter().rev().copied().take(n).collect::<BTreeSet<_>>());
            prop_assert_eq!(x.iter_common_rev([None, None]).collect::<Vec<_>>(), a.iter().rev().copied().collect::<Vec<_>>());
            let same: Bits = taken.iter().collect();
            prop_assert_eq!(taken.key(), same.key());
            for id in 0..210 {
                prop_assert_eq!(x.contains(id), a.contains(&id));
            }
        }
    }

    #[test]
    fn first_n_has_n() {
        for n in [0, 1, 63, 64, 65, 128, 200] {
            assert_eq!(Bits::first_n(n).iter().count(), n);
            assert_eq!(Bits::first_n(n).count(), n);
        }
    }
}
