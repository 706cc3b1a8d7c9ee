use std::sync::Arc;

use bytes::Bytes;
use sleuth_core::ScoreRequest;
use sleuth_proto::v1;
use sleuth_proto::v1::score_tokens_response::Kind;
use sleuth_service::Caller;
use sleuth_telemetry::traces;
use sleuth_wire::{ItemKey, Place, Rows, invalid, scores, valid};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::replies::Replies;
use crate::observe::Observed;
use crate::scoring::Scoring;

/// An admitted whole item of a stream.
pub(super) struct Whole {
    pub(super) key: ItemKey,
    pub(super) caller: Caller,
    pub(super) request: ScoreRequest<Bytes>,
    pub(super) deadline: Instant,
    pub(super) cancel: CancellationToken,
    /// The item's share of the byte budget.
    pub(super) room: OwnedSemaphorePermit,
    pub(super) span: Span,
}

// === impl Whole ===

impl Whole {
    /// Scores the item, then sends its scores and its one verdict.
    pub(super) async fn run(self, scoring: Arc<Scoring>, replies: Replies, observed: Observed) {
        let Self { key, caller, request, deadline, cancel, room, .. } = self;
        let work = scoring.attempt(&caller, request, deadline, &cancel);
        let outcome = traces::within(observed.trace(), work).await;
        observed.end(outcome.as_ref());
        drop(room);
        let wire_key = v1::Key::from(key.clone());
        let verdict = match outcome {
            Err(failure) => invalid(Some(wire_key), &failure, Place::Score),
            Ok(scored) => {
                let step = scoring.stream.tokens_per_message;
                for message in scores(Some(&wire_key), Rows::of(&scored), 0, step) {
                    replies.send(Kind::Scores(message)).await;
                }
                valid(Some(wire_key), &scored)
            }
        };
        replies.finish(&key, verdict).await;
    }
}
