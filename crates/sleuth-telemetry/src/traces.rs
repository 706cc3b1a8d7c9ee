//! Traces of items and of the batches they ran in, sent by OTLP.
//!
//! Which items are worth sending is known at their end only: failures and the slowest are, whatever
//! was sampled. So every item is recorded, cheaply and within bounds, and [`ItemTrace::end`]
//! decides. Spans are built from measured times then; nothing is traced inside a forward pass.
//!
//! Invariants
//! - An item's spans are sent all or none, and what is not sent for lack of room is counted.
//! - No attribute holds text of a caller, apart from names of versions, classes and reasons.

mod batch;
mod export;
mod item;
mod keep;
mod scope;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_otlp::ExporterBuildError;

pub use self::batch::BatchTrace;
use self::export::Export;
pub use self::item::{ItemEnd, ItemTrace};
pub use self::keep::Decision;
use self::keep::Keep;
pub use self::scope::{current, within};

/// Where traces go, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceSettings {
    /// A collector's OTLP/gRPC address, such as `http://127.0.0.1:4317`. Plain: traces hold no
    /// text, and a collector stands beside the server.
    pub endpoint: String,
    /// Share of the traces that begin here, 0 to 1. Where a caller has a trace, it decides.
    pub sample_ratio: f64,
    /// `service.name`.
    pub service_name: String,
    /// More attributes of the resource, by name.
    pub attributes: Vec<(String, String)>,
    /// Items recorded at a time; beyond, items are not traced.
    pub max_items: usize,
    /// Spans that wait to be sent; beyond, they are dropped.
    pub max_spans: usize,
}

/// W3C trace context that an item came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Not all zero.
    pub trace_id: [u8; 16],
    /// The caller's span, not all zero.
    pub span_id: [u8; 8],
    /// Whether the caller records the trace.
    pub sampled: bool,
    /// `tracestate`; may be empty.
    pub state: String,
}

/// How an item's response comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// All at once.
    Whole,
    /// While it is generated: the item takes as long as that.
    Open,
    /// All at once, to be corrected: scored several times over.
    Correct,
}

/// What an item or a batch did, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Waiting for a batch.
    Queue,
    /// Texts to tokens.
    Tokenise,
    /// An image file to pixels.
    Decode,
    /// The vision tower.
    Vision,
    /// Keys and values of prefixes.
    Prefill,
    /// The decoder over responses.
    Suffix,
    /// States to logits.
    Head,
    /// Rewards to the policy's tokens.
    Realign,
}

/// Records items and sends those worth it. Clones share one exporter; the default records nothing.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    shared: Option<Arc<Shared>>,
}

/// What became of items and spans so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceStats {
    /// Items kept because they were sampled, by their caller or here.
    pub sampled: u64,
    /// Items kept because they failed.
    pub failed: u64,
    /// Items kept because they were slow.
    pub slow: u64,
    /// Items not kept.
    pub left_out: u64,
    /// Items not recorded because too many were.
    pub unrecorded: u64,
    /// Spans that the collector took.
    pub exported_spans: u64,
    /// Spans that it did not take.
    pub failed_spans: u64,
    /// Spans dropped because too many waited.
    pub dropped_spans: u64,
    /// Items recorded now.
    pub recorded_items: u64,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The ratio is no share.
    #[error("the share of sampled traces is between 0 and 1, not {0}")]
    Ratio(f64),
    /// The address is not one that can be used.
    #[error("the traces' endpoint is an address such as http://127.0.0.1:4317")]
    Endpoint,
    /// No exporter came about.
    #[error("no exporter for traces")]
    Exporter(#[from] ExporterBuildError),
}

#[derive(Debug)]
struct Shared {
    export: Export,
    keep: Keep,
}

// === impl TraceSettings ===

impl TraceSettings {
    /// One trace of a hundred, to a collector at `endpoint`.
    pub fn to(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            sample_ratio: 0.01,
            service_name: "sleuth".to_owned(),
            attributes: Vec::new(),
            max_items: 16_384,
            max_spans: 16_384,
        }
    }
}

// === impl ItemKind ===

impl ItemKind {
    /// Its name in traces and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Open => "open",
            Self::Correct => "correct",
        }
    }
}

// === impl Phase ===

impl Phase {
    /// Its name in traces and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Tokenise => "tokenise",
            Self::Decode => "decode",
            Self::Vision => "vision",
            Self::Prefill => "prefill",
            Self::Suffix => "suffix",
            Self::Head => "head",
            Self::Realign => "realign",
        }
    }
}

// === impl Tracer ===

impl Tracer {
    /// Starts an exporter. To be called within a tokio runtime, which the exporter's connection
    /// needs for as long as it lives; it connects when there is something to send.
    pub fn start(settings: &TraceSettings) -> Result<Self, TraceError> {
        if !(0.0..=1.0).contains(&settings.sample_ratio) {
            return Err(TraceError::Ratio(settings.sample_ratio));
        }
        if !settings.endpoint.starts_with("http://") {
            return Err(TraceError::Endpoint);
        }
        let export = Export::start(settings)?;
        let keep = Keep::new(settings.sample_ratio, settings.max_items);
        Ok(Self { shared: Some(Arc::new(Shared { export, keep })) })
    }

    /// Begins to record an item that was received now.
    pub fn item(&self, kind: ItemKind, parent: Option<Parent>) -> ItemTrace {
        self.shared.as_ref().map_or_else(ItemTrace::default, |shared| shared.item(kind, parent))
    }

    /// Whether items are recorded.
    pub const fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// What was done so far.
    pub fn stats(&self) -> TraceStats {
        let Some(shared) = &self.shared else { return TraceStats::default() };
        let mut stats = shared.keep.stats();
        shared.export.count(&mut stats);
        stats
    }

    /// Sends what waits and ends the exporter, within a time; says whether all was sent.
    pub async fn shutdown(&self, within: Duration) -> bool {
        let Some(shared) = self.shared.clone() else { return true };
        let ended = tokio::task::spawn_blocking(move || shared.export.shutdown(within));
        // The exporter's own limit is the one that counts; this one is for its thread being stuck.
        let ended = tokio::time::timeout(within + Duration::from_secs(1), ended).await;
        matches!(ended, Ok(Ok(true)))
    }
}

impl Shared {
    fn item(self: &Arc<Self>, kind: ItemKind, parent: Option<Parent>) -> ItemTrace {
        if self.keep.enter() {
            ItemTrace::begin(Arc::clone(self), kind, parent)
        } else {
            ItemTrace::default()
        }
    }
}

#[cfg(test)]
mod tests;
