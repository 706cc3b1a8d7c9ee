use std::time::Duration;

use super::groups;

/// How items are placed. No value leads to a panic; odd ones lead to odd placements.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacementSettings {
    /// A replica that is not the least loaded takes a group if it would then hold at most so many
    /// times the mean load. At least 1; more keeps a prefix's place under load, less is more even.
    pub load_bound: f64,
    /// As `load_bound`, for a pool with little load: a replica takes a group if it would finish
    /// later than the least loaded one by at most this share of the group's cost. 0 and more.
    pub finish_slack: f64,
    /// Prefixes are computed twice if that wins so many times the seconds it costs. More splits
    /// less.
    pub split_gain: f64,
    /// As `split_gain`, until a burst has shown how much work comes at a time.
    pub first_split_gain: f64,
    /// How long the work of members that have not come counts as load, since the last that came.
    pub reservation: Duration,
    /// How long items are held back at most to be placed together with others.
    pub gather: Duration,
    /// How long a group without new members keeps its place.
    pub group_memory: Duration,
    /// Groups that are remembered at most; beyond that the longest unused are forgotten.
    pub max_groups: usize,
    /// Prefixes that are known of each replica at most; reports of more are ignored.
    pub max_prefixes: usize,
    /// How long a prefix that was computed counts as resident before a report says so.
    pub assumed_resident: Duration,
    /// How long a replica that joins takes until it gets its whole share; the first ones get it at
    /// once.
    pub slow_start: Duration,
    /// How long the load of the last burst says how much the next one brings.
    pub burst_memory: Duration,
}

// === impl PlacementSettings ===

impl PlacementSettings {
    pub(super) fn group_terms(&self) -> groups::Terms {
        let Self { reservation, group_memory: memory, max_groups: most, .. } = *self;
        groups::Terms { reservation, memory, most }
    }
}

impl Default for PlacementSettings {
    fn default() -> Self {
        Self {
            load_bound: 1.02,
            finish_slack: 0.1,
            split_gain: 1.5,
            first_split_gain: 4.0,
            reservation: Duration::from_secs(1),
            gather: Duration::from_millis(20),
            group_memory: Duration::from_mins(10),
            max_groups: 65_536,
            max_prefixes: 65_536,
            assumed_resident: Duration::from_secs(5),
            slow_start: Duration::from_secs(10),
            burst_memory: Duration::from_mins(10),
        }
    }
}
