use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use sleuth_core::{ErrorClass, Failure, Group, Reason, ScoreRequest, Scored};
use sleuth_service::{Caller, Scorer};
use sleuth_wire::{ItemKey, Limits, Rows, Trace, sound};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tracing::{Span, field};

use crate::Observer;
use crate::ServerSettings;
use crate::admission::Admission;
use crate::auth::Identity;
use crate::lifecycle::Lifecycle;
use crate::settings::StreamSettings;

/// What every call shares.
pub(crate) struct Scoring {
    pub(crate) scorer: Arc<dyn Scorer>,
    pub(crate) limits: Limits,
    pub(crate) stream: StreamSettings,
    pub(crate) admission: Admission,
    tenant_header: Option<String>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) observer: Observer,
}

// === impl Scoring ===

impl Scoring {
    pub(crate) fn new(
        scorer: Arc<dyn Scorer>,
        settings: &ServerSettings,
        lifecycle: Lifecycle,
    ) -> Self {
        // The largest item must fit, or it would be refused as retryable for ever.
        let budget = settings.max_unfinished_bytes.max(settings.limits.max_item_bytes + 1024);
        Self {
            scorer,
            limits: settings.limits,
            stream: settings.stream,
            admission: Admission::new(budget),
            tenant_header: settings.tenant_header.clone(),
            lifecycle,
            observer: settings.observer.clone(),
        }
    }

    /// When an item's time is over.
    pub(crate) fn deadline(&self, received: Instant, timeout: Option<Duration>) -> Instant {
        let limit = self.limits.max_timeout;
        received + timeout.map_or(limit, |t| t.min(limit))
    }

    /// Scores one item, to the first of: an outcome, its deadline, its cancellation, a panic.
    /// Whatever comes first drops the rest.
    pub(crate) async fn attempt(
        &self,
        caller: &Caller,
        mut request: ScoreRequest<Bytes>,
        deadline: Instant,
        cancel: &CancellationToken,
    ) -> Result<Scored, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        request.context.timeout = Some(left);
        let work = async { self.scorer.score(caller, request).await };
        let work = AssertUnwindSafe(work).catch_unwind();
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(cancelled()),
            () = std::future::ready(()), if left.is_zero() => Err(deadline_passed()),
            outcome = timeout_at(deadline, work) => match outcome {
                Err(_) => Err(deadline_passed()),
                Ok(Err(_)) => Err(panicked()),
                Ok(Ok(outcome)) => outcome.and_then(|scored| sound(&scored).map(|()| scored)),
            },
        };
        record(&outcome);
        outcome
    }

    /// Who makes a call: as its credentials say, or the router that they are of; else as the
    /// trusted header does.
    pub(crate) fn caller(
        &self,
        identity: Option<&Identity>,
        metadata: &MetadataMap,
    ) -> Result<Caller, Failure> {
        if let Some(identity) = identity {
            let behalf = identity.is_router().then(|| tenant_of(metadata, TENANT_HEADER));
            return Ok(behalf.flatten().transpose()?.unwrap_or_else(|| identity.caller()));
        }
        let named = self.tenant_header.as_deref().and_then(|header| tenant_of(metadata, header));
        named.unwrap_or_else(|| Ok(Caller::default()))
    }
}

/// The tenant that a header names, where it is there.
fn tenant_of(metadata: &MetadataMap, header: &str) -> Option<Result<Caller, Failure>> {
    let value = metadata.get(header)?;
    let name = value.to_str().ok().filter(|name| name.len() <= MAX_TENANT_BYTES);
    Some(name.map(Caller::new).ok_or_else(|| {
        let detail = format!("`{header}` is at most {MAX_TENANT_BYTES} printable characters");
        Failure::new(ErrorClass::Unauthenticated, Reason::FIELD_INVALID, detail)
    }))
}

/// By which a router says on whose behalf it calls.
const TENANT_HEADER: &str = "sleuth-tenant";
/// The longest name of a tenant.
const MAX_TENANT_BYTES: usize = 256;

/// A span with an item's ids, for its outcome; no content.
pub(crate) fn item_span(
    key: Option<&ItemKey>,
    group: Option<&Group>,
    trace: Option<&Trace>,
) -> Span {
    let span = tracing::info_span!(
        "item",
        item_id = field::Empty,
        attempt = field::Empty,
        group = field::Empty,
        trace_id = field::Empty,
        parent_id = field::Empty,
        outcome = field::Empty,
        reason = field::Empty,
        tokens = field::Empty,
    );
    if let Some(key) = key {
        span.record("item_id", key.item_id.as_str());
        span.record("attempt", key.attempt);
    }
    if let Some(group) = group {
        span.record("group", group.id.as_str());
    }
    if let Some(trace) = trace {
        span.record("trace_id", format_args!("{:032x}", u128::from_be_bytes(trace.trace_id)));
        span.record("parent_id", format_args!("{:016x}", u64::from_be_bytes(trace.parent_id)));
    }
    span
}

pub(crate) fn draining() -> Failure {
    let detail = "the server is shutting down; send the item to another";
    Failure::new(ErrorClass::Draining, Reason::SERVER_DRAINING, detail)
        .retry_after(Duration::from_secs(1))
}

pub(crate) fn deadline_passed() -> Failure {
    let detail = "the item's time ran out before its scores were ready";
    Failure::new(ErrorClass::Deadline, Reason::DEADLINE_PASSED, detail)
}

/// The caller learns that the server failed; the panic's text stays in the server.
pub(crate) fn panicked() -> Failure {
    let detail = "the server failed while it worked on this";
    Failure::new(ErrorClass::ModelFailure, Reason::WORKER_FAILED, detail)
}

pub(crate) fn cancelled() -> Failure {
    Failure::new(ErrorClass::Cancelled, Reason::CALLER_CANCELLED, "the caller gave the item up")
}

/// Notes the outcome on the item's span.
pub(crate) fn record(outcome: &Result<Scored, Failure>) {
    let span = Span::current();
    match outcome {
        Ok(scored) => {
            span.record("outcome", "valid");
            span.record("tokens", Rows::of(scored).len());
            tracing::debug!("item scored");
        }
        Err(failure) => {
            span.record("outcome", failure.class.name());
            span.record("reason", failure.reason.name());
            if failure.class == ErrorClass::ModelFailure {
                tracing::error!("item failed");
            } else {
                tracing::debug!("item refused");
            }
        }
    }
}
