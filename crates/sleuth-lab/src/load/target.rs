use std::time::Duration;

use super::Arrival;

/// What one attempt at an item came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Rewards.
    Valid {
        /// The model's version.
        version: String,
        /// Token rewards.
        rewards: usize,
        /// Token rewards that are exactly 0.0.
        zeros: usize,
        /// Of the whole response.
        response_reward: f32,
        /// Whether the server says that the batch did not sway the rewards.
        batch_invariant: bool,
        /// Attempts that the server answered with this one's computation.
        duplicates_joined: u64,
        /// Waited on the server.
        queue: Duration,
        /// Computed on the server.
        compute: Duration,
        /// Of all rewards: equal rewards have equal fingerprints.
        fingerprint: u64,
    },
    /// An answer that says why there are no rewards.
    Refused {
        /// The kind, of which there are few.
        class: String,
        /// The reason, of which there are few.
        reason: String,
        /// When to come again, if the server says so.
        retry_after: Option<Duration>,
        /// Whether coming again may help.
        retryable: bool,
    },
    /// No verdict will come.
    Lost {
        /// What happened.
        why: String,
    },
}

/// A verdict that nothing waited for.
#[derive(Clone, Debug, PartialEq)]
pub struct Stray {
    /// The item that it is for.
    pub arrival: Arrival,
    /// What it said.
    pub answer: Answer,
}

/// What is driven.
pub trait Target: Send + Sync + 'static {
    /// Sends an item and waits for what comes of it. Dropped unfinished when the run is over.
    fn score(&self, arrival: Arrival) -> impl Future<Output = Answer> + Send;

    /// The verdicts so far that nothing waited for, such as a second one of a stream for one item;
    /// asked once, at the end.
    fn strays(&self) -> Vec<Stray> {
        Vec::new()
    }
}
