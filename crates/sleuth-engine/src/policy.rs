use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// What the items of a group share: the prefix that is computed once for all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupKey {
    pub(crate) image_key: [u8; 32],
    pub(crate) prompt: Arc<[u32]>,
}

/// Bounds of the queue and of a batch. All at least 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) queue_items: usize,
    pub(crate) queue_tokens: usize,
    pub(crate) batch_items: usize,
    pub(crate) batch_tokens: usize,
    /// Rows of the image part of every prefix.
    pub(crate) image_tokens: usize,
}

/// Names an item that waits. Tickets grow in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

/// Room in the queue for one item. Not `Clone`: it is given back exactly once, by
/// [`Policy::release`] or [`Policy::enqueue`].
#[derive(Debug)]
#[must_use = "room that is not given back is lost"]
pub(crate) struct Claim {
    key: Arc<GroupKey>,
    response_tokens: usize,
}

/// The queue has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// What to do now: compute `batch`, and tell `expired` that their time is over.
#[derive(Debug)]
pub(crate) struct Step<T> {
    pub(crate) batch: Vec<T>,
    /// The batch's cost: each response, and each distinct prefix once.
    pub(crate) tokens: usize,
    pub(crate) expired: Vec<T>,
}

/// Which items wait, and which of them run next. A state machine without clock, thread or I/O.
///
/// Invariants
/// - A waiting item leaves exactly once: in a batch, expired, cancelled or drained.
/// - Claimed and waiting items stay within the queue's bounds, where a prefix counts once per
///   group; only an item that is over a bound by itself enters an empty queue.
/// - Every batch holds the oldest waiting item, so nobody waits for more batches than there were
///   items before it. The rest of its group comes along first, since its prefix is paid for.
/// - A batch stays within its budget, unless it is one oversized item alone.
#[derive(Debug)]
pub(crate) struct Policy<T> {
    limits: Limits,
    next_ticket: u64,
    waiting: BTreeMap<Ticket, Waiting<T>>,
    groups: HashMap<Arc<GroupKey>, Group>,
    deadlines: BTreeSet<(Instant, Ticket)>,
    items: usize,
    tokens: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    claim: Claim,
    deadline: Option<Instant>,
    payload: T,
}

#[derive(Debug, Default)]
struct Group {
    /// Claimed and waiting items; the group's prefix is counted while there is one.
    members: usize,
    waiting: BTreeSet<Ticket>,
}

// === impl Limits ===

impl Limits {
    fn prefix_tokens(&self, key: &GroupKey) -> usize {
        self.image_tokens.saturating_add(key.prompt.len())
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
            items: 0,
            tokens: 0,
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

    /// True while nothing waits to run; claims may be out.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True where not even an item of one token in a known group would get in.
    pub(crate) fn is_full(&self) -> bool {
        self.items >= self.limits.queue_items || self.tokens >= self.limits.queue_tokens
    }

    /// Takes room for an item before the work of preparing it is done.
    pub(crate) fn claim(&mut self, key: GroupKey, response_tokens: usize) -> Result<Claim, Full> {
        let (key, prefix) = if let Some((known, _)) = self.groups.get_key_value(&key) {
            (Arc::clone(known), 0)
        } else {
            let prefix = self.limits.prefix_tokens(&key);
            (Arc::new(key), prefix)
        };
        let tokens = self.tokens.saturating_add(prefix).saturating_add(response_tokens);
        if self.items > 0
            && (self.items >= self.limits.queue_items || tokens > self.limits.queue_tokens)
        {
            return Err(Full);
        }
        self.items += 1;
        self.tokens = tokens;
        self.groups.entry(Arc::clone(&key)).or_default().members += 1;
        Ok(Claim { key, response_tokens })
    }

    /// Gives unused room back.
    pub(crate) fn release(&mut self, claim: Claim) {
        let Claim { key, response_tokens } = claim;
        self.items -= 1;
        self.tokens -= response_tokens;
        if let Some(group) = self.groups.get_mut(&key) {
            group.members -= 1;
            if group.members == 0 {
                self.groups.remove(&key);
                self.tokens -= self.limits.prefix_tokens(&key);
            }
        }
    }

    /// Puts an item at the end of the queue, into the room claimed for it.
    pub(crate) fn enqueue(
        &mut self,
        claim: Claim,
        payload: T,
        deadline: Option<Instant>,
    ) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        if let Some(group) = self.groups.get_mut(&claim.key) {
            group.waiting.insert(ticket);
        }
        self.deadlines.extend(deadline.map(|at| (at, ticket)));
        self.waiting.insert(ticket, Waiting { claim, deadline, payload });
        ticket
    }

    /// Takes an item out before it runs; `None` where it no longer waits.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let Waiting { claim, deadline, payload } = self.waiting.remove(&ticket)?;
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, ticket));
        }
        if let Some(group) = self.groups.get_mut(&claim.key) {
            group.waiting.remove(&ticket);
        }
        self.release(claim);
        Some(payload)
    }

    /// Takes everything out, oldest first. Claims stay.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        let tickets: Vec<Ticket> = self.waiting.keys().copied().collect();
        tickets.into_iter().filter_map(|ticket| self.cancel(ticket)).collect()
    }

    /// Takes out what is late at `now`, and then the next batch.
    pub(crate) fn next(&mut self, now: Instant) -> Step<T> {
        let expired = self.take_expired(now);
        let mut batch = Vec::new();
        let mut tokens = 0;
        while let Some((leader, added)) = self.next_leader(tokens, batch.len()) {
            tokens += added;
            let mates = self.waiting.get(&leader).map(|w| Arc::clone(&w.claim.key));
            batch.extend(self.cancel(leader));
            if let Some(key) = mates {
                self.take_mates(&key, &mut batch, &mut tokens);
            }
        }
        Step { batch, tokens, expired }
    }

    /// The oldest waiting item and what it would add, if it fits.
    ///
    /// A leader that does not fit ends the batch: passing it by would let small items starve it.
    fn next_leader(&self, tokens: usize, items: usize) -> Option<(Ticket, usize)> {
        let (&ticket, oldest) = self.waiting.first_key_value()?;
        let added = self.limits.prefix_tokens(&oldest.claim.key) + oldest.claim.response_tokens;
        (items == 0 || self.fits(tokens + added, items)).then_some((ticket, added))
    }

    /// Adds waiting items of the group whose prefix is in the batch, oldest first.
    fn take_mates(&mut self, key: &GroupKey, batch: &mut Vec<T>, tokens: &mut usize) {
        loop {
            let Some(mate) = self.groups.get(key).and_then(|g| g.waiting.first().copied()) else {
                return;
            };
            let added = self.waiting.get(&mate).map_or(0, |w| w.claim.response_tokens);
            if !self.fits(*tokens + added, batch.len()) {
                return;
            }
            *tokens += added;
            batch.extend(self.cancel(mate));
        }
    }

    fn fits(&self, tokens: usize, items: usize) -> bool {
        tokens <= self.limits.batch_tokens && items < self.limits.batch_items
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
