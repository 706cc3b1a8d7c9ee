//! Items whose response is still being generated: what the caller sent is kept, and sent again
//! elsewhere where a replica is lost; what was delivered is not delivered again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sleuth_client::{ClientError, Event, OpenItem as Remote};
use sleuth_core::{Context, Failure, Scored};
use sleuth_service::{Appended, BoxFuture, Caller, Hold, OpenEvent, Rewards};
use sleuth_telemetry::traces;
use sleuth_wire::Place as Field;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout_at};

use crate::asked::Asked;
use crate::failures;
use crate::fleet::{Fleet, Place};
use crate::placement::Unplaced;
use crate::replica::Connection;
use crate::whole::{Tries, note, outgoing, prepare, tag};

/// The caller's hold. Dropped without [`Hold::cancel`], a keyed item stays open for a while.
pub(crate) struct RoutedOpen {
    said: mpsc::Sender<Said>,
    mailbox: Arc<Mailbox>,
}

/// What came of an item and was not read yet. Bounded by the item, which has no more rewards than
/// tokens: a caller that does not read must not keep its appends from being taken.
#[derive(Default)]
struct Mailbox {
    events: Mutex<VecDeque<OpenEvent>>,
    came: Notify,
}

/// The item's end of a mailbox. Dropped without a verdict, it tells that the item is lost.
struct Sender {
    mailbox: Arc<Mailbox>,
    has_ended: bool,
}

/// What the caller says.
#[derive(Debug)]
enum Said {
    Append(Appended),
    Close,
    Cancel,
}

/// An item on its way.
pub(crate) struct Opening {
    pub(crate) fleet: Fleet,
    pub(crate) caller: Caller,
    pub(crate) asked: Arc<Asked>,
    pub(crate) context: Context<Bytes>,
}

struct Item {
    opening: Opening,
    said: mpsc::Receiver<Said>,
    events: Sender,
    deadline: Option<Instant>,
    parts: Vec<Appended>,
    /// Bytes of the response so far.
    length: u64,
    of_policy: bool,
    is_closed: bool,
    /// Tokens that the caller has.
    delivered: usize,
    /// What scored them.
    version: Option<String>,
}

/// How an attempt ended.
enum Ended {
    Verdict(Box<Scored>),
    Failed(ClientError),
    /// Nobody waits any more.
    Left,
}

/// Parts that wait to be sent on.
const MOST_SAID: usize = 64;
/// A keyed item whose caller is cut off stays open so long, as at a replica.
const KEEP: Duration = Duration::from_secs(30);

// === impl Opening ===

impl Opening {
    /// Opens the item; to be called within a tokio runtime.
    pub(crate) fn start(self) -> RoutedOpen {
        let (said, inbox) = mpsc::channel(MOST_SAID);
        let mailbox = Arc::<Mailbox>::default();
        let deadline = self.context.timeout.and_then(|left| Instant::now().checked_add(left));
        let item = Item {
            opening: self,
            said: inbox,
            events: Sender { mailbox: Arc::clone(&mailbox), has_ended: false },
            deadline,
            parts: Vec::new(),
            length: 0,
            of_policy: false,
            is_closed: false,
            delivered: 0,
            version: None,
        };
        tokio::spawn(traces::within(traces::current(), item.run()));
        RoutedOpen { said, mailbox }
    }
}

// === impl RoutedOpen ===

impl Hold for RoutedOpen {
    fn append(&self, appended: Appended) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Where the item has ended, its verdict says why.
            let _ = self.said.send(Said::Append(appended)).await;
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ = self.said.send(Said::Close).await;
        })
    }

    fn cancel(self: Box<Self>) {
        // Where this finds no room, the item is given up a while later.
        let _ = self.said.try_send(Said::Cancel);
    }

    fn next(&mut self) -> BoxFuture<'_, OpenEvent> {
        Box::pin(self.mailbox.next())
    }
}

// === impl Mailbox ===

impl Mailbox {
    async fn next(&self) -> OpenEvent {
        loop {
            let came = self.came.notified();
            if let Some(event) = self.lock().pop_front() {
                return event;
            }
            came.await;
        }
    }

    fn put(&self, event: OpenEvent) {
        self.lock().push_back(event);
        self.came.notify_one();
    }

    /// Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, VecDeque<OpenEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sender ===

impl Sender {
    fn send(&mut self, event: OpenEvent) {
        self.has_ended |= matches!(event, OpenEvent::Verdict(_));
        self.mailbox.put(event);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.has_ended {
            self.mailbox.put(OpenEvent::Verdict(Err(failures::lost())));
        }
    }
}

// === impl Item ===

impl Item {
    async fn run(mut self) {
        let outcome = match self.deadline {
            None => self.score().await,
            Some(deadline) => {
                let passed = |_| Some(Err(failures::deadline()));
                timeout_at(deadline, self.score()).await.unwrap_or_else(passed)
            }
        };
        if let Some(outcome) = outcome {
            self.tell(OpenEvent::Verdict(outcome));
        }
    }

    /// `None` where nobody waits for the outcome.
    async fn score(&mut self) -> Option<Result<Scored, Failure>> {
        let mut tries = Tries::new(self.opening.fleet.settings().max_attempts);
        loop {
            let placed = {
                let Opening { fleet, asked, .. } = &self.opening;
                fleet.place(tries.wanted(asked, self.version.clone())).await
            };
            let place = match placed {
                Ok(place) => place,
                Err(Unplaced::NoneWithVersion) if self.delivered > 0 => {
                    return Some(Err(failures::version_gone()));
                }
                Err(why) => return Some(Err(failures::unplaced(&why))),
            };
            let error = match self.attempt(&place).await {
                Ended::Verdict(scored) => {
                    let noted = note(&self.opening.fleet, &self.opening.asked, &place, &scored);
                    place.end(true);
                    return Some(noted.map(|()| *scored));
                }
                Ended::Failed(error) => error,
                Ended::Left => return None,
            };
            let replica = Arc::clone(&place.replica);
            drop(place);
            if self.delivered == 0 {
                self.version = None;
            }
            let Opening { fleet, caller, asked, .. } = &self.opening;
            let field = field_of(&error);
            if let Err(failure) = tries.again(fleet, caller, asked, &replica.id, error, field).await
            {
                return Some(Err(failure));
            }
        }
    }

    async fn attempt(&mut self, place: &Place) -> Ended {
        tag(place);
        match self.open(place).await {
            Ok((connection, remote)) => self.go_on(&connection, remote).await,
            Err(error) => Ended::Failed(error),
        }
    }

    /// Opens the item at a replica, and sends all there is.
    async fn open(&mut self, place: &Place) -> Result<(Connection, Remote), ClientError> {
        let Opening { fleet, caller, asked, context } = &self.opening;
        let mut context = context.clone();
        context.timeout =
            self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let (connection, mut context) = prepare(fleet, caller, asked, place, context).await?;
        if context.required_version.is_none() {
            // Rewards of two versions must not be mixed, whatever comes.
            let version = if let Some(version) = &self.version {
                version.clone()
            } else {
                let adapter = asked.adapter.as_deref().unwrap_or("");
                place.replica.card_of(adapter).await?.version.clone()
            };
            context.required_version = Some(version);
        }
        self.version.clone_from(&context.required_version);
        let mut remote = connection.client.open_once(context, self.of_policy, outgoing()).await?;
        for part in self.parts.clone() {
            remote.append_at(part.offset, part.text, part.policy).await;
        }
        if self.is_closed {
            remote.close().await;
        }
        Ok((connection, remote))
    }

    /// Passes on what is said and what comes, to the item's end at this replica.
    async fn go_on(&mut self, connection: &Connection, mut remote: Remote) -> Ended {
        // What the caller has already comes again, and is passed over.
        let mut place = 0;
        loop {
            tokio::select! {
                said = self.said.recv() => match said {
                    Some(Said::Append(part)) => self.append(&mut remote, part).await,
                    Some(Said::Close) => {
                        self.is_closed = true;
                        remote.close().await;
                    }
                    Some(Said::Cancel) => return Ended::Left,
                    None => return self.linger(remote).await,
                },
                event = remote.next() => match event {
                    Event::Tokens(rewards) => self.deliver(&mut place, rewards, Rewards::Model),
                    Event::Policy(rewards) => self.deliver(&mut place, rewards, Rewards::Policy),
                    Event::Verdict(Ok(scored)) => return Ended::Verdict(Box::new(scored)),
                    Event::Verdict(Err(error)) => return Ended::Failed(error),
                },
                () = connection.lost() => return Ended::Failed(ClientError::StreamEnded(None)),
            }
        }
    }

    async fn append(&mut self, remote: &mut Remote, part: Appended) {
        if part.policy.is_some() && !self.of_policy {
            self.of_policy = true;
            remote.expect_policy();
        }
        let end = part.offset.saturating_add(part.text.len() as u64);
        remote.append_at(part.offset, part.text.clone(), part.policy.clone()).await;
        // What was sent before need not be kept again.
        if end > self.length {
            self.length = end;
            self.parts.push(part);
        }
    }

    /// Delivers what the caller does not have yet. `place` counts what came from this replica.
    fn deliver<T>(
        &mut self,
        place: &mut usize,
        mut rewards: Vec<T>,
        kind: impl FnOnce(Vec<T>) -> Rewards,
    ) {
        let known = self.delivered.saturating_sub(*place).min(rewards.len());
        *place += rewards.len();
        rewards.drain(..known);
        if rewards.is_empty() {
            return;
        }
        let first = self.delivered;
        self.delivered += rewards.len();
        self.tell(OpenEvent::Scores { first, rewards: kind(rewards) });
    }

    /// The caller was cut off, and may come back under the item's key: the replica keeps the item
    /// as long as somebody holds it.
    async fn linger(&self, remote: Remote) -> Ended {
        // A key of the router's own nobody can come back with.
        if self.opening.asked.key.is_some() {
            sleep(KEEP).await;
        }
        drop(remote);
        Ended::Left
    }

    fn tell(&mut self, event: OpenEvent) {
        self.events.send(event);
    }
}

/// Where the field stood that a replica found fault with.
fn field_of(error: &ClientError) -> Field {
    match error {
        ClientError::Refused(refusal)
            if refusal.field.as_ref().is_some_and(|field| field.starts_with("append.")) =>
        {
            Field::Append
        }
        _ => Field::Open,
    }
}
