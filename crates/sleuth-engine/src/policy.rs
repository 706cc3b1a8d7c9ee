mod batch;
mod fair;
mod group;
mod ready;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Add, AddAssign};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fair::Service;
use group::{Group, Lane};
use ready::Ready;

/// What the items of a group share: the prefix that is computed once for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupKey {
    pub(crate) image_key: [u8; 32],
    pub(crate) prompt: Arc<[u32]>,
}

/// What work takes: rows to compute, and memory for their keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) tokens: usize,
    pub(crate) kv_bytes: u64,
}

/// Bounds of the queue, of a batch, and of all running batches together. Counts are at least 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) queue_items: usize,
    pub(crate) queue_tokens: usize,
    pub(crate) batch_items: usize,
    pub(crate) batch_tokens: usize,
    /// K/V that all running batches together may hold. Never exceeded.
    pub(crate) kv_bytes: u64,
    /// K/V of one row of a prefix.
    pub(crate) kv_bytes_per_token: u64,
    /// Rows that K/V is taken for at a time.
    pub(crate) kv_page: usize,
    /// Rows of the image part of every prefix.
    pub(crate) image_tokens: usize,
    /// An item that has waited for so long leads, whatever its priority and tenant.
    pub(crate) patience: Duration,
    /// Percent of a batch's tokens, and of its items, that open items take at most while whole
    /// ones could run.
    pub(crate) open_share: usize,
}

/// What kind of work an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The prefill or an append of an item that is being generated: short and urgent.
    Open,
    /// A whole response.
    Whole,
}

/// Who shares the server with others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Tenant(pub(crate) Arc<str>);

/// An item as it asks for room.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) key: GroupKey,
    /// The item's own rows, without the prefix's: none for a mere prefill.
    pub(crate) cost: Cost,
    pub(crate) predicted: Predicted,
    pub(crate) stage: Stage,
    pub(crate) tenant: Tenant,
    /// Higher runs first.
    pub(crate) priority: i32,
}

/// How long an item should keep a device busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Predicted {
    /// Its own rows.
    pub(crate) own: Duration,
    /// Its prefix, if that is not resident.
    pub(crate) prefix: Duration,
}

/// Why there is no room for an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// None now.
    Full,
    /// None ever: its K/V and its prefix's are over the limit by themselves.
    TooLarge,
}

/// Names an item that waits. Tickets grow in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Names a batch that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BatchId(u64);

/// Room in the queue for one item. Not `Clone`: it is given back exactly once, by
/// [`Policy::release`] or [`Policy::enqueue`].
#[derive(Debug)]
#[must_use = "room that is not given back is lost"]
pub(crate) struct Claim {
    key: Arc<GroupKey>,
    cost: Cost,
    predicted: Duration,
    lane: Lane,
}

/// What to do now: compute `batch`, and tell `expired` that their time is over.
#[derive(Debug)]
pub(crate) struct Step<T> {
    /// `None` where nothing can run before something is enqueued or a running batch finishes.
    pub(crate) batch: Option<Batch<T>>,
    pub(crate) expired: Vec<T>,
}

/// Items to compute together. It runs until [`Policy::finish`] is called.
#[derive(Debug)]
#[must_use = "a batch that is not finished keeps its K/V and its groups"]
pub(crate) struct Batch<T> {
    pub(crate) id: BatchId,
    /// Never empty. Items of a group stand together.
    pub(crate) items: Vec<T>,
    /// Each item, and once each prefix that was not resident.
    pub(crate) cost: Cost,
    /// How many prefixes were not resident.
    pub(crate) prefixes_computed: usize,
}

/// Which items wait, and which of them run next, for any number of workers. A state machine
/// without clock, thread or I/O.
///
/// Invariants
/// - A waiting item leaves exactly once: in a batch, expired, cancelled or drained.
/// - Claimed and waiting items stay within the queue's bounds, where a prefix counts once per
///   group; only an item that is over a bound by itself enters an empty queue.
/// - A batch stays within its budget, unless it is one oversized item alone; running batches
///   stay within the K/V budget without exception.
/// - While a batch computes a group's prefix, no other batch holds items of the group.
/// - Of two batches in a row the oldest runnable item that is out of patience is in one, and so
///   is some item of each stage that can run.
#[derive(Debug)]
pub(crate) struct Policy<T> {
    limits: Limits,
    next_ticket: u64,
    waiting: BTreeMap<Ticket, Waiting<T>>,
    groups: HashMap<Arc<GroupKey>, Group>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    ready: Ready,
    service: Service,
    items: usize,
    tokens: usize,
    predicted: Duration,
    next_batch: u64,
    batches: HashMap<BatchId, Running>,
    running: Cost,
    /// The stage that the last batch had no room for; it leads the next one.
    owed: Option<Stage>,
}

#[derive(Debug)]
struct Waiting<T> {
    claim: Claim,
    since: Instant,
    deadline: Option<Instant>,
    payload: T,
}

#[derive(Debug)]
struct Running {
    cost: Cost,
    computes: Vec<Arc<GroupKey>>,
}

// === impl Cost ===

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            kv_bytes: self.kv_bytes.saturating_add(other.kv_bytes),
        }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

// === impl Limits ===

impl Limits {
    fn prefix(&self, key: &GroupKey) -> Cost {
        let tokens = self.image_tokens.saturating_add(key.prompt.len());
        let held = tokens.div_ceil(self.kv_page).saturating_mul(self.kv_page) as u64;
        Cost { tokens, kv_bytes: self.kv_bytes_per_token.saturating_mul(held) }
    }
}

// === impl Policy ===

impl<T> Policy<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            next_ticket: 0,
            waiting: BTreeMap::new(),
            groups: HashMap::new(),
            deadlines: BTreeSet::new(),
            ready: Ready::default(),
            service: Service::default(),
            items: 0,
            tokens: 0,
            predicted: Duration::ZERO,
            next_batch: 0,
            batches: HashMap::new(),
            running: Cost::default(),
            owed: None,
        }
    }

    /// Claimed and waiting items.
    pub(crate) fn items(&self) -> usize {
        self.items
    }

    /// Tokens of claimed and waiting items.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// How long claimed and waiting items should keep a device busy, a prefix once per group.
    pub(crate) fn predicted(&self) -> Duration {
        self.predicted
    }

    /// True where a prefix is paid for by an item that is claimed or waits.
    pub(crate) fn is_awaited(&self, key: &GroupKey) -> bool {
        self.groups.get(key).is_some_and(|group| group.members > 0)
    }

    /// The cost of all batches that have not finished.
    pub(crate) fn running(&self) -> Cost {
        self.running
    }

    /// True while nothing waits to run; claims may be out and batches may run.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True where not even an item of one token in a known group would get in.
    pub(crate) fn is_full(&self) -> bool {
        self.items >= self.limits.queue_items || self.tokens >= self.limits.queue_tokens
    }

    /// Takes room for an item before the work of preparing it is done.
    pub(crate) fn claim(&mut self, request: Request) -> Result<Claim, Refusal> {
        let Request { key, cost, predicted, stage, tenant, priority } = request;
        let mut prefix = self.limits.prefix(&key);
        if (prefix + cost).kv_bytes > self.limits.kv_bytes {
            return Err(Refusal::TooLarge);
        }
        let known = self.groups.get_key_value(&key);
        if known.is_some_and(|(_, group)| group.members > 0) {
            prefix.tokens = 0;
        }
        let tokens = self.tokens.saturating_add((prefix + cost).tokens);
        if self.items > 0
            && (self.items >= self.limits.queue_items || tokens > self.limits.queue_tokens)
        {
            return Err(Refusal::Full);
        }
        let key = known.map_or_else(|| Arc::new(key), |(known, _)| Arc::clone(known));
        self.items += 1;
        self.tokens = tokens;
        let group = self.groups.entry(Arc::clone(&key)).or_default();
        if group.members == 0 {
            group.predicted = predicted.prefix;
            self.predicted += predicted.prefix;
        }
        group.members += 1;
        self.predicted += predicted.own;
        let lane = Lane { stage, priority, tenant };
        Ok(Claim { key, cost, predicted: predicted.own, lane })
    }

    /// Gives unused room back.
    pub(crate) fn release(&mut self, claim: Claim) {
        let Claim { key, cost, predicted, .. } = claim;
        self.items -= 1;
        self.tokens -= cost.tokens;
        self.predicted -= predicted;
        if let Some(group) = self.groups.get_mut(&key) {
            group.members -= 1;
            if group.members == 0 {
                self.tokens -= self.limits.prefix(&key).tokens;
                self.predicted -= std::mem::take(&mut group.predicted);
            }
            if group.is_unused() {
                self.groups.remove(&key);
            }
        }
    }

    /// Puts an item at the end of the queue, into the room claimed for it. Its patience runs
    /// from `now`.
    pub(crate) fn enqueue(
        &mut self,
        claim: Claim,
        payload: T,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.service.join(&claim.lane.tenant);
        if let Some(group) = self.groups.get_mut(&claim.key) {
            group.insert(&claim.lane, ticket, &mut self.ready);
        }
        self.deadlines.extend(deadline.map(|at| (at, ticket)));
        self.waiting.insert(ticket, Waiting { claim, since: now, deadline, payload });
        ticket
    }

    /// Takes an item out before it runs; `None` where it no longer waits.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let Waiting { claim, deadline, payload, .. } = self.waiting.remove(&ticket)?;
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, ticket));
        }
        if let Some(group) = self.groups.get_mut(&claim.key) {
            group.remove(&claim.lane, ticket, &mut self.ready);
        }
        self.service.leave(&claim.lane.tenant);
        self.release(claim);
        Some(payload)
    }

    /// Takes everything out that waits, oldest first. Claims and running batches stay.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let tickets: Vec<Ticket> = self.waiting.keys().copied().collect();
        tickets.into_iter().filter_map(|ticket| self.cancel(ticket)).collect()
    }

    fn take_expired(&mut self, now: Instant) -> Vec<T> {
        let mut expired = Vec::new();
        while let Some(&(at, ticket)) = self.deadlines.first()
            && at <= now
        {
            expired.extend(self.cancel(ticket));
        }
        expired
    }
}

#[cfg(test)]
mod tests;
