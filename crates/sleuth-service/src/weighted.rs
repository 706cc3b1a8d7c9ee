use std::borrow::Borrow;
use std::hash::Hash;

use lru::LruCache;

/// A map of at most so many bytes; what was not used for longest leaves first.
///
/// Invariant: the weights of what is held add up to `bytes`, at most `limit`.
#[derive(Debug)]
pub(crate) struct Weighted<K: Hash + Eq, V> {
    entries: LruCache<K, (V, u64)>,
    bytes: u64,
    limit: u64,
    evicted: u64,
}

// === impl Weighted ===

impl<K: Hash + Eq, V> Weighted<K, V> {
    pub(crate) fn new(limit: u64) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, limit, evicted: 0 }
    }

    /// What is held under a key; counts as a use.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Whether something is held under a key; counts as no use.
    pub(crate) fn holds(&self, key: &K) -> bool {
        self.entries.contains(key)
    }

    /// Holds a value, unless it is over the limit by itself.
    pub(crate) fn insert(&mut self, key: K, value: V, bytes: u64) {
        if bytes > self.limit {
            return;
        }
        self.bytes += bytes;
        if let Some((_, old)) = self.entries.put(key, (value, bytes)) {
            self.bytes -= old;
        }
        self.shrink_to(self.limit);
    }

    /// Makes room: drops what was not used for longest until at most `bytes` are held.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        while self.bytes > bytes
            && let Some((_, (_, weight))) = self.entries.pop_lru()
        {
            self.bytes -= weight;
            self.evicted += 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_least_used_leaves_first() {
        let mut map = Weighted::new(10);
        map.insert("a", 1, 4);
        map.insert("b", 2, 4);
        assert_eq!(map.get(&"a"), Some(&1));
        map.insert("c", 3, 4);
        assert!(map.holds(&"a") && !map.holds(&"b") && map.holds(&"c"));
        map.insert("huge", 4, 11);
        assert!(!map.holds(&"huge"));
        assert_eq!((map.len(), map.bytes(), map.evicted()), (2, 8, 1));
    }

    proptest! {
        #[test]
        fn what_is_held_stays_within_the_limit(
            steps in prop::collection::vec((0_u8..6, 0_u64..30), 0..200),
        ) {
            let mut map = Weighted::new(50);
            for (key, bytes) in steps {
                map.insert(key, bytes, bytes);
                prop_assert!(map.bytes() <= 50);
                let held: u64 = (0..6).filter_map(|k| map.get(&k).copied()).sum();
                prop_assert_eq!(held, map.bytes());
            }
        }
    }
}
