use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use sleuth_core::{ErrorClass, Failure, Reason, Scored};
use sleuth_service::Caller;
use sleuth_telemetry::KeyValue;
use sleuth_telemetry::metrics::{Registry, SECONDS};
use sleuth_telemetry::traces::{ItemEnd, ItemKind, ItemTrace, Parent, Tracer};
use sleuth_wire::{Rows, Trace, trace_context};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tracing::Span;

/// Counts a server's items and traces them. Clones share their counts; the default counts and
/// traces nothing.
#[derive(Clone)]
pub struct Observer {
    counts: Counts,
    tenants: Arc<Tenants>,
    pub(crate) tracer: Tracer,
}

/// An item from its arrival to its verdict. Dropped without one, it counts as unanswered.
#[derive(Debug)]
pub(crate) struct Observed {
    observer: Observer,
    kind: ItemKind,
    tenant: Arc<str>,
    received: Instant,
    trace: ItemTrace,
    is_ended: bool,
}

#[derive(Clone, Debug)]
struct Counts {
    verdicts: Family<Verdict, Counter>,
    refusals: Family<Refusal, Counter>,
    by_tenant: Family<Tenant, Counter>,
    seconds: Family<Ended, Histogram>,
    in_flight: Gauge,
    unanswered: Counter,
    http: Family<HttpRequest, Counter>,
}

/// The tenants that have a label of their own: the first that came.
#[derive(Debug)]
struct Tenants {
    most: usize,
    named: Mutex<HashSet<Arc<str>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    class: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpRequest {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tenant {
    tenant: String,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    kind: &'static str,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    Valid,
    Invalid,
}

/// The class of an item that has rewards.
const VALID: &str = "valid";
/// The label of all tenants that have none of their own.
const OTHERS: &str = "others";

/// The trace that a call as a whole belongs to.
pub(crate) fn trace_of_call(metadata: &MetadataMap) -> Option<Trace> {
    let text = |name| metadata.get(name).and_then(|value| value.to_str().ok());
    trace_context(text("traceparent")?, text("tracestate").unwrap_or(""))
}

// === impl Observer ===

impl fmt::Debug for Observer {
    /// Counts are no setting: observers of equal settings look alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("tenants", &self.tenants.most).finish_non_exhaustive()
    }
}

impl Observer {
    /// Traces with `tracer`. Up to `max_tenants` tenants have labels of their own; 0 counts none.
    pub fn new(tracer: Tracer, max_tenants: usize) -> Self {
        let counts = Counts {
            verdicts: Family::default(),
            refusals: Family::default(),
            by_tenant: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            in_flight: Gauge::default(),
            unanswered: Counter::default(),
            http: Family::default(),
        };
        counts.begin();
        let tenants = Arc::new(Tenants { most: max_tenants, named: Mutex::default() });
        Self { counts, tenants, tracer }
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let Counts { verdicts, refusals, by_tenant, seconds, in_flight, unanswered, http } =
            &self.counts;
        registry.register("verdicts", "Verdicts by class and reason.", verdicts.clone());
        let help = "Items refused for lack of room or time, by reason.";
        registry.register("refusals", help, refusals.clone());
        let help = "Time from an item's arrival to its verdict.";
        registry.register("item_seconds", help, seconds.clone());
        registry.register("items_in_flight", "Items without a verdict.", in_flight.clone());
        let help = "Items whose callers left before the verdict.";
        registry.register("items_unanswered", help, unanswered.clone());
        let help = "Answers of the HTTP facades, by route and status.";
        registry.register("http_requests", help, http.clone());
        if self.tenants.most > 0 {
            registry.register("tenant_verdicts", "Verdicts by tenant.", by_tenant.clone());
        }
    }

    /// An item that arrives now, in a trace of its own, in its call's, or in none.
    pub(crate) fn item(
        &self,
        kind: ItemKind,
        caller: &Caller,
        own: Option<Trace>,
        call: Option<&Trace>,
    ) -> Observed {
        let parent = own.or_else(|| call.cloned()).map(parent);
        let trace = if self.tracer.is_on() {
            self.tracer.item(kind, parent)
        } else {
            ItemTrace::passing(parent)
        };
        self.counts.in_flight.inc();
        Observed {
            observer: self.clone(),
            kind,
            tenant: Arc::clone(&caller.tenant),
            received: Instant::now(),
            trace,
            is_ended: false,
        }
    }

    /// Items without a verdict.
    pub(crate) fn items_in_flight(&self) -> u32 {
        u32::try_from(self.counts.in_flight.get().max(0)).unwrap_or(u32::MAX)
    }

    /// Counts a verdict that ends no item, such as that on an append to none.
    pub(crate) fn refused(&self, caller: &Caller, failure: &Failure) {
        self.count(&caller.tenant, Some(failure));
    }

    /// Counts an answer of the HTTP facades.
    pub(crate) fn http_answer(&self, route: &'static str, status: u16) {
        self.counts.http.get_or_create(&HttpRequest { route, status }).inc();
    }

    fn count(&self, tenant: &Arc<str>, failure: Option<&Failure>) {
        let counts = &self.counts;
        let (class, reason) = failure.map_or((VALID, ""), |f| (f.class.name(), f.reason.name()));
        counts.verdicts.get_or_create(&Verdict { class, reason }).inc();
        let is_refusal = |failure: &Failure| {
            matches!(failure.class, ErrorClass::Overload | ErrorClass::Quota | ErrorClass::Draining)
        };
        if failure.is_some_and(is_refusal) {
            counts.refusals.get_or_create(&Refusal { reason }).inc();
        }
        if let Some(tenant) = self.tenants.label(tenant) {
            let outcome = Outcome::of(failure);
            counts.by_tenant.get_or_create(&Tenant { tenant, outcome }).inc();
        }
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new(Tracer::default(), 0)
    }
}

// === impl Counts ===

impl Counts {
    /// Begins at 0 what alerts go by: the first of a kind would not be seen as an increase.
    fn begin(&self) {
        self.verdicts.get_or_create(&Verdict { class: VALID, reason: "" }).inc_by(0);
        let class = ErrorClass::ModelFailure.name();
        for reason in [Reason::WORKER_FAILED, Reason::NOT_FINITE].map(Reason::name) {
            self.verdicts.get_or_create(&Verdict { class, reason }).inc_by(0);
        }
        for reason in [Reason::QUEUE_FULL, Reason::WAIT_TOO_LONG, Reason::SERVER_DRAINING] {
            self.refusals.get_or_create(&Refusal { reason: reason.name() }).inc_by(0);
        }
        for route in ["get_reward", "pooling", "classify"] {
            for status in [200, 503] {
                self.http.get_or_create(&HttpRequest { route, status }).inc_by(0);
            }
        }
        for kind in [ItemKind::Whole, ItemKind::Open, ItemKind::Correct].map(ItemKind::name) {
            for outcome in [Outcome::Valid, Outcome::Invalid] {
                drop(self.seconds.get_or_create(&Ended { kind, outcome }));
            }
        }
    }
}

// === impl Observed ===

impl Observed {
    /// What work on the item's behalf reports to.
    pub(crate) fn trace(&self) -> ItemTrace {
        self.trace.clone()
    }

    /// Names the item's trace on the span that its log lines are in.
    pub(crate) fn name(&self, span: &Span) {
        if let Some(id) = self.trace.trace_id() {
            span.record("trace_id", id);
        }
    }

    /// Ends the item. To be called before its caller is told, who then finds it counted.
    pub(crate) fn end(mut self, outcome: Result<&Scored, &Failure>) {
        self.is_ended = true;
        let failure = outcome.err();
        self.observer.count(&self.tenant, failure);
        let ended = Ended { kind: self.kind.name(), outcome: Outcome::of(failure) };
        let took = self.received.elapsed().as_secs_f64();
        self.observer.counts.seconds.get_or_create(&ended).observe(took);
        self.trace.end(failure.is_some(), || end_of(outcome));
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.observer.counts.in_flight.dec();
        if !self.is_ended {
            self.observer.counts.unanswered.inc();
        }
    }
}

/// What a trace tells of an outcome: no text of the item.
fn end_of(outcome: Result<&Scored, &Failure>) -> ItemEnd {
    let scored = match outcome {
        Err(failure) => {
            let (class, reason) = (failure.class.name(), Some(failure.reason.name()));
            return ItemEnd { class, reason, attributes: Vec::new() };
        }
        Ok(scored) => scored,
    };
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let cache = scored.cache;
    let attributes = vec![
        KeyValue::new("sleuth.model.version", scored.version.clone()),
        KeyValue::new("sleuth.tokens", count(Rows::of(scored).len())),
        KeyValue::new("sleuth.sentences", count(scored.sentences.len())),
        KeyValue::new("sleuth.flagged_spans", count(scored.flagged.len())),
        KeyValue::new("sleuth.prefix.reused", i64::from(cache.prefix_positions_reused)),
        KeyValue::new("sleuth.prefix.computed", i64::from(cache.prefix_positions_computed)),
        KeyValue::new("sleuth.vision.reused", cache.vision_reused),
        KeyValue::new(
            "sleuth.duplicates_joined",
            i64::try_from(scored.duplicates_joined).unwrap_or(i64::MAX),
        ),
    ];
    ItemEnd { class: VALID, reason: None, attributes }
}

fn parent(trace: Trace) -> Parent {
    let Trace { trace_id, parent_id, sampled, state } = trace;
    Parent { trace_id, span_id: parent_id, sampled, state }
}

// === impl Tenants ===

impl Tenants {
    /// A tenant's label; `None` where tenants have none.
    fn label(&self, tenant: &Arc<str>) -> Option<String> {
        if self.most == 0 {
            return None;
        }
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if !named.contains(tenant) && named.len() < self.most {
            named.insert(Arc::clone(tenant));
        }
        Some(if named.contains(tenant) { tenant.to_string() } else { OTHERS.to_owned() })
    }
}

// === impl Outcome ===

impl Outcome {
    const fn of(failure: Option<&Failure>) -> Self {
        if failure.is_none() { Self::Valid } else { Self::Invalid }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let name = match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
        };
        name.encode(encoder)
    }
}
