use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext, SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;

use super::export::{Names, fresh_span, fresh_trace};
use super::{Phase, Shared};

/// A batch that ran. It is sent, in a trace of its own, when the last of its items has ended and
/// one of them was kept; it links the kept ones, and they link it.
#[derive(Debug)]
pub struct BatchTrace {
    started: Instant,
    wall: SystemTime,
    took: Duration,
    phases: Vec<(Phase, Duration)>,
    items: usize,
    tokens: usize,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    shared: Arc<Shared>,
    trace_id: TraceId,
    span_id: SpanId,
    links: Vec<Link>,
}

/// Items that a batch links; it has no more of them by default.
const MOST_LINKS: usize = 64;

// === impl BatchTrace ===

impl BatchTrace {
    /// A batch that took `took` and has just ended. Its phases lie end to end from its start.
    pub fn new(
        started: Instant,
        took: Duration,
        phases: Vec<(Phase, Duration)>,
        items: usize,
        tokens: usize,
    ) -> Self {
        let now = SystemTime::now();
        let wall = now.checked_sub(took).unwrap_or(now);
        Self { started, wall, took, phases, items, tokens, kept: Mutex::new(None) }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// What it did, and when.
    pub(super) fn phases(&self) -> impl Iterator<Item = (Phase, Instant, Instant)> {
        let mut start = self.started;
        self.phases.iter().filter(|(_, took)| !took.is_zero()).map(move |&(phase, took)| {
            let from = start;
            start = from.checked_add(took).unwrap_or(from);
            (phase, from, start)
        })
    }

    /// Links a kept item, and gives the link back to here.
    pub(super) fn link(&self, shared: &Arc<Shared>, item: &SpanContext) -> Link {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Kept { trace_id, span_id, links, .. } = kept.get_or_insert_with(|| Kept {
            shared: Arc::clone(shared),
            trace_id: fresh_trace(),
            span_id: fresh_span(),
            links: Vec::new(),
        });
        if links.len() < MOST_LINKS {
            links.push(Link::new(item.clone(), Vec::new(), 0));
        }
        Link::new(Names::new(*trace_id, "").context(*span_id), Vec::new(), 0)
    }

    fn spans(&self, kept: Kept) -> Vec<SpanData> {
        let Kept { trace_id, span_id, links, .. } = kept;
        let names = Names::new(trace_id, "");
        let at = |moment: Instant| self.wall + moment.saturating_duration_since(self.started);
        let mut root = names.span("batch", span_id, self.wall, self.wall + self.took);
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        root.attributes = vec![
            KeyValue::new("sleuth.batch.items", count(self.items)),
            KeyValue::new("sleuth.batch.tokens", count(self.tokens)),
        ];
        root.links.links = links;
        let mut spans = vec![root];
        spans.extend(self.phases().map(|(phase, start, end)| {
            let mut span = names.span(phase.name(), fresh_span(), at(start), at(end));
            span.parent_span_id = span_id;
            span
        }));
        spans
    }
}

impl PartialEq for BatchTrace {
    /// Whether both tell of one batch.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Drop for BatchTrace {
    fn drop(&mut self) {
        let kept = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(kept) = kept {
            let shared = Arc::clone(&kept.shared);
            shared.export.send(self.spans(kept));
        }
    }
}
