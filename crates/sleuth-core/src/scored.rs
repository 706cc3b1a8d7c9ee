use std::time::Duration;

use crate::{Aggregation, ByteSpan, PolicyReward, Realignment, SentenceRule};

/// The reward of one token of the reward model's tokenizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenReward {
    /// Where the token stands in the response.
    pub span: ByteSpan,
    /// Probability that the token is grounded in the image, 0..1: `σ(logit)`.
    pub reward: f32,
    /// The head's output, finite.
    pub logit: f32,
}

/// The aggregated reward of one sentence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SentenceReward {
    /// Where the sentence stands in the response.
    pub span: ByteSpan,
    /// Aggregated by the item's [`Aggregation`].
    pub reward: f32,
}

/// What a caller may choose per item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How tokens aggregate to sentences and to the response.
    pub aggregation: Aggregation,
    /// How sentences are cut.
    pub sentences: SentenceRule,
    /// A token is flagged where its reward is not above this; `None` takes the model's own.
    pub threshold: Option<f32>,
    /// How policy tokens take their rewards from the reward model's.
    pub realignment: Realignment,
}

/// A scored response.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Rewards in token order; at least one, but none where a client asked for policy tokens.
    pub tokens: Vec<TokenReward>,
    /// Rewards per policy token, where the caller gave some.
    pub policy: Option<Vec<PolicyReward>>,
    /// Sentences in order; at least one.
    pub sentences: Vec<SentenceReward>,
    /// Runs of adjacent tokens whose reward is not above the threshold.
    pub flagged: Vec<ByteSpan>,
    /// The response's reward.
    pub reward: f32,
    /// How `reward` was aggregated.
    pub aggregation: Aggregation,
    /// The version that scored.
    pub version: String,
    /// Whether the same bits come back whatever shares the batch.
    pub batch_invariant: bool,
    /// Where the time went.
    pub timing: Timing,
    /// What need not be computed.
    pub cache: CacheUse,
    /// Requests that this one computation answered, beyond the first.
    pub duplicates_joined: u64,
}

/// Where an item's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Decoding, resizing and tokenising.
    pub prepare: Duration,
    /// From submission to the start of the batch.
    pub queue: Duration,
    /// The batch's forward pass.
    pub compute: Duration,
}

/// What was held already when an item ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Image and prompt positions whose keys and values were held, or computed for another item.
    pub prefix_positions_reused: u32,
    /// Image and prompt positions computed for this item.
    pub prefix_positions_computed: u32,
    /// Whether the vision tower's output was held.
    pub vision_reused: bool,
}

/// What a loaded model is.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelCard {
    /// The model folder's name.
    pub name: String,
    /// Digest over config, weights, tokenizer, adapter and types.
    pub version: String,
    /// Such as `PaliGemmaForConditionalGeneration`.
    pub architecture: String,
    /// The adapter's name, if one is loaded.
    pub adapter: Option<String>,
    /// The prompt used when a request has none.
    pub prompt: String,
    /// The threshold used when a request has none.
    pub threshold: f32,
    /// Whether response tokens see only what precedes them.
    pub causal_suffix: bool,
    /// Longest prompt, in tokens.
    pub max_prompt_tokens: u32,
    /// Longest response, in tokens.
    pub max_response_tokens: u32,
}

// === impl TokenReward ===

impl TokenReward {
    /// From the head's output.
    pub fn from_logit(span: ByteSpan, logit: f32) -> Self {
        let reward = (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32;
        Self { span, reward, logit }
    }

    /// TLDR's bit: good where the reward is above the threshold.
    pub fn is_good(&self, threshold: f32) -> bool {
        self.reward > threshold
    }
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            aggregation: Aggregation::MeanLog,
            sentences: SentenceRule::Period,
            threshold: None,
            realignment: Realignment::Min,
        }
    }
}

// === impl Scored ===

impl Scored {
    /// Runs of adjacent tokens whose reward is not above `threshold`, as byte spans.
    pub fn flagged_spans(tokens: &[TokenReward], threshold: f32) -> Vec<ByteSpan> {
        let mut out: Vec<ByteSpan> = Vec::new();
        let mut run: Option<ByteSpan> = None;
        for token in tokens {
            run = match (run, token.is_good(threshold)) {
                (None, true) => None,
                (None, false) => Some(token.span),
                (Some(open), true) => {
                    out.push(open);
                    None
                }
                (Some(open), false) => Some(open.to(token.span)),
            };
        }
        out.extend(run);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(start: u32, end: u32, logit: f32) -> TokenReward {
        TokenReward::from_logit(ByteSpan::try_new(start, end).unwrap(), logit)
    }

    #[test]
    fn adjacent_flagged_tokens_become_one_span() {
        let tokens = [
            token(0, 2, 1.0),
            token(2, 5, -1.0),
            token(5, 9, -2.0),
            token(9, 10, 4.0),
            token(10, 12, -1.0),
        ];
        let got = Scored::flagged_spans(&tokens, 0.5);
        assert_eq!(got, vec![ByteSpan::try_new(2, 9).unwrap(), ByteSpan::try_new(10, 12).unwrap()]);
    }

    #[test]
    fn a_reward_at_the_threshold_is_not_good() {
        assert!(!token(0, 1, 0.0).is_good(0.5));
    }
}
