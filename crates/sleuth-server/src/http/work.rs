//! Scoring a request's items, many at a time, each by the path of a gRPC item.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use prost::Message as _;
use sleuth_core::{ErrorClass, Failure, ScoreRequest, Scored};
use sleuth_proto::v1;
use sleuth_service::Caller;
use sleuth_telemetry::traces::{self, ItemKind};
use sleuth_wire::{ParsedItem, Trace, item};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::observe::Observed;
use crate::scoring::{Scoring, item_span};

/// Items of one request that are under way at once.
const MOST_AT_ONCE: usize = 256;

/// Who asks, and until when.
pub(super) struct Work {
    pub(super) scoring: Arc<Scoring>,
    pub(super) caller: Caller,
    /// The call's own.
    pub(super) trace: Option<Trace>,
    pub(super) received: Instant,
    /// The longest that an item may take.
    pub(super) longest: Duration,
}

/// An item that has no verdict yet.
struct Job {
    index: usize,
    size: usize,
    request: ScoreRequest<Bytes>,
    observed: Observed,
}

/// What an item ended with.
pub(super) type Outcome = Result<Scored, Failure>;

// === impl Work ===

impl Work {
    /// Scores all, in their order. Fails as a whole where one of them is refused for a reason that
    /// passes: the caller sends all again, and what was scored meanwhile is found by its content.
    pub(super) async fn score(
        &self,
        items: Vec<Result<v1::Item, Failure>>,
    ) -> Result<Vec<Outcome>, Failure> {
        let mut outcomes: Vec<Option<Outcome>> = Vec::new();
        outcomes.resize_with(items.len(), || None);
        let mut waiting: VecDeque<_> = items.into_iter().enumerate().collect();
        let mut again: Vec<Job> = Vec::new();
        let mut running = FuturesUnordered::new();
        let (mut most, mut refused) = (MOST_AT_ONCE, None);
        loop {
            while refused.is_none() && running.len() < most {
                let next = again
                    .pop()
                    .map(Ok)
                    .or_else(|| waiting.pop_front().map(|(index, item)| self.job(index, item)));
                match next {
                    None => break,
                    Some(Ok(job)) => running.push(self.attempt(job)),
                    Some(Err((index, failure))) => put(&mut outcomes, index, Err(failure)),
                }
            }
            let Some((job, outcome)) = running.next().await else { break };
            match outcome {
                // This request's own work is in the way: it gets what room that leaves.
                Err(failure) if is_crowded(&failure) && !running.is_empty() => {
                    most = running.len();
                    again.push(job);
                }
                Err(failure) if passes(failure.class) => {
                    job.observed.end(Err(&failure));
                    refused.get_or_insert(failure);
                }
                outcome => {
                    most = (most + 1).min(MOST_AT_ONCE);
                    job.observed.end(outcome.as_ref());
                    put(&mut outcomes, job.index, outcome);
                }
            }
        }
        if let Some(failure) = refused {
            for job in again {
                job.observed.end(Err(&failure));
            }
            return Err(failure);
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Checks an item. One that is bad has its verdict now.
    fn job(&self, index: usize, wire: Result<v1::Item, Failure>) -> Result<Job, (usize, Failure)> {
        let observer = &self.scoring.observer;
        let observed = observer.item(ItemKind::Whole, &self.caller, None, self.trace.as_ref());
        let parsed = wire.and_then(|wire| {
            let size = wire.encoded_len();
            item(wire, &self.scoring.limits).map(|ParsedItem { request, .. }| (size, request))
        });
        match parsed {
            Ok((size, request)) => Ok(Job { index, size, request, observed }),
            Err(failure) => {
                observed.end(Err(&failure));
                Err((index, failure))
            }
        }
    }

    async fn attempt(&self, job: Job) -> (Job, Outcome) {
        let outcome = match self.scoring.admission.admit(job.size) {
            Err(failure) => Err(failure),
            Ok(_room) => {
                let span = item_span(None, job.request.context.group.as_ref(), None);
                job.observed.name(&span);
                let deadline = self.scoring.deadline(self.received, Some(self.longest));
                let never = CancellationToken::new();
                let request = job.request.clone();
                let work = self.scoring.attempt(&self.caller, request, deadline, &never);
                traces::within(job.observed.trace(), work.instrument(span)).await
            }
        };
        (job, outcome)
    }
}

fn put(outcomes: &mut [Option<Outcome>], index: usize, outcome: Outcome) {
    if let Some(place) = outcomes.get_mut(index) {
        *place = Some(outcome);
    }
}

/// Whether less at once may help.
fn is_crowded(failure: &Failure) -> bool {
    matches!(failure.class, ErrorClass::Overload | ErrorClass::Quota)
}

/// Whether the same item may get a verdict later though nothing about it changes.
const fn passes(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::Overload
            | ErrorClass::Quota
            | ErrorClass::Draining
            | ErrorClass::Deadline
            | ErrorClass::Cancelled
            | ErrorClass::VersionChanged
    )
}
