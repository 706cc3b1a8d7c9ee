use std::sync::atomic::{AtomicU64, Ordering};

use crate::open::State;
use crate::{IdempotencyStats, ImageStats};

/// What a service has done so far, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceStats {
    /// Idempotency keys.
    pub idempotency: IdempotencyStats,
    /// Images that were put.
    pub images: ImageStats,
    /// Bytes of responses that were appended piece by piece, of items that ended.
    pub appended_bytes: u64,
    /// Those of them whose tokens only the end of the response settled.
    pub held_back_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    appended: AtomicU64,
    held_back: AtomicU64,
}

// === impl ServiceStats ===

impl ServiceStats {
    /// The share of appended bytes that could not be scored before the end of their response, 0
    /// to 1; `None` before the first.
    pub fn held_back_share(&self) -> Option<f64> {
        let share = self.held_back_bytes as f64 / self.appended_bytes as f64;
        (self.appended_bytes > 0).then_some(share)
    }
}

// === impl HeldBack ===

impl HeldBack {
    pub(crate) fn count(&self, state: &State) {
        let (appended, held_back) = state.appended();
        self.appended.fetch_add(appended as u64, Ordering::Relaxed);
        self.held_back.fetch_add(held_back as u64, Ordering::Relaxed);
    }

    /// Appended and held back.
    pub(crate) fn get(&self) -> (u64, u64) {
        (self.appended.load(Ordering::Relaxed), self.held_back.load(Ordering::Relaxed))
    }
}
