use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Requests;
use crate::simulate::random::mix;
use crate::simulate::{Arrival, DeviceCost, Policy};

/// As the cache-aware policy of SGLang's router (`policies/cache_aware.rs`), with its thresholds.
///
/// If requests out differ by more than 64 and by more than 1.5 times, the fewest take the request.
/// Else, if more than 0.3 of the text matches what some replica was sent before, the replica of
/// the longest match. Else as [`OnMiss`] says. What was sent where is remembered in one tree of
/// texts; the router's is cut back now and then, this one is not, as no run is that long.
#[derive(Clone, Debug)]
pub struct CacheAware {
    on_miss: OnMiss,
    requests: Requests,
    /// By the hash of a text's beginning, who was sent it.
    tree: HashMap<u64, BTreeMap<u64, usize>>,
    /// Tokens of the tree that are each replica's.
    sizes: Vec<usize>,
}

/// Where a text goes that matches too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMiss {
    /// To the replica that was sent the least text, as the router did first.
    SmallestTree,
    /// To the one with the fewest requests out, as it does since.
    LeastRequests,
}

const ABSOLUTE: usize = 64;
const RELATIVE: f64 = 1.5;
const MATCH: f64 = 0.3;

// === impl CacheAware ===

impl CacheAware {
    /// Knows nothing yet.
    pub fn new(on_miss: OnMiss) -> Self {
        Self { on_miss, requests: Requests::default(), tree: HashMap::new(), sizes: Vec::new() }
    }

    /// The share of a text that matches, and who was sent that.
    fn longest_match(&self, arrival: &Arrival) -> (f64, usize) {
        let all: u32 = arrival.text.iter().map(|piece| piece.1).sum();
        let (mut matched, mut owner) = (0, 0);
        for (node, tokens) in nodes(arrival) {
            // Which of several owners is arbitrary there too, but always the same.
            let Some(first) = self.tree.get(&node).and_then(|owners| owners.values().next()) else {
                break;
            };
            matched += tokens;
            owner = *first;
        }
        (f64::from(matched) / f64::from(all.max(1)), owner)
    }

    fn insert(&mut self, arrival: &Arrival, replica: usize) {
        for (node, tokens) in nodes(arrival) {
            let owners = self.tree.entry(node).or_default();
            if owners.insert(mix(node ^ mix(replica as u64 + 1)), replica).is_none() {
                self.sizes[replica] += tokens as usize;
            }
        }
    }
}

impl Policy for CacheAware {
    fn name(&self) -> &'static str {
        match self.on_miss {
            OnMiss::SmallestTree => "cache-aware, smallest tree",
            OnMiss::LeastRequests => "cache-aware, least requests",
        }
    }

    fn begin(&mut self, replicas: usize, _cost: &DeviceCost) {
        self.requests = Requests::new(replicas);
        self.tree.clear();
        self.sizes = vec![0; replicas];
    }

    fn place(&mut self, _item: usize, arrival: &Arrival, _now: Duration) -> usize {
        let most = self.requests.0.iter().copied().max().unwrap_or(0);
        let least = self.requests.0.iter().copied().min().unwrap_or(0);
        let is_uneven = most - least > ABSOLUTE && most as f64 > least as f64 * RELATIVE;
        let (matched, owner) = self.longest_match(arrival);
        let replica = if is_uneven {
            self.requests.least()
        } else if matched > MATCH {
            owner
        } else if self.on_miss == OnMiss::SmallestTree {
            (0..self.sizes.len()).min_by_key(|&replica| self.sizes[replica]).unwrap_or(0)
        } else {
            self.requests.least()
        };
        self.insert(arrival, replica);
        self.requests.placed(replica)
    }

    fn ended(&mut self, _item: usize, replica: usize, _now: Duration) {
        self.requests.ended(replica);
    }
}

/// The beginnings of a text, piece by piece: a hash of all of it, and the piece's tokens.
fn nodes(arrival: &Arrival) -> impl Iterator<Item = (u64, u32)> {
    arrival.text.iter().scan(0, |hash, &(piece, tokens)| {
        *hash = mix(*hash ^ mix(piece).rotate_left(17));
        Some((*hash, tokens))
    })
}
