use std::sync::Arc;

use bytes::Bytes;
use sleuth_core::{Context, Failure, Scored};
use sleuth_proto::v1;
use sleuth_proto::v1::score_tokens_response::Kind;
use sleuth_service::{Appended, Caller, OpenEvent, OpenItem, Rewards};
use sleuth_telemetry::traces;
use sleuth_wire::{AppendedText, ItemKey, Place, Rows, invalid, scores, sound, valid};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::replies::Replies;
use crate::observe::Observed;
use crate::scoring::{Scoring, cancelled, deadline_passed, record};

/// What a caller says of an item that it opened.
#[derive(Debug)]
pub(super) enum Said {
    Append(AppendedText),
    /// An append that breaks a limit.
    Bad(Failure),
    Close,
}

/// An admitted item of a stream whose response is still being generated.
pub(super) struct Open {
    pub(super) key: ItemKey,
    pub(super) caller: Caller,
    pub(super) context: Context<Bytes>,
    pub(super) deadline: Instant,
    pub(super) said: mpsc::Receiver<Said>,
    pub(super) cancel: CancellationToken,
    /// The item's share of the byte budget.
    pub(super) room: OwnedSemaphorePermit,
    pub(super) span: Span,
}

/// What is wrong, and in which of the item's messages.
struct Ended {
    failure: Failure,
    place: Place,
}

// === impl Open ===

impl Open {
    /// Opens the item, scores what is appended, and sends scores and its one verdict.
    pub(super) async fn run(self, scoring: Arc<Scoring>, replies: Replies, observed: Observed) {
        let wire_key = v1::Key::from(self.key.clone());
        let key = self.key.clone();
        let work = self.score(&scoring, &replies, &wire_key);
        let outcome = traces::within(observed.trace(), work).await;
        observed.end(outcome.as_ref().map_err(|ended| &ended.failure));
        let verdict = match outcome {
            Ok(scored) => valid(Some(wire_key), &scored),
            Err(Ended { failure, place }) => invalid(Some(wire_key), &failure, place),
        };
        replies.finish(&key, verdict).await;
    }

    async fn score(
        self,
        scoring: &Scoring,
        replies: &Replies,
        key: &v1::Key,
    ) -> Result<Scored, Ended> {
        let Self { caller, mut context, deadline, mut said, cancel, room, .. } = self;
        context.timeout = Some(deadline.saturating_duration_since(Instant::now()));
        let opening = timeout_at(deadline, scoring.scorer.open(&caller, context));
        let opened = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(noted(cancelled(), Place::Open)),
            opened = opening => opened,
        };
        let mut item = opened
            .unwrap_or_else(|_| Err(deadline_passed()))
            .map_err(|failure| noted(failure, Place::Open))?;
        let _room = room;
        loop {
            let event = tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    item.cancel();
                    return Err(noted(cancelled(), Place::Open));
                }
                Some(said) = said.recv() => {
                    take(&item, said).await?;
                    continue;
                }
                event = item.next() => event,
            };
            match event {
                OpenEvent::Scores { first, rewards } => {
                    let step = scoring.stream.tokens_per_message;
                    for message in scores(Some(key), rows(&rewards), first, step) {
                        replies.send(Kind::Scores(message)).await;
                    }
                }
                OpenEvent::Verdict(outcome) => {
                    let outcome = outcome.and_then(|scored| sound(&scored).map(|()| scored));
                    record(&outcome);
                    return outcome.map_err(of_item);
                }
            }
        }
    }
}

async fn take(item: &OpenItem, said: Said) -> Result<(), Ended> {
    match said {
        Said::Append(AppendedText { offset, text, policy }) => {
            item.append(Appended { offset, text, policy }).await;
        }
        Said::Close => item.close().await,
        Said::Bad(failure) => return Err(noted(failure, Place::Append)),
    }
    Ok(())
}

const fn rows(rewards: &Rewards) -> Rows<'_> {
    match rewards {
        Rewards::Model(tokens) => Rows::Model(tokens.as_slice()),
        Rewards::Policy(tokens) => Rows::Policy(tokens.as_slice()),
    }
}

fn noted(failure: Failure, place: Place) -> Ended {
    record(&Err(failure.clone()));
    Ended { failure, place }
}

/// A failure of an item as a whole: of what was appended, or of what it was opened with.
fn of_item(failure: Failure) -> Ended {
    let appended = failure.field.is_some_and(|field| !field.starts_with("context."));
    Ended { place: if appended { Place::Append } else { Place::Open }, failure }
}
