use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sleuth_wire::ItemKey;
use tokio_util::sync::CancellationToken;

/// A stream's unfinished items.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    items: Mutex<HashMap<ItemKey, CancellationToken>>,
}

/// The latest keys whose `open` was refused; older ones are forgotten.
#[derive(Debug, Default)]
pub(super) struct Refused {
    keys: HashSet<ItemKey>,
    order: VecDeque<ItemKey>,
}

/// How many refused keys a stream remembers.
const REMEMBERED: usize = 256;

// === impl Ledger ===

impl Ledger {
    /// Enters an item; the token says when its caller gives it up.
    pub(super) fn enter(&self, key: ItemKey) -> CancellationToken {
        let token = CancellationToken::new();
        self.lock().insert(key, token.clone());
        token
    }

    pub(super) fn leave(&self, key: &ItemKey) {
        self.lock().remove(key);
    }

    pub(super) fn holds(&self, key: &ItemKey) -> bool {
        self.lock().contains_key(key)
    }

    pub(super) fn cancel(&self, key: &ItemKey) {
        if let Some(token) = self.lock().get(key) {
            token.cancel();
        }
    }

    /// Nothing panics while it holds the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<ItemKey, CancellationToken>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Refused ===

impl Refused {
    pub(super) fn insert(&mut self, key: ItemKey) {
        if !self.keys.insert(key.clone()) {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    pub(super) fn holds(&self, key: &ItemKey) -> bool {
        self.keys.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> ItemKey {
        ItemKey { item_id: "a".to_owned(), attempt: n }
    }

    #[test]
    fn refused_keys_are_forgotten_in_order() {
        let mut refused = Refused::default();
        for n in 0..=REMEMBERED as u32 {
            refused.insert(key(n));
            refused.insert(key(n));
        }
        assert!(!refused.holds(&key(0)));
        assert!(refused.holds(&key(1)) && refused.holds(&key(REMEMBERED as u32)));
        assert_eq!(refused.order.len(), REMEMBERED);
    }

    #[test]
    fn attempts_are_items_of_their_own() {
        let ledger = Ledger::default();
        let first = ledger.enter(key(1));
        let second = ledger.enter(key(2));
        ledger.cancel(&key(2));
        assert!(!first.is_cancelled() && second.is_cancelled());
        ledger.leave(&key(1));
        assert!(!ledger.holds(&key(1)) && ledger.holds(&key(2)));
    }
}
