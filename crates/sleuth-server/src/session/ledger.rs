use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sleuth_wire::ItemKey;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::open::Said;

/// A stream's unfinished items, and the latest open ones that have ended.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    items: HashMap<ItemKey, Entry>,
    open: usize,
    ended: Ended,
}

#[derive(Debug)]
struct Entry {
    cancel: CancellationToken,
    /// The way to an open item.
    said: Option<mpsc::Sender<Said>>,
}

/// The latest keys of open items that have their verdict: what else comes for them was on its way
/// when it was sent. Older ones are forgotten.
#[derive(Debug, Default)]
struct Ended {
    keys: HashSet<ItemKey>,
    order: VecDeque<ItemKey>,
}

/// What a stream knows of a key.
#[derive(Debug)]
pub(super) enum Known {
    /// An open item.
    Open(mpsc::Sender<Said>),
    /// A whole item.
    Whole,
    /// An open item that has its verdict.
    Ended,
    /// Nothing.
    Unknown,
}

/// How many ended keys a stream remembers.
const REMEMBERED: usize = 4096;
/// Messages for an open item that wait for it. It takes them as they come.
const WAITING: usize = 8;

// === impl Ledger ===

impl Ledger {
    /// Enters a whole item; the token says when its caller gives it up.
    pub(super) fn enter(&self, key: ItemKey) -> CancellationToken {
        let cancel = CancellationToken::new();
        self.lock().items.insert(key, Entry { cancel: cancel.clone(), said: None });
        cancel
    }

    /// Enters an open item.
    pub(super) fn enter_open(&self, key: ItemKey) -> (CancellationToken, mpsc::Receiver<Said>) {
        let cancel = CancellationToken::new();
        let (sender, said) = mpsc::channel(WAITING);
        let mut state = self.lock();
        state.ended.remove(&key);
        state.open += 1;
        state.items.insert(key, Entry { cancel: cancel.clone(), said: Some(sender) });
        (cancel, said)
    }

    pub(super) fn leave(&self, key: &ItemKey) {
        let mut state = self.lock();
        let Some(entry) = state.items.remove(key) else { return };
        if entry.said.is_some() {
            state.open -= 1;
            state.ended.insert(key.clone());
        }
    }

    /// Notes an open item that was refused.
    pub(super) fn refused(&self, key: ItemKey) {
        self.lock().ended.insert(key);
    }

    pub(super) fn open_items(&self) -> usize {
        self.lock().open
    }

    pub(super) fn holds(&self, key: &ItemKey) -> bool {
        self.lock().items.contains_key(key)
    }

    pub(super) fn known(&self, key: &ItemKey) -> Known {
        let state = self.lock();
        match state.items.get(key) {
            Some(Entry { said: Some(said), .. }) => Known::Open(said.clone()),
            Some(Entry { said: None, .. }) => Known::Whole,
            None if state.ended.keys.contains(key) => Known::Ended,
            None => Known::Unknown,
        }
    }

    pub(super) fn cancel(&self, key: &ItemKey) {
        if let Some(entry) = self.lock().items.get(key) {
            entry.cancel.cancel();
        }
    }

    /// Nothing panics while it holds the lock, so a poisoned one is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Ended ===

impl Ended {
    fn insert(&mut self, key: ItemKey) {
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

    fn remove(&mut self, key: &ItemKey) {
        if self.keys.remove(key) {
            self.order.retain(|other| other != key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> ItemKey {
        ItemKey { item_id: "a".to_owned(), attempt: n }
    }

    #[test]
    fn ended_keys_are_forgotten_in_order() {
        let mut ended = Ended::default();
        for n in 0..=REMEMBERED as u32 {
            ended.insert(key(n));
            ended.insert(key(n));
        }
        assert!(!ended.keys.contains(&key(0)));
        assert!(ended.keys.contains(&key(1)) && ended.keys.contains(&key(REMEMBERED as u32)));
        assert_eq!(ended.order.len(), REMEMBERED);
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

    #[test]
    fn an_open_item_is_remembered_after_its_end_and_may_come_again() {
        let ledger = Ledger::default();
        assert!(matches!(ledger.known(&key(1)), Known::Unknown));
        let (_cancel, _said) = ledger.enter_open(key(1));
        assert!(matches!(ledger.known(&key(1)), Known::Open(_)));
        ledger.leave(&key(1));
        assert!(matches!(ledger.known(&key(1)), Known::Ended));
        let (_cancel, _said) = ledger.enter_open(key(1));
        assert!(matches!(ledger.known(&key(1)), Known::Open(_)));
        ledger.leave(&key(1));
        assert_eq!((ledger.open_items(), ledger.lock().ended.order.len()), (0, 1));
        ledger.enter(key(2));
        assert!(matches!(ledger.known(&key(2)), Known::Whole));
        ledger.leave(&key(2));
        assert!(matches!(ledger.known(&key(2)), Known::Unknown));
    }
}
