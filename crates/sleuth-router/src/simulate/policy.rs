use std::fmt;
use std::time::Duration;

use super::{Arrival, DeviceCost};

/// A way to place items. Items are named by numbers that count up over the whole run.
pub trait Policy: fmt::Debug {
    /// For tables.
    fn name(&self) -> &'static str;

    /// A run begins: forget all of the one before.
    fn begin(&mut self, replicas: usize, cost: &DeviceCost);

    /// How long an item that has come may wait for others, to be placed together. Asked again when
    /// something comes or ends.
    fn patience(&mut self, _arrival: &Arrival, _now: Duration) -> Duration {
        Duration::ZERO
    }

    /// Which replica, of those there are, takes the item.
    fn place(&mut self, item: usize, arrival: &Arrival, now: Duration) -> usize;

    /// The same for items that have waited together.
    fn place_together(&mut self, waiting: &[(usize, &Arrival)], now: Duration) -> Vec<usize> {
        waiting.iter().map(|&(item, arrival)| self.place(item, arrival, now)).collect()
    }

    /// The item ended there.
    fn ended(&mut self, item: usize, replica: usize, now: Duration);

    /// A replica's report arrives.
    fn report(&mut self, _replica: usize, _load: &Load, _now: Duration) {}
}

/// What a replica reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Seconds that all it holds takes.
    pub queue: f64,
    /// Prefixes that came since the report before.
    pub added: Vec<u64>,
    /// Prefixes that left since.
    pub removed: Vec<u64>,
}
