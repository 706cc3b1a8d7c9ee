//! TLDR's measurements (section 3): accuracies per token, sentence and response, average precision
//! with the good and with the bad tokens as the positive class, hallucination rates, calibration,
//! and the fit of a benchmark's score to a hallucination rate.

mod calibration;
mod correlate;
mod html;
mod markdown;
mod precision;
mod report;

use std::collections::BTreeSet;
use std::ops::Range;

use sleuth_core::{ByteSpan, SentenceRule, TokenReward, sentences};

use crate::data::{Record, token_labels};

pub use calibration::{Bin, Calibration, Reliability};
pub use correlate::{CorrelateError, Fit, ScoreTable, correlate};
pub use html::{Page, page};
pub use markdown::{PAPER, Row, markdown, row};
pub use report::{Rates, Report, TaxonomyReport};

/// A scored response beside what is known of it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What was scored.
    pub record: Record,
    /// A reward for each token; not empty.
    pub tokens: Vec<TokenReward>,
    /// Whether each token is good.
    pub truth: Vec<bool>,
    /// The tokens of each sentence, by TLDR's rule.
    pub sentences: Vec<Range<usize>>,
    /// The kinds of error that its bad labels name.
    pub taxonomies: BTreeSet<String>,
}

/// Scored responses; add them one by one, then ask for a [`Report`].
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    judged: Vec<Judged>,
    /// Whether only the last token's reward means anything: the paper's naive model.
    last_token_only: bool,
}

// === impl Evaluation ===

impl Evaluation {
    /// Nothing measured so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a model that was trained on the last token alone: its reward stands for the response,
    /// and other tokens' rewards mean nothing.
    pub fn of_last_tokens() -> Self {
        Self { last_token_only: true, ..Self::default() }
    }

    /// Adds a scored response. No tokens, no effect.
    pub fn add(&mut self, record: Record, tokens: Vec<TokenReward>) {
        if tokens.is_empty() {
            return;
        }
        let spans: Vec<ByteSpan> = tokens.iter().map(|t| t.span).collect();
        let truth = token_labels(&spans, &record.labels);
        let sentences = sentences(SentenceRule::Period, &record.response, &spans);
        let bad = record.labels.iter().filter(|l| !l.good);
        let taxonomies = bad.filter_map(|l| l.taxonomy.clone()).collect();
        self.judged.push(Judged { record, tokens, truth, sentences, taxonomies });
    }

    /// All that was added, in order.
    pub fn judged(&self) -> &[Judged] {
        &self.judged
    }

    /// The measurements, where a token is flagged unless its reward is above `threshold`.
    pub fn report(&self, threshold: f32) -> Report {
        if self.last_token_only {
            return report::of_last_tokens(&self.judged, threshold);
        }
        report::of_tokens(&self.judged, threshold)
    }

    /// How well rewards are probabilities, and the threshold at which most responses are judged
    /// rightly. `None` where nothing was added.
    pub fn calibration(&self) -> Option<Calibration> {
        calibration::calibrate(&self.judged)
    }
}

// === impl Judged ===

impl Judged {
    /// Whether no token is bad.
    pub fn is_clean(&self) -> bool {
        self.truth.iter().all(|&good| good)
    }

    /// Whether no token is flagged.
    pub fn is_passed(&self, threshold: f32) -> bool {
        self.tokens.iter().all(|t| t.is_good(threshold))
    }

    /// The least reward.
    pub(crate) fn least_reward(&self) -> f32 {
        self.tokens.iter().map(|t| t.reward).fold(f32::INFINITY, f32::min)
    }
}
