//! The root of metrics: a registry, its text, and what is measured of process, runtime and traces.
//!
//! Other crates keep counts of their own; what stands at the top registers them here. Names are
//! `sleuth_…`, in seconds, bytes and shares; `docs/observability.md` lists them all.

mod process;
mod runtime;
mod spans;

use std::fmt;

pub use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
pub use prometheus_client::registry::Registry;

pub use self::process::Process;
pub use self::runtime::Canary;
pub use self::spans::Spans;

/// Upper bounds of times from a millisecond to five minutes, in seconds.
pub const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// The type of the text that [`text`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics of one name, one for each set of labels, that are read when they are asked for.
pub struct Family<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
    name: &'static str,
    help: &'static str,
}

/// A histogram as it stands: what was counted up to each bound, and between them.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Inclusive upper bounds, rising.
    pub bounds: &'a [f64],
    /// One for each bound, and one for what is above the last.
    pub counts: &'a [u64],
    /// Of all that was counted.
    pub sum: f64,
}

/// An empty registry of metrics whose names begin with `sleuth_`.
pub fn registry() -> Registry {
    Registry::with_prefix("sleuth")
}

/// All metrics of a registry as OpenMetrics text.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

// === impl Family ===

impl<'a, 'e> Family<'a, 'e> {
    /// Names a family; nothing is written yet.
    pub const fn new(
        encoder: &'a mut DescriptorEncoder<'e>,
        name: &'static str,
        help: &'static str,
    ) -> Self {
        Self { encoder, name, help }
    }

    /// Writes a gauge for each set of labels.
    pub fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        self,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family =
            self.encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        values.try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }

    /// Writes a counter for each set of labels; `_total` is added to the name.
    pub fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        self,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family =
            self.encoder.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
        values.try_for_each(|(labels, value)| {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// Writes a histogram for each set of labels.
    pub fn histograms<'c, L: EncodeLabelSet>(
        self,
        values: impl IntoIterator<Item = (L, Counted<'c>)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family =
            self.encoder.encode_descriptor(self.name, self.help, None, MetricType::Histogram)?;
        values.try_for_each(|(labels, counted)| {
            let Counted { bounds, counts, sum } = counted;
            let bounds = bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
            let count = counts.iter().sum();
            let mut histogram = family.encode_family(&labels)?;
            histogram.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }

    /// Writes one gauge without labels.
    pub fn gauge(self, value: impl EncodeGaugeValue + Copy) -> fmt::Result {
        let mut gauge =
            self.encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        gauge.encode_gauge(&value)
    }

    /// Writes one counter without labels; `_total` is added to the name.
    pub fn counter(self, value: impl EncodeCounterValue + Copy) -> fmt::Result {
        let mut counter =
            self.encoder.encode_descriptor(self.name, self.help, None, MetricType::Counter)?;
        counter.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }
}

impl fmt::Debug for Family<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Source;

    impl Collector for Source {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let labels = |value: &'static str| [("kind", value)];
            let family = Family::new(&mut encoder, "things", "Things.");
            family.counters([(labels("a"), 2_u64), (labels("b"), 3)])?;
            let counted = Counted { bounds: &[1.0, 2.0], counts: &[1, 0, 4], sum: 9.5 };
            let family = Family::new(&mut encoder, "wait_seconds", "Waits.");
            family.histograms([(labels("a"), counted)])?;
            let none: [([(&str, &str); 1], f64); 0] = [];
            Family::new(&mut encoder, "nothing", "Nothing.").gauges(none)
        }
    }

    #[test]
    fn counts_become_text_and_a_family_of_none_is_left_out() {
        let mut registry = registry();
        registry.register_collector(Box::new(Source));
        let text = text(&registry).unwrap();
        let has = |line: &str| assert!(text.lines().any(|l| l == line), "{line} in {text}");
        has("# TYPE sleuth_things counter");
        has("sleuth_things_total{kind=\"b\"} 3");
        has("sleuth_wait_seconds_bucket{le=\"2.0\",kind=\"a\"} 1");
        has("sleuth_wait_seconds_bucket{le=\"+Inf\",kind=\"a\"} 5");
        has("sleuth_wait_seconds_count{kind=\"a\"} 5");
        assert!(!text.contains("nothing"));
        assert!(text.ends_with("# EOF\n"));
    }
}
