//! TLDR's measurements (section 3): accuracies per token, sentence and response, and average
//! precision with the good and with the bad tokens as the positive class.

mod precision;

use std::collections::BTreeMap;

use serde::Serialize;
use sleuth_core::{ByteSpan, SentenceRule, TokenReward, sentences};

use crate::data::{Label, token_labels};
use precision::average_precision;

/// Measurements over a set of responses. Shares lie in 0..1; a share of nothing is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Responses measured.
    pub responses: u64,
    /// Share of right tokens per response, averaged over responses (Eq. 2).
    pub token_accuracy: Option<f64>,
    /// Share of right sentences per response, averaged over responses (Eq. 3).
    pub sentence_accuracy: Option<f64>,
    /// Share of responses judged rightly, one bad token vetoing (Eq. 4 and 5).
    pub response_accuracy: Option<f64>,
    /// Average precision over all tokens pooled, bad tokens positive.
    pub map_neg: Option<f64>,
    /// Average precision over all tokens pooled, good tokens positive.
    pub map_pos: Option<f64>,
    /// Average precision of the bad tokens within a response, averaged over responses that have
    /// one. The paper does not say which of the two it means.
    pub map_neg_per_response: Option<f64>,
    /// Response accuracy on clean responses.
    pub clean_response_accuracy: Option<f64>,
    /// Response accuracy on perturbed responses, by taxonomy.
    pub by_taxonomy: BTreeMap<String, TaxonomyReport>,
}

/// Perturbed responses of one taxonomy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TaxonomyReport {
    /// How many.
    pub responses: u64,
    /// Share of them with at least one token flagged.
    pub response_accuracy: f64,
}

/// Sums over responses; add them one by one, then ask for the [`Report`].
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    threshold: f32,
    responses: u64,
    tokens_right: f64,
    sentences_right: f64,
    clean: Share,
    perturbed: Share,
    precision_within: (f64, u64),
    by_taxonomy: BTreeMap<String, Share>,
    /// Logit and label of every token.
    pooled: Vec<(f32, bool)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    right: u64,
    all: u64,
}

// === impl Evaluation ===

impl Evaluation {
    /// A token is predicted good where its reward is above `threshold`.
    pub fn new(threshold: f32) -> Self {
        Self { threshold, ..Self::default() }
    }

    /// Adds a scored response: its text, its tokens' rewards, its labels. No tokens, no effect.
    pub fn add(&mut self, text: &str, tokens: &[TokenReward], labels: &[Label]) {
        if tokens.is_empty() {
            return;
        }
        let spans: Vec<ByteSpan> = tokens.iter().map(|t| t.span).collect();
        let truth = token_labels(&spans, labels);
        let predicted: Vec<bool> = tokens.iter().map(|t| t.is_good(self.threshold)).collect();
        let pairs: Vec<(bool, bool)> = truth.iter().copied().zip(predicted).collect();
        self.responses += 1;
        self.tokens_right += share(pairs.iter().map(|(t, p)| t == p));
        let cut = sentences(SentenceRule::Period, text, &spans);
        self.sentences_right += share(cut.into_iter().map(|range| agree(&pairs[range])));
        self.count_response(&pairs, labels);
        let scored: Vec<(f32, bool)> =
            tokens.iter().zip(&truth).map(|(t, &good)| (t.logit, good)).collect();
        if let Some(precision) = average_precision(scored.iter().map(|&(x, good)| (-x, !good))) {
            self.precision_within.0 += precision;
            self.precision_within.1 += 1;
        }
        self.pooled.extend(scored);
    }

    /// The measurements so far.
    pub fn report(&self) -> Report {
        let mean = |sum: f64| (self.responses > 0).then(|| sum / self.responses as f64);
        let (within, with_bad) = self.precision_within;
        Report {
            responses: self.responses,
            token_accuracy: mean(self.tokens_right),
            sentence_accuracy: mean(self.sentences_right),
            response_accuracy: mean((self.clean.right + self.perturbed.right) as f64),
            map_neg: average_precision(self.pooled.iter().map(|&(x, good)| (-x, !good))),
            map_pos: average_precision(self.pooled.iter().copied()),
            map_neg_per_response: (with_bad > 0).then(|| within / with_bad as f64),
            clean_response_accuracy: self.clean.value(),
            by_taxonomy: self
                .by_taxonomy
                .iter()
                .filter_map(|(name, share)| {
                    let response_accuracy = share.value()?;
                    Some((name.clone(), TaxonomyReport { responses: share.all, response_accuracy }))
                })
                .collect(),
        }
    }

    fn count_response(&mut self, pairs: &[(bool, bool)], labels: &[Label]) {
        let right = agree(pairs);
        let group =
            if pairs.iter().all(|(t, _)| *t) { &mut self.clean } else { &mut self.perturbed };
        group.add(right);
        let mut names: Vec<&str> =
            labels.iter().filter(|l| !l.good).filter_map(|l| l.taxonomy.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            self.by_taxonomy.entry(name.to_owned()).or_default().add(right);
        }
    }
}

// === impl Share ===

impl Share {
    fn add(&mut self, right: bool) {
        self.right += u64::from(right);
        self.all += 1;
    }

    fn value(self) -> Option<f64> {
        (self.all > 0).then(|| self.right as f64 / self.all as f64)
    }
}

/// Whether truth and prediction agree on "all good".
fn agree(pairs: &[(bool, bool)]) -> bool {
    pairs.iter().all(|(t, _)| *t) == pairs.iter().all(|(_, p)| *p)
}

fn share(right: impl Iterator<Item = bool>) -> f64 {
    let (yes, all) = right.fold((0_u64, 0_u64), |(y, n), r| (y + u64::from(r), n + 1));
    yes as f64 / all.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One token per character; logits by character; bad characters are upper case.
    fn add(evaluation: &mut Evaluation, text: &str, logits: &[f32]) {
        let span = |i: usize| ByteSpan::try_new(i as u32, i as u32 + 1).unwrap();
        let tokens: Vec<_> =
            logits.iter().enumerate().map(|(i, &x)| TokenReward::from_logit(span(i), x)).collect();
        let bad = text.char_indices().filter(|(_, c)| c.is_uppercase());
        let labels: Vec<_> = bad
            .map(|(i, _)| Label {
                start: i as u32,
                end: i as u32 + 1,
                good: false,
                taxonomy: Some("counting".to_owned()),
                source: None,
            })
            .collect();
        evaluation.add(text, &tokens, &labels);
    }

    #[test]
    fn accuracies_follow_the_veto_and_are_averaged_per_response() {
        let mut evaluation = Evaluation::new(0.5);
        // Sentence 1 is bad and flagged, at another token; sentence 2 is good and judged good.
        add(&mut evaluation, "aB.c.", &[-1.0, 1.0, 2.0, 2.0, 2.0]);
        // Clean, one token wrongly flagged.
        add(&mut evaluation, "ab", &[-1.0, 1.0]);
        let report = evaluation.report();
        assert_eq!(report.token_accuracy, Some(f64::midpoint(3.0 / 5.0, 1.0 / 2.0)));
        assert_eq!(report.sentence_accuracy, Some(f64::midpoint(1.0, 0.0)));
        assert_eq!(report.response_accuracy, Some(0.5));
        assert_eq!(report.clean_response_accuracy, Some(0.0));
        assert_eq!(
            report.by_taxonomy["counting"],
            TaxonomyReport { responses: 1, response_accuracy: 1.0 }
        );
    }

    #[test]
    fn nothing_measured_is_not_zero() {
        let report = Evaluation::new(0.5).report();
        assert_eq!(report.response_accuracy, None);
        assert_eq!(report.map_neg, None);
    }

    #[test]
    fn the_precisions_flip_with_the_classes() {
        let mut evaluation = Evaluation::new(0.5);
        add(&mut evaluation, "aBc", &[3.0, -3.0, 1.0]);
        let report = evaluation.report();
        assert_eq!((report.map_neg, report.map_pos), (Some(1.0), Some(1.0)));
        add(&mut evaluation, "Ba", &[2.0, 1.0]);
        let report = evaluation.report();
        // Good first: 3.0 good, 2.0 bad, 1.0 good twice, -3.0 bad.
        let want = (1.0 + 2.0 * (3.0 / 4.0)) / 3.0;
        assert!((report.map_pos.unwrap() - want).abs() < 1e-12);
    }
}
