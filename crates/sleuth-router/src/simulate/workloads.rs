mod broke_peers;
mod steps;
mod traffic;

use super::{Arrival, DeviceCost, DeviceLimits, Random, Workload};

/// Groups of equal size whose items differ in length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Groups of a step.
    pub groups: usize,
    /// Items of a group.
    pub size: u32,
    /// Mean tokens of a response; the hint that clients give.
    pub tokens: f64,
    /// Standard deviation of the logarithm of tokens: 0 all alike, 1 a heavy tail.
    pub sigma: f64,
    /// Whether clients tell how large a group is and how long responses are.
    pub hints: bool,
}

/// Positions of an image of 224 x 224 and a prompt.
const PREFIX: u32 = 288;
/// No response is longer.
const LONGEST: f64 = 1024.0;

// === impl Shape ===

impl Shape {
    /// 64 groups of 8 responses of 128 tokens.
    pub const STEP: Self = Self { groups: 64, size: 8, tokens: 128.0, sigma: 0.0, hints: true };

    /// A step's items, group by group, all at once. `first` is its first prefix, which no other
    /// step has.
    pub fn step(&self, first: u64, random: &mut Random) -> Vec<Arrival> {
        (0..self.groups as u64).flat_map(|group| self.group(first + group, random)).collect()
    }

    /// A group's items at once.
    pub fn group(&self, prefix: u64, random: &mut Random) -> Vec<Arrival> {
        let hint = |value: u32| if self.hints { value } else { 0 };
        // A template and a question before the response; the image is not in the text.
        let question = 8 + random.below(24) as u32;
        let item = |random: &mut Random| {
            let tokens = random.log_normal(self.tokens, self.sigma).clamp(4.0, LONGEST) as u32;
            let own = random.bits();
            Arrival {
                prefix,
                prefix_positions: PREFIX,
                images: 1,
                response_tokens: tokens,
                expected_tokens: hint(self.tokens as u32),
                group: Some(prefix),
                group_size: hint(self.size),
                text: vec![(0, 16), (prefix + 1, question), (own, tokens)],
                ..Arrival::default()
            }
        };
        (0..self.size).map(|_| item(random)).collect()
    }
}

/// What is compared: training steps, traffic by the clock, and what broke peers.
pub fn workloads(seed: u64, cost: &DeviceCost) -> Vec<Workload> {
    let mut all = steps::all(seed);
    all.extend(traffic::all(seed, cost));
    all.extend(broke_peers::all(seed, cost));
    all
}

fn closed(name: &str, replicas: usize, steps: Vec<Vec<Arrival>>) -> Workload {
    Workload { steps, ..Workload::recorded(name, replicas, Vec::new()) }
}

fn cache_of(prefixes: usize, positions: u32) -> DeviceLimits {
    DeviceLimits { cache_positions: prefixes * positions as usize, ..DeviceLimits::default() }
}
