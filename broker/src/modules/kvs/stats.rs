//! What does `flux module stats kvs` show?

use super::Kvs;
use serde_json::{Map, Value, json};

/// Count, extremes, mean and deviation of a series (Welford).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Series {
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
    squares: f64,
}

impl Series {
    /// Adds a number.
    pub(crate) fn push(&mut self, number: f64) {
        self.count += 1;
        if self.count == 1 {
            (self.min, self.max) = (number, number);
        }
        self.min = self.min.min(number);
        self.max = self.max.max(number);
        let delta = number - self.mean;
        #[expect(clippy::cast_precision_loss, reason = "statistics")]
        let count = self.count as f64;
        self.mean += delta / count;
        self.squares += delta * (number - self.mean);
    }

    /// Returns the number of numbers.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns least, greatest, mean and standard deviation.
    pub(crate) fn figures(&self) -> (f64, f64, f64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "statistics")]
        let deviation = if self.count > 1 {
            (self.squares / (self.count - 1) as f64).sqrt()
        } else {
            0.0
        };
        (self.min, self.max, self.mean, deviation)
    }
}

/// Counters of the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    /// Operations per transaction.
    pub(super) ops: Series,
    /// Blobs that had to be loaded.
    pub(super) faults: u64,
    /// Requests that wait for blobs.
    pub(super) pending: u64,
}

fn whole(number: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "counts and sizes are far below 2^53"
    )]
    Value::from(number as i64)
}

impl Kvs {
    pub(super) fn stats_value(&self) -> Value {
        let mut sizes = Series::default();
        let mut total = 0;
        self.cache.each(|size| {
            total += size;
            #[expect(clippy::cast_precision_loss, reason = "statistics")]
            sizes.push(size as f64 / 1024.0);
        });
        let (min, max, mean, deviation) = sizes.figures();
        let mut spaces = Map::new();
        for space in self.spaces.values() {
            let stats = json!({
                "#versionwaiters": space.waiters.len(), "#no-op stores": 0, "#transactions": space.queue.len(),
                "#readytransactions": space.queue.len(), "store revision": space.seq,
            });
            spaces.insert(space.name.to_string(), stats);
        }
        let (ops_min, ops_max, ops_mean, ops_deviation) = self.stats.ops.figures();
        #[expect(clippy::cast_precision_loss, reason = "statistics")]
        let total_mib = (total + self.keeper.dirty_bytes()) as f64 / 1_048_576.0;
        json!({
            "cache": {
                "obj size total (MiB)": total_mib,
                "obj size (KiB)": {
                    "count": sizes.count(), "min": whole(min), "mean": mean, "stddev": deviation,
                    "max": whole(max),
                },
                "#obj dirty": 0, "#obj incomplete": 0, "#faults": self.stats.faults,
            },
            "namespace": spaces,
            "transaction-opcount": {
                "commit": {
                    "count": self.stats.ops.count(), "min": whole(ops_min), "mean": ops_mean,
                    "stddev": ops_deviation, "max": whole(ops_max),
                },
            },
            "pending_requests": self.stats.pending,
        })
    }
}
