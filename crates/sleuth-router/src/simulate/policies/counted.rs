use std::time::Duration;

use super::Requests;
use crate::simulate::{Arrival, DeviceCost, Policy, Random};

/// One after the other.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    replicas: usize,
    next: usize,
}

/// Where the fewest requests are out.
#[derive(Clone, Debug, Default)]
pub struct LeastRequests(Requests);

/// Of two at random, the one with fewer requests out.
#[derive(Clone, Debug)]
pub struct PowerOfTwo {
    seed: u64,
    random: Random,
    requests: Requests,
}

// === impl RoundRobin ===

impl Policy for RoundRobin {
    fn name(&self) -> &'static str {
        "round robin"
    }

    fn begin(&mut self, replicas: usize, _cost: &DeviceCost) {
        *self = Self { replicas, next: 0 };
    }

    fn place(&mut self, _item: usize, _arrival: &Arrival, _now: Duration) -> usize {
        self.next = (self.next + 1) % self.replicas;
        self.next
    }

    fn ended(&mut self, _item: usize, _replica: usize, _now: Duration) {}
}

// === impl LeastRequests ===

impl Policy for LeastRequests {
    fn name(&self) -> &'static str {
        "least requests"
    }

    fn begin(&mut self, replicas: usize, _cost: &DeviceCost) {
        self.0 = Requests::new(replicas);
    }

    fn place(&mut self, _item: usize, _arrival: &Arrival, _now: Duration) -> usize {
        self.0.placed(self.0.least())
    }

    fn ended(&mut self, _item: usize, replica: usize, _now: Duration) {
        self.0.ended(replica);
    }
}

// === impl PowerOfTwo ===

impl PowerOfTwo {
    /// The same seed gives the same pairs.
    pub fn new(seed: u64) -> Self {
        Self { seed, random: Random::new(seed), requests: Requests::default() }
    }
}

impl Policy for PowerOfTwo {
    fn name(&self) -> &'static str {
        "power of two"
    }

    fn begin(&mut self, replicas: usize, _cost: &DeviceCost) {
        self.random = Random::new(self.seed);
        self.requests = Requests::new(replicas);
    }

    fn place(&mut self, _item: usize, _arrival: &Arrival, _now: Duration) -> usize {
        let count = self.requests.0.len();
        let one = self.random.below(count);
        // Another than the first.
        let two = (one + 1 + self.random.below(count.saturating_sub(1))) % count;
        let fewer = self.requests.0[one] <= self.requests.0[two];
        self.requests.placed(if fewer { one } else { two })
    }

    fn ended(&mut self, _item: usize, replica: usize, _now: Duration) {
        self.requests.ended(replica);
    }
}
