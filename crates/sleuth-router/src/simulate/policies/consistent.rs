use std::time::Duration;

use super::Requests;
use crate::simulate::random::mix;
use crate::simulate::{Arrival, DeviceCost, Policy};

/// By the hash of the prefix on a ring; with a bound, the next on the ring whose requests are at
/// most so many times the mean (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with
/// Bounded Loads").
#[derive(Clone, Debug)]
pub struct ConsistentHashing {
    bound: Option<f64>,
    ring: Vec<(u64, usize)>,
    requests: Requests,
}

/// Places of each replica on the ring.
const POINTS: u64 = 160;

// === impl ConsistentHashing ===

impl ConsistentHashing {
    /// Without a bound load is not looked at. A bound is above 1.
    pub fn new(bound: Option<f64>) -> Self {
        Self { bound, ring: Vec::new(), requests: Requests::default() }
    }
}

impl Policy for ConsistentHashing {
    fn name(&self) -> &'static str {
        if self.bound.is_some() { "consistent hashing, bounded" } else { "consistent hashing" }
    }

    fn begin(&mut self, replicas: usize, _cost: &DeviceCost) {
        let point = |replica: usize, number| (mix(mix(replica as u64 + 1) ^ number), replica);
        let points = |replica| (0..POINTS).map(move |number| point(replica, number));
        self.ring = (0..replicas).flat_map(points).collect();
        self.ring.sort_unstable();
        self.requests = Requests::new(replicas);
    }

    fn place(&mut self, _item: usize, arrival: &Arrival, _now: Duration) -> usize {
        let key = mix(arrival.prefix);
        let first = self.ring.partition_point(|&(at, _)| at < key);
        let out = self.requests.0.iter().sum::<usize>() + 1;
        let mean = out as f64 / self.requests.0.len() as f64;
        let most = self.bound.map_or(f64::INFINITY, |bound| (bound * mean).ceil());
        let clockwise = self.ring[first..].iter().chain(&self.ring[..first]);
        let free = |replica: usize| (self.requests.0[replica] as f64) < most;
        let chosen = clockwise.map(|&(_, replica)| replica).find(|&replica| free(replica));
        let chosen = chosen.unwrap_or_else(|| self.requests.least());
        self.requests.placed(chosen)
    }

    fn ended(&mut self, _item: usize, replica: usize, _now: Duration) {
        self.requests.ended(replica);
    }
}
