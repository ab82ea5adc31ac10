//! How is a new FLUID made that is unique and never goes back? (RFC 19 "Implementation".)

use super::JobId;

/// Highest generator id that fits 14 bits.
pub const GENERATOR_MAX: u16 = (1 << 14) - 1;
const TIMESTAMP_MAX: u64 = (1 << 40) - 1;
const SEQUENCE_MAX: u64 = (1 << 10) - 1;

/// Why no FLUID can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FluidError {
    /// The generator id exceeds [`GENERATOR_MAX`].
    #[error("FLUID generator id {0} exceeds 16383")]
    Generator(u16),
    /// The time since the epoch exceeds 40 bits of milliseconds (34 years).
    #[error("FLUID timestamp exceeds 40 bits")]
    Exhausted,
}

/// Makes FLUIDs from times that the caller reads; holds no clock.
///
/// When the clock stands still or goes back, the sequence number advances; when that is used up, the timestamp
/// runs ahead of the clock by a millisecond, so ids never repeat and never descend.
#[derive(Clone, Debug)]
pub struct FluidGenerator {
    generator: u64,
    epoch_ms: u64,
    timestamp: u64,
    /// The next sequence number in `timestamp`.
    sequence: u64,
}

impl FluidGenerator {
    /// Returns a generator; `epoch_ms` is the time, in the clock of [`FluidGenerator::generate`], that counts as 0.
    ///
    /// # Errors
    /// [`FluidError::Generator`] when `generator` exceeds 14 bits.
    pub fn new(generator: u16, epoch_ms: u64) -> Result<Self, FluidError> {
        if generator > GENERATOR_MAX {
            return Err(FluidError::Generator(generator));
        }
        Ok(FluidGenerator {
            generator: u64::from(generator),
            epoch_ms,
            timestamp: 0,
            sequence: 0,
        })
    }

    /// Makes every later id come after `last` (the highest id known to be durable), whoever made it.
    pub fn advance_past(&mut self, last: JobId) {
        let timestamp = last.0 >> 24;
        if timestamp >= self.timestamp {
            self.timestamp = timestamp + 1;
            self.sequence = 0;
        }
    }

    /// Returns a new id at `now_ms`.
    ///
    /// # Errors
    /// [`FluidError::Exhausted`] after 2^40 ms.
    pub fn generate(&mut self, now_ms: u64) -> Result<JobId, FluidError> {
        let now = now_ms.saturating_sub(self.epoch_ms);
        if now > self.timestamp {
            self.timestamp = now;
            self.sequence = 0;
        } else if self.sequence > SEQUENCE_MAX {
            self.timestamp += 1;
            self.sequence = 0;
        }
        if self.timestamp > TIMESTAMP_MAX {
            return Err(FluidError::Exhausted);
        }
        let id = self.timestamp << 24 | self.generator << 10 | self.sequence;
        self.sequence += 1;
        Ok(JobId(id))
    }

    /// Returns the timestamp of an id: milliseconds since the epoch of its instance.
    pub fn timestamp_ms(id: JobId) -> u64 {
        id.0 >> 24
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout() {
        let mut generator = FluidGenerator::new(3, 1000).unwrap();
        assert_eq!(generator.generate(1000), Ok(JobId(3 << 10)));
        assert_eq!(generator.generate(3513), Ok(JobId(2513 << 24 | 3 << 10)));
        assert_eq!(generator.generate(3513), Ok(JobId(2513 << 24 | 3 << 10 | 1)));
        assert_eq!(FluidGenerator::timestamp_ms(JobId(42_161_143_808)), 2513);
        assert_eq!(
            FluidGenerator::new(16384, 0).unwrap_err(),
            FluidError::Generator(16384)
        );
        assert_eq!(generator.generate(u64::MAX), Err(FluidError::Exhausted));
        assert_eq!(generator.generate(0), Err(FluidError::Exhausted));
    }

    proptest! {
        #[test]
        fn ascends_whatever_the_clock(times in prop::collection::vec(0u64..50, 1..3000), last in 0u64..1 << 30) {
            let mut generator = FluidGenerator::new(1, 10).unwrap();
            generator.advance_past(JobId(last));
            let mut previous = last;
            for now in times {
                let id = generator.generate(now).unwrap().0;
                prop_assert!(id > previous);
                previous = id;
            }
        }
    }
}
