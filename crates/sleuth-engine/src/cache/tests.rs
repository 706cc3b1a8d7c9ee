use proptest::prelude::*;

use super::*;

fn keep(cache: &mut Cache<u8, u8>, key: u8, bytes: u64) -> bool {
    assert_eq!(cache.lookup(&key), Lookup::Miss);
    cache.fulfil(key, &Arc::new(key), bytes)
}

#[test]
fn the_least_recently_used_leaves_first() {
    let mut cache = Cache::new(3);
    for key in [1, 2, 3] {
        assert!(keep(&mut cache, key, 1));
    }
    assert_eq!(cache.lookup(&1), Lookup::Hit(Arc::new(1)));
    assert!(cache.peek(&2));
    assert!(keep(&mut cache, 4, 1));
    assert_eq!([1, 2, 3, 4].map(|key| cache.peek(&key)), [true, false, true, true]);
}

#[test]
fn a_value_in_use_stays() {
    let mut cache = Cache::new(2);
    assert!(keep(&mut cache, 1, 1) && keep(&mut cache, 2, 1));
    let Lookup::Hit(held) = cache.lookup(&1) else { panic!("resident") };
    assert_eq!(cache.lookup(&2), Lookup::Hit(Arc::new(2)));
    assert!(!keep(&mut cache, 3, 2), "only one byte can be freed");
    assert!(cache.peek(&2), "nothing is evicted for what does not fit anyway");
    assert!(keep(&mut cache, 4, 1));
    assert_eq!([cache.peek(&1), cache.peek(&2)], [true, false]);
    drop(held);
    assert!(keep(&mut cache, 5, 2));
    assert_eq!(cache.stats().resident_entries, 1);
}

#[test]
fn one_caller_computes_and_the_others_wait() {
    let mut cache: Cache<u8, u8> = Cache::new(2);
    assert_eq!(cache.lookup(&1), Lookup::Miss);
    assert_eq!(cache.lookup(&1), Lookup::Busy);
    cache.abandon(&1);
    assert!(keep(&mut cache, 1, 1));
    let CacheStats { hits, misses, joined, .. } = cache.stats();
    assert_eq!((hits, misses, joined), (0, 2, 1));
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Lookup { key: u8, hold: bool },
    Fulfil { nth: usize, bytes: u64, hold: bool },
    Abandon { nth: usize },
    Drop { nth: usize },
}

fn event() -> impl Strategy<Value = Event> {
    let nth = any::<usize>();
    prop_oneof![
        6 => (0u8..12, any::<bool>()).prop_map(|(key, hold)| Event::Lookup { key, hold }),
        5 => (nth, 0u64..8, any::<bool>())
            .prop_map(|(nth, bytes, hold)| Event::Fulfil { nth, bytes, hold }),
        1 => nth.prop_map(|nth| Event::Abandon { nth }),
        3 => nth.prop_map(|nth| Event::Drop { nth }),
    ]
}

struct Resident {
    key: u8,
    id: usize,
    bytes: u64,
}

/// The cache once more, as lists.
struct Model {
    cache: Cache<u8, usize>,
    /// Least recently used first.
    resident: Vec<Resident>,
    flights: Vec<u8>,
    held: Vec<Arc<usize>>,
    made: usize,
    expected: CacheStats,
}

impl Model {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Lookup { key, hold } => self.lookup(key, hold),
            Event::Fulfil { nth, bytes, hold } => {
                if let Some(key) = take(&mut self.flights, nth) {
                    self.fulfil(key, bytes, hold);
                }
            }
            Event::Abandon { nth } => {
                if let Some(key) = take(&mut self.flights, nth) {
                    self.cache.abandon(&key);
                }
            }
            Event::Drop { nth } => drop(take(&mut self.held, nth)),
        }
        self.expected.resident_entries = self.resident.len();
        self.expected.resident_bytes = self.bytes();
        assert_eq!(self.cache.stats(), self.expected);
        assert!(self.bytes() <= self.expected.limit_bytes);
        let resident = |key| self.resident.iter().any(|r| r.key == key);
        assert!((0..12).all(|key| self.cache.peek(&key) == resident(key)));
        assert_eq!(self.cache.order.len(), self.resident.len());
    }

    fn lookup(&mut self, key: u8, hold: bool) {
        let at = self.resident.iter().position(|r| r.key == key);
        match self.cache.lookup(&key) {
            Lookup::Hit(value) => {
                let used = self.resident.remove(at.unwrap());
                assert_eq!(*value, used.id);
                self.resident.push(used);
                self.held.extend(hold.then_some(value));
                self.expected.hits += 1;
            }
            Lookup::Busy => {
                assert!(self.flights.contains(&key) && at.is_none());
                self.expected.joined += 1;
            }
            Lookup::Miss => {
                assert!(!self.flights.contains(&key) && at.is_none());
                self.flights.push(key);
                self.expected.misses += 1;
            }
        }
    }

    fn fulfil(&mut self, key: u8, bytes: u64, hold: bool) {
        let id = self.made;
        self.made += 1;
        let pinned = |r: &Resident| self.held.iter().any(|value| **value == r.id);
        let pinned: Vec<usize> = self.resident.iter().filter(|r| pinned(r)).map(|r| r.id).collect();
        let is_pinned = |r: &Resident| pinned.contains(&r.id);
        let stuck: u64 = self.resident.iter().filter(|r| is_pinned(r)).map(|r| r.bytes).sum();
        let value = Arc::new(id);
        let kept = self.cache.fulfil(key, &value, bytes);
        assert_eq!((*value, kept), (id, stuck + bytes <= self.expected.limit_bytes));
        self.held.extend(hold.then_some(value));
        if !kept {
            self.expected.rejected += 1;
            return;
        }
        while self.bytes() + bytes > self.expected.limit_bytes {
            let victim = self.resident.iter().position(|r| !is_pinned(r)).unwrap();
            self.resident.remove(victim);
            self.expected.evictions += 1;
        }
        self.resident.push(Resident { key, id, bytes });
    }

    fn bytes(&self) -> u64 {
        self.resident.iter().map(|r| r.bytes).sum()
    }
}

fn take<T>(from: &mut Vec<T>, nth: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(nth % from.len()))
}

proptest! {
    #[test]
    fn it_does_what_lists_do(
        limit_bytes in 0u64..30,
        events in proptest::collection::vec(event(), 0..150),
    ) {
        let mut model = Model {
            cache: Cache::new(limit_bytes),
            resident: Vec::new(),
            flights: Vec::new(),
            held: Vec::new(),
            made: 0,
            expected: CacheStats { limit_bytes, ..CacheStats::default() },
        };
        for event in events {
            model.apply(event);
        }
        while !model.flights.is_empty() {
            model.apply(Event::Abandon { nth: 0 });
        }
        model.held.clear();
        prop_assert!(model.cache.flights.is_empty());
    }
}

#[test]
fn clearing_leaves_what_somebody_holds() {
    let mut cache = Cache::new(100);
    let values: Vec<Arc<u8>> = (0..3).map(Arc::new).collect();
    for (key, value) in values.iter().enumerate() {
        assert!(matches!(cache.lookup(&key), Lookup::Miss));
        assert!(cache.fulfil(key, value, 20));
    }
    let held = cache.held(&1).unwrap();
    drop(values);
    cache.clear();
    assert_eq!((cache.stats().resident_entries, cache.stats().resident_bytes), (1, 20));
    assert!(cache.peek(&1) && !cache.peek(&0));
    drop(held);
    cache.clear();
    assert_eq!((cache.stats().resident_bytes, cache.stats().evictions), (0, 3));
}
