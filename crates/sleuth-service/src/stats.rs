use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sleuth_core::ModelCard;
use sleuth_engine::{Distribution, EngineStats};
use sleuth_telemetry::traces::{self, Phase};
use tokio::time::Instant;

use crate::open::State;
use crate::{IdempotencyStats, ImageStats, RewardHistory};

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

/// What one version did, and what it holds.
#[derive(Clone, Debug)]
pub struct VersionStats {
    /// What it is.
    pub card: Arc<ModelCard>,
    /// Of its engine.
    pub engine: EngineStats,
    /// How long a new item would wait.
    pub predicted_wait: Duration,
    /// Of its tokens.
    pub rewards: RewardHistory,
}

/// How long items took outside of engines, in seconds.
#[derive(Clone, Debug)]
pub struct PhaseStats {
    /// Texts to tokens.
    pub tokenise: Distribution,
    /// Image files to pixels, where they were not kept; waiting for another item's included.
    pub decode: Distribution,
    /// RewardHistory to policy tokens.
    pub realign: Distribution,
}

#[derive(Debug, Default)]
pub(crate) struct Phases {
    stats: Mutex<PhaseStats>,
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

// === impl PhaseStats ===

impl Default for PhaseStats {
    fn default() -> Self {
        let seconds = Distribution::of_seconds;
        Self { tokenise: seconds(), decode: seconds(), realign: seconds() }
    }
}

// === impl Phases ===

impl Phases {
    /// Takes note of what the task's item did from `start` until now.
    pub(crate) fn did(&self, phase: Phase, start: Instant) {
        let end = Instant::now();
        traces::current().did(phase, start.into_std(), end.into_std());
        let mut stats = self.lock();
        let distribution = match phase {
            Phase::Tokenise => &mut stats.tokenise,
            Phase::Decode => &mut stats.decode,
            Phase::Realign => &mut stats.realign,
            // Those are the engine's.
            Phase::Queue | Phase::Vision | Phase::Prefill | Phase::Suffix | Phase::Head => return,
        };
        distribution.count(end.saturating_duration_since(start).as_secs_f64());
    }

    pub(crate) fn get(&self) -> PhaseStats {
        self.lock().clone()
    }

    /// Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, PhaseStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
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
