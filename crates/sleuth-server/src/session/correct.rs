//! One `Correct` stream: as a `ScoreTokens` stream of whole items.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use sleuth_core::{CorrectEvent, CorrectRequest, Correction, ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use sleuth_proto::v1::correct_request::Kind;
use sleuth_proto::v1::correct_response::Kind as ReplyKind;
use sleuth_service::{Caller, Corrects};
use sleuth_telemetry::traces::{self, ItemKind};
use sleuth_wire::{
    ItemKey, ParsedCorrection, Place, Trace, correct_event, correct_item, correction, key, sound,
    status,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{Instrument as _, Span};

use super::ledger::Ledger;
use super::{draining_notice, key_in_use};
use crate::observe::Observed;
use crate::scoring::{Scoring, deadline_passed, draining, item_span};

/// What a stream of corrections sends.
pub(crate) type CorrectReply = Result<v1::CorrectResponse, Status>;

/// Reads a stream's messages, starts its items, and outlives them.
pub(crate) struct CorrectSession {
    scoring: Arc<Scoring>,
    corrections: Arc<dyn Corrects>,
    caller: Caller,
    /// The trace that the stream as a whole belongs to.
    call: Option<Trace>,
    replies: Replies,
    slots: Arc<Semaphore>,
    items: JoinSet<()>,
}

/// The way back to a stream's caller. Whoever sends waits while the caller does not read.
#[derive(Clone)]
struct Replies {
    sender: mpsc::Sender<CorrectReply>,
    ledger: Arc<Ledger>,
}

/// An admitted item of a stream.
struct Correcting {
    key: ItemKey,
    caller: Caller,
    request: CorrectRequest<Bytes>,
    deadline: Instant,
    cancel: CancellationToken,
    /// The item's share of the byte budget.
    room: OwnedSemaphorePermit,
    span: Span,
    observed: Observed,
}

// === impl CorrectSession ===

impl CorrectSession {
    pub(crate) fn new(
        scoring: Arc<Scoring>,
        corrections: Arc<dyn Corrects>,
        caller: Caller,
        call: Option<Trace>,
        sender: mpsc::Sender<CorrectReply>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(scoring.stream.max_unfinished_items.max(1) as usize));
        let replies = Replies { sender, ledger: Arc::default() };
        Self { scoring, corrections, caller, call, replies, slots, items: JoinSet::new() }
    }

    /// Runs the stream to its end. Items that are unfinished then are dropped.
    pub(crate) async fn run(
        mut self,
        inbound: impl Stream<Item = Result<v1::CorrectRequest, Status>> + Unpin,
    ) {
        let sender = self.replies.sender.clone();
        let lifecycle = self.scoring.lifecycle.clone();
        tokio::select! {
            biased;
            () = sender.closed() => tracing::debug!("the caller went away"),
            () = lifecycle.stopped() => {
                // Where the reader is so slow that this does not fit, the connection is cut.
                let _ = sender.try_send(Err(status(&draining(), Place::Request)));
            }
            () = self.serve(inbound) => {}
        }
    }

    async fn serve(
        &mut self,
        mut inbound: impl Stream<Item = Result<v1::CorrectRequest, Status>> + Unpin,
    ) {
        let lifecycle = self.scoring.lifecycle.clone();
        let mut closes_at = None;
        loop {
            let closing = closes_at.filter(|_| self.items.is_empty());
            tokio::select! {
                biased;
                () = lifecycle.draining(), if closes_at.is_none() => {
                    closes_at = Some(Instant::now() + self.scoring.stream.linger);
                    self.replies.send(ReplyKind::Notice(draining_notice())).await;
                }
                Some(_) = self.items.join_next() => {}
                message = inbound.next() => match message {
                    Some(Ok(message)) => self.take(message).await,
                    Some(Err(status)) => {
                        // Not a message: the stream cannot go on.
                        let _ = self.replies.sender.send(Err(status)).await;
                        return;
                    }
                    None => break,
                },
                () = sleep_until(closing.unwrap_or_else(Instant::now)), if closing.is_some() => {
                    return;
                }
            }
        }
        while self.items.join_next().await.is_some() {}
    }

    async fn take(&mut self, message: v1::CorrectRequest) {
        match message.kind {
            Some(Kind::Item(wire)) => {
                let context = wire.item.as_ref().and_then(|item| item.context.as_ref());
                let wire_key = context.and_then(|context| context.key.clone());
                match self.admit(wire, wire_key.as_ref()) {
                    Ok(item) => self.start(item).await,
                    Err(failure) => self.refuse(wire_key, failure).await,
                }
            }
            Some(Kind::Cancel(wire)) => {
                // Without a known key there is nothing to give up: its end is on its way.
                if let Ok(key) = key(Some(&wire)) {
                    self.replies.ledger.cancel(&key);
                }
            }
            None => {
                let detail = "a message says what to do";
                let failure =
                    Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_MISSING, detail);
                self.refuse(None, failure.at("kind")).await;
            }
        }
    }

    /// All that can be refused at once, before anything is decoded.
    fn admit(
        &self,
        wire: v1::CorrectItem,
        wire_key: Option<&v1::Key>,
    ) -> Result<Correcting, Failure> {
        let received = Instant::now();
        let key = key(wire_key)?;
        if self.replies.ledger.holds(&key) {
            return Err(key_in_use());
        }
        if self.scoring.lifecycle.is_draining() {
            return Err(draining());
        }
        let size = wire.encoded_len();
        let ParsedCorrection { request, trace } = correct_item(wire, &self.scoring.limits)?;
        let room = self.scoring.admission.admit(size)?;
        let context = &request.item.context;
        let deadline = self.scoring.deadline(received, context.timeout);
        let span = item_span(Some(&key), context.group.as_ref(), trace.as_ref());
        let observer = &self.scoring.observer;
        let observed = observer.item(ItemKind::Correct, &self.caller, trace, self.call.as_ref());
        observed.name(&span);
        let (caller, cancel) = (self.caller.clone(), self.replies.ledger.enter(key.clone()));
        Ok(Correcting { key, caller, request, deadline, cancel, room, span, observed })
    }

    /// Waits for one of the stream's slots; meanwhile nothing more is read.
    async fn start(&mut self, item: Correcting) {
        let slot = timeout_at(item.deadline, Arc::clone(&self.slots).acquire_owned()).await;
        let Ok(Ok(slot)) = slot else {
            let failure = deadline_passed();
            item.observed.end(Err(&failure));
            let end = correction(Some(&item.key.clone().into()), &Correction::failed(failure));
            return self.replies.finish(&item.key, end).await;
        };
        let span = item.span.clone();
        let work = item.run(Arc::clone(&self.corrections), self.replies.clone());
        let held = async move {
            work.await;
            drop(slot);
        };
        self.items.spawn(held.instrument(span));
    }

    async fn refuse(&self, key: Option<v1::Key>, failure: Failure) {
        tracing::debug!(class = failure.class.name(), reason = failure.reason.name(), "refused");
        self.scoring.observer.refused(&self.caller, &failure);
        let end = correction(key.as_ref(), &Correction::failed(failure));
        self.replies.send(ReplyKind::Final(end)).await;
    }
}

// === impl Correcting ===

impl Correcting {
    /// Corrects the item; sends what happens, and then its one end.
    async fn run(self, corrections: Arc<dyn Corrects>, replies: Replies) {
        let Self { key, caller, mut request, deadline, cancel, room, observed, .. } = self;
        let left = deadline.saturating_duration_since(Instant::now());
        request.item.context.timeout = Some(left);
        let wire_key = v1::Key::from(key.clone());
        let (events, mut happened) = mpsc::channel(1);
        // Side by side: a caller who does not read must not hold up a deadline or a cancel.
        let work = async {
            let cancelled = Box::pin(cancel.cancelled());
            let end = corrections.correct(&caller, request, cancelled, &events).await;
            drop((events, room));
            end
        };
        let tell = async {
            while let Some(event) = happened.recv().await {
                if is_sound(&event) {
                    replies.send(correct_event(&wire_key, event)).await;
                }
            }
        };
        let work = traces::within(observed.trace(), work);
        let (mut end, ()) = tokio::join!(work, tell);
        end.outcome = end.outcome.and_then(|corrected| {
            sound(&corrected.scored)?;
            Ok(corrected)
        });
        note(&end);
        observed.end(end.outcome.as_ref().map(|corrected| &corrected.scored));
        replies.finish(&key, correction(Some(&wire_key), &end)).await;
    }
}

fn is_sound(event: &CorrectEvent) -> bool {
    match event {
        CorrectEvent::Scored { scored, .. } => sound(scored).is_ok(),
        CorrectEvent::Rescored(rescored) => {
            rescored.scored.as_ref().is_none_or(|scored| sound(scored).is_ok())
        }
        CorrectEvent::Proposed(_) => true,
    }
}

/// Notes the end on the item's span.
fn note(end: &Correction) {
    let span = Span::current();
    let stopped = match &end.outcome {
        Ok(corrected) => {
            span.record("outcome", "valid");
            span.record("tokens", corrected.scored.tokens.len());
            corrected.stopped.as_ref()
        }
        Err(failure) => {
            span.record("outcome", failure.class.name());
            Some(failure)
        }
    };
    if let Some(failure) = stopped {
        span.record("reason", failure.reason.name());
    }
    if stopped.is_some_and(|failure| failure.class == ErrorClass::ModelFailure) {
        tracing::error!(rounds = end.rounds, "correction ended early");
    } else {
        tracing::debug!(rounds = end.rounds, "correction ended");
    }
}

// === impl Replies ===

impl Replies {
    /// Without a reader the whole session ends, and this with it.
    async fn send(&self, kind: ReplyKind) {
        let _ = self.sender.send(Ok(v1::CorrectResponse { kind: Some(kind) })).await;
    }

    /// Sends an item's end. Its key is free before the caller can read that it is.
    async fn finish(&self, key: &ItemKey, end: v1::Final) {
        let place = self.sender.reserve().await;
        self.ledger.leave(key);
        if let Ok(place) = place {
            let kind = Some(ReplyKind::Final(end));
            place.send(Ok(v1::CorrectResponse { kind }));
        }
    }
}
