//! Items whose response is still being generated.

mod state;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sleuth_core::{Failure, PolicyReward, PolicyTokens, Scored, TokenReward};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout_at};

pub(crate) use self::state::{Chunk, State};
use crate::admission::Presence;
use crate::attendance::{Attendance, Seat};
use crate::once::{Fingerprint, Outcome, Stored};
use crate::{BoxFuture, failures};

/// How appended text is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSettings {
    /// Settled tokens that are scored at once.
    pub coalesce_tokens: usize,
    /// Settled tokens wait no longer than this for more.
    pub coalesce_time: Duration,
    /// An open item to which nothing is appended for so long ends.
    pub idle: Duration,
    /// An item with an idempotency key whose callers are cut off stays open so long.
    pub keep: Duration,
}

/// More of a response that is being generated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Bytes of the response before `text`. What was received before is passed over.
    pub offset: u64,
    /// May end inside a character.
    pub text: Bytes,
    /// The policy's tokens: ends count from the start of the response, pieces spell `text`.
    pub policy: Option<PolicyTokens>,
}

/// A caller's hold on an item whose response is still being generated. Dropping it leaves the
/// item; one that nobody holds any more ends.
pub struct OpenItem(Box<dyn Hold>);

/// What stands behind an [`OpenItem`].
pub trait Hold: Send + Sync {
    /// As [`OpenItem::append`].
    fn append(&self, appended: Appended) -> BoxFuture<'_, ()>;
    /// As [`OpenItem::close`].
    fn close(&self) -> BoxFuture<'_, ()>;
    /// As [`OpenItem::cancel`].
    fn cancel(self: Box<Self>);
    /// As [`OpenItem::next`].
    fn next(&mut self) -> BoxFuture<'_, OpenEvent>;
}

/// A hold on an item that is scored here.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) opened: Arc<Opened>,
    pub(crate) changes: watch::Receiver<u64>,
    /// Tokens that [`OpenItem::next`] gave.
    pub(crate) read: usize,
    pub(crate) deadline: Option<Instant>,
    pub(crate) _seat: Seat,
    pub(crate) _presence: Presence,
}

/// What comes of an open item.
#[derive(Clone, Debug, PartialEq)]
pub enum OpenEvent {
    /// More rewards.
    Scores {
        /// The place of the first among the item's tokens.
        first: usize,
        /// The rewards.
        rewards: Rewards,
    },
    /// The end, after all rewards. Nothing comes after it.
    Verdict(Result<Scored, Failure>),
}

/// Rewards in the tokens that a caller asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Rewards {
    /// The reward model's.
    Model(Vec<TokenReward>),
    /// The policy's.
    Policy(Vec<PolicyReward>),
}

/// An item whose response is being generated, for all who hold it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) version: String,
    pub(crate) attendance: Arc<Attendance>,
    pub(crate) settings: OpenSettings,
    /// Given up by its last holder rather than cut off.
    cancelled: AtomicBool,
    state: Mutex<State>,
    /// There may be something to score.
    work: Notify,
    /// There may be something to read.
    changes: watch::Sender<u64>,
}

/// Longest text that is tokenised on an async thread: well under a millisecond.
pub(crate) const INLINE_TEXT: usize = 4096;

// === impl OpenItem ===

impl OpenItem {
    /// Over what scores the item.
    pub fn new(hold: impl Hold + 'static) -> Self {
        Self(Box::new(hold))
    }

    /// Takes more of the response. What is wrong with it becomes the item's verdict.
    pub async fn append(&self, appended: Appended) {
        self.0.append(appended).await;
    }

    /// Says that the response is whole.
    pub async fn close(&self) {
        self.0.close().await;
    }

    /// Gives the item up; it goes on only for others who hold it.
    pub fn cancel(self) {
        self.0.cancel();
    }

    /// What comes next. Dropping the future loses nothing.
    pub async fn next(&mut self) -> OpenEvent {
        self.0.next().await
    }
}

impl fmt::Debug for OpenItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenItem").finish_non_exhaustive()
    }
}

// === impl Held ===

impl Hold for Held {
    fn append(&self, appended: Appended) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if appended.text.len() <= INLINE_TEXT {
                return self.opened.append(&appended);
            }
            let opened = Arc::clone(&self.opened);
            // A panic there is told to the log by the runtime; the item ends when its time is over.
            let _ = spawn_blocking(move || opened.append(&appended)).await;
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.opened.lock().held_back() <= INLINE_TEXT {
                return self.opened.close();
            }
            let opened = Arc::clone(&self.opened);
            let _ = spawn_blocking(move || opened.close()).await;
        })
    }

    fn cancel(self: Box<Self>) {
        // Another holder may still be cut off: only the last one gives the item itself up.
        let is_last = self.opened.attendance.waiting() == 1;
        self.opened.cancelled.store(is_last, Ordering::Relaxed);
    }

    fn next(&mut self) -> BoxFuture<'_, OpenEvent> {
        Box::pin(async move {
            let Some(deadline) = self.deadline else { return self.event().await };
            timeout_at(deadline, self.event())
                .await
                .unwrap_or_else(|_| OpenEvent::Verdict(Err(failures::deadline())))
        })
    }
}

impl Held {
    async fn event(&mut self) -> OpenEvent {
        loop {
            self.changes.mark_unchanged();
            if let Some(event) = self.opened.lock().read(self.read) {
                if let OpenEvent::Scores { rewards, .. } = &event {
                    self.read += rewards.len();
                }
                return event;
            }
            if self.changes.changed().await.is_err() {
                return OpenEvent::Verdict(Err(failures::worker_failed()));
            }
        }
    }
}

// === impl Rewards ===

impl Rewards {
    /// Tokens.
    pub const fn len(&self) -> usize {
        match self {
            Self::Model(tokens) => tokens.len(),
            Self::Policy(tokens) => tokens.len(),
        }
    }

    /// True for no tokens.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Opened ===

impl Opened {
    /// A new item, and its first seat.
    pub(crate) fn new(
        fingerprint: Fingerprint,
        version: String,
        settings: OpenSettings,
        state: State,
    ) -> Option<(Arc<Self>, Seat)> {
        let (changes, _) = watch::channel(0);
        let attendance = Arc::new(Attendance::default());
        let seat = attendance.join()?;
        let opened = Self {
            fingerprint,
            version,
            attendance,
            settings,
            cancelled: false.into(),
            state: Mutex::new(state),
            work: Notify::new(),
            changes,
        };
        Some((Arc::new(opened), seat))
    }

    /// For a new holder.
    pub(crate) fn hold(&self) -> watch::Receiver<u64> {
        self.cancelled.store(false, Ordering::Relaxed);
        self.changes.subscribe()
    }

    pub(crate) fn append(&self, appended: &Appended) {
        self.lock().append(appended);
        self.changed();
    }

    pub(crate) fn close(&self) {
        self.lock().close();
        self.changed();
    }

    /// Takes a whole response for the item, if it goes on from what was received.
    pub(crate) fn complete(&self, response: &str) -> bool {
        let fits = self.lock().complete(response);
        self.changed();
        fits
    }

    /// Waits for tokens to score, or for the end of the response.
    pub(crate) async fn chunk(&self) -> Result<Chunk, Failure> {
        loop {
            let wake = match self.lock().chunk(&self.settings, Instant::now())? {
                Ok(chunk) => return Ok(chunk),
                Err(wake) => wake,
            };
            tokio::select! {
                () = self.work.notified() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Resolves when the text has failed.
    pub(crate) async fn failure(&self) -> Failure {
        loop {
            if let Some(failure) = self.lock().failure() {
                return failure;
            }
            self.work.notified().await;
        }
    }

    /// Waits for the verdict; to be called while seated.
    pub(crate) async fn outcome(&self) -> Outcome {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Some(outcome) = self.lock().outcome() {
                return outcome;
            }
            if changes.changed().await.is_err() {
                return Err(failures::worker_failed());
            }
        }
    }

    pub(crate) fn push(&self, rewards: Vec<TokenReward>) {
        self.lock().push(rewards);
        self.changed();
    }

    pub(crate) fn end(&self, outcome: Outcome) {
        self.attendance.end();
        self.lock().end(outcome);
        self.changed();
    }

    /// Resolves when the item has ended because nobody holds it. One that was cut off and not
    /// given up stays open for a while; one that is closed runs to its end.
    pub(crate) async fn abandoned(&self, is_keyed: bool) {
        loop {
            self.attendance.deserted().await;
            let cancelled = self.cancelled.load(Ordering::Relaxed);
            if is_keyed && !cancelled {
                tokio::time::sleep(self.settings.keep).await;
                let closed = self.lock().is_closed();
                if self.attendance.end_if_deserted(|| !closed) {
                    return;
                }
            } else if self.attendance.end_if_deserted(|| true) {
                return;
            }
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of the tokenizer is caught below; what it left is failed, not half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.work.notify_one();
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// A stored verdict that an open item may turn out to have.
pub(crate) fn replays(stored: &Stored, response: &[u8]) -> bool {
    stored.fingerprint.response == Some(*blake3::hash(response).as_bytes())
}

// === impl OpenSettings ===

impl Default for OpenSettings {
    /// 32 tokens, 50 ms, 60 s, 30 s: the contract's.
    fn default() -> Self {
        Self {
            coalesce_tokens: 32,
            coalesce_time: Duration::from_millis(50),
            idle: Duration::from_mins(1),
            keep: Duration::from_secs(30),
        }
    }
}
