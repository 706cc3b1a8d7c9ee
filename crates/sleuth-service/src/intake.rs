use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bounds what callers have sent and nobody has prepared yet.
#[derive(Debug)]
pub(crate) struct Intake {
    max_items: usize,
    max_bytes: usize,
    held: Mutex<Held>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

/// One item's share of an [`Intake`], given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    intake: Arc<Intake>,
    bytes: usize,
}

// === impl Intake ===

impl Intake {
    pub(crate) fn new(max_items: usize, max_bytes: usize) -> Self {
        Self { max_items, max_bytes, held: Mutex::default() }
    }

    /// Takes an item of so many bytes in; `None` where there is no room. A single item is always
    /// taken, since one that is over the bound by itself would never be.
    pub(crate) fn admit(self: &Arc<Self>, bytes: usize) -> Option<Share> {
        let mut held = self.lock();
        let total = held.bytes.saturating_add(bytes);
        if held.items > 0 && (held.items >= self.max_items || total > self.max_bytes) {
            return None;
        }
        held.items += 1;
        held.bytes = total;
        Some(Share { intake: Arc::clone(self), bytes })
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> Held {
        *self.lock()
    }

    /// Nothing panics while the lock is held, so poisoned counts are still right.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Share ===

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.intake.lock();
        held.items -= 1;
        held.bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_bounded_by_items_and_bytes_and_come_back() {
        let intake = Arc::new(Intake::new(2, 10));
        let first = intake.admit(6).unwrap();
        assert!(intake.admit(5).is_none());
        let second = intake.admit(4).unwrap();
        assert!(intake.admit(0).is_none());
        drop((first, second));
        assert_eq!(intake.held(), Held::default());
    }

    #[test]
    fn an_item_over_the_bound_is_taken_alone() {
        let intake = Arc::new(Intake::new(2, 10));
        let large = intake.admit(50).unwrap();
        assert!(intake.admit(1).is_none());
        drop(large);
        assert!(intake.admit(1).is_some());
    }
}
