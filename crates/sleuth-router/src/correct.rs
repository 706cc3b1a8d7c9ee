//! Corrections: each at one replica, which scores, proposes and keeps.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sleuth_client::{ClientError, CorrectReply, Correcting, Finished, Used};
use sleuth_core::{CorrectEvent, CorrectRequest, Corrected, Correction, Failure, Rescored, Scored};
use sleuth_service::{BoxFuture, Caller, Corrects, ImageStore};
use sleuth_wire::Place as Field;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::asked::Asked;
use crate::failures;
use crate::fleet::{Fleet, Place};
use crate::health::Outcome;
use crate::whole::{Tries, outgoing, prepare, tag};

/// The use case "correct", at the replicas.
pub(crate) struct RoutedCorrections {
    pub(crate) fleet: Fleet,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) max_timeout: Duration,
}

/// What a replica has told of an item so far.
#[derive(Default)]
struct Told {
    /// The rewards of the response to use, as far as it is known.
    best: Option<Scored>,
    events: usize,
}

// === impl RoutedCorrections ===

impl Corrects for RoutedCorrections {
    fn correct<'a>(
        &'a self,
        caller: &'a Caller,
        request: CorrectRequest<Bytes>,
        cancelled: BoxFuture<'a, ()>,
        events: &'a mpsc::Sender<CorrectEvent>,
    ) -> BoxFuture<'a, Correction> {
        Box::pin(async move {
            let most = self.max_timeout;
            let left = request.item.context.timeout.map_or(most, |left| left.min(most));
            let deadline = Instant::now() + left;
            let work = timeout_at(deadline, self.work(caller, request, deadline, events));
            let ended = tokio::select! {
                biased;
                () = cancelled => Err(failures::cancelled()),
                ended = work => ended.unwrap_or_else(|_| Err(failures::deadline())),
            };
            ended.unwrap_or_else(Correction::failed)
        })
    }
}

impl RoutedCorrections {
    async fn work(
        &self,
        caller: &Caller,
        request: CorrectRequest<Bytes>,
        deadline: Instant,
        events: &mpsc::Sender<CorrectEvent>,
    ) -> Result<Correction, Failure> {
        let fleet = &self.fleet;
        let (context, length) = (&request.item.context, request.item.response.len());
        let asked = Asked::of(fleet, &self.images, caller, context, Some(length)).await?;
        let asked = Arc::new(asked);
        let mut tries = Tries::new(fleet.settings().max_attempts);
        loop {
            let place = fleet
                .place(tries.wanted(&asked, None))
                .await
                .map_err(|why| failures::unplaced(&why))?;
            tag(&place);
            let mut told = Told::default();
            let at = self.attempt(caller, &asked, &place, &request, deadline);
            let error = match told.all(at, events).await {
                Ok(correction) => {
                    fleet.outcome(&place.replica.id, Outcome::Good);
                    place.end(true);
                    return Ok(correction);
                }
                Err(error) => error,
            };
            let replica = Arc::clone(&place.replica);
            drop(place);
            // What was told cannot be told otherwise.
            if told.events > 0 {
                return Err(failures::of_replica(error, Field::Correct));
            }
            tries.again(fleet, caller, &asked, &replica.id, error, Field::Correct).await?;
        }
    }

    async fn attempt(
        &self,
        caller: &Caller,
        asked: &Arc<Asked>,
        place: &Place,
        request: &CorrectRequest<Bytes>,
        deadline: Instant,
    ) -> Result<(Correcting, crate::replica::Connection), ClientError> {
        let mut context = request.item.context.clone();
        context.timeout = Some(deadline.saturating_duration_since(Instant::now()));
        let (connection, context) = prepare(&self.fleet, caller, asked, place, context).await?;
        let item = sleuth_core::ScoreRequest { context, ..request.item.clone() };
        let request = CorrectRequest { item, ..request.clone() };
        let correcting = connection.client.correct_traced(request, outgoing()).await?;
        Ok((correcting, connection))
    }
}

// === impl Told ===

impl Told {
    /// Passes on what a replica tells, to the end.
    async fn all(
        &mut self,
        attempt: impl Future<Output = Result<(Correcting, crate::replica::Connection), ClientError>>,
        events: &mpsc::Sender<CorrectEvent>,
    ) -> Result<Correction, ClientError> {
        let (mut correcting, connection) = attempt.await?;
        loop {
            let reply = tokio::select! {
                reply = correcting.next() => reply?,
                () = connection.lost() => None,
            };
            let event = match reply.ok_or(ClientError::StreamEnded(None))? {
                CorrectReply::Final(finished) => return self.end(*finished),
                CorrectReply::Scored { scored, words } => {
                    self.best = Some((*scored).clone());
                    CorrectEvent::Scored { scored, words }
                }
                CorrectReply::Proposed(proposed) => CorrectEvent::Proposed(proposed),
                CorrectReply::Rescored { round, candidate, scored, failure, dropped } => {
                    if let (Some(scored), None) = (&scored, dropped) {
                        self.best = Some((**scored).clone());
                    }
                    let failure = failure.map(|refusal| refusal.into_failure(Field::Request));
                    CorrectEvent::Rescored(Rescored { round, candidate, scored, failure, dropped })
                }
            };
            self.events += 1;
            // A receiver that is gone costs nothing.
            let _ = events.send(event).await;
        }
    }

    fn end(&mut self, finished: Finished) -> Result<Correction, ClientError> {
        let Finished { outcome, rounds, attempts } = finished;
        let used = match outcome {
            Ok(used) => used,
            Err(refusal) if self.events == 0 => return Err(refusal.into()),
            Err(refusal) => {
                let outcome = Err(refusal.into_failure(Field::Correct));
                return Ok(Correction { outcome, rounds, attempts });
            }
        };
        let best = self.best.take().ok_or(ClientError::StreamEnded(None))?;
        let Used { response, version, timing, cache, reward, reward_before, .. } = used;
        let scored = Scored { version, timing, cache, reward, ..best };
        let stopped = used.stopped.map(|refusal| refusal.into_failure(Field::Correct));
        let corrected = Corrected {
            response,
            scored,
            reward_before,
            changes: used.changes,
            kept: used.kept,
            stopped,
        };
        Ok(Correction { outcome: Ok(corrected), rounds, attempts })
    }
}
