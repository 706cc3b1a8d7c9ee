//! The same work is computed once: idempotency keys.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use sleuth_core::{ErrorClass, Failure, Reason, Scored};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attendance::{Attendance, Seat};
use crate::open::Opened;

/// How long verdicts are kept for those who ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencySettings {
    /// Bytes of stored verdicts; beyond, the oldest are forgotten.
    pub max_bytes: u64,
    /// A verdict older than this is forgotten.
    pub keep: Duration,
}

/// What came of idempotency keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdempotencyStats {
    /// Requests whose work was new.
    pub started: u64,
    /// Requests that waited for work already under way.
    pub joined: u64,
    /// Requests that were answered by a stored verdict.
    pub replayed: u64,
    /// Requests that used a key of another item.
    pub conflicts: u64,
    /// Items computed again because another version was required than the one stored.
    pub rescored: u64,
    /// Items given up because nobody waited any more, before they ran.
    pub given_up: u64,
    /// Items that finished although nobody waited any more.
    pub finished_alone: u64,
    /// Verdicts held.
    pub stored: u64,
    /// Their bytes.
    pub stored_bytes: u64,
}

/// A tenant's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OnceKey {
    pub(crate) tenant: Arc<str>,
    pub(crate) key: String,
}

/// What an item is, apart from attempt, timeout, trace and policy tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Of image, prompt, adapter and options.
    pub(crate) context: [u8; 32],
    /// Of the response; `None` while it is being generated.
    pub(crate) response: Option<[u8; 32]>,
}

/// What a piece of work ended with.
pub(crate) type Outcome = Result<Arc<Scored>, Failure>;

/// An item that is being scored, for all who ask for it.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) version: String,
    pub(crate) attendance: Arc<Attendance>,
    outcome: watch::Sender<Option<Outcome>>,
}

/// A verdict that is kept.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) fingerprint: Fingerprint,
    /// The version that scored, or that found the item invalid.
    pub(crate) version: String,
    outcome: Outcome,
    joined: AtomicU64,
    expires: Instant,
}

/// What is known under a key.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    Whole(Arc<Flight>),
    Open(Arc<Opened>),
    Stored(Arc<Stored>),
}

/// What to do with a request that has a key.
pub(crate) enum Entered {
    /// Wait for what is under way.
    Join(Arc<Flight>, Seat),
    /// Nobody else does it: compute it, and tell [`Once::land`].
    Start(Arc<Flight>, Seat),
    /// The item is being generated.
    Open(Arc<Opened>, Seat),
    /// It was done.
    Replay(Arc<Stored>),
}

#[derive(Debug)]
pub(crate) struct Once {
    settings: IdempotencySettings,
    slots: DashMap<OnceKey, Slot>,
    kept: Mutex<Kept>,
    pub(crate) counters: Counters,
}

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first. A verdict that was replaced stays here until its turn.
    order: VecDeque<(OnceKey, Arc<Stored>, u64)>,
    bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) started: AtomicU64,
    pub(crate) joined: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) rescored: AtomicU64,
    pub(crate) given_up: AtomicU64,
    pub(crate) finished_alone: AtomicU64,
}

// === impl Fingerprint ===

impl Fingerprint {
    pub(crate) fn new(context: [u8; 32], response: Option<&str>) -> Self {
        let response = response.map(|text| *blake3::hash(text.as_bytes()).as_bytes());
        Self { context, response }
    }
}

// === impl Once ===

impl Once {
    pub(crate) fn new(settings: IdempotencySettings) -> Self {
        Self {
            settings,
            slots: DashMap::new(),
            kept: Mutex::default(),
            counters: Counters::default(),
        }
    }

    /// Joins, starts or replays a whole item. `version` is the one that would score it now;
    /// `required` says whether another one's verdict will not do.
    pub(crate) fn enter(
        &self,
        key: &OnceKey,
        fingerprint: Fingerprint,
        version: &str,
        required: bool,
    ) -> Result<Entered, Failure> {
        let start = || {
            let flight = Arc::new(Flight::new(fingerprint, version.to_owned()));
            // New work has not ended.
            flight.attendance.join().map(|seat| (flight, seat))
        };
        let will_do = |other: &str| !required || other == version;
        let mut entry = match self.slots.entry(key.clone()) {
            Entry::Vacant(entry) => {
                let Some((flight, seat)) = start() else { return Err(lost()) };
                entry.insert(Slot::Whole(Arc::clone(&flight)));
                return Ok(Entered::Start(flight, seat));
            }
            Entry::Occupied(entry) => entry,
        };
        match entry.get() {
            Slot::Stored(stored) if stored.expires <= Instant::now() => {}
            Slot::Stored(stored) => {
                self.same(stored.fingerprint == fingerprint)?;
                if will_do(&stored.version) {
                    count(&self.counters.replayed);
                    return Ok(Entered::Replay(Arc::clone(stored)));
                }
                count(&self.counters.rescored);
            }
            Slot::Whole(flight) => {
                self.same(flight.fingerprint == fingerprint)?;
                if !will_do(&flight.version) {
                    count(&self.counters.rescored);
                } else if let Some(seat) = flight.attendance.join() {
                    count(&self.counters.joined);
                    return Ok(Entered::Join(Arc::clone(flight), seat));
                }
            }
            Slot::Open(opened) => {
                self.same(opened.fingerprint.context == fingerprint.context)?;
                if !will_do(&opened.version) {
                    count(&self.counters.rescored);
                } else if let Some(seat) = opened.attendance.join() {
                    count(&self.counters.joined);
                    return Ok(Entered::Open(Arc::clone(opened), seat));
                }
            }
        }
        let Some((flight, seat)) = start() else { return Err(lost()) };
        entry.insert(Slot::Whole(Arc::clone(&flight)));
        Ok(Entered::Start(flight, seat))
    }

    /// The verdict that is kept of an item, whether or not its version is still loaded.
    pub(crate) fn stored(&self, key: &OnceKey, fingerprint: Fingerprint) -> Option<Arc<Stored>> {
        let slot = self.slots.get(key)?;
        let Slot::Stored(stored) = &*slot else { return None };
        let same = stored.fingerprint == fingerprint && stored.expires > Instant::now();
        same.then(|| {
            count(&self.counters.replayed);
            Arc::clone(stored)
        })
    }

    /// Joins, starts or replays an item that is being generated. `start` makes it, from the stored
    /// verdict that it may turn out to be.
    pub(crate) fn enter_open(
        &self,
        key: &OnceKey,
        context: [u8; 32],
        version: &str,
        required: bool,
        start: impl FnOnce(Option<Arc<Stored>>) -> Result<(Arc<Opened>, Seat), Failure>,
    ) -> Result<(Arc<Opened>, Seat, bool), Failure> {
        let will_do = |other: &str| !required || other == version;
        let mut entry = match self.slots.entry(key.clone()) {
            Entry::Vacant(entry) => {
                let (opened, seat) = start(None)?;
                entry.insert(Slot::Open(Arc::clone(&opened)));
                return Ok((opened, seat, true));
            }
            Entry::Occupied(entry) => entry,
        };
        match entry.get() {
            Slot::Stored(stored) if stored.expires <= Instant::now() => {}
            Slot::Stored(stored) => {
                self.same(stored.fingerprint.context == context)?;
                if will_do(&stored.version) {
                    count(&self.counters.replayed);
                    // It stays stored: what is replayed is computed by nobody.
                    let (opened, seat) = start(Some(Arc::clone(stored)))?;
                    return Ok((opened, seat, false));
                }
                count(&self.counters.rescored);
            }
            Slot::Open(opened) => {
                self.same(opened.fingerprint.context == context)?;
                if !will_do(&opened.version) {
                    count(&self.counters.rescored);
                } else if let Some(seat) = opened.attendance.join() {
                    count(&self.counters.joined);
                    return Ok((Arc::clone(opened), seat, false));
                }
            }
            Slot::Whole(_) => self.same(false)?,
        }
        let (opened, seat) = start(None)?;
        entry.insert(Slot::Open(Arc::clone(&opened)));
        Ok((opened, seat, true))
    }

    /// Ends a whole item: its verdict is stored if it will stay the same, and told to all who wait.
    pub(crate) fn land(&self, key: &OnceKey, flight: &Arc<Flight>, outcome: Outcome) {
        let alone = flight.attendance.waiting() == 0;
        let joined = flight.attendance.end().saturating_sub(1);
        self.put(
            key,
            flight.fingerprint,
            &flight.version,
            &outcome,
            joined,
            |slot| matches!(slot, Slot::Whole(own) if Arc::ptr_eq(own, flight)),
        );
        if alone {
            count(&self.counters.finished_alone);
        }
        let outcome = outcome.map(|scored| with_joined(&scored, joined));
        flight.outcome.send_replace(Some(outcome));
    }

    /// Ends an item that was being generated.
    pub(crate) fn land_open(
        &self,
        key: &OnceKey,
        opened: &Arc<Opened>,
        fingerprint: Fingerprint,
        outcome: &Outcome,
    ) {
        self.put(
            key,
            fingerprint,
            &opened.version,
            outcome,
            0,
            |slot| matches!(slot, Slot::Open(own) if Arc::ptr_eq(own, opened)),
        );
    }

    /// Frees the key of work that was given up.
    pub(crate) fn give_up(&self, key: &OnceKey, own: impl FnOnce(&Slot) -> bool) {
        count(&self.counters.given_up);
        self.slots.remove_if(key, |_, slot| own(slot));
    }

    /// Stores a verdict that stays the same, else frees the key; unless other work has taken it.
    fn put(
        &self,
        key: &OnceKey,
        fingerprint: Fingerprint,
        version: &str,
        outcome: &Outcome,
        joined: u64,
        own: impl FnOnce(&Slot) -> bool,
    ) {
        let stays = outcome.as_ref().map_or_else(|f| f.class.is_permanent(), |_| true);
        if !stays {
            self.slots.remove_if(key, |_, slot| own(slot));
            return;
        }
        let stored = Arc::new(Stored {
            fingerprint,
            version: version.to_owned(),
            outcome: outcome.clone(),
            joined: AtomicU64::new(joined),
            expires: Instant::now() + self.settings.keep,
        });
        {
            let Some(mut slot) = self.slots.get_mut(key) else { return };
            if !own(&slot) {
                return;
            }
            *slot = Slot::Stored(Arc::clone(&stored));
        }
        self.keep(key.clone(), stored);
    }

    /// Forgets the oldest verdicts until what is kept is young and small enough.
    fn keep(&self, key: OnceKey, stored: Arc<Stored>) {
        let bytes = weight(&key, &stored.outcome);
        let now = Instant::now();
        let mut kept = self.lock();
        kept.order.push_back((key, stored, bytes));
        kept.bytes += bytes;
        while let Some((_, oldest, _)) = kept.order.front()
            && (kept.bytes > self.settings.max_bytes || oldest.expires <= now)
            && let Some((key, oldest, bytes)) = kept.order.pop_front()
        {
            kept.bytes -= bytes;
            let is_it = |slot: &Slot| matches!(slot, Slot::Stored(s) if Arc::ptr_eq(s, &oldest));
            self.slots.remove_if(&key, |_, slot| is_it(slot));
        }
    }

    pub(crate) fn stats(&self) -> IdempotencyStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { started, joined, replayed, conflicts, rescored, given_up, finished_alone } =
            &self.counters;
        let kept = self.lock();
        IdempotencyStats {
            started: get(started),
            joined: get(joined),
            replayed: get(replayed),
            conflicts: get(conflicts),
            rescored: get(rescored),
            given_up: get(given_up),
            finished_alone: get(finished_alone),
            stored: kept.order.len() as u64,
            stored_bytes: kept.bytes,
        }
    }

    /// Keys that work is under way for.
    #[cfg(test)]
    pub(crate) fn under_way(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(**slot, Slot::Stored(_))).count()
    }

    /// A key belongs to one item.
    pub(crate) fn same(&self, same: bool) -> Result<(), Failure> {
        if same {
            return Ok(());
        }
        count(&self.counters.conflicts);
        let detail = "this key was used for another item; a key names one item only";
        Err(Failure::new(ErrorClass::InvalidRequest, Reason::IDEMPOTENCY_CONFLICT, detail)
            .at("context.idempotency_key"))
    }

    /// Nothing panics while the lock is held, so a poisoned state is still whole.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Flight ===

impl Flight {
    fn new(fingerprint: Fingerprint, version: String) -> Self {
        let (outcome, _) = watch::channel(None);
        Self { fingerprint, version, attendance: Arc::default(), outcome }
    }

    /// Waits for the verdict; to be called while seated.
    pub(crate) async fn outcome(&self) -> Outcome {
        let mut outcome = self.outcome.subscribe();
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The sender is part of the flight.
            Ok(None) | Err(_) => Err(lost()),
        }
    }
}

// === impl Stored ===

impl Stored {
    /// The verdict, for one more who asks.
    pub(crate) fn replay(&self) -> Outcome {
        let joined = self.joined.fetch_add(1, Ordering::Relaxed) + 1;
        self.outcome.clone().map(|scored| with_joined(&scored, joined))
    }
}

fn with_joined(scored: &Arc<Scored>, joined: u64) -> Arc<Scored> {
    if joined == scored.duplicates_joined {
        return Arc::clone(scored);
    }
    Arc::new(Scored { duplicates_joined: joined, ..Scored::clone(scored) })
}

/// About what a stored verdict takes.
fn weight(key: &OnceKey, outcome: &Outcome) -> u64 {
    const BOOKKEEPING: usize = 512;
    let own = match outcome {
        Ok(scored) => {
            size_of_val(scored.tokens.as_slice())
                + size_of_val(scored.sentences.as_slice())
                + size_of_val(scored.flagged.as_slice())
        }
        Err(failure) => failure.detail.len(),
    };
    (BOOKKEEPING + 2 * key.key.len() + own) as u64
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn lost() -> Failure {
    crate::failures::worker_failed()
}

// === impl IdempotencySettings ===

impl Default for IdempotencySettings {
    /// 256 MiB, one hour.
    fn default() -> Self {
        Self { max_bytes: 256 << 20, keep: Duration::from_hours(1) }
    }
}
