use std::time::Duration;

use crate::{CacheStats, Measured, Memory, OpenStats, Phases};

/// Whether the worker can be trusted with work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The model answers.
    Healthy,
    /// The model panicked several times in a row; the next batch it computes heals it.
    Unhealthy,
    /// The worker has ended.
    Stopped,
}

/// Upper bounds, inclusive, of the buckets of [`EngineStats::batch_tokens`]; one more bucket holds
/// what is above the last.
pub const BATCH_TOKEN_BOUNDS: [usize; 10] =
    [64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768];

/// What an engine has done so far, and what it holds now.
///
/// Every item taken in is counted once among `scored`, `failed`, `expired`, `cancelled` and
/// `drained` when it ends; `abandoned` counts again those that ended with nobody waiting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineStats {
    /// Batches run.
    pub batches: u64,
    /// Tokens of all batches.
    pub tokens: u64,
    /// Batches by their tokens; see [`BATCH_TOKEN_BOUNDS`].
    pub batch_tokens: [u64; BATCH_TOKEN_BOUNDS.len() + 1],
    /// Time spent in the model.
    pub compute: Duration,
    /// Items that got logits.
    pub scored: u64,
    /// Items that ran and got no logits.
    pub failed: u64,
    /// Items refused because the queue was full.
    pub refused: u64,
    /// Items whose deadline passed before they ran.
    pub expired: u64,
    /// Items given up before they ran.
    pub cancelled: u64,
    /// Items turned away when the engine shut down.
    pub drained: u64,
    /// Items that ran although their caller had gone meanwhile.
    pub abandoned: u64,
    /// Panics caught in the model.
    pub panics: u64,
    /// Devices that were lost, each with its worker.
    pub devices_lost: u64,
    /// Items that wait or have room reserved now.
    pub queued_items: usize,
    /// Their tokens.
    pub queued_tokens: usize,
    /// Items running now.
    pub running_items: usize,
    /// Their tokens.
    pub running_tokens: usize,
    /// Bytes of keys and values set aside for them.
    pub running_kv_bytes: u64,
    /// Workers.
    pub workers: usize,
    /// Prefixes computed.
    pub prefixes_computed: u64,
    /// What all batches were predicted to take, each before it ran.
    pub predicted: Duration,
    /// A mean of |predicted - measured| / measured over recent batches.
    pub prediction_error: f64,
    /// Items that are being generated.
    pub open: OpenStats,
    /// Keys and values of prefixes.
    pub prefix_cache: CacheStats,
    /// The vision tower's outputs.
    pub vision_cache: CacheStats,
    /// Weights, and the buffers of all workers.
    pub memory: Memory,
    /// How sizes and times are distributed.
    pub measured: Measured,
}

// === impl EngineStats ===

impl EngineStats {
    pub(crate) fn count_batch(
        &mut self,
        items: usize,
        tokens: usize,
        took: Duration,
        phases: Phases,
    ) {
        self.measured.count_batch(items, took, phases);
        self.batches += 1;
        self.tokens += tokens as u64;
        self.compute += took;
        let bucket = BATCH_TOKEN_BOUNDS.partition_point(|&bound| bound < tokens);
        self.batch_tokens[bucket] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_counted_in_the_bucket_whose_bound_it_does_not_pass() {
        let mut stats = EngineStats::default();
        for tokens in [1, 64, 65, 32_768, 32_769] {
            stats.count_batch(1, tokens, Duration::from_millis(1), Phases::default());
        }
        assert_eq!(stats.batch_tokens, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((stats.batches, stats.compute), (5, Duration::from_millis(5)));
    }
}
