use std::time::Duration;

/// What a batch computes, in GFLOP.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Matrix products with weights: linear in rows.
    pub linear: f64,
    /// Products of queries with keys, and of weights with values: rows times context.
    pub attention: f64,
    /// The image encoder.
    pub vision: f64,
}

/// Predicts how long a batch takes, and learns from what batches took: recursive least squares on
/// the relative error, so that a small batch counts as much as a large one.
///
/// Invariants
/// - A prediction is finite and not negative, and more work never takes less: estimates that came
///   out negative count as 0.
/// - A batch that took far longer than it should moves the estimates as little as one that is
///   at the edge of the usual error; if that goes on, it becomes the usual error.
#[derive(Clone, Debug)]
pub(crate) struct CostModel {
    /// Of the prior.
    gflop_per_second: f64,
    /// Of a batch as such, in milliseconds, and of each kind of work, as multiples of the prior.
    estimates: Features,
    /// How far they may be off.
    covariance: [Features; N],
    error: f64,
    learned: u32,
}

const N: usize = 4;
type Features = [f64; N];

/// A batch as such costs nothing until shown otherwise, and all work runs at the given rate.
const PRIOR: Features = [0.0, 1.0, 1.0, 1.0];
/// How far from the prior the estimates may be, squared. Also what they may be forgotten to.
const PRIOR_VARIANCE: f64 = 1e6;
/// Weight of an observation against the one after it: the last hundred count, and the fewer the
/// larger the error is, as what was seen before a change explains nothing after it.
const LEAST_MEMORY: f64 = 0.9;
const MOST_MEMORY: f64 = 0.99;
/// Weight of a new error against the mean of the old ones.
const ERROR_WEIGHT: f64 = 0.05;
/// Observations beyond this multiple of the usual error count for less.
const USUAL: f64 = 3.0;
const LEAST_USUAL: f64 = 0.1;
/// No error counts for more than this in the mean, which would take long to forget it.
const WORST_ERROR: f64 = 10.0;
/// No batch tells more of a kind of work than one that runs so much faster than the prior has it:
/// otherwise one mistake could not be forgotten.
const LARGEST_FEATURE: f64 = 100.0;
/// Seconds that no work takes.
const LONGEST: f64 = 1e12;

// === impl Work ===

impl Work {
    /// What stands before the estimates: seconds, if the prior is right.
    fn features(&self, gflop_per_second: f64) -> Features {
        // `max` takes the number where one side is NaN.
        let seconds = |gflop: f64| (gflop.max(0.0) / gflop_per_second).min(LONGEST);
        let Self { linear, attention, vision } = *self;
        [1e-3, seconds(linear), seconds(attention), seconds(vision)]
    }
}

// === impl CostModel ===

impl CostModel {
    /// Believes in `gflop_per_second` until it has measured something.
    pub(crate) fn new(gflop_per_second: f64) -> Self {
        Self {
            gflop_per_second: gflop_per_second.max(0.0).clamp(1e-3, 1e12),
            estimates: PRIOR,
            covariance: diagonal(),
            error: 0.0,
            learned: 0,
        }
    }

    /// How long a batch should take.
    pub(crate) fn predict(&self, work: &Work) -> Duration {
        Duration::try_from_secs_f64(self.seconds(work)).unwrap_or(Duration::MAX)
    }

    /// How much longer a batch should take for this work, beside what a batch takes as such.
    pub(crate) fn marginal(&self, work: &Work) -> Duration {
        let mut estimates = self.estimates.map(|estimate| estimate.max(0.0));
        estimates[0] = 0.0;
        let seconds = dot(&work.features(self.gflop_per_second), &estimates);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// The mean of |predicted - measured| / measured, where later batches count for more; 0 before
    /// the first.
    pub(crate) fn error(&self) -> f64 {
        self.error
    }

    /// Takes note of how long a batch took. Not for one that failed, which took too little.
    pub(crate) fn learn(&mut self, work: &Work, measured: Duration) {
        let (measured, predicted) = (measured.as_secs_f64(), self.seconds(work));
        // `min` takes the number also where a clock too coarse to see the batch gives 0 / 0.
        let error = ((predicted - measured).abs() / measured).min(WORST_ERROR);
        self.update(&work.features(self.gflop_per_second), measured, predicted);
        self.bound();
        // A plain mean first, so that the start does not weigh for long.
        let weight = ERROR_WEIGHT.max(1.0 / (f64::from(self.learned) + 1.0));
        self.error += weight * (error - self.error);
        self.learned = self.learned.saturating_add(1);
    }

    fn seconds(&self, work: &Work) -> f64 {
        let estimates = self.estimates.map(|estimate| estimate.max(0.0));
        dot(&work.features(self.gflop_per_second), &estimates)
    }

    /// Least squares on the error relative to `measured`. Relative to `predicted` where that is
    /// more, as otherwise a batch that seems ten times as fast outweighs a hundred others.
    fn update(&mut self, features: &Features, measured: f64, predicted: f64) {
        let largest = features.iter().copied().fold(0.0, f64::max);
        let scale = measured.max(predicted).max(largest / LARGEST_FEATURE);
        let features = &features.map(|feature| feature / scale);
        let innovation = measured / scale - dot(features, &self.estimates);
        // Huber's weights: beyond what is usual, the pull on the estimates grows no more.
        let usual = (USUAL * self.error).max(LEAST_USUAL);
        let weight = (usual / innovation.abs()).min(1.0);
        let memory = (1.0 - 0.05 * self.error).clamp(LEAST_MEMORY, MOST_MEMORY);
        let spread = self.covariance.map(|row| dot(&row, features));
        let total = memory / weight + dot(&spread, features);
        for (estimate, spread) in self.estimates.iter_mut().zip(spread) {
            *estimate += spread / total * innovation;
        }
        for (row, a) in self.covariance.iter_mut().zip(spread) {
            for (cell, b) in row.iter_mut().zip(spread) {
                *cell = (*cell - a * b / total) / memory;
            }
        }
    }

    /// Keeps what batches do not show from being forgotten without end. Starts anew should the
    /// numbers ever leave what a float can hold, as nothing else would bring them back.
    fn bound(&mut self) {
        for i in 0..N {
            let variance = self.covariance[i][i];
            if variance > PRIOR_VARIANCE {
                // A row and its column together, so that the matrix stays a covariance.
                let scale = (PRIOR_VARIANCE / variance).sqrt();
                self.covariance[i].iter_mut().for_each(|cell| *cell *= scale);
                self.covariance.iter_mut().for_each(|row| row[i] *= scale);
            }
        }
        let is_finite = |cells: &Features| cells.iter().all(|cell| cell.is_finite());
        if !(is_finite(&self.estimates) && self.covariance.iter().all(is_finite)) {
            (self.estimates, self.covariance) = (PRIOR, diagonal());
        }
    }
}

fn diagonal() -> [Features; N] {
    std::array::from_fn(|i| std::array::from_fn(|j| if i == j { PRIOR_VARIANCE } else { 0.0 }))
}

fn dot(a: &Features, b: &Features) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests;
