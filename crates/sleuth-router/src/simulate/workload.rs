use std::time::Duration;

/// An item of a workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arrival {
    /// Since its step began; since the end of `after`, where there is one.
    pub at: Duration,
    /// Place in the step of an earlier item that must have ended.
    pub after: Option<usize>,
    /// Names the image and prompt.
    pub prefix: u64,
    /// Of image and prompt.
    pub prefix_positions: u32,
    /// Images of the prefix.
    pub images: u32,
    /// The item's own tokens.
    pub response_tokens: u32,
    /// What the group's first item says of a member's tokens; 0: nothing.
    pub expected_tokens: u32,
    /// Names the group, if there is one.
    pub group: Option<u64>,
    /// What the group's items say of its size; 0: nothing.
    pub group_size: u32,
    /// The text that a router may look at: names and lengths of its pieces from the start. What two
    /// texts share are their first equal pieces.
    pub text: Vec<(u64, u32)>,
}

/// What devices take for a batch, as the engine measures it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceCost {
    /// Seconds for a batch as such.
    pub batch_seconds: f64,
    /// Seconds for a position of a prefix that is not held.
    pub seconds_per_prefix_position: f64,
    /// Seconds for a token of a response.
    pub seconds_per_response_token: f64,
    /// Seconds to encode an image of a prefix that is not held.
    pub seconds_per_image: f64,
}

/// Bounds of each device. All at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Items of a batch at most.
    pub batch_items: usize,
    /// Tokens of a batch at most, prefixes that it computes included.
    pub batch_tokens: usize,
    /// Positions of prefixes that are held.
    pub cache_positions: usize,
}

/// What is to be replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// For tables.
    pub name: String,
    /// How fast each replica is, against the cost model; 1 is as it says. Not empty.
    pub speeds: Vec<f64>,
    /// Of all replicas.
    pub limits: DeviceLimits,
    /// Each step begins when the one before has ended.
    pub steps: Vec<Vec<Arrival>>,
    /// Items that are out at most; the others wait with whoever sends them. 0: no limit.
    pub concurrency: usize,
    /// Items come by a clock, so that it is their latency that tells, not when all is done.
    pub is_open: bool,
}

// === impl DeviceCost ===

impl DeviceCost {
    /// Seconds for the item's own tokens.
    pub fn item(&self, tokens: u32) -> f64 {
        self.seconds_per_response_token * f64::from(tokens)
    }

    /// Seconds for the prefix where it is not held.
    pub fn prefix(&self, arrival: &Arrival) -> f64 {
        self.seconds_per_prefix_position * f64::from(arrival.prefix_positions)
            + self.seconds_per_image * f64::from(arrival.images)
    }
}

impl Default for DeviceCost {
    /// An accelerator with a model of 3 billion parameters, by orders of magnitude: to compare
    /// policies where nothing was measured.
    fn default() -> Self {
        Self {
            batch_seconds: 0.003,
            seconds_per_prefix_position: 20e-6,
            seconds_per_response_token: 20e-6,
            seconds_per_image: 0.002,
        }
    }
}

// === impl DeviceLimits ===

impl Default for DeviceLimits {
    /// As the engine's, and a cache of 200 prefixes of 288 positions.
    fn default() -> Self {
        Self { batch_items: 64, batch_tokens: 8192, cache_positions: 200 * 288 }
    }
}

// === impl Workload ===

impl Workload {
    /// Items that were recorded, over as many equal replicas.
    pub fn recorded(name: impl Into<String>, replicas: usize, arrivals: Vec<Arrival>) -> Self {
        Self {
            name: name.into(),
            speeds: vec![1.0; replicas.max(1)],
            limits: DeviceLimits::default(),
            steps: vec![arrivals],
            concurrency: 0,
            is_open: false,
        }
    }

    /// Items in all.
    pub fn items(&self) -> usize {
        self.steps.iter().map(Vec::len).sum()
    }

    /// Distinct prefixes.
    pub fn prefixes(&self) -> usize {
        let all = self.steps.iter().flatten().map(|arrival| arrival.prefix);
        all.collect::<std::collections::HashSet<u64>>().len()
    }
}
