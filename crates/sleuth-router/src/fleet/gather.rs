//! Items that come at the same moment are placed together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Fleet, LOOK, Place, State, lock};
use crate::asked::Asked;
use crate::placement::{Ask, ReplicaId, Unplaced};

/// An item that wants a place.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) asked: Arc<Asked>,
    /// Beside what the caller requires.
    pub(crate) version: Option<String>,
    pub(crate) avoid: Vec<ReplicaId>,
}

pub(super) struct Waiting {
    wanted: Wanted,
    arrived: Instant,
    reply: oneshot::Sender<Result<Place, Unplaced>>,
}

/// How soon it is seen whether items may still wait for others.
const MOMENT: Duration = Duration::from_millis(1);

// === impl Fleet ===

impl Fleet {
    /// Finds a place for an item, and waits for one within bounds where none takes items.
    pub(crate) async fn place(&self, wanted: Wanted) -> Result<Place, Unplaced> {
        let until = Instant::now() + self.shared.settings.patience;
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let why = match self.ask(wanted.clone()).await {
                Ok(place) => return Ok(place),
                Err(why) => why,
            };
            if until <= Instant::now() || wanted.gives_up_on(&why) {
                return Err(why);
            }
            // Health comes back with time alone, so a look now and then is needed too.
            let look = Instant::now() + LOOK;
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(look.min(until)) => {}
            }
        }
    }

    /// Leaves an item with those that are placed together.
    async fn ask(&self, wanted: Wanted) -> Result<Place, Unplaced> {
        let (reply, placed) = oneshot::channel();
        let arrived = Instant::now();
        lock(&self.shared.waiting).push(Waiting { wanted, arrived, reply });
        self.shared.arrived.notify_one();
        // The task that places lives as long as the router.
        placed.await.unwrap_or(Err(Unplaced::NoReplicas))
    }

    /// Places what comes, together with what comes at the same time.
    pub(crate) async fn place_all(&self) {
        loop {
            if self.place_due() {
                // Something that ends may make waiting pointless, so a look comes soon.
                tokio::time::sleep(MOMENT).await;
            } else {
                self.shared.arrived.notified().await;
            }
        }
    }

    /// Places all that need not wait for others; whether something waits.
    fn place_due(&self) -> bool {
        let now = self.now();
        let mut waiting = std::mem::take(&mut *lock(&self.shared.waiting));
        let mut state = self.lock();
        let is_due = |state: &mut State, one: &Waiting| {
            let patience = state.placement.patience(&one.wanted.ask(), now);
            one.arrived.elapsed() >= patience
        };
        // All that is here goes as soon as one of them must.
        let any = waiting.iter().any(|one| is_due(&mut state, one));
        if any {
            waiting.retain(|one| !one.reply.is_closed());
            let asks: Vec<Ask<'_>> = waiting.iter().map(|one| one.wanted.ask()).collect();
            let placed = state.placement.place_together(&asks, now);
            let placed: Vec<_> = placed
                .into_iter()
                .zip(&waiting)
                .map(|(placed, one)| state.sent(placed?, &one.wanted, now))
                .collect();
            drop(state);
            for (one, placed) in waiting.into_iter().zip(placed) {
                let place = placed.map(|(replica, placed)| Place {
                    fleet: self.clone(),
                    replica,
                    placed: Some(placed),
                    began: Instant::now(),
                });
                // Where nobody waits any more, the place is given back as it is dropped.
                drop(one.reply.send(place));
            }
            return false;
        }
        drop(state);
        let waits = !waiting.is_empty();
        lock(&self.shared.waiting).append(&mut waiting);
        waits
    }
}

// === impl Wanted ===

impl Wanted {
    pub(super) fn ask(&self) -> Ask<'_> {
        self.asked.ask(self.version.as_deref(), &self.avoid)
    }

    /// Whether waiting does not help.
    fn gives_up_on(&self, why: &Unplaced) -> bool {
        // A version that nobody has will not come back.
        let is_fixed = self.version.is_some() || self.asked.is_required();
        is_fixed && *why == Unplaced::NoneWithVersion
    }
}
