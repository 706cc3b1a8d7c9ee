use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::drive::Record;
use super::series::{Point, Series};
use super::{Answer, Attempt};

/// Longest duration that is told apart: 10 minutes, in µs.
const LONGEST: u64 = 600_000_000;
/// Points of a curve for each tenfold of 1 / (1 - quantile).
const CURVE_STEPS: u32 = 20;
/// Tenfolds of a curve: to 99.9 %.
const CURVE_TENFOLDS: u32 = 3;

/// Durations from 1 µs to 10 minutes with 3 significant digits; what lies outside is moved to the
/// nearer end.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

/// How long most took, in milliseconds to 3 significant digits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many there are, at least 1.
    pub count: u64,
    /// Half took at most this.
    pub p50_ms: f64,
    /// Nine of ten took at most this.
    pub p90_ms: f64,
    /// 99 of 100 took at most this.
    pub p99_ms: f64,
    /// 999 of 1000 took at most this.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// From 0 % to 99.9 %, evenly spaced in the logarithm of 1 / (1 - quantile).
    pub curve: Vec<CurvePoint>,
}

/// A point of a latency curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// 0 to 99.9.
    pub percentile: f64,
    /// So many percent took at most this.
    pub ms: f64,
}

/// The measured times of a run. All but the series leave out what arrived in the warm-up.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// From planned arrival to the verdict of valid attempts.
    pub admitted: Option<Percentiles>,
    /// From planned arrival, or for retries from their sending, to the verdict of refused attempts.
    pub refused: Option<Percentiles>,
    /// Waited on the server, as it says.
    pub queue: Option<Percentiles>,
    /// Computed on the server, as it says.
    pub compute: Option<Percentiles>,
    /// From sending to the verdict of valid attempts, without the server's queue and compute: what
    /// client, network and service add.
    pub beside: Option<Percentiles>,
    /// From planned arrival to the first sending.
    pub lateness: Option<Percentiles>,
    /// Items that came due, sent or not.
    pub due: u64,
    /// Valid verdicts that came between the warm-up's and the plan's end.
    pub valid: u64,
    /// The whole run, at most 3600 points.
    pub series: Vec<Point>,
}

/// Takes the times of a run.
#[derive(Debug)]
pub(super) struct Measures {
    warm_up: Duration,
    span: Duration,
    admitted: Latencies,
    refused: Latencies,
    queue: Latencies,
    compute: Latencies,
    beside: Latencies,
    lateness: Latencies,
    due: u64,
    valid: u64,
    series: Series,
}

// === impl Latencies ===

impl Latencies {
    #[expect(clippy::expect_used, reason = "the library accepts these constants")]
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds that are in order"))
    }

    pub(super) fn take(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
        self.0.saturating_record(micros.clamp(1, LONGEST));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// In ms; `None` where there are no durations.
    pub(super) fn quantile(&self, quantile: f64) -> Option<f64> {
        // The library answers with the upper end of what it cannot tell apart, which may lie above
        // the longest that there was.
        let micros = self.0.value_at_quantile(quantile).min(self.0.max());
        (!self.0.is_empty()).then(|| micros as f64 / 1000.0)
    }

    /// `None` where there are no durations.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        let curve = (0..=CURVE_STEPS * CURVE_TENFOLDS).filter_map(|step| {
            let quantile = 1.0 - 10_f64.powf(-f64::from(step) / f64::from(CURVE_STEPS));
            Some(CurvePoint { percentile: 100.0 * quantile, ms: self.quantile(quantile)? })
        });
        Some(Percentiles {
            count: self.0.len(),
            p50_ms: self.quantile(0.5)?,
            p90_ms: self.quantile(0.9)?,
            p99_ms: self.quantile(0.99)?,
            p999_ms: self.quantile(0.999)?,
            max_ms: self.quantile(1.0)?,
            curve: curve.collect(),
        })
    }
}

// === impl Measures ===

impl Measures {
    /// For a plan that ends at `span`.
    pub(super) fn new(warm_up: Duration, span: Duration) -> Self {
        Self {
            warm_up,
            span,
            admitted: Latencies::new(),
            refused: Latencies::new(),
            queue: Latencies::new(),
            compute: Latencies::new(),
            beside: Latencies::new(),
            lateness: Latencies::new(),
            due: 0,
            valid: 0,
            series: Series::new(),
        }
    }

    /// Arrivals ended at `span`, which a stop may have moved.
    pub(super) fn end(&mut self, span: Duration) {
        self.span = span;
    }

    /// An item came due at `at`, and the generator turned to it at `now`.
    pub(super) fn due(&mut self, at: Duration, now: Duration) {
        if at >= self.warm_up {
            self.due += 1;
            self.lateness.take(now.saturating_sub(at));
        }
    }

    /// An attempt was sent.
    pub(super) fn sent(&mut self, now: Duration) {
        self.series.sent(now);
    }

    /// A verdict came.
    pub(super) fn answered(&mut self, record: &Record) {
        let Record { arrival, attempt, sent, answered, answer } = record;
        let counts = arrival.at >= self.warm_up;
        match answer {
            Answer::Valid { queue, compute, .. } => {
                // Counted from the item's arrival even for a retry: so long did its trainer wait.
                let latency = answered.saturating_sub(arrival.at);
                self.series.valid(*answered, latency);
                self.valid += u64::from((self.warm_up..self.span).contains(answered));
                if counts {
                    self.admitted.take(latency);
                    self.queue.take(*queue);
                    self.compute.take(*compute);
                    let inside = queue.saturating_add(*compute);
                    self.beside.take(answered.saturating_sub(*sent).saturating_sub(inside));
                }
            }
            Answer::Refused { .. } => {
                let from = if *attempt == Attempt::FIRST { arrival.at } else { *sent };
                self.series.refused(*answered);
                if counts {
                    self.refused.take(answered.saturating_sub(from));
                }
            }
            Answer::Lost { .. } => {}
        }
    }

    pub(super) fn finish(self) -> Measured {
        Measured {
            admitted: self.admitted.percentiles(),
            refused: self.refused.percentiles(),
            queue: self.queue.percentiles(),
            compute: self.compute.percentiles(),
            beside: self.beside.percentiles(),
            lateness: self.lateness.percentiles(),
            due: self.due,
            valid: self.valid,
            series: self.series.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut latencies = Latencies::new();
        for ms in 1..=1000 {
            latencies.take(Duration::from_millis(ms));
        }
        let told = latencies.percentiles().expect("there are some");
        let all = [told.p50_ms, told.p90_ms, told.p99_ms, told.p999_ms, told.max_ms];
        for (told, truth) in all.into_iter().zip([500.0, 900.0, 990.0, 999.0, 1000.0]) {
            assert!((told / truth - 1.0_f64).abs() < 2e-3, "{told} is not {truth}");
        }
        assert_eq!((told.count, told.curve.len()), (1000, 61));
        assert!(told.curve.is_sorted_by_key(|p| p.ms));
    }

    #[test]
    fn durations_out_of_range_are_moved_to_its_ends() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.percentiles(), None);
        latencies.take(Duration::ZERO);
        assert_eq!(latencies.quantile(1.0), Some(0.001));
        latencies.take(Duration::MAX);
        let longest = latencies.quantile(1.0).expect("there are some");
        assert!((longest / 600_000.0 - 1.0).abs() < 1e-3, "{longest}");
    }
}
