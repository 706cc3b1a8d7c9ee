//! What the router did and sees, for metrics and the terminal.

use std::collections::HashMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use sleuth_core::Load;

use crate::judge::Cause;
use crate::placement::{Ask, Placed, Reason, ReplicaId, ReplicaSnapshot};

/// What the router did and sees.
#[derive(Clone, Debug)]
pub struct FleetView {
    /// By name.
    pub replicas: Vec<ReplicaView>,
    /// Groups that are remembered.
    pub groups: usize,
    /// What was done so far.
    pub counts: Counts,
}

/// One replica.
#[derive(Clone, Debug)]
pub struct ReplicaView {
    /// How placement sees it.
    pub snapshot: ReplicaSnapshot,
    /// Where it is.
    pub url: String,
    /// Whether it reports.
    pub is_connected: bool,
    /// Whether its faults keep items from it, in whole or in part.
    pub is_ejected: bool,
    /// Discovery says that it is about to end.
    pub is_terminating: bool,
    /// Why it takes nothing although it is well.
    pub unfit: Option<String>,
    /// Why it was not reached when that was last tried.
    pub unreached: Option<String>,
    /// Times it was ejected.
    pub ejections: u64,
    /// What it said last.
    pub load: Load,
    /// What was done there.
    pub counts: ReplicaCounts,
}

/// What the router did so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Placements, in the order of [`Reason::ALL`].
    pub placed: [u64; Reason::ALL.len()],
    /// Attempts after the first, in the order of [`Cause::ALL`].
    pub retried: [u64; Cause::ALL.len()],
    /// Attempts that the retry budget refused.
    pub retries_refused: u64,
    /// Replicas ejected.
    pub ejections: u64,
    /// Items that were computed again, as their replica died, froze or was cut off meanwhile.
    pub failovers: u64,
    /// Positions of prefixes that replicas held.
    pub positions_reused: u64,
    /// Positions that they computed.
    pub positions_computed: u64,
    /// Prefixes that they computed.
    pub prefixes_computed: u64,
    /// Images sent to replicas.
    pub images_sent: u64,
    /// Items found by their idempotency key where they were before.
    pub returned: u64,
    replicas: HashMap<ReplicaId, ReplicaCounts>,
}

/// What one replica did for this router.
#[derive(Clone, Debug)]
pub struct ReplicaCounts {
    /// Predicted seconds of all that was placed there.
    pub placed_seconds: f64,
    /// Items with rewards.
    pub scored: u64,
    /// Positions of prefixes that it held.
    pub positions_reused: u64,
    /// Positions that it computed.
    pub positions_computed: u64,
    /// How long the last one to two thousand items took, in microseconds.
    recent: Histogram<u32>,
    before: Histogram<u32>,
}

/// Items after which the older half of what is known is forgotten.
const WINDOW: u64 = 1000;
/// An hour; more counts as so much.
const LONGEST_MICROS: u64 = 3_600_000_000;
/// Replicas that are remembered after they left.
const MOST_REPLICAS: usize = 4096;

// === impl FleetView ===

impl FleetView {
    /// The busiest replica's predicted seconds over the mean of those that take items; 1 is even,
    /// and 1 where there is nothing to do.
    pub fn imbalance(&self) -> f64 {
        let loads = self.replicas.iter().filter(|r| r.snapshot.weight > 0.0);
        let loads: Vec<f64> = loads.map(|replica| replica.snapshot.load).collect();
        let mean = loads.iter().sum::<f64>() / loads.len() as f64;
        if mean > 0.0 { loads.into_iter().fold(0.0, f64::max) / mean } else { 1.0 }
    }
}

// === impl ReplicaView ===

impl ReplicaView {
    /// How it is, in a word.
    pub const fn state(&self) -> &'static str {
        if self.unfit.is_some() {
            "unfit"
        } else if !self.is_connected {
            "lost"
        } else if self.is_terminating || self.snapshot.draining {
            "draining"
        } else if self.snapshot.weight <= 0.0 {
            "ejected"
        } else if self.is_ejected {
            "returning"
        } else {
            "serving"
        }
    }
}

// === impl Counts ===

impl Counts {
    /// An item of this cost went to a replica; one that follows others finds its prefix there.
    pub(crate) fn placed(&mut self, ask: &Ask<'_>, placed: &Placed) {
        if let Some(place) = Reason::ALL.iter().position(|known| *known == placed.reason) {
            self.placed[place] += 1;
        }
        let follows = matches!(placed.reason, Reason::Resident | Reason::Group);
        let prefix = if follows { 0.0 } else { ask.prefix_cost };
        self.replica(&placed.replica).placed_seconds += prefix + ask.item_cost;
    }

    pub(crate) fn retried(&mut self, cause: Cause, was_allowed: bool) {
        if !was_allowed {
            self.retries_refused += 1;
        } else if let Some(place) = Cause::ALL.iter().position(|known| *known == cause) {
            self.retried[place] += 1;
        }
    }

    pub(crate) fn scored(&mut self, replica: &ReplicaId, took: Duration) {
        self.replica(replica).scored(took);
    }

    /// What an item found held at a replica.
    pub(crate) fn reused(&mut self, replica: &ReplicaId, reused: u32, computed: u32) {
        self.positions_reused += u64::from(reused);
        self.positions_computed += u64::from(computed);
        self.prefixes_computed += u64::from(computed > 0);
        let counts = self.replica(replica);
        counts.positions_reused += u64::from(reused);
        counts.positions_computed += u64::from(computed);
    }

    pub(crate) fn of(&self, replica: &ReplicaId) -> ReplicaCounts {
        self.replicas.get(replica).cloned().unwrap_or_default()
    }

    fn replica(&mut self, id: &ReplicaId) -> &mut ReplicaCounts {
        if self.replicas.len() > MOST_REPLICAS {
            self.replicas.clear();
        }
        self.replicas.entry(id.clone()).or_default()
    }
}

// === impl ReplicaCounts ===

impl ReplicaCounts {
    /// The time that so many of a hundred recent items took no longer than; `None` before the
    /// first.
    pub fn percentile(&self, percent: f64) -> Option<Duration> {
        let mut all = self.before.clone();
        all.add(&self.recent).ok()?;
        (!all.is_empty()).then(|| Duration::from_micros(all.value_at_percentile(percent)))
    }

    fn scored(&mut self, took: Duration) {
        self.scored += 1;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.recent.saturating_record(micros.clamp(1, LONGEST_MICROS));
        if self.recent.len() >= WINDOW {
            self.before = std::mem::replace(&mut self.recent, histogram());
        }
    }
}

impl Default for ReplicaCounts {
    fn default() -> Self {
        Self {
            placed_seconds: 0.0,
            scored: 0,
            positions_reused: 0,
            positions_computed: 0,
            recent: histogram(),
            before: histogram(),
        }
    }
}

#[expect(clippy::expect_used, reason = "the bounds are constants that the library takes")]
fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, 2).expect("bounds are in order")
}
