/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Of the workload.
    pub workload: String,
    /// Of the policy.
    pub policy: &'static str,
    /// Seconds until all had ended, over all steps.
    pub makespan: f64,
    /// Seconds that no placement could go below; see [`Outcome::ratio`].
    pub lower_bound: f64,
    /// Median seconds from arrival to end.
    pub p50: f64,
    /// Seconds from arrival to end of the worst hundredth.
    pub p99: f64,
    /// Share of items whose prefix another item had computed, or computed in the same batch.
    pub hit_rate: f64,
    /// Seconds of work of all replicas.
    pub work: f64,
    /// Batches.
    pub batches: usize,
    /// Prefixes computed.
    pub computations: usize,
    /// Distinct prefixes, each of which has to be computed once.
    pub prefixes: usize,
    /// Most seconds of work of a replica, against the mean.
    pub imbalance: f64,
    /// Items of the replica that got the fewest.
    pub fewest: usize,
    /// Items of the replica that got the most.
    pub most: usize,
    /// Items that ended, each of them once.
    pub ended: usize,
}

// === impl Outcome ===

impl Outcome {
    /// Makespan over lower bound, at least 1.
    ///
    /// The bound of a step is the larger of two. First, for each time `t` of the step: `t`, plus
    /// the work that comes at `t` or later, spread evenly over all replicas by their speeds. Work
    /// is each item's own tokens, each prefix once in the whole run, and a batch's fixed time for
    /// as many batches as tokens and items must make, full ones. Second, the longest piece that
    /// cannot be split: from the arrival of an item, or from when its prefix can be there, a batch
    /// with its own tokens on the fastest replica; items that wait for each other count as one
    /// piece. Bounds of steps add up.
    pub fn ratio(&self) -> f64 {
        if self.lower_bound > 0.0 { self.makespan / self.lower_bound } else { 1.0 }
    }
}
