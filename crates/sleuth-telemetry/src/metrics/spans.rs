use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{Collector, Family};
use crate::traces::Tracer;

/// What became of traces.
#[derive(Clone, Debug)]
pub struct Spans(pub Tracer);

// === impl Spans ===

impl Collector for Spans {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (encoder, stats) = (&mut encoder, self.0.stats());
        let items = [
            ("sampled", stats.sampled),
            ("failed", stats.failed),
            ("slow", stats.slow),
            ("left_out", stats.left_out),
            ("unrecorded", stats.unrecorded),
        ];
        Family::new(encoder, "trace_items", "Items by what became of their spans.")
            .counters(items.map(|(decision, n)| ([("decision", decision)], n)))?;
        let spans = [
            ("exported", stats.exported_spans),
            ("failed", stats.failed_spans),
            ("dropped", stats.dropped_spans),
        ];
        Family::new(encoder, "trace_spans", "Kept spans by whether the collector took them.")
            .counters(spans.map(|(outcome, n)| ([("outcome", outcome)], n)))?;
        Family::new(encoder, "trace_recorded_items", "Items that are recorded now.")
            .gauge(stats.recorded_items)
    }
}
