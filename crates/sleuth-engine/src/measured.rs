use std::time::Duration;

use sleuth_telemetry::traces::Phase;

/// Where a batch's time went. What is not known is zero; the rest up to the batch's time was spent
/// on caches, checks and copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// The vision tower, or waiting for another worker's.
    pub vision: Duration,
    /// Prefixes' rows in the decoder.
    pub prefill: Duration,
    /// Responses' rows in it.
    pub suffix: Duration,
    /// States to logits.
    pub head: Duration,
}

/// What a worker holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Where it is, such as `cpu`; empty where there is no device.
    pub device: &'static str,
    /// Bytes of weights, which all workers of a pool share.
    pub weights: u64,
    /// Bytes of this worker's buffers.
    pub workspace: u64,
}

/// Counts of values by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
}

/// How values of an engine's items and batches are distributed.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Items of batches.
    pub batch_items: Distribution,
    /// Seconds that batches took.
    pub batch_seconds: Distribution,
    /// Seconds that items were predicted to wait when they took room.
    pub predicted_wait: Distribution,
    /// Seconds that items waited, from submission to their batch.
    pub wait: Distribution,
    /// Seconds of batches' phases.
    pub phases: [(Phase, Distribution); 4],
}

/// Upper bounds of a batch's items.
const ITEMS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

// === impl Phases ===

impl Phases {
    /// Each with its name, in the order they run.
    pub const fn named(self) -> [(Phase, Duration); 4] {
        let Self { vision, prefill, suffix, head } = self;
        [
            (Phase::Vision, vision),
            (Phase::Prefill, prefill),
            (Phase::Suffix, suffix),
            (Phase::Head, head),
        ]
    }
}

// === impl Distribution ===

impl Distribution {
    /// Nothing yet. `bounds` are inclusive upper ones, rising; one more holds what is above.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Of times, in seconds.
    pub fn of_seconds() -> Self {
        Self::new(&sleuth_telemetry::metrics::SECONDS)
    }

    /// Counts a value, which is finite.
    pub fn count(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|&bound| bound < value)] += 1;
        self.sum += value;
    }

    /// The bounds.
    pub const fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// One for each bound, and one for what is above the last.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Of all values.
    pub const fn sum(&self) -> f64 {
        self.sum
    }
}

// === impl Measured ===

impl Measured {
    pub(crate) fn count_batch(&mut self, items: usize, took: Duration, phases: Phases) {
        self.batch_items.count(items as f64);
        self.batch_seconds.count(took.as_secs_f64());
        for ((_, distribution), (_, took)) in self.phases.iter_mut().zip(phases.named()) {
            // A phase of nothing did not happen: a prefix was held, or an image had been seen.
            if !took.is_zero() {
                distribution.count(took.as_secs_f64());
            }
        }
    }
}

impl Default for Measured {
    fn default() -> Self {
        let seconds = Distribution::of_seconds;
        Self {
            batch_items: Distribution::new(&ITEMS),
            batch_seconds: seconds(),
            predicted_wait: seconds(),
            wait: seconds(),
            phases: Phases::default().named().map(|(phase, _)| (phase, seconds())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_under_the_bound_it_does_not_pass() {
        let mut items = Distribution::new(&ITEMS);
        for n in [1.0, 2.0, 3.0, 256.0, 257.0] {
            items.count(n);
        }
        assert_eq!(items.counts(), [1, 1, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert!((items.sum() - 519.0).abs() < 1e-9);
    }

    #[test]
    fn a_phase_that_did_not_happen_is_not_counted() {
        let mut measured = Measured::default();
        let phases = Phases { suffix: Duration::from_millis(5), ..Phases::default() };
        measured.count_batch(3, Duration::from_millis(6), phases);
        let counted = measured.phases.iter().map(|(_, d)| d.counts().iter().sum::<u64>());
        assert_eq!(counted.collect::<Vec<_>>(), [0, 0, 1, 0]);
    }
}
