//! The policy's order once more, by looking at every item each time.

use super::model::Item;
use super::*;

/// Who was served how much; forgets nobody.
#[derive(Clone, Default)]
pub(super) struct Shares {
    now: u64,
    served: [u64; 3],
    waiting: [usize; 3],
}

impl Shares {
    pub(super) fn join(&mut self, tenant: usize) {
        if self.waiting[tenant] == 0 {
            self.served[tenant] = self.served[tenant].max(self.now);
        }
        self.waiting[tenant] += 1;
    }

    pub(super) fn leave(&mut self, tenant: usize) {
        self.waiting[tenant] -= 1;
        self.advance();
    }

    fn charge(&mut self, tenant: usize, tokens: usize) {
        self.served[tenant] += tokens as u64;
        self.advance();
    }

    fn advance(&mut self) {
        let least = (0..3).filter(|&t| self.waiting[t] > 0).map(|t| self.served[t]).min();
        let most = self.served.into_iter().max().unwrap();
        self.now = self.now.max(least.unwrap_or(most));
    }
}

/// A batch as it should be.
pub(super) struct Expected<'a> {
    pub(super) limits: Limits,
    pub(super) now: Instant,
    pub(super) resident: [bool; 4],
    pub(super) free_kv: u64,
    pub(super) shares: &'a mut Shares,
    /// What can run, oldest first.
    pub(super) ready: Vec<Item>,
    pub(super) taken: Vec<Item>,
    pub(super) cost: Cost,
    pub(super) open_tokens: usize,
}

impl Expected<'_> {
    pub(super) fn fill(&mut self, owed: Option<Stage>) {
        if let Some(leader) = owed.and_then(|stage| self.leader(stage))
            && !self.take(leader)
        {
            return;
        }
        if let Some(oldest) = self.ready.first().copied()
            && self.is_impatient(&oldest)
            && !self.take(oldest)
            && self.taken.is_empty()
        {
            return;
        }
        self.turn(Stage::Open);
        self.turn(Stage::Whole);
        if !self.has(Stage::Whole) {
            self.turn(Stage::Open);
        }
        let mut groups: Vec<u8> = Vec::new();
        for item in &self.taken {
            if !groups.contains(&item.group) {
                groups.push(item.group);
            }
        }
        self.taken.sort_by_key(|item| groups.iter().position(|&g| g == item.group));
    }

    fn turn(&mut self, stage: Stage) {
        let mut groups: Vec<u8> = self.taken.iter().map(|item| item.group).collect();
        let mut seen = 0;
        loop {
            while seen < groups.len() {
                while let Some(mate) = self.mate(groups[seen], stage)
                    && self.take(mate)
                {}
                seen += 1;
            }
            match self.leader(stage) {
                Some(leader) if self.take(leader) => groups.push(leader.group),
                _ => return,
            }
        }
    }

    fn mate(&self, group: u8, stage: Stage) -> Option<Item> {
        self.ready.iter().find(|item| item.group == group && item.stage == stage).copied()
    }

    fn has(&self, stage: Stage) -> bool {
        self.ready.iter().any(|item| item.stage == stage)
    }

    fn is_impatient(&self, item: &Item) -> bool {
        item.since + self.limits.patience <= self.now
    }

    fn leader(&mut self, stage: Stage) -> Option<Item> {
        let oldest = *self.ready.iter().find(|item| item.stage == stage)?;
        if self.is_impatient(&oldest) {
            return Some(oldest);
        }
        let served = &self.shares.served;
        let turn = |item: &&Item| (-item.priority, served[item.tenant], item.tenant, item.id);
        let fairest = *self.ready.iter().filter(|item| item.stage == stage).min_by_key(turn)?;
        self.shares.now = self.shares.now.max(served[fairest.tenant]);
        Some(fairest)
    }

    fn take(&mut self, item: Item) -> bool {
        let known = self.taken.iter().any(|t| t.group == item.group);
        let computed = !known && !self.resident[usize::from(item.group)];
        let added = own(item.tokens) + if computed { prefix(item.group) } else { own(0) };
        let cost = self.cost + added;
        let is_first = self.taken.is_empty();
        let fits = cost.kv_bytes <= self.free_kv
            && (is_first || cost.tokens <= self.limits.batch_tokens)
            && self.taken.len() < self.limits.batch_items;
        let open = self.taken.iter().filter(|t| t.stage == Stage::Open).count();
        let share = |all: usize| all * self.limits.open_share / 100;
        let is_fair = item.stage == Stage::Whole
            || open == 0
            || !self.has(Stage::Whole)
            || open < share(self.limits.batch_items)
                && self.open_tokens + added.tokens <= share(self.limits.batch_tokens);
        if !fits || !is_fair {
            return false;
        }
        if item.stage == Stage::Open {
            self.open_tokens += added.tokens;
        }
        self.cost = cost;
        self.shares.charge(item.tenant, added.tokens);
        self.shares.leave(item.tenant);
        self.ready.retain(|r| r.id != item.id);
        self.taken.push(item);
        true
    }
}
