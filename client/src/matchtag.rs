//! Which matchtag does the next request get? The lowest free one, from 1 (0 means none).

/// A set of used tags that hands out the lowest free one.
#[derive(Debug, Default)]
pub(crate) struct MatchtagPool {
    /// One bit per tag; bit 0 of word 0 stands for tag 1. Words before `first` are full.
    words: Vec<u64>,
    first: usize,
}

impl MatchtagPool {
    /// Returns the lowest free tag and marks it used.
    pub(crate) fn take(&mut self) -> u32 {
        while let Some(word) = self.words.get_mut(self.first) {
            if *word != u64::MAX {
                let bit = word.trailing_ones();
                *word |= 1 << bit;
                return tag_of(self.first, bit);
            }
            self.first += 1;
        }
        self.words.push(1);
        tag_of(self.first, 0)
    }

    /// Marks a tag free; a tag that is not used is ignored.
    pub(crate) fn free(&mut self, tag: u32) {
        let Some(index) = tag.checked_sub(1) else { return };
        let at = usize::try_from(index / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.words.get_mut(at) {
            *word &= !(1 << (index % 64));
            self.first = self.first.min(at);
        }
    }

    /// Returns true while `tag` is in use.
    pub(crate) fn is_used(&self, tag: u32) -> bool {
        let Some(index) = tag.checked_sub(1) else {
            return false;
        };
        let at = usize::try_from(index / 64).unwrap_or(usize::MAX);
        self.words
            .get(at)
            .is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Marks every tag free.
    pub(crate) fn clear(&mut self) {
        self.words.clear();
        self.first = 0;
    }
}

fn tag_of(word: usize, bit: u32) -> u32 {
    u32::try_from(word).unwrap_or(u32::MAX / 64).saturating_mul(64) + bit + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn starts_at_one_and_reuses_the_lowest() {
        let mut pool = MatchtagPool::default();
        assert_eq!(
            (1..=130).map(|_| pool.take()).collect::<Vec<_>>(),
            (1..=130).collect::<Vec<_>>()
        );
        pool.free(70);
        pool.free(3);
        pool.free(0);
        pool.free(100_000);
        assert!(!pool.is_used(3) && pool.is_used(4) && !pool.is_used(0) && !pool.is_used(131));
        assert_eq!([pool.take(), pool.take(), pool.take()], [3, 70, 131]);
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(ops in prop::collection::vec(prop::option::of(1u32..300), 0..400)) {
            let mut pool = MatchtagPool::default();
            let mut model = BTreeSet::new();
            for op in ops {
                match op {
                    None => {
                        let want = (1..).find(|tag| !model.contains(tag)).unwrap();
                        prop_assert_eq!(pool.take(), want);
                        model.insert(want);
                    }
                    Some(tag) => {
                        pool.free(tag);
                        model.remove(&tag);
                    }
                }
            }
        }
    }
}
