//! One `ScoreTokens` stream that many callers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sleuth_core::{Context, ScoreRequest, Scored};
use sleuth_proto::v1;
use sleuth_proto::v1::reward_service_client::RewardServiceClient;
use sleuth_proto::v1::score_tokens_request::Kind;
use sleuth_proto::v1::score_tokens_response::Kind as ReplyKind;
use sleuth_wire::{Assembly, Refusal, Trace, encode_context, encode_item, encode_trace};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::ClientError;
use crate::security::Transport;

/// A stream and who waits on it. The stream closes when the last link to it is dropped and every
/// item has its verdict.
pub(crate) struct Link {
    requests: mpsc::Sender<v1::ScoreTokensRequest>,
    waiters: Arc<Waiters>,
    stop: Arc<Notify>,
}

/// The callers, by item id.
#[derive(Default)]
struct Waiters {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    items: HashMap<String, Waiter>,
    phase: Phase,
}

#[derive(Default)]
enum Phase {
    /// Takes items.
    #[default]
    Open,
    /// The server goes away: items on their way finish, new ones go elsewhere.
    Draining,
    /// Over, and why, where the server said so.
    Ended(Option<Refusal>),
}

/// What came for an item so far.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) assembly: Assembly,
    pub(crate) verdict: Option<Result<Scored, ClientError>>,
}

/// Where an item's scores and verdict are put.
pub(crate) type Inbox = Arc<Mutex<Came>>;

struct Waiter {
    inbox: Inbox,
    changed: watch::Sender<()>,
}

/// An item on its way. Dropped before its verdict, it tells the server that nobody waits any more.
pub(crate) struct OnItsWay {
    link: Arc<Link>,
    id: String,
    pub(crate) inbox: Inbox,
    changed: watch::Receiver<()>,
}

/// Of every message: a stream's items are told apart by their ids alone.
const ATTEMPT: u32 = 1;

// === impl Link ===

impl Link {
    /// Opens a stream; whether that works shows in the items' results.
    pub(crate) fn open(mut service: RewardServiceClient<Transport>, queue: usize) -> Arc<Self> {
        let (requests, queued) = mpsc::channel(queue);
        let waiters = Arc::new(Waiters::default());
        let stop = Arc::default();
        let link = Arc::new(Self { requests, waiters: Arc::clone(&waiters), stop });
        let stopped = Arc::clone(&link.stop);
        tokio::spawn(async move {
            let work = async {
                match service.score_tokens(ReceiverStream::new(queued)).await {
                    Ok(replies) => waiters.read(replies.into_inner()).await,
                    Err(status) => Some(status),
                }
            };
            let end = tokio::select! {
                end = work => end,
                () = stopped.notified() => None,
            };
            waiters.end(end.as_ref().map(Refusal::from));
        });
        link
    }

    /// Drops the stream.
    #[cfg(feature = "test-util")]
    pub(crate) fn cut(&self) {
        self.stop.notify_one();
    }

    pub(crate) fn takes_items(&self) -> bool {
        matches!(self.waiters.lock().phase, Phase::Open)
    }

    /// Sends a whole item.
    pub(crate) async fn score(
        self: &Arc<Self>,
        request: ScoreRequest<Bytes>,
        trace: Option<&Trace>,
    ) -> Result<OnItsWay, ClientError> {
        let item = self.enter(request.policy.is_some())?;
        let mut wire = encode_item(Some(item.key()), request);
        if let (Some(context), Some(trace)) = (&mut wire.context, trace) {
            (context.traceparent, context.tracestate) = encode_trace(trace);
        }
        item.send(Kind::Score(wire)).await;
        Ok(item)
    }

    /// Opens an item whose response is still being generated.
    pub(crate) async fn open_item(
        self: &Arc<Self>,
        context: Context<Bytes>,
        of_policy: bool,
        trace: Option<&Trace>,
    ) -> Result<OnItsWay, ClientError> {
        let item = self.enter(of_policy)?;
        let mut wire = encode_context(Some(item.key()), context);
        if let Some(trace) = trace {
            (wire.traceparent, wire.tracestate) = encode_trace(trace);
        }
        item.send(Kind::Open(wire)).await;
        Ok(item)
    }

    fn enter(self: &Arc<Self>, of_policy: bool) -> Result<OnItsWay, ClientError> {
        let mut state = self.waiters.lock();
        if let Phase::Ended(why) = &state.phase {
            return Err(ClientError::StreamEnded(why.clone()));
        }
        let id = state.next_id.to_string();
        state.next_id += 1;
        let (sender, changed) = watch::channel(());
        let came = Came { assembly: Assembly::new(of_policy), verdict: None };
        let inbox = Arc::new(Mutex::new(came));
        let waiter = Waiter { inbox: Arc::clone(&inbox), changed: sender };
        state.items.insert(id.clone(), waiter);
        Ok(OnItsWay { link: Arc::clone(self), id, inbox, changed })
    }
}

// === impl OnItsWay ===

impl OnItsWay {
    pub(crate) fn key(&self) -> v1::Key {
        v1::Key { item_id: self.id.clone(), attempt: ATTEMPT }
    }

    /// Before anything came.
    pub(crate) fn expect_policy(&self) {
        let mut came = lock(&self.inbox);
        if came.assembly.is_empty() {
            came.assembly = Assembly::new(true);
        }
    }

    /// Where the stream has ended, the inbox says why.
    pub(crate) async fn send(&self, kind: Kind) {
        let _ = self.link.requests.send(v1::ScoreTokensRequest { kind: Some(kind) }).await;
    }

    /// Waits for the verdict.
    pub(crate) async fn verdict(&mut self) -> Result<Scored, ClientError> {
        loop {
            self.changed.mark_unchanged();
            if let Some(verdict) = lock(&self.inbox).verdict.take() {
                return verdict;
            }
            if self.changed.changed().await.is_err() && lock(&self.inbox).verdict.is_none() {
                return Err(ClientError::StreamEnded(None));
            }
        }
    }

    /// Waits until `look` sees something in what came.
    pub(crate) async fn when<T>(
        &mut self,
        mut look: impl FnMut(&mut Came) -> Option<T>,
    ) -> Result<T, ClientError> {
        loop {
            self.changed.mark_unchanged();
            if let Some(seen) = look(&mut lock(&self.inbox)) {
                return Ok(seen);
            }
            if self.changed.changed().await.is_err() {
                let seen = look(&mut lock(&self.inbox));
                return seen.ok_or(ClientError::StreamEnded(None));
            }
        }
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        let waiting = self.link.waiters.lock().items.remove(&self.id).is_some();
        if waiting {
            // A full queue means that the server is behind; then the item runs for nobody.
            let kind = Some(Kind::Cancel(self.key()));
            let _ = self.link.requests.try_send(v1::ScoreTokensRequest { kind });
        }
    }
}

// === impl Waiters ===

impl Waiters {
    /// Hands replies to their waiters until the stream ends; says with what status, if not well.
    async fn read(&self, mut replies: tonic::Streaming<v1::ScoreTokensResponse>) -> Option<Status> {
        loop {
            match replies.message().await {
                Ok(Some(reply)) => self.take(reply),
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }

    /// Replies to items that nobody waits for any more are dropped.
    fn take(&self, reply: v1::ScoreTokensResponse) {
        let mut state = self.lock();
        match reply.kind {
            Some(ReplyKind::Scores(scores)) => {
                let Some(id) = scores.key.as_ref().map(|k| &k.item_id) else { return };
                let Some(waiter) = state.items.get_mut(id) else { return };
                let pushed = lock(&waiter.inbox).assembly.push(&scores);
                match pushed {
                    Ok(()) => drop(waiter.changed.send(())),
                    Err(error) => {
                        if let Some(waiter) = state.items.remove(id) {
                            waiter.tell(Err(error.into()));
                        }
                    }
                }
            }
            Some(ReplyKind::Verdict(verdict)) => {
                let id = verdict.key.as_ref().map(|k| k.item_id.clone());
                if let Some(waiter) = id.and_then(|id| state.items.remove(&id)) {
                    waiter.finish(verdict);
                }
            }
            Some(ReplyKind::Notice(notice)) if notice.kind == v1::NoticeKind::Draining as i32 => {
                state.phase = Phase::Draining;
            }
            // Other notices, and kinds of a newer server: about the stream, not about an item.
            Some(ReplyKind::Notice(_)) | None => {}
        }
    }

    fn end(&self, why: Option<Refusal>) {
        let mut state = self.lock();
        for (_, waiter) in state.items.drain() {
            waiter.tell(Err(ClientError::StreamEnded(why.clone())));
        }
        state.phase = Phase::Ended(why);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Nothing panics while a lock is held, so a poisoned one is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Waiter ===

impl Waiter {
    fn finish(self, verdict: v1::Verdict) {
        // What came stays readable: an open item's caller may not have read all of it.
        let assembly = lock(&self.inbox).assembly.clone();
        let outcome = match assembly.finish(verdict) {
            Ok(Ok(scored)) => Ok(scored),
            Ok(Err(refusal)) => Err(ClientError::Refused(refusal)),
            Err(error) => Err(error.into()),
        };
        self.tell(outcome);
    }

    fn tell(self, outcome: Result<Scored, ClientError>) {
        lock(&self.inbox).verdict = Some(outcome);
        // The caller may have gone meanwhile.
        let _ = self.changed.send(());
    }
}
