//! One `ScoreTokens` stream.

mod job;
mod ledger;

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use prost::Message as _;
use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use sleuth_proto::v1::score_tokens_request::Kind;
use sleuth_proto::v1::score_tokens_response::Kind as ReplyKind;
use sleuth_wire::{ItemKey, Place, invalid, item, key, status};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::Status;
use tracing::Instrument as _;

use self::job::Job;
use self::ledger::{Ledger, Refused};
use crate::scoring::{Scoring, deadline_passed, draining, item_span};

/// What a stream sends.
pub(crate) type Reply = Result<v1::ScoreTokensResponse, Status>;

/// Reads a stream's messages, starts its items, and outlives them.
///
/// Every item is a task of its own, which sends its own scores and verdict; refusals are sent
/// from here, so that a caller who does not read is not read from.
pub(crate) struct Session {
    scoring: Arc<Scoring>,
    replies: mpsc::Sender<Reply>,
    slots: Arc<Semaphore>,
    ledger: Arc<Ledger>,
    refused: Refused,
    items: JoinSet<()>,
}

// === impl Session ===

impl Session {
    pub(crate) fn new(scoring: Arc<Scoring>, replies: mpsc::Sender<Reply>) -> Self {
        let slots = Arc::new(Semaphore::new(scoring.stream.max_unfinished_items.max(1) as usize));
        Self {
            scoring,
            replies,
            slots,
            ledger: Arc::default(),
            refused: Refused::default(),
            items: JoinSet::new(),
        }
    }

    /// Runs the stream to its end. Items that are unfinished then are dropped.
    pub(crate) async fn run(
        mut self,
        inbound: impl Stream<Item = Result<v1::ScoreTokensRequest, Status>> + Unpin,
    ) {
        let replies = self.replies.clone();
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
                    self.send(ReplyKind::Notice(draining_notice())).await;
                }
                Some(_) = self.items.join_next() => {}
                message = inbound.next() => match message {
                    Some(Ok(message)) => self.take(message).await,
                    Some(Err(status)) => {
                        // Not a message: the stream cannot go on, its items may be resumed.
                        let _ = self.replies.send(Err(status)).await;
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
            Some(Kind::Open(context)) => self.not_open(context.key, Place::Open).await,
            Some(Kind::Append(append)) => self.not_open(append.key, Place::Append).await,
            Some(Kind::Close(key)) => self.not_open(Some(key), Place::Close).await,
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
                self.refuse(None, &failure.at("kind"), Place::Request).await;
            }
        }
    }

    async fn score(&mut self, wire: v1::Item) {
        let wire_key = wire.context.as_ref().and_then(|c| c.key.clone());
        match self.admit(wire, wire_key.as_ref()) {
            Err(failure) => self.refuse(wire_key, &failure, Place::Score).await,
            Ok(job) => self.start(job).await,
        }
    }

    /// All that can be refused at once, before anything is decoded.
    fn admit(&self, wire: v1::Item, wire_key: Option<&v1::Key>) -> Result<Job, Failure> {
        let received = Instant::now();
        let key = key(wire_key)?;
        if self.ledger.holds(&key) {
            return Err(key_in_use());
        }
        if self.scoring.lifecycle.is_draining() {
            return Err(draining());
        }
        let size = wire.encoded_len();
        let parsed = item(wire, &self.scoring.limits)?;
        let room = self.scoring.admission.admit(size)?;
        let deadline = self.scoring.deadline(received, parsed.request.timeout);
        let span = item_span(Some(&key), &parsed);
        let cancel = self.ledger.enter(key.clone());
        Ok(Job { key, request: parsed.request, deadline, cancel, room, span })
    }

    /// Waits for one of the stream's slots; meanwhile nothing more is read.
    async fn start(&mut self, job: Job) {
        let slot = timeout_at(job.deadline, Arc::clone(&self.slots).acquire_owned()).await;
        let Ok(Ok(slot)) = slot else {
            self.ledger.leave(&job.key);
            self.refuse(Some(job.key.into()), &deadline_passed(), Place::Score).await;
            return;
        };
        let span = job.span.clone();
        let work =
            job.run(Arc::clone(&self.scoring), Arc::clone(&self.ledger), self.replies.clone());
        self.items.spawn(
            async move {
                work.await;
                drop(slot);
            }
            .instrument(span),
        );
    }

    /// Open items are not offered yet: one verdict per key, whatever follows it.
    async fn not_open(&mut self, wire_key: Option<v1::Key>, place: Place) {
        let failure = match key(wire_key.as_ref()) {
            Err(failure) => failure,
            Ok(key) if self.ledger.holds(&key) => key_in_use(),
            Ok(key) if self.is_answered(&key, place) => return,
            Ok(key) => {
                self.refused.insert(key);
                let detail = "open items are not offered; send the item whole";
                Failure::new(ErrorClass::Unsupported, Reason::NOT_OFFERED, detail)
            }
        };
        self.refuse(wire_key, &failure, place).await;
    }

    /// What follows a refused `open` was on its way when the verdict was sent.
    fn is_answered(&self, key: &ItemKey, place: Place) -> bool {
        place != Place::Open && self.refused.holds(key)
    }

    async fn refuse(&self, key: Option<v1::Key>, failure: &Failure, place: Place) {
        tracing::debug!(class = failure.class.name(), reason = failure.reason.name(), "refused");
        self.send(ReplyKind::Verdict(invalid(key, failure, place))).await;
    }

    async fn send(&self, kind: ReplyKind) {
        // Without a reader the whole session ends, by `run`.
        let _ = self.replies.send(Ok(v1::ScoreTokensResponse { kind: Some(kind) })).await;
    }
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
