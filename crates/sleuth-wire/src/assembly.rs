use std::time::Duration;

use sleuth_core::{ByteSpan, CacheUse, InvalidSpan, Scored, SentenceReward, Timing, TokenReward};
use sleuth_proto::v1;

use crate::{Refusal, aggregation_from_wire};

/// Puts the messages of one item together again.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    tokens: Vec<TokenReward>,
}

/// A server's message that breaks the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Columns of one message differ in length.
    #[error("columns of a message differ in length")]
    Columns,
    /// A message starts at another token than the next.
    #[error("scores start at token {found} where token {expected} is next")]
    Gap {
        /// The next token.
        expected: u32,
        /// What the message says.
        found: u32,
    },
    /// A number that must be finite is not.
    #[error("a reward is not a finite number")]
    NotFinite,
    /// A span ends before it starts.
    #[error("a span is reversed")]
    Span(#[source] InvalidSpan),
    /// A message lacks what it must have.
    #[error("`{0}` is absent")]
    Missing(&'static str),
    /// A verdict counts other tokens than came.
    #[error("the verdict counts {expected} tokens where {found} came")]
    TokenCount {
        /// What the verdict says.
        expected: u32,
        /// What came.
        found: usize,
    },
}

// === impl Assembly ===

impl Assembly {
    /// Takes the next scores. Coverage 0 is not read: this is for items without policy tokens.
    pub fn push(&mut self, scores: &v1::Scores) -> Result<(), Unreadable> {
        let n = scores.start.len();
        if [scores.end.len(), scores.reward.len(), scores.logit.len()] != [n; 3] {
            return Err(Unreadable::Columns);
        }
        let expected = u32::try_from(self.tokens.len()).unwrap_or(u32::MAX);
        if scores.first_token != expected {
            return Err(Unreadable::Gap { expected, found: scores.first_token });
        }
        for index in 0..n {
            let (reward, logit) = (scores.reward[index], scores.logit[index]);
            if !reward.is_finite() || !logit.is_finite() {
                return Err(Unreadable::NotFinite);
            }
            let span = ByteSpan::try_new(scores.start[index], scores.end[index]);
            self.tokens.push(TokenReward { span: span.map_err(Unreadable::Span)?, reward, logit });
        }
        Ok(())
    }

    /// Ends the item with its verdict.
    pub fn finish(self, verdict: v1::Verdict) -> Result<Result<Scored, Refusal>, Unreadable> {
        let valid = match verdict.outcome.ok_or(Unreadable::Missing("outcome"))? {
            v1::verdict::Outcome::Invalid(invalid) => return Ok(Err(Refusal::from(invalid))),
            v1::verdict::Outcome::Valid(valid) => valid,
        };
        if usize::try_from(valid.tokens) != Ok(self.tokens.len()) {
            let found = self.tokens.len();
            return Err(Unreadable::TokenCount { expected: valid.tokens, found });
        }
        if !valid.reward.is_finite() || valid.sentences.iter().any(|s| !s.reward.is_finite()) {
            return Err(Unreadable::NotFinite);
        }
        let timing = verdict.timing.unwrap_or_default();
        let cache = verdict.cache.unwrap_or_default();
        Ok(Ok(Scored {
            tokens: self.tokens,
            sentences: valid.sentences.into_iter().map(sentence).collect::<Result<_, _>>()?,
            flagged: valid.flagged.into_iter().map(span).collect::<Result<_, _>>()?,
            reward: valid.reward,
            aggregation: aggregation_from_wire(valid.aggregation)
                .ok_or(Unreadable::Missing("aggregation"))?,
            version: verdict.version,
            batch_invariant: valid.batch_invariant,
            timing: Timing {
                prepare: Duration::from_micros(timing.prepare_micros),
                queue: Duration::from_micros(timing.queue_micros),
                compute: Duration::from_micros(timing.compute_micros),
            },
            cache: CacheUse {
                prefix_positions_reused: cache.prefix_positions_reused,
                prefix_positions_computed: cache.prefix_positions_computed,
                vision_reused: cache.vision_reused,
            },
        }))
    }
}

fn sentence(wire: v1::Sentence) -> Result<SentenceReward, Unreadable> {
    let span = span(wire.span.ok_or(Unreadable::Missing("sentences.span"))?)?;
    Ok(SentenceReward { span, reward: wire.reward })
}

fn span(wire: v1::Span) -> Result<ByteSpan, Unreadable> {
    ByteSpan::try_new(wire.start, wire.end).map_err(Unreadable::Span)
}
