use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::{Arrival, DeviceCost, DeviceLimits, Load};

/// A replica: items that wait, the batch that runs, and the prefixes that are held.
#[derive(Debug)]
pub(super) struct Device {
    limits: DeviceLimits,
    cost: DeviceCost,
    speed: f64,
    /// In the order of arrival; those that a batch took are skipped.
    queue: VecDeque<usize>,
    waiting: BTreeMap<u64, VecDeque<usize>>,
    taken: HashSet<usize>,
    running: Option<Batch>,
    cache: Cache,
    reported: HashSet<u64>,
    pub(super) items: usize,
    /// Seconds that batches took.
    pub(super) busy: f64,
    /// Batches that were run.
    pub(super) batches: usize,
    /// Prefixes that were computed.
    pub(super) computed: usize,
}

/// What runs.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) items: Vec<usize>,
    /// When it ends, in seconds of the run.
    pub(super) ends: f64,
    prefixes: Vec<(u64, u32)>,
}

/// The least recently used prefixes leave first.
#[derive(Debug, Default)]
struct Cache {
    held: HashMap<u64, (u64, u32)>,
    order: BTreeMap<u64, u64>,
    clock: u64,
    positions: usize,
}

// === impl Device ===

impl Device {
    pub(super) fn new(limits: DeviceLimits, cost: DeviceCost, speed: f64) -> Self {
        Self {
            limits,
            cost,
            speed,
            queue: VecDeque::new(),
            waiting: BTreeMap::new(),
            taken: HashSet::new(),
            running: None,
            cache: Cache::default(),
            reported: HashSet::new(),
            items: 0,
            busy: 0.0,
            batches: 0,
            computed: 0,
        }
    }

    pub(super) fn push(&mut self, item: usize, arrival: &Arrival) {
        self.items += 1;
        self.queue.push_back(item);
        self.waiting.entry(arrival.prefix).or_default().push_back(item);
    }

    /// Starts the next batch if nothing runs and something waits; says when it ends.
    ///
    /// As the engine does it: whose turn it is, then the rest of its group, until a leader does
    /// not fit.
    pub(super) fn start(&mut self, arrivals: &[&Arrival], now: f64) -> Option<f64> {
        if self.running.is_some() {
            return None;
        }
        let (mut items, mut tokens, mut seconds) = (Vec::new(), 0, 0.0);
        let mut prefixes: Vec<(u64, u32)> = Vec::new();
        while let Some(&leader) = self.queue.front() {
            if self.taken.remove(&leader) {
                self.queue.pop_front();
                continue;
            }
            let arrival = arrivals[leader];
            let is_new = !self.cache.touch(arrival.prefix);
            let prefix = if is_new { arrival.prefix_positions as usize } else { 0 };
            let own = arrival.response_tokens as usize;
            if !items.is_empty() && !self.fits(items.len(), tokens + prefix + own) {
                break;
            }
            tokens += prefix;
            if is_new {
                seconds += self.cost.prefix(arrival);
                prefixes.push((arrival.prefix, arrival.prefix_positions));
                self.computed += 1;
            }
            for item in self.mates(arrival.prefix, arrivals, items.len(), &mut tokens) {
                seconds += self.cost.item(arrivals[item].response_tokens);
                items.push(item);
            }
            // A group whose rest does not fit leads the next batch.
            if self.waiting.contains_key(&arrival.prefix) {
                break;
            }
        }
        if items.is_empty() {
            return None;
        }
        let seconds = (seconds + self.cost.batch_seconds) / self.speed;
        self.busy += seconds;
        self.batches += 1;
        let ends = now + seconds;
        self.running = Some(Batch { items, ends, prefixes });
        Some(ends)
    }

    /// The batch that has ended; its prefixes are held from now on.
    pub(super) fn finish(&mut self) -> Option<Batch> {
        let batch = self.running.take()?;
        for &(prefix, positions) in &batch.prefixes {
            self.cache.insert(prefix, positions, self.limits.cache_positions);
        }
        Some(batch)
    }

    /// What the replica says of itself. Its cost model knows how fast it is.
    pub(super) fn load(&mut self, arrivals: &[&Arrival], now: f64) -> Load {
        let running = self.running.as_ref().map_or(0.0, |batch| (batch.ends - now).max(0.0));
        let mut queue = 0.0;
        for (prefix, items) in &self.waiting {
            let own = items.iter().map(|&item| self.cost.item(arrivals[item].response_tokens));
            queue += own.sum::<f64>();
            if let Some(&first) = items.front()
                && !self.cache.held.contains_key(prefix)
            {
                queue += self.cost.prefix(arrivals[first]);
            }
        }
        let held: HashSet<u64> = self.cache.held.keys().copied().collect();
        let mut added: Vec<u64> = held.difference(&self.reported).copied().collect();
        let mut removed: Vec<u64> = self.reported.difference(&held).copied().collect();
        added.sort_unstable();
        removed.sort_unstable();
        self.reported = held;
        Load { queue: running + queue / self.speed, added, removed }
    }

    /// Takes items of a prefix out as far as they fit, at least the first into an empty batch.
    fn mates(
        &mut self,
        prefix: u64,
        arrivals: &[&Arrival],
        before: usize,
        tokens: &mut usize,
    ) -> Vec<usize> {
        let mut items = Vec::new();
        let Some(mut waiting) = self.waiting.remove(&prefix) else { return items };
        while let Some(&item) = waiting.front() {
            let own = arrivals[item].response_tokens as usize;
            let count = before + items.len();
            if count > 0 && !self.fits(count, *tokens + own) {
                break;
            }
            waiting.pop_front();
            *tokens += own;
            self.taken.insert(item);
            items.push(item);
        }
        if !waiting.is_empty() {
            self.waiting.insert(prefix, waiting);
        }
        items
    }

    /// Whether one more item fits to so many, with so many tokens in all.
    fn fits(&self, items: usize, tokens: usize) -> bool {
        items < self.limits.batch_items && tokens <= self.limits.batch_tokens
    }
}

// === impl Cache ===

impl Cache {
    /// Whether the prefix is held; then it is used.
    fn touch(&mut self, prefix: u64) -> bool {
        let Some((used, _)) = self.held.get_mut(&prefix) else { return false };
        self.order.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.order.insert(self.clock, prefix);
        true
    }

    fn insert(&mut self, prefix: u64, positions: u32, limit: usize) {
        if positions as usize > limit || self.touch(prefix) {
            return;
        }
        self.clock += 1;
        self.held.insert(prefix, (self.clock, positions));
        self.order.insert(self.clock, prefix);
        self.positions += positions as usize;
        while self.positions > limit
            && let Some((_, oldest)) = self.order.pop_first()
        {
            let left = self.held.remove(&oldest).map_or(0, |(_, positions)| positions);
            self.positions -= left as usize;
        }
    }
}
