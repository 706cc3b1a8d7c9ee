use sleuth_core::{ByteSpan, ErrorClass, Failure, Reason, Scored};
use sleuth_proto::v1;

use crate::{Place, aggregation_to_wire, class_to_wire};

/// Checks what may become a `Valid`: at least one token, every number finite.
pub fn sound(scored: &Scored) -> Result<(), Failure> {
    if scored.tokens.is_empty() {
        let detail = "the model gave no tokens";
        return Err(Failure::new(ErrorClass::ModelFailure, Reason::WORKER_FAILED, detail));
    }
    let tokens = scored.tokens.iter().all(|t| t.reward.is_finite() && t.logit.is_finite());
    let sentences = scored.sentences.iter().all(|s| s.reward.is_finite());
    if tokens && sentences && scored.reward.is_finite() {
        return Ok(());
    }
    let detail = "the model gave a number that is not finite";
    Err(Failure::new(ErrorClass::ModelFailure, Reason::NOT_FINITE, detail))
}

/// Token rewards as messages of at most `tokens_per_message` tokens (at least 1), in order.
pub fn scores(
    key: Option<v1::Key>,
    scored: &Scored,
    tokens_per_message: usize,
) -> impl Iterator<Item = v1::Scores> {
    let step = tokens_per_message.max(1);
    scored.tokens.chunks(step).enumerate().map(move |(index, tokens)| v1::Scores {
        key: key.clone(),
        first_token: u32::try_from(index * step).unwrap_or(u32::MAX),
        start: tokens.iter().map(|t| t.span.start()).collect(),
        end: tokens.iter().map(|t| t.span.end()).collect(),
        reward: tokens.iter().map(|t| t.reward).collect(),
        logit: tokens.iter().map(|t| t.logit).collect(),
        coverage: vec![1.0; tokens.len()],
    })
}

/// The verdict on a [`sound`] item.
pub fn valid(key: Option<v1::Key>, scored: &Scored) -> v1::Verdict {
    let sentences = scored
        .sentences
        .iter()
        .map(|s| v1::Sentence { span: Some(span(s.span)), reward: s.reward })
        .collect();
    let valid = v1::Valid {
        reward: scored.reward,
        aggregation: aggregation_to_wire(scored.aggregation) as i32,
        sentences,
        flagged: scored.flagged.iter().copied().map(span).collect(),
        tokens: u32::try_from(scored.tokens.len()).unwrap_or(u32::MAX),
        batch_invariant: scored.batch_invariant,
        duplicates_joined: 0,
    };
    let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    v1::Verdict {
        key,
        version: scored.version.clone(),
        outcome: Some(v1::verdict::Outcome::Valid(valid)),
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

/// The verdict on an item that has no reward.
pub fn invalid(key: Option<v1::Key>, failure: &Failure, place: Place) -> v1::Verdict {
    let invalid = v1::Invalid {
        class: class_to_wire(failure.class) as i32,
        reason: failure.reason.name().to_owned(),
        retry_after: failure.retry_after.and_then(|d| d.try_into().ok()),
        retryable: failure.is_retryable(),
        detail: failure.detail.clone(),
        field: failure.field.map(|f| place.path(f)).unwrap_or_default(),
    };
    v1::Verdict {
        key,
        version: String::new(),
        outcome: Some(v1::verdict::Outcome::Invalid(invalid)),
        timing: None,
        cache: None,
    }
}

fn span(span: ByteSpan) -> v1::Span {
    v1::Span { start: span.start(), end: span.end() }
}
