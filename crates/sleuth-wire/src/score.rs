use std::ops::Range;

use sleuth_core::{
    ByteSpan, Covered, ErrorClass, Failure, PolicyReward, Reason, Scored, TokenReward,
};
use sleuth_proto::v1;

use crate::{Place, aggregation_to_wire, class_to_wire};

/// Checks what may become a `Valid`: at least one token, every number finite. What another server
/// gave per policy token has none of the model's own.
pub fn sound(scored: &Scored) -> Result<(), Failure> {
    if scored.tokens.is_empty() && scored.policy.as_ref().is_none_or(Vec::is_empty) {
        let detail = "the model gave no tokens";
        return Err(Failure::new(ErrorClass::ModelFailure, Reason::WORKER_FAILED, detail));
    }
    let tokens = scored.tokens.iter().all(|t| t.reward.is_finite() && t.logit.is_finite());
    let sentences = scored.sentences.iter().all(|s| s.reward.is_finite());
    let policy = scored.policy.iter().flatten().all(|t| {
        t.covered.map_or(t.coverage == 0.0, |c| c.reward.is_finite() && c.logit.is_finite())
    });
    if tokens && policy && sentences && scored.reward.is_finite() {
        return Ok(());
    }
    let detail = "the model gave a number that is not finite";
    Err(Failure::new(ErrorClass::ModelFailure, Reason::NOT_FINITE, detail))
}

/// What an item's `Scores` are of.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// The reward model's tokens.
    Model(&'a [TokenReward]),
    /// The policy's tokens.
    Policy(&'a [PolicyReward]),
}

/// Rewards as messages of at most `tokens_per_message` tokens (at least 1), in order; `first` is
/// the place of the first among the item's tokens.
pub fn scores<'a>(
    key: Option<&v1::Key>,
    rows: Rows<'a>,
    first: usize,
    tokens_per_message: usize,
) -> impl Iterator<Item = v1::Scores> + use<'a> {
    let (step, key) = (tokens_per_message.max(1), key.cloned());
    (0..rows.len()).step_by(step).map(move |at| {
        let range = at..(at + step).min(rows.len());
        let first_token = u32::try_from(first + at).unwrap_or(u32::MAX);
        v1::Scores { key: key.clone(), first_token, ..rows.columns(range) }
    })
}

// === impl Rows ===

impl<'a> Rows<'a> {
    /// What the caller of this item asked for.
    pub fn of(scored: &'a Scored) -> Self {
        scored.policy.as_deref().map_or(Self::Model(&scored.tokens), Self::Policy)
    }

    /// Tokens.
    pub const fn len(self) -> usize {
        match self {
            Self::Model(tokens) => tokens.len(),
            Self::Policy(tokens) => tokens.len(),
        }
    }

    /// True for no tokens.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    fn columns(self, range: Range<usize>) -> v1::Scores {
        match self {
            Self::Model(tokens) => {
                let tokens = &tokens[range];
                v1::Scores {
                    start: tokens.iter().map(|t| t.span.start()).collect(),
                    end: tokens.iter().map(|t| t.span.end()).collect(),
                    reward: tokens.iter().map(|t| t.reward).collect(),
                    logit: tokens.iter().map(|t| t.logit).collect(),
                    coverage: vec![1.0; tokens.len()],
                    ..v1::Scores::default()
                }
            }
            Self::Policy(tokens) => {
                let tokens = &tokens[range];
                let nan = Covered { reward: f32::NAN, logit: f32::NAN };
                let covered = |t: &PolicyReward| t.covered.unwrap_or(nan);
                v1::Scores {
                    start: tokens.iter().map(|t| t.span.start()).collect(),
                    end: tokens.iter().map(|t| t.span.end()).collect(),
                    reward: tokens.iter().map(|t| covered(t).reward).collect(),
                    logit: tokens.iter().map(|t| covered(t).logit).collect(),
                    coverage: tokens.iter().map(|t| t.coverage).collect(),
                    ..v1::Scores::default()
                }
            }
        }
    }
}

/// The verdict on a [`sound`] item.
pub fn valid(key: Option<v1::Key>, scored: &Scored) -> v1::Verdict {
    let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    v1::Verdict {
        key,
        version: scored.version.clone(),
        outcome: Some(v1::verdict::Outcome::Valid(rewards(scored))),
        timing: Some(v1::Timing {
            prepare_micros: micros(scored.timing.prepare),
            queue_micros: micros(scored.timing.queue),
            compute_micros: micros(scored.timing.compute),
        }),
        cache: Some(v1::CacheUse {
            prefix_positions_reused: scored.cache.prefix_positions_reused,
            prefix_positions_computed: scored.cache.prefix_positions_computed,
            vision_reused: scored.cache.vision_reused,
        }),
    }
}

/// What a verdict says beside version, timing and caches.
pub(crate) fn rewards(scored: &Scored) -> v1::Valid {
    let sentences = scored
        .sentences
        .iter()
        .map(|s| v1::Sentence { span: Some(span(s.span)), reward: s.reward })
        .collect();
    v1::Valid {
        reward: scored.reward,
        aggregation: aggregation_to_wire(scored.aggregation) as i32,
        sentences,
        flagged: scored.flagged.iter().copied().map(span).collect(),
        tokens: u32::try_from(Rows::of(scored).len()).unwrap_or(u32::MAX),
        batch_invariant: scored.batch_invariant,
        duplicates_joined: scored.duplicates_joined,
    }
}

/// The verdict on an item that has no reward.
pub fn invalid(key: Option<v1::Key>, failure: &Failure, place: Place) -> v1::Verdict {
    v1::Verdict {
        key,
        version: String::new(),
        outcome: Some(v1::verdict::Outcome::Invalid(refused(failure, place))),
        timing: None,
        cache: None,
    }
}

/// Why something has no reward.
pub(crate) fn refused(failure: &Failure, place: Place) -> v1::Invalid {
    v1::Invalid {
        class: class_to_wire(failure.class) as i32,
        reason: failure.reason.name().to_owned(),
        retry_after: failure.retry_after.and_then(|d| d.try_into().ok()),
        retryable: failure.is_retryable(),
        detail: failure.detail.clone(),
        field: failure.field.map(|f| place.path(f)).unwrap_or_default(),
    }
}

pub(crate) fn span(span: ByteSpan) -> v1::Span {
    v1::Span { start: span.start(), end: span.end() }
}
