//! Repeatable random choices; the seed is printed so that a failure can be run again.

/// A small generator (splitmix64); not for secrets.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from `FLUX_TEST_SEED`, else from the clock, and prints the seed.
    ///
    /// # Panics
    /// When `FLUX_TEST_SEED` is not a number.
    #[must_use]
    pub fn from_env() -> Self {
        let seed = match std::env::var("FLUX_TEST_SEED") {
            Ok(text) => text.parse().expect("FLUX_TEST_SEED is a number"),
            Err(_) => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                u64::from(since.map_or(1, |since| since.subsec_nanos()))
            }
        };
        eprintln!("seed: FLUX_TEST_SEED={seed}");
        Random(seed)
    }

    /// Returns the next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Returns a number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.bits() % end).unwrap_or(0)
    }

    /// Returns `count` random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.bits().to_le_bytes()[0]).collect()
    }
}
