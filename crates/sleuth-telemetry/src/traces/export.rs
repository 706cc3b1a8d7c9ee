use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as Otlp, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, SpanData,
    SpanEvents, SpanExporter, SpanLinks, SpanProcessor as _,
};

use super::{TraceSettings, TraceStats};

/// A bounded queue of spans, and the thread that sends them.
#[derive(Debug)]
pub(super) struct Export {
    processor: BatchSpanProcessor,
    counts: Arc<Counts>,
    max_spans: u64,
}

/// Builds spans of one trace.
#[derive(Debug)]
pub(super) struct Names {
    trace_id: TraceId,
    state: TraceState,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    /// The collector took nothing when last asked.
    failing: AtomicBool,
}

/// Counts what the collector took.
#[derive(Debug)]
struct Counted {
    inner: Otlp,
    counts: Arc<Counts>,
}

/// Spans of one message.
const BATCH_SPANS: usize = 512;
/// How long spans wait for more.
const DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take over a message.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn fresh_trace() -> TraceId {
    RandomIdGenerator::default().new_trace_id()
}

pub(super) fn fresh_span() -> SpanId {
    RandomIdGenerator::default().new_span_id()
}

// === impl Export ===

impl Export {
    pub(super) fn start(settings: &TraceSettings) -> Result<Self, ExporterBuildError> {
        let inner = Otlp::builder()
            .with_tonic()
            .with_endpoint(settings.endpoint.as_str())
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let counts = Arc::new(Counts::default());
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(settings.max_spans.max(BATCH_SPANS))
            .with_max_export_batch_size(BATCH_SPANS)
            .with_scheduled_delay(DELAY)
            .build();
        let exporter = Counted { inner, counts: Arc::clone(&counts) };
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let resource = Resource::builder_empty()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attributes(
                settings.attributes.iter().map(|(k, v)| KeyValue::new(k.clone(), v.clone())),
            )
            .build();
        processor.set_resource(&resource);
        Ok(Self { processor, counts, max_spans: settings.max_spans as u64 })
    }

    /// Sends the spans of an item or a batch, all or none.
    pub(super) fn send(&self, spans: Vec<SpanData>) {
        let counts = &self.counts;
        let number = spans.len() as u64;
        let room = counts.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            (waiting + number <= self.max_spans).then_some(waiting + number)
        });
        if room.is_err() {
            counts.dropped.fetch_add(number, Ordering::Relaxed);
            return;
        }
        for span in spans {
            self.processor.on_end(span);
        }
    }

    pub(super) fn count(&self, stats: &mut TraceStats) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.exported_spans = get(&self.counts.exported);
        stats.failed_spans = get(&self.counts.failed);
        stats.dropped_spans = get(&self.counts.dropped);
    }

    /// Blocks until what waits was sent, or the time is over.
    pub(super) fn shutdown(&self, within: Duration) -> bool {
        self.processor.shutdown_with_timeout(within).is_ok()
            && self.counts.waiting.load(Ordering::Relaxed) == 0
            && !self.counts.failing.load(Ordering::Relaxed)
    }
}

// === impl Counted ===

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let number = batch.len() as u64;
        let result = self.inner.export(batch).await;
        let counts = &self.counts;
        counts.waiting.fetch_sub(number, Ordering::Relaxed);
        let counter = if result.is_ok() { &counts.exported } else { &counts.failed };
        counter.fetch_add(number, Ordering::Relaxed);
        // Told once, not with every batch.
        let failing = counts.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failing => tracing::warn!(%error, "the trace collector takes no spans"),
            Ok(()) if failing => tracing::info!("the trace collector takes spans again"),
            Err(_) | Ok(()) => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

// === impl Names ===

impl Names {
    /// A malformed `tracestate` is left out, as W3C asks.
    pub(super) fn new(trace_id: TraceId, state: &str) -> Self {
        Self { trace_id, state: TraceState::from_str(state).unwrap_or_default() }
    }

    pub(super) fn context(&self, span_id: SpanId) -> SpanContext {
        let (flags, state) = (TraceFlags::SAMPLED, self.state.clone());
        SpanContext::new(self.trace_id, span_id, flags, false, state)
    }

    pub(super) fn span(
        &self,
        name: &'static str,
        span_id: SpanId,
        start_time: SystemTime,
        end_time: SystemTime,
    ) -> SpanData {
        SpanData {
            span_context: self.context(span_id),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time,
            end_time: end_time.max(start_time),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("sleuth").build(),
        }
    }
}
