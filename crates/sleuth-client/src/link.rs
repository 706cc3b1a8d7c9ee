//! One `ScoreTokens` stream that many callers share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sleuth_core::{ScoreRequest, Scored};
use sleuth_proto::v1;
use sleuth_proto::v1::reward_service_client::RewardServiceClient;
use sleuth_proto::v1::score_tokens_request::Kind;
use sleuth_proto::v1::score_tokens_response::Kind as ReplyKind;
use sleuth_wire::{Assembly, Refusal, Unreadable, encode_item};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::ClientError;

/// A stream and who waits on it. The stream closes when the last link to it is dropped and every
/// item has its verdict.
pub(crate) struct Link {
    requests: mpsc::Sender<v1::ScoreTokensRequest>,
    waiters: Arc<Waiters>,
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

struct Waiter {
    assembly: Assembly,
    done: oneshot::Sender<Result<Scored, ClientError>>,
}

/// Tells the server when a caller stops waiting.
struct Cancel<'a> {
    link: &'a Link,
    id: String,
}

// === impl Link ===

impl Link {
    /// Opens a stream; whether that works shows in the items' results.
    pub(crate) fn open(mut service: RewardServiceClient<Channel>, queue: usize) -> Arc<Self> {
        let (requests, queued) = mpsc::channel(queue);
        let waiters = Arc::new(Waiters::default());
        let link = Arc::new(Self { requests, waiters: Arc::clone(&waiters) });
        tokio::spawn(async move {
            let end = match service.score_tokens(ReceiverStream::new(queued)).await {
                Ok(replies) => waiters.read(replies.into_inner()).await,
                Err(status) => Some(status),
            };
            waiters.end(end.as_ref().map(Refusal::from));
        });
        link
    }

    pub(crate) fn takes_items(&self) -> bool {
        matches!(self.waiters.lock().phase, Phase::Open)
    }

    pub(crate) async fn score(&self, request: ScoreRequest<Bytes>) -> Result<Scored, ClientError> {
        let (id, verdict) = self.waiters.enter()?;
        let key = v1::Key { item_id: id.clone(), attempt: 1 };
        let kind = Some(Kind::Score(encode_item(Some(key), request)));
        let cancel = Cancel { link: self, id };
        // Where the stream has ended, the waiter was told why.
        let _ = self.requests.send(v1::ScoreTokensRequest { kind }).await;
        let outcome = verdict.await;
        drop(cancel);
        outcome.unwrap_or(Err(ClientError::StreamEnded(None)))
    }
}

// === impl Waiters ===

impl Waiters {
    fn enter(
        &self,
    ) -> Result<(String, oneshot::Receiver<Result<Scored, ClientError>>), ClientError> {
        let mut state = self.lock();
        if let Phase::Ended(why) = &state.phase {
            return Err(ClientError::StreamEnded(why.clone()));
        }
        let id = state.next_id.to_string();
        state.next_id += 1;
        let (done, verdict) = oneshot::channel();
        state.items.insert(id.clone(), Waiter { assembly: Assembly::default(), done });
        Ok((id, verdict))
    }

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
                if let Err(error) = waiter.assembly.push(&scores)
                    && let Some(waiter) = state.items.remove(id)
                {
                    waiter.tell(Err(error.into()));
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

    /// Nothing panics while it holds the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiter ===

impl Waiter {
    fn finish(self, verdict: v1::Verdict) {
        let outcome = match self.assembly.finish(verdict) {
            Ok(Ok(scored)) => Ok(scored),
            Ok(Err(refusal)) => Err(ClientError::Refused(refusal)),
            Err(error) => Err(Unreadable::into(error)),
        };
        // The caller may have gone meanwhile.
        let _ = self.done.send(outcome);
    }

    fn tell(self, outcome: Result<Scored, ClientError>) {
        // The caller may have gone meanwhile.
        let _ = self.done.send(outcome);
    }
}

// === impl Cancel ===

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        let waiting = self.link.waiters.lock().items.remove(&self.id).is_some();
        if waiting {
            let key = v1::Key { item_id: self.id.clone(), attempt: 1 };
            // A full queue means that the server is behind; then the item runs for nobody.
            let _ = self
                .link
                .requests
                .try_send(v1::ScoreTokensRequest { kind: Some(Kind::Cancel(key)) });
        }
    }
}
