use super::{Change, DropReason};
use crate::{ByteSpan, Failure, Scored};

/// What happens to an item while it is corrected, as it happens. In this order: `Scored` once; then,
/// for each round, a `Proposed` per candidate and afterwards a `Rescored` per candidate.
#[derive(Clone, Debug, PartialEq)]
pub enum CorrectEvent {
    /// The response as it came was scored.
    Scored {
        /// Its rewards.
        scored: Box<Scored>,
        /// Flagged tokens as spans of whole words.
        words: Vec<ByteSpan>,
    },
    /// A repair is to be scored.
    Proposed(Proposed),
    /// A repair was scored, or dropped unscored.
    Rescored(Rescored),
}

/// A proposal: a repair, or a prompt that asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// From 1.
    pub round: u32,
    /// From 0 within the round.
    pub candidate: u32,
    /// What it is.
    pub proposal: Proposal,
}

/// See [`Proposed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// A repaired response.
    Repair {
        /// The whole of it.
        response: String,
        /// The spans of the earlier response that it replaces.
        replaced: Vec<ByteSpan>,
    },
    /// A prompt for the caller's policy.
    Guidance(String),
}

/// What became of a repair.
#[derive(Clone, Debug, PartialEq)]
pub struct Rescored {
    /// As in the proposal.
    pub round: u32,
    /// As in the proposal.
    pub candidate: u32,
    /// Its rewards, where it was scored.
    pub scored: Option<Box<Scored>>,
    /// Why it could not be scored, where that was tried.
    pub failure: Option<Failure>,
    /// Why it was dropped; `None` where it replaces what was there.
    pub dropped: Option<DropReason>,
}

/// One repair of a correction, in short.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// From 1.
    pub round: u32,
    /// From 0 within the round.
    pub candidate: u32,
    /// Its aggregated reward, where it was scored.
    pub reward: Option<f32>,
    /// Its flagged tokens, where it was scored.
    pub flagged_tokens: Option<u32>,
    /// Why it was dropped; `None` where it was kept.
    pub dropped: Option<DropReason>,
}

/// The end of a correction.
#[derive(Clone, Debug, PartialEq)]
pub struct Correction {
    /// The response to use and its rewards; a failure where the item was never scored or was given up.
    pub outcome: Result<Corrected, Failure>,
    /// Rounds taken; a round that a corrector did not finish counts.
    pub rounds: u32,
    /// Every repair, in order.
    pub attempts: Vec<Attempt>,
}

/// A response that was corrected as far as it could be.
#[derive(Clone, Debug, PartialEq)]
pub struct Corrected {
    /// The response to use; as it came where no repair was kept.
    pub response: String,
    /// Its rewards.
    pub scored: Scored,
    /// The aggregated reward of the response as it came.
    pub reward_before: f32,
    /// How `response` differs from what came.
    pub changes: Vec<Change>,
    /// Repairs kept.
    pub kept: u32,
    /// Why the correction ended before its time: a corrector that failed, or the deadline. What was
    /// kept by then stands.
    pub stopped: Option<Failure>,
}

// === impl Correction ===

impl Correction {
    /// The end of an item that has no reward.
    pub fn failed(failure: Failure) -> Self {
        Self { outcome: Err(failure), rounds: 0, attempts: Vec::new() }
    }
}
