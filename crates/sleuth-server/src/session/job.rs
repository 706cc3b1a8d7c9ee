use std::sync::Arc;

use bytes::Bytes;
use sleuth_core::ScoreRequest;
use sleuth_proto::v1;
use sleuth_proto::v1::score_tokens_response::Kind;
use sleuth_wire::{ItemKey, Place, invalid, scores, valid};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::Reply;
use super::ledger::Ledger;
use crate::scoring::Scoring;

/// An admitted item of a stream.
pub(super) struct Job {
    pub(super) key: ItemKey,
    pub(super) request: ScoreRequest<Bytes>,
    pub(super) deadline: Instant,
    pub(super) cancel: CancellationToken,
    /// The item's share of the byte budget.
    pub(super) room: OwnedSemaphorePermit,
    pub(super) span: Span,
}

// === impl Job ===

impl Job {
    /// Scores the item, then sends its scores and its one verdict.
    pub(super) async fn run(
        self,
        scoring: Arc<Scoring>,
        ledger: Arc<Ledger>,
        replies: mpsc::Sender<Reply>,
    ) {
        let outcome = scoring.attempt(self.request, self.deadline, &self.cancel).await;
        drop(self.room);
        let key = Some(v1::Key::from(self.key.clone()));
        let verdict = match outcome {
            Err(failure) => invalid(key, &failure, Place::Score),
            Ok(scored) => {
                let verdict = valid(key.clone(), &scored);
                for message in scores(key, &scored, scoring.stream.tokens_per_message) {
                    // Without a reader the session drops this task.
                    let _ = replies.send(Ok(reply(Kind::Scores(message)))).await;
                }
                verdict
            }
        };
        // The key is free before the caller can read that it is.
        let place = replies.reserve().await;
        ledger.leave(&self.key);
        if let Ok(place) = place {
            place.send(Ok(reply(Kind::Verdict(verdict))));
        }
    }
}

fn reply(kind: Kind) -> v1::ScoreTokensResponse {
    v1::ScoreTokensResponse { kind: Some(kind) }
}
