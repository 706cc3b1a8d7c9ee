use std::time::Duration;

use sleuth_core::{
    ByteSpan, CacheUse, Covered, InvalidSpan, PolicyReward, Scored, SentenceReward, Timing,
    TokenReward,
};
use sleuth_proto::v1;

use crate::{Refusal, aggregation_from_wire};

/// Puts the messages of one item together again.
#[derive(Clone, Debug, Default)]
pub struct Assembly {
    of_policy: bool,
    tokens: Vec<TokenReward>,
    policy: Vec<PolicyReward>,
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
    /// For an item with policy tokens, or without.
    pub fn new(of_policy: bool) -> Self {
        Self { of_policy, ..Self::default() }
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        if self.of_policy { self.policy.len() } else { self.tokens.len() }
    }

    /// True for none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next scores. Those of tokens that are here already, as they come when an item is
    /// resumed, are passed over.
    pub fn push(&mut self, scores: &v1::Scores) -> Result<(), Unreadable> {
        let n = scores.start.len();
        if [scores.end.len(), scores.reward.len(), scores.logit.len()] != [n; 3]
            || (self.of_policy && scores.coverage.len() != n)
        {
            return Err(Unreadable::Columns);
        }
        let expected = u32::try_from(self.len()).unwrap_or(u32::MAX);
        if scores.first_token > expected {
            return Err(Unreadable::Gap { expected, found: scores.first_token });
        }
        let known = (expected - scores.first_token) as usize;
        for index in known.min(n)..n {
            self.take(scores, index)?;
        }
        Ok(())
    }

    /// What came after the first `read` tokens; one of the two is empty.
    pub fn since(&self, read: usize) -> (&[TokenReward], &[PolicyReward]) {
        let (tokens, policy) = (self.tokens.get(read..), self.policy.get(read..));
        (tokens.unwrap_or_default(), policy.unwrap_or_default())
    }

    fn take(&mut self, scores: &v1::Scores, index: usize) -> Result<(), Unreadable> {
        let (reward, logit) = (scores.reward[index], scores.logit[index]);
        let span =
            ByteSpan::try_new(scores.start[index], scores.end[index]).map_err(Unreadable::Span)?;
        let finite = reward.is_finite() && logit.is_finite();
        if !self.of_policy {
            if !finite {
                return Err(Unreadable::NotFinite);
            }
            self.tokens.push(TokenReward { span, reward, logit });
            return Ok(());
        }
        let coverage = scores.coverage[index];
        let is_covered = coverage > 0.0;
        if !(0.0..=1.0).contains(&coverage) || (is_covered && !finite) {
            return Err(Unreadable::NotFinite);
        }
        let covered = is_covered.then_some(Covered { reward, logit });
        self.policy.push(PolicyReward { span, covered, coverage });
        Ok(())
    }

    /// Ends the item with its verdict.
    pub fn finish(self, verdict: v1::Verdict) -> Result<Result<Scored, Refusal>, Unreadable> {
        let valid = match verdict.outcome.ok_or(Unreadable::Missing("outcome"))? {
            v1::verdict::Outcome::Invalid(invalid) => return Ok(Err(Refusal::from(invalid))),
            v1::verdict::Outcome::Valid(valid) => valid,
        };
        if usize::try_from(valid.tokens) != Ok(self.len()) {
            let found = self.len();
            return Err(Unreadable::TokenCount { expected: valid.tokens, found });
        }
        if !valid.reward.is_finite() || valid.sentences.iter().any(|s| !s.reward.is_finite()) {
            return Err(Unreadable::NotFinite);
        }
        Ok(Ok(Scored {
            tokens: self.tokens,
            policy: self.of_policy.then_some(self.policy),
            duplicates_joined: valid.duplicates_joined,
            sentences: valid.sentences.into_iter().map(sentence).collect::<Result<_, _>>()?,
            flagged: valid.flagged.into_iter().map(span).collect::<Result<_, _>>()?,
            reward: valid.reward,
            aggregation: aggregation_from_wire(valid.aggregation)
                .ok_or(Unreadable::Missing("aggregation"))?,
            version: verdict.version,
            batch_invariant: valid.batch_invariant,
            timing: verdict.timing.map(read_timing).unwrap_or_default(),
            cache: verdict.cache.map(read_cache_use).unwrap_or_default(),
        }))
    }
}

pub(crate) fn read_timing(wire: v1::Timing) -> Timing {
    Timing {
        prepare: Duration::from_micros(wire.prepare_micros),
        queue: Duration::from_micros(wire.queue_micros),
        compute: Duration::from_micros(wire.compute_micros),
    }
}

pub(crate) fn read_cache_use(wire: v1::CacheUse) -> CacheUse {
    CacheUse {
        prefix_positions_reused: wire.prefix_positions_reused,
        prefix_positions_computed: wire.prefix_positions_computed,
        vision_reused: wire.vision_reused,
    }
}

fn sentence(wire: v1::Sentence) -> Result<SentenceReward, Unreadable> {
    let span = span(wire.span.ok_or(Unreadable::Missing("sentences.span"))?)?;
    Ok(SentenceReward { span, reward: wire.reward })
}

pub(crate) fn span(wire: v1::Span) -> Result<ByteSpan, Unreadable> {
    ByteSpan::try_new(wire.start, wire.end).map_err(Unreadable::Span)
}
