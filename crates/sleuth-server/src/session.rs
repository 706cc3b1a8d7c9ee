//! One `ScoreTokens` stream.

mod correct;
mod ledger;
mod open;
mod replies;
mod whole;

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use prost::Message as _;
use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use sleuth_proto::v1::score_tokens_request::Kind;
use sleuth_proto::v1::score_tokens_response::Kind as ReplyKind;
use sleuth_service::Caller;
use sleuth_telemetry::traces::ItemKind;
use sleuth_wire::{
    ItemKey, ParsedItem, ParsedOpen, Place, Trace, invalid, item, key, open, status, trace_context,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;
use tracing::Instrument as _;

pub(crate) use self::correct::{CorrectReply, CorrectSession};
use self::ledger::{Known, Ledger};
use self::open::{Open, Said};
use self::replies::Replies;
use self::whole::Whole;
use crate::observe::Observed;
use crate::scoring::{Scoring, deadline_passed, draining, item_span};

/// What a stream sends.
pub(crate) type Reply = Result<v1::ScoreTokensResponse, Status>;

/// Reads a stream's messages, starts its items, and outlives them.
///
/// Every item is a task of its own, which sends its own scores and verdict; refusals are sent
/// from here, so that a caller who does not read is not read from.
pub(crate) struct Session {
    scoring: Arc<Scoring>,
    caller: Caller,
    /// The call's own.
    trace: Option<Trace>,
    sender: mpsc::Sender<Reply>,
    replies: Replies,
    slots: Arc<Semaphore>,
    ledger: Arc<Ledger>,
    items: JoinSet<()>,
}

// === impl Session ===

impl Session {
    pub(crate) fn new(
        scoring: Arc<Scoring>,
        caller: Caller,
        trace: Option<Trace>,
        sender: mpsc::Sender<Reply>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(scoring.stream.max_unfinished_items.max(1) as usize));
        let ledger = Arc::<Ledger>::default();
        let replies = Replies::new(sender.clone(), Arc::clone(&ledger));
        Self { scoring, caller, trace, sender, replies, slots, ledger, items: JoinSet::new() }
    }

    /// Runs the stream to its end. Items that are unfinished then are dropped.
    pub(crate) async fn run(
        mut self,
        inbound: impl Stream<Item = Result<v1::ScoreTokensRequest, Status>> + Unpin,
    ) {
        let replies = self.sender.clone();
        let lifecycle = self.scoring.lifecycle.clone();
        tokio::select! {
            biased;
            () = replies.closed() => tracing::debug!("the caller went away"),
            () = lifecycle.stopped() => {
                // Where the reader is so slow that this does not fit, the connection is cut.
                let _ = replies.try_send(Err(status(&draining(), Place::Request)));
            }
            () = self.serve(inbound) => {}
        }
    }

    async fn serve(
        &mut self,
        mut inbound: impl Stream<Item = Result<v1::ScoreTokensRequest, Status>> + Unpin,
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
                        // Not a message: the stream cannot go on, its items may be resumed.
                        let _ = self.sender.send(Err(status)).await;
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

    async fn take(&mut self, message: v1::ScoreTokensRequest) {
        match message.kind {
            Some(Kind::Score(item)) => self.score(item).await,
            Some(Kind::Open(context)) => self.open(context).await,
            Some(Kind::Append(append)) => {
                let key = append.key.clone();
                let said = match sleuth_wire::append(append, &self.scoring.limits) {
                    Ok(text) => Said::Append(text),
                    Err(failure) => Said::Bad(failure),
                };
                self.say(key, said, Place::Append).await;
            }
            Some(Kind::Close(key)) => self.say(Some(key), Said::Close, Place::Close).await,
            Some(Kind::Cancel(wire)) => {
                // Without a known key there is nothing to give up: its verdict is on its way.
                if let Ok(key) = key(Some(&wire)) {
                    self.ledger.cancel(&key);
                }
            }
            None => {
                let detail = "a message says what to do";
                let failure =
                    Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_MISSING, detail);
                self.scoring.observer.refused(&self.caller, &failure);
                self.refuse(None, &failure.at("kind"), Place::Request).await;
            }
        }
    }

    async fn score(&mut self, wire: v1::Item) {
        let wire_key = wire.context.as_ref().and_then(|c| c.key.clone());
        let observed = self.observe(ItemKind::Whole, wire.context.as_ref());
        match self.admit(wire, wire_key.as_ref()) {
            Err(failure) => {
                observed.end(Err(&failure));
                self.refuse(wire_key, &failure, Place::Score).await;
            }
            Ok(whole) => self.start(whole, observed).await,
        }
    }

    fn observe(&self, kind: ItemKind, wire: Option<&v1::Context>) -> Observed {
        let own = wire.and_then(|wire| trace_context(&wire.traceparent, &wire.tracestate));
        self.scoring.observer.item(kind, &self.caller, own, self.trace.as_ref())
    }

    /// All that can be refused at once, before anything is decoded.
    fn admit(&self, wire: v1::Item, wire_key: Option<&v1::Key>) -> Result<Whole, Failure> {
        let received = Instant::now();
        let key = self.free_key(wire_key)?;
        let size = wire.encoded_len();
        let ParsedItem { request, trace } = item(wire, &self.scoring.limits)?;
        let room = self.scoring.admission.admit(size)?;
        let deadline = self.scoring.deadline(received, request.context.timeout);
        let span = item_span(Some(&key), request.context.group.as_ref(), trace.as_ref());
        let (caller, cancel) = (self.caller.clone(), self.ledger.enter(key.clone()));
        Ok(Whole { key, caller, request, deadline, cancel, room, span })
    }

    /// The key of a new item.
    fn free_key(&self, wire_key: Option<&v1::Key>) -> Result<ItemKey, Failure> {
        let key = key(wire_key)?;
        if self.ledger.holds(&key) {
            return Err(key_in_use());
        }
        if self.scoring.lifecycle.is_draining() {
            return Err(draining());
        }
        Ok(key)
    }

    /// Waits for one of the stream's slots; meanwhile nothing more is read.
    async fn start(&mut self, whole: Whole, observed: Observed) {
        let slot = timeout_at(whole.deadline, Arc::clone(&self.slots).acquire_owned()).await;
        let Ok(Ok(slot)) = slot else {
            self.ledger.leave(&whole.key);
            observed.end(Err(&deadline_passed()));
            self.refuse(Some(whole.key.into()), &deadline_passed(), Place::Score).await;
            return;
        };
        let span = whole.span.clone();
        observed.name(&span);
        let work = whole.run(Arc::clone(&self.scoring), self.replies.clone(), observed);
        self.items.spawn(
            async move {
                work.await;
                drop(slot);
            }
            .instrument(span),
        );
    }

    async fn open(&mut self, wire: v1::Context) {
        let wire_key = wire.key.clone();
        let observed = self.observe(ItemKind::Open, Some(&wire));
        match self.admit_open(wire) {
            Ok(open) => {
                let span = open.span.clone();
                observed.name(&span);
                let work = open.run(Arc::clone(&self.scoring), self.replies.clone(), observed);
                self.items.spawn(work.instrument(span));
            }
            Err(failure) => {
                // Unless its key is another item's, what follows was on its way.
                if let Ok(key) = self.free_key(wire_key.as_ref()).or_else(|f| match f.class {
                    ErrorClass::Draining => key(wire_key.as_ref()),
                    _ => Err(f),
                }) {
                    self.ledger.refused(key);
                }
                observed.end(Err(&failure));
                self.refuse(wire_key, &failure, Place::Open).await;
            }
        }
    }

    fn admit_open(&self, wire: v1::Context) -> Result<Open, Failure> {
        let received = Instant::now();
        let key = self.free_key(wire.key.as_ref())?;
        if self.ledger.open_items() >= self.scoring.stream.max_open_items {
            return Err(too_many_open());
        }
        let size = wire.encoded_len();
        let ParsedOpen { context, trace } = open(wire, &self.scoring.limits)?;
        let room = self.scoring.admission.admit(size)?;
        let deadline = self.scoring.deadline(received, context.timeout);
        let span = item_span(Some(&key), context.group.as_ref(), trace.as_ref());
        let (cancel, said) = self.ledger.enter_open(key.clone());
        let caller = self.caller.clone();
        Ok(Open { key, caller, context, deadline, said, cancel, room, span })
    }

    /// Hands a message to its open item.
    async fn say(&mut self, wire_key: Option<v1::Key>, said: Said, place: Place) {
        let failure = match key(wire_key.as_ref()).map(|key| self.ledger.known(&key)) {
            // An item that has just ended needs it no more.
            Ok(Known::Open(item)) => return drop(item.send(said).await),
            Ok(Known::Ended) => return,
            Ok(Known::Whole) => key_in_use(),
            Ok(Known::Unknown) => key_unknown(),
            Err(failure) => failure,
        };
        self.scoring.observer.refused(&self.caller, &failure);
        self.refuse(wire_key, &failure, place).await;
    }

    async fn refuse(&self, key: Option<v1::Key>, failure: &Failure, place: Place) {
        tracing::debug!(class = failure.class.name(), reason = failure.reason.name(), "refused");
        self.replies.send(ReplyKind::Verdict(invalid(key, failure, place))).await;
    }
}

fn key_unknown() -> Failure {
    let detail = "no open item of this stream has this key; open it first";
    Failure::new(ErrorClass::InvalidRequest, Reason::KEY_UNKNOWN, detail).at("context.key")
}

fn too_many_open() -> Failure {
    let detail = "this stream has as many open items as it may";
    Failure::new(ErrorClass::Overload, Reason::QUEUE_FULL, detail)
        .retry_after(std::time::Duration::from_millis(500))
}

fn key_in_use() -> Failure {
    let detail = "an unfinished item has this key; this message is ignored, that item goes on";
    Failure::new(ErrorClass::InvalidRequest, Reason::KEY_IN_USE, detail).at("context.key")
}

fn draining_notice() -> v1::Notice {
    v1::Notice {
        kind: v1::NoticeKind::Draining as i32,
        detail: "the server is shutting down: unfinished items finish, new ones are refused"
            .to_owned(),
        ..v1::Notice::default()
    }
}
