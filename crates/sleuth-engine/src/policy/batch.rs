use std::sync::Arc;
use std::time::Instant;

use super::{Batch, BatchId, Cost, GroupKey, Limits, Policy, Running, Stage, Step, Ticket};

/// A batch that is being put together.
struct Draft<'a, T> {
    now: Instant,
    resident: &'a dyn Fn(&GroupKey) -> bool,
    /// K/V that running batches leave.
    kv_bytes: u64,
    groups: Vec<Drafted<T>>,
    cost: Cost,
    /// Items and tokens of each stage.
    taken: [(usize, usize); 2],
}

struct Drafted<T> {
    key: Arc<GroupKey>,
    computed: bool,
    items: Vec<T>,
}

// === impl Policy ===

impl<T> Policy<T> {
    /// Takes out what is late at `now`, and then the next batch. `resident` says which prefixes
    /// need not be computed.
    ///
    /// First comes what must not be put off: an item of the stage that the last batch had no room
    /// for, and the oldest item that is out of patience. Then open items take their share, whole
    /// ones the rest, and open ones what whole ones left. In each of these turns items whose
    /// prefix the batch has come first, and then leaders, each followed by its group; the first
    /// leader that does not fit ends the turn, as passing it by would let small items starve it.
    pub(crate) fn next(&mut self, now: Instant, resident: &dyn Fn(&GroupKey) -> bool) -> Step<T> {
        let expired = self.take_expired(now);
        let kv_bytes = self.limits.kv_bytes.saturating_sub(self.running.kv_bytes);
        let mut draft = Draft {
            now,
            resident,
            kv_bytes,
            groups: Vec::new(),
            cost: Cost::default(),
            taken: [(0, 0); 2],
        };
        let runnable = [Stage::Open, Stage::Whole].map(|stage| self.ready.has(stage));
        if self.take_overdue(&mut draft) {
            self.fill(&mut draft, Stage::Open);
            self.fill(&mut draft, Stage::Whole);
            if !self.ready.has(Stage::Whole) {
                self.fill(&mut draft, Stage::Open);
            }
        }
        Step { batch: self.start(draft, runnable), expired }
    }

    /// Gives back a batch's K/V and lets its groups run anywhere. Once per batch; more is ignored.
    pub(crate) fn finish(&mut self, id: BatchId) {
        let Some(Running { cost, computes }) = self.batches.remove(&id) else { return };
        self.running.tokens -= cost.tokens;
        self.running.kv_bytes -= cost.kv_bytes;
        for key in computes {
            if let Some(group) = self.groups.get_mut(&key) {
                group.set_computing(false, &mut self.ready);
                if group.is_unused() {
                    self.groups.remove(&key);
                }
            }
        }
    }

    /// Takes what must not be put off. False where there is some and not even it fits, so that
    /// running batches have to finish first: anything else would take what they give back.
    fn take_overdue(&mut self, draft: &mut Draft<'_, T>) -> bool {
        if let Some(leader) = self.owed.and_then(|stage| self.leader(stage, draft.now))
            && !self.admit(draft, leader)
        {
            return false;
        }
        let oldest = self.ready.oldest(Stage::Open).into_iter();
        let oldest = oldest.chain(self.ready.oldest(Stage::Whole)).min();
        match oldest {
            Some(oldest) if self.is_impatient(oldest, draft.now) => {
                self.admit(draft, oldest) || draft.items() > 0
            }
            _ => true,
        }
    }

    /// Adds items of one stage until none is left or the next does not fit.
    fn fill(&mut self, draft: &mut Draft<'_, T>, stage: Stage) {
        for place in 0..draft.groups.len() {
            self.join(draft, place, stage);
        }
        while let Some(leader) = self.leader(stage, draft.now)
            && self.admit(draft, leader)
        {
            self.join(draft, draft.groups.len() - 1, stage);
        }
    }

    /// Adds items of a group whose prefix the batch has, oldest first.
    fn join(&mut self, draft: &mut Draft<'_, T>, place: usize, stage: Stage) {
        let key = Arc::clone(&draft.groups[place].key);
        while let Some(mate) = self.groups.get(&key).and_then(|group| group.oldest(stage))
            && self.admit(draft, mate)
        {}
    }

    /// Whose turn it is among the items of a stage.
    fn leader(&mut self, stage: Stage, now: Instant) -> Option<Ticket> {
        let oldest = self.ready.oldest(stage)?;
        if self.is_impatient(oldest, now) {
            return Some(oldest);
        }
        let (ticket, served) = self.ready.fairest(stage, &self.service)?;
        self.service.reach(served);
        Some(ticket)
    }

    fn is_impatient(&self, ticket: Ticket, now: Instant) -> bool {
        self.waiting
            .get(&ticket)
            .is_some_and(|w| now.saturating_duration_since(w.since) >= self.limits.patience)
    }

    /// Moves an item into the batch and charges its tenant; false where it does not fit.
    fn admit(&mut self, draft: &mut Draft<'_, T>, ticket: Ticket) -> bool {
        let Some(claim) = self.waiting.get(&ticket).map(|w| &w.claim) else { return false };
        // A group's items share one `Arc` for as long as the group is known.
        let place = draft.groups.iter().rposition(|group| Arc::ptr_eq(&group.key, &claim.key));
        let computed = place.is_none() && !(draft.resident)(&claim.key);
        let prefix = if computed { self.limits.prefix(&claim.key) } else { Cost::default() };
        let added = prefix + claim.cost;
        let stage = claim.lane.stage;
        let shares = stage == Stage::Open && self.ready.has(Stage::Whole);
        if !draft.fits(&self.limits, added) || (shares && !draft.is_fair(&self.limits, added)) {
            return false;
        }
        self.service.charge(&claim.lane.tenant, added.tokens);
        draft.cost += added;
        let (items, tokens) = &mut draft.taken[stage as usize];
        *items += 1;
        *tokens += added.tokens;
        let place = place.unwrap_or_else(|| {
            draft.groups.push(Drafted { key: Arc::clone(&claim.key), computed, items: vec![] });
            draft.groups.len() - 1
        });
        draft.groups[place].items.extend(self.cancel(ticket));
        true
    }

    /// Turns a draft into a running batch, unless it is empty.
    fn start(&mut self, draft: Draft<'_, T>, runnable: [bool; 2]) -> Option<Batch<T>> {
        if draft.items() == 0 {
            return None;
        }
        for stage in [Stage::Open, Stage::Whole] {
            if draft.taken[stage as usize].0 > 0 {
                self.owed = self.owed.filter(|&owed| owed != stage);
            } else if runnable[stage as usize] {
                self.owed = Some(stage);
            }
        }
        let id = BatchId(self.next_batch);
        self.next_batch += 1;
        let mut items = Vec::with_capacity(draft.items());
        let mut computes = Vec::new();
        for group in draft.groups {
            items.extend(group.items);
            if group.computed {
                let known = self.groups.entry(Arc::clone(&group.key)).or_default();
                known.set_computing(true, &mut self.ready);
                computes.push(group.key);
            }
        }
        let prefixes_computed = computes.len();
        self.running += draft.cost;
        self.batches.insert(id, Running { cost: draft.cost, computes });
        Some(Batch { id, items, cost: draft.cost, prefixes_computed })
    }
}

// === impl Draft ===

impl<T> Draft<'_, T> {
    fn items(&self) -> usize {
        self.taken[0].0 + self.taken[1].0
    }

    fn fits(&self, limits: &Limits, added: Cost) -> bool {
        let cost = self.cost + added;
        cost.kv_bytes <= self.kv_bytes
            && (self.items() == 0
                || cost.tokens <= limits.batch_tokens && self.items() < limits.batch_items)
    }

    /// Whether an open item leaves whole ones their share. The first always does: the stages then
    /// take turns where they do not fit into one batch.
    fn is_fair(&self, limits: &Limits, added: Cost) -> bool {
        let share = |all: usize| all.saturating_mul(limits.open_share) / 100;
        let (items, tokens) = self.taken[Stage::Open as usize];
        items == 0
            || items < share(limits.batch_items)
                && tokens + added.tokens <= share(limits.batch_tokens)
    }
}
