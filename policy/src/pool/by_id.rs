//! Maps whose keys are job ids or positions of nodes: nobody chooses them to collide, and they are asked for tens of thousands of times a pass.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by number.
pub(crate) type ById<K, V> = HashMap<K, V, BuildHasherDefault<NumberHasher>>;

/// Spreads a number over all bits by one long multiplication, whose halves are folded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let wide = u128::from(self.0 ^ number ^ 0x2545_f491_4f6c_dd1d) * 0x9e37_79b9_7f4a_7c15;
        let [low, high] =
            [wide, wide >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
        self.0 = low ^ high;
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(u64::try_from(number).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hash;

    /// Ids that follow each other, or are far apart in steps of a power of two, do not meet.
    #[test]
    fn spreads() {
        for shift in [0, 8, 16, 24, 40] {
            let mut low = std::collections::HashSet::new();
            let mut high = std::collections::HashSet::new();
            for number in 0..1024_u64 {
                let mut hasher = NumberHasher::default();
                (number << shift).hash(&mut hasher);
                // where an entry goes, and what it is told apart by
                low.insert(hasher.finish() & 0xffff);
                high.insert(hasher.finish() >> 48);
            }
            assert!(
                low.len() > 900 && high.len() > 900,
                "{shift}: {} {}",
                low.len(),
                high.len()
            );
        }
    }
}
