use sleuth_core::{
    ByteSpan, CacheUse, Encoded, Failure, ModelCard, Options, Scored, SentenceReward, Timing,
    TokenReward, sentences,
};

use crate::failures;

/// What turns logits into a verdict.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) card: &'a ModelCard,
    pub(crate) options: Options,
    /// In 0..=1.
    pub(crate) threshold: f32,
    pub(crate) batch_invariant: bool,
    pub(crate) timing: Timing,
    pub(crate) cache: CacheUse,
}

/// Aggregates a response's logits, one per token.
///
/// Fails where a reward would not be a finite number: a sum of logarithms can leave the range of
/// f32 although every logit is within it.
pub(crate) fn scored(
    response: &str,
    encoded: &Encoded,
    logits: &[f32],
    rules: Rules<'_>,
) -> Result<Scored, Failure> {
    if encoded.spans.len() != logits.len() {
        return Err(failures::worker_failed());
    }
    if !logits.iter().all(|logit| logit.is_finite()) {
        return Err(failures::not_finite());
    }
    let Rules { card, options, threshold, batch_invariant, timing, cache } = rules;
    let tokens: Vec<TokenReward> = encoded
        .spans
        .iter()
        .zip(logits)
        .map(|(&span, &logit)| TokenReward::from_logit(span, logit))
        .collect();
    let sentences = sentence_rewards(response, &tokens, options, threshold)?;
    Ok(Scored {
        sentences,
        flagged: Scored::flagged_spans(&tokens, threshold),
        reward: reward(&tokens, options, threshold)?,
        aggregation: options.aggregation,
        version: card.version.clone(),
        batch_invariant,
        timing,
        cache,
        tokens,
        policy: None,
        duplicates_joined: 0,
    })
}

fn sentence_rewards(
    response: &str,
    tokens: &[TokenReward],
    options: Options,
    threshold: f32,
) -> Result<Vec<SentenceReward>, Failure> {
    let spans: Vec<ByteSpan> = tokens.iter().map(|t| t.span).collect();
    sentences(options.sentences, response, &spans)
        .into_iter()
        .filter_map(|range| tokens.get(range))
        .filter_map(|part| Some((part, part.first()?.span.to(part.last()?.span))))
        .map(|(part, span)| Ok(SentenceReward { span, reward: reward(part, options, threshold)? }))
        .collect()
}

fn reward(tokens: &[TokenReward], options: Options, threshold: f32) -> Result<f32, Failure> {
    options
        .aggregation
        .apply(tokens, threshold)
        .filter(|reward| reward.is_finite())
        .ok_or_else(failures::not_finite)
}

#[cfg(test)]
mod tests;
