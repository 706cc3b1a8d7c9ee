use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

/// Values that are dear to compute, within a hard limit of bytes; the least recently used leave
/// first.
///
/// Invariants
/// - The bytes of resident values never pass the limit.
/// - A value that somebody else holds is pinned: it is never evicted, as that would free nothing.
/// - Each key has at most one flight: from a [`Lookup::Miss`] to [`Cache::fulfil`] or
///   [`Cache::abandon`] one caller computes the value, and all others are told so.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys by when they were last used.
    order: BTreeMap<u64, K>,
    flights: HashSet<K>,
    next_use: u64,
    stats: CacheStats,
}

/// What the cache holds for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a miss takes the flight, which has to end"]
pub(crate) enum Lookup<V> {
    /// The value; pinned while the caller holds it.
    Hit(Arc<V>),
    /// Somebody computes it: look again once that is over.
    Busy,
    /// Nobody has it. The caller computes it now, and calls [`Cache::fulfil`] or
    /// [`Cache::abandon`] whatever happens.
    Miss,
}

/// What a cache did since its start, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that had to compute one.
    pub misses: u64,
    /// Lookups that found somebody computing the value.
    pub joined: u64,
    /// Values that made room for others.
    pub evictions: u64,
    /// Values that were computed but not kept.
    pub rejected: u64,
    /// Values that were copied from another device rather than computed.
    pub copied: u64,
    /// Values held.
    pub resident_entries: usize,
    /// Their bytes.
    pub resident_bytes: u64,
    /// What these never pass.
    pub limit_bytes: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: Arc<V>,
    bytes: u64,
    used: u64,
}

// === impl Cache ===

impl<K: Clone + Eq + Hash, V> Cache<K, V> {
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            flights: HashSet::new(),
            next_use: 0,
            stats: CacheStats { limit_bytes, ..CacheStats::default() },
        }
    }

    /// Uses a value, or takes on to compute it.
    pub(crate) fn lookup(&mut self, key: &K) -> Lookup<V> {
        if let Some(entry) = self.entries.get_mut(key) {
            if let Some(key) = self.order.remove(&entry.used) {
                self.order.insert(self.next_use, key);
            }
            entry.used = self.next_use;
            self.next_use += 1;
            self.stats.hits += 1;
            return Lookup::Hit(Arc::clone(&entry.value));
        }
        if !self.flights.insert(key.clone()) {
            self.stats.joined += 1;
            return Lookup::Busy;
        }
        self.stats.misses += 1;
        Lookup::Miss
    }

    /// Whether a value is resident. Counts as no use.
    pub(crate) fn peek(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Ends a flight with its value, and says whether the value is kept.
    ///
    /// It is not where too little can be evicted for it (then nothing is), and where the caller
    /// has no flight. Takes O(log n) for each value
    /// evicted, and O(1) for each pinned one that is older than those.
    pub(crate) fn fulfil(&mut self, key: K, value: &Arc<V>, bytes: u64) -> bool {
        let kept = self.flights.remove(&key) && self.make_room(bytes);
        if kept {
            let entry = Entry { value: Arc::clone(value), bytes, used: self.next_use };
            self.order.insert(self.next_use, key.clone());
            self.next_use += 1;
            self.entries.insert(key, entry);
            self.stats.resident_bytes += bytes;
        } else {
            self.stats.rejected += 1;
        }
        kept
    }

    /// Ends a flight without a value; the next lookup misses again.
    pub(crate) fn abandon(&mut self, key: &K) {
        self.flights.remove(key);
    }

    /// A value, without using it.
    pub(crate) fn held(&self, key: &K) -> Option<Arc<V>> {
        self.entries.get(key).map(|entry| Arc::clone(&entry.value))
    }

    /// Takes note that a value came from another device.
    pub(crate) fn count_copy(&mut self) {
        self.stats.copied += 1;
    }

    /// Evicts all values that nobody holds.
    pub(crate) fn clear(&mut self) {
        let limit = self.stats.limit_bytes;
        let unpinned = self.entries.values().filter(|entry| Arc::strong_count(&entry.value) == 1);
        let bytes: u64 = unpinned.map(|entry| entry.bytes).sum();
        let pinned = self.stats.resident_bytes - bytes;
        // Room for all that is left of the limit is made by evicting all that can be.
        let _ = self.make_room(limit.saturating_sub(pinned));
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats { resident_entries: self.entries.len(), ..self.stats }
    }

    /// Evicts the least recently used unpinned values, if that makes room for `bytes`.
    fn make_room(&mut self, bytes: u64) -> bool {
        let Some(most) = self.stats.limit_bytes.checked_sub(bytes) else { return false };
        let mut left = self.stats.resident_bytes;
        let mut victims = Vec::new();
        let mut oldest = self.order.iter();
        while left > most {
            let Some((&used, key)) = oldest.next() else { return false };
            if let Some(entry) = self.entries.get(key)
                && Arc::strong_count(&entry.value) == 1
            {
                left -= entry.bytes;
                victims.push(used);
            }
        }
        self.stats.evictions += victims.len() as u64;
        self.stats.resident_bytes = left;
        for used in victims {
            if let Some(key) = self.order.remove(&used) {
                self.entries.remove(&key);
            }
        }
        true
    }
}

// === impl CacheStats ===

impl std::iter::Sum for CacheStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            hits: a.hits + b.hits,
            misses: a.misses + b.misses,
            joined: a.joined + b.joined,
            evictions: a.evictions + b.evictions,
            rejected: a.rejected + b.rejected,
            copied: a.copied + b.copied,
            resident_entries: a.resident_entries + b.resident_entries,
            resident_bytes: a.resident_bytes + b.resident_bytes,
            limit_bytes: a.limit_bytes + b.limit_bytes,
        })
    }
}

#[cfg(test)]
mod tests;
