use std::time::Duration;

/// Tokens per second, as batches have shown it lately.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Throughput {
    tokens_per_second: Option<f64>,
}

/// How much a new batch changes the estimate.
const WEIGHT: f64 = 0.2;
/// What is told before anything was measured.
const UNKNOWN: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_mins(1);

// === impl Throughput ===

impl Throughput {
    /// Takes note of a finished batch.
    pub(crate) fn record(&mut self, tokens: usize, took: Duration) {
        // A clock too coarse to see the batch must not make the rate infinite.
        let rate = tokens as f64 / took.as_secs_f64().max(1e-6);
        self.tokens_per_second = Some(match self.tokens_per_second {
            Some(old) => old + WEIGHT * (rate - old),
            None => rate,
        });
    }

    /// When work of `tokens` should be done, within sensible bounds for a retry.
    pub(crate) fn time_for(&self, tokens: usize) -> Duration {
        match self.tokens_per_second {
            Some(rate) if rate > 0.0 => {
                let seconds = (tokens as f64 / rate).min(LONGEST.as_secs_f64());
                Duration::from_secs_f64(seconds).max(SHORTEST)
            }
            _ => UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_follows_the_measured_rate_within_bounds() {
        let mut throughput = Throughput::default();
        assert_eq!(throughput.time_for(1000), UNKNOWN);
        throughput.record(1000, Duration::from_secs(1));
        assert_eq!(throughput.time_for(2000), Duration::from_secs(2));
        assert_eq!(throughput.time_for(1), SHORTEST);
        assert_eq!(throughput.time_for(usize::MAX), LONGEST);
        throughput.record(2000, Duration::from_secs(1));
        assert_eq!(throughput.time_for(1200), Duration::from_secs(1));
    }

    #[test]
    fn an_immeasurably_short_batch_keeps_the_hint_finite() {
        let mut throughput = Throughput::default();
        throughput.record(10, Duration::ZERO);
        assert_eq!(throughput.time_for(1000), SHORTEST);
    }
}
