use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use prost::Message as _;
use sleuth_core::{ErrorClass, Failure, Reason, Scored};
use sleuth_proto::v1;
use sleuth_service::Caller;
use sleuth_telemetry::traces::{self, ItemKind};
use sleuth_wire::{
    ParsedItem, Place, Rows, Trace, invalid, item, scores, status, trace_context, valid,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::Instrument as _;

use crate::scoring::{Scoring, draining, item_span};

/// What a call brings beside its items.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) timeout: Option<Duration>,
    pub(crate) trace: Option<Trace>,
}

/// When a call came, and what its items have of it.
struct Arrival {
    received: Instant,
    cutoff: Option<Instant>,
    trace: Option<Trace>,
}

/// Scores every item of a batch at once; a bad one spoils no other.
pub(crate) async fn score_batch(
    scoring: &Arc<Scoring>,
    caller: &Caller,
    request: v1::ScoreBatchRequest,
    call: Call,
) -> Result<v1::ScoreBatchResponse, Status> {
    let received = Instant::now();
    let Call { timeout, trace } = call;
    let arrival = Arrival { received, cutoff: timeout.map(|t| received + t), trace };
    check(scoring, request.items.len()).map_err(|f| status(&f, Place::Request))?;

    let keys: Vec<_> =
        request.items.iter().map(|i| i.context.as_ref().and_then(|c| c.key.clone())).collect();
    let work = request.items.into_iter().map(|item| one(scoring, caller, item, &arrival));
    let outcomes = join_all(work).await;

    if let Some(failure) = refused_for_capacity(&outcomes) {
        return Err(status(failure, Place::Request));
    }
    let results = outcomes.iter().zip(keys).enumerate();
    let results = results.map(|(index, (outcome, key))| result(index, key, outcome)).collect();
    Ok(v1::ScoreBatchResponse { results })
}

fn check(scoring: &Scoring, items: usize) -> Result<(), Failure> {
    let most = scoring.limits.max_batch_items;
    if scoring.lifecycle.is_draining() {
        return Err(draining());
    }
    if items == 0 {
        let detail = "a batch holds at least one item";
        return Err(
            Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_MISSING, detail).at("items")
        );
    }
    if items > most {
        let detail = format!("the batch has {items} items; at most {most}");
        return Err(Failure::new(ErrorClass::TooLarge, Reason::FIELD_INVALID, detail).at("items"));
    }
    Ok(())
}

async fn one(
    scoring: &Scoring,
    caller: &Caller,
    wire: v1::Item,
    arrival: &Arrival,
) -> Result<Scored, Failure> {
    let own = wire.context.as_ref();
    let own = own.and_then(|own| trace_context(&own.traceparent, &own.tracestate));
    let observed = scoring.observer.item(ItemKind::Whole, caller, own, arrival.trace.as_ref());
    let work = attempt(scoring, caller, wire, arrival);
    let outcome = traces::within(observed.trace(), work).await;
    observed.end(outcome.as_ref());
    outcome
}

async fn attempt(
    scoring: &Scoring,
    caller: &Caller,
    wire: v1::Item,
    &Arrival { received, cutoff, .. }: &Arrival,
) -> Result<Scored, Failure> {
    let size = wire.encoded_len();
    let ParsedItem { request, trace } = item(wire, &scoring.limits)?;
    let _room = scoring.admission.admit(size)?;
    let span = item_span(None, request.context.group.as_ref(), trace.as_ref());
    let own = scoring.deadline(received, request.context.timeout);
    let deadline = cutoff.map_or(own, |c| c.min(own));
    let never = CancellationToken::new();
    scoring.attempt(caller, request, deadline, &never).instrument(span).await
}

fn result(index: usize, key: Option<v1::Key>, outcome: &Result<Scored, Failure>) -> v1::ItemResult {
    match outcome {
        Ok(scored) => v1::ItemResult {
            scores: scores(key.as_ref(), Rows::of(scored), 0, usize::MAX).next(),
            verdict: Some(valid(key, scored)),
        },
        Err(failure) => v1::ItemResult {
            scores: None,
            verdict: Some(invalid(key, failure, Place::Batch(index))),
        },
    }
}

/// The first refusal, where all items were refused for one lack of capacity: then the whole call
/// fails, so that load balancers and retry policies see it.
fn refused_for_capacity(outcomes: &[Result<Scored, Failure>]) -> Option<&Failure> {
    let first = outcomes.first()?.as_ref().err()?;
    let capacity =
        matches!(first.class, ErrorClass::Overload | ErrorClass::Draining | ErrorClass::Quota);
    let same = |o: &Result<Scored, Failure>| matches!(o, Err(f) if f.class == first.class);
    (capacity && outcomes.iter().all(same)).then_some(first)
}
