use std::collections::BTreeMap;

use serde::Serialize;

use super::Judged;
use super::precision::average_precision;

/// Measurements over a set of responses. Shares lie in 0..1; a share of nothing is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Responses measured.
    pub responses: u64,
    /// A token is flagged unless its reward is above this.
    pub threshold: f32,
    /// Share of right tokens per response, averaged over responses (Eq. 2).
    pub token_accuracy: Option<f64>,
    /// Share of right sentences per response, averaged over responses (Eq. 3).
    pub sentence_accuracy: Option<f64>,
    /// Share of responses judged rightly, one bad token vetoing (Eq. 4 and 5).
    pub response_accuracy: Option<f64>,
    /// Response accuracy on clean responses.
    pub clean_response_accuracy: Option<f64>,
    /// Share of all tokens that is bad: the average precision of rewards that say nothing.
    pub bad_token_share: Option<f64>,
    /// Average precision over all tokens pooled, bad tokens positive.
    pub map_neg: Option<f64>,
    /// Average precision over all tokens pooled, good tokens positive.
    pub map_pos: Option<f64>,
    /// Average precision of the bad tokens within a response, averaged over responses that have
    /// one. The paper does not say which of the two it means.
    pub map_neg_per_response: Option<f64>,
    /// The same of the good tokens.
    pub map_pos_per_response: Option<f64>,
    /// Hallucination rates by the labels, and by what was flagged (Eq. 7, of 1 - γ).
    pub hallucination: BTreeMap<&'static str, Rates>,
    /// Perturbed responses, by taxonomy.
    pub by_taxonomy: BTreeMap<String, TaxonomyReport>,
}

/// Shares that are bad, per response, averaged over responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Of tokens.
    pub token: f64,
    /// Of sentences.
    pub sentence: f64,
    /// Of responses.
    pub response: f64,
}

/// Perturbed responses of one taxonomy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TaxonomyReport {
    /// How many.
    pub responses: u64,
    /// Share of them with at least one token flagged.
    pub response_accuracy: f64,
    /// Mean of that and of the clean responses' accuracy: the paper's figure by taxonomy, whose
    /// always-good row is 50 %.
    pub balanced_accuracy: Option<f64>,
    /// Average precision over their tokens pooled, bad tokens positive.
    pub map_neg: Option<f64>,
}

/// A mean that is nothing where nothing was added.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    n: u64,
}

// === impl Mean ===

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.n += 1;
    }

    fn value(self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }
}

impl FromIterator<f64> for Mean {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut mean = Self::default();
        values.into_iter().for_each(|v| mean.add(v));
        mean
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.collect::<Mean>().value()
}

pub(super) fn of_tokens(judged: &[Judged], threshold: f32) -> Report {
    let flags =
        |j: &Judged| -> Vec<bool> { j.tokens.iter().map(|t| t.is_good(threshold)).collect() };
    let token = |j: &Judged| share(j.truth.iter().zip(flags(j)).map(|(t, p)| *t == p));
    let sentence = |j: &Judged| {
        let predicted = flags(j);
        let all = |bits: &[bool], r: &std::ops::Range<usize>| bits[r.clone()].iter().all(|&b| b);
        share(j.sentences.iter().map(|r| all(&j.truth, r) == all(&predicted, r)))
    };
    let within = |positive_is_good: bool| {
        mean(judged.iter().filter_map(|j| precision(std::slice::from_ref(j), positive_is_good)))
    };
    Report {
        token_accuracy: mean(judged.iter().map(token)),
        sentence_accuracy: mean(judged.iter().map(sentence)),
        bad_token_share: mean(
            judged.iter().flat_map(|j| j.truth.iter().map(|&good| f64::from(u8::from(!good)))),
        ),
        map_neg: precision(judged, false),
        map_pos: precision(judged, true),
        map_neg_per_response: within(false),
        map_pos_per_response: within(true),
        hallucination: [
            ("truth", rates(judged, |j| j.truth.clone())),
            ("predicted", rates(judged, flags)),
        ]
        .into(),
        ..of_responses(judged, threshold, |j| j.is_passed(threshold))
    }
}

/// Only what the last token's reward says of the whole response.
pub(super) fn of_last_tokens(judged: &[Judged], threshold: f32) -> Report {
    of_responses(judged, threshold, |j| j.tokens.last().is_some_and(|t| t.is_good(threshold)))
}

fn of_responses(judged: &[Judged], threshold: f32, passed: impl Fn(&Judged) -> bool) -> Report {
    let right = |j: &Judged| f64::from(u8::from(passed(j) == j.is_clean()));
    let clean = mean(judged.iter().filter(|j| j.is_clean()).map(right));
    let names = judged.iter().flat_map(|j| &j.taxonomies);
    let by_taxonomy = names
        .map(|name| {
            let own: Vec<Judged> =
                judged.iter().filter(|j| j.taxonomies.contains(name)).cloned().collect();
            let flagged = mean(own.iter().map(right)).unwrap_or_default();
            let report = TaxonomyReport {
                responses: own.len() as u64,
                response_accuracy: flagged,
                balanced_accuracy: clean.map(|clean| f64::midpoint(clean, flagged)),
                map_neg: precision(&own, false),
            };
            (name.clone(), report)
        })
        .collect();
    Report {
        responses: judged.len() as u64,
        threshold,
        token_accuracy: None,
        sentence_accuracy: None,
        response_accuracy: mean(judged.iter().map(right)),
        clean_response_accuracy: clean,
        bad_token_share: None,
        map_neg: None,
        map_pos: None,
        map_neg_per_response: None,
        map_pos_per_response: None,
        hallucination: BTreeMap::new(),
        by_taxonomy,
    }
}

/// Average precision over the tokens of all these responses.
fn precision(judged: &[Judged], positive_is_good: bool) -> Option<f64> {
    let sign = if positive_is_good { 1.0 } else { -1.0 };
    average_precision(judged.iter().flat_map(|j| {
        let scored = j.tokens.iter().zip(&j.truth);
        scored.map(move |(t, &good)| (sign * t.logit, good == positive_is_good))
    }))
}

fn rates(judged: &[Judged], good: impl Fn(&Judged) -> Vec<bool>) -> Rates {
    let (mut token, mut sentence, mut response) =
        (Mean::default(), Mean::default(), Mean::default());
    for j in judged {
        let good = good(j);
        let bad = |r: std::ops::Range<usize>| good[r].iter().any(|&g| !g);
        token.add(share(good.iter().map(|&g| !g)));
        sentence.add(share(j.sentences.iter().map(|r| bad(r.clone()))));
        response.add(f64::from(u8::from(bad(0..good.len()))));
    }
    let value = |m: Mean| m.value().unwrap_or_default();
    Rates { token: value(token), sentence: value(sentence), response: value(response) }
}

fn share(hits: impl Iterator<Item = bool>) -> f64 {
    let (yes, all) = hits.fold((0_u64, 0_u64), |(y, n), h| (y + u64::from(h), n + 1));
    yes as f64 / all.max(1) as f64
}

#[cfg(test)]
pub(super) mod tests {
    use sleuth_core::{ByteSpan, TokenReward};

    use super::super::Evaluation;
    use crate::data::{Label, Record};

    /// One token per character; logits by character; bad characters are upper case.
    pub(in super::super) fn add(evaluation: &mut Evaluation, text: &str, logits: &[f32]) {
        let span = |i: usize| ByteSpan::try_new(i as u32, i as u32 + 1).unwrap();
        let tokens =
            logits.iter().enumerate().map(|(i, &x)| TokenReward::from_logit(span(i), x)).collect();
        let bad = text.char_indices().filter(|(_, c)| c.is_uppercase());
        let labels = bad
            .map(|(i, _)| Label {
                start: i as u32,
                end: i as u32 + 1,
                good: false,
                taxonomy: Some("counting".to_owned()),
                source: None,
            })
            .collect();
        let record = Record {
            id: text.to_owned(),
            image: "a.png".to_owned(),
            prompt: String::new(),
            response: text.to_owned(),
            labels,
            group_id: None,
            split: None,
        };
        evaluation.add(record, tokens);
    }

    #[test]
    fn accuracies_follow_the_veto_and_are_averaged_per_response() {
        let mut evaluation = Evaluation::new();
        // Sentence 1 is bad and flagged, at another token; sentence 2 is good and judged good.
        add(&mut evaluation, "aB.c.", &[-1.0, 1.0, 2.0, 2.0, 2.0]);
        // Clean, one token wrongly flagged.
        add(&mut evaluation, "ab", &[-1.0, 1.0]);
        let report = evaluation.report(0.5);
        assert_eq!(report.token_accuracy, Some(f64::midpoint(3.0 / 5.0, 1.0 / 2.0)));
        assert_eq!(report.sentence_accuracy, Some(f64::midpoint(1.0, 0.0)));
        assert_eq!(report.response_accuracy, Some(0.5));
        assert_eq!(report.clean_response_accuracy, Some(0.0));
        let counting = report.by_taxonomy["counting"];
        assert_eq!((counting.responses, counting.response_accuracy), (1, 1.0));
        assert_eq!(counting.balanced_accuracy, Some(0.5));
    }

    #[test]
    fn nothing_measured_is_not_zero() {
        let report = Evaluation::new().report(0.5);
        assert_eq!(report.response_accuracy, None);
        assert_eq!(report.map_neg, None);
        assert!(Evaluation::new().calibration().is_none());
    }

    #[test]
    fn the_precisions_flip_with_the_classes() {
        let mut evaluation = Evaluation::new();
        add(&mut evaluation, "aBc", &[3.0, -3.0, 1.0]);
        let report = evaluation.report(0.5);
        assert_eq!((report.map_neg, report.map_pos), (Some(1.0), Some(1.0)));
        add(&mut evaluation, "Ba", &[2.0, 1.0]);
        let report = evaluation.report(0.5);
        // Good first: 3.0 good, 2.0 bad, 1.0 good twice, -3.0 bad.
        let want = (1.0 + 2.0 * (3.0 / 4.0)) / 3.0;
        assert!((report.map_pos.unwrap() - want).abs() < 1e-12);
    }

    /// The worked figure 3 of the paper: 15 of 208 tokens in 6 of 10 sentences are bad. The figure
    /// prints 0.072 %; it is 7.2 %.
    #[test]
    fn the_rates_of_the_papers_example() {
        let mut text = String::new();
        let mut bad_left = 15;
        for sentence in 0..10 {
            let length = if sentence < 8 { 20 } else { 22 };
            for i in 0..length - 1 {
                let wanted = if sentence < 5 { 2 } else { 5 };
                let bad = sentence < 6 && i < wanted && bad_left > 0;
                bad_left -= usize::from(bad);
                text.push(if bad { 'X' } else { 'x' });
            }
            text.push('.');
        }
        text.push_str("xxxx");
        assert_eq!((text.len(), bad_left), (208, 0));
        let mut evaluation = Evaluation::new();
        let logits: Vec<f32> = text.chars().map(|c| if c == 'X' { -1.0 } else { 1.0 }).collect();
        // The four last tokens belong to the tenth sentence's text, as a figure has no eleventh.
        let text = text.replace(".xxxx", "xxxx.");
        add(&mut evaluation, &text, &logits);
        let report = evaluation.report(0.5);
        for rates in report.hallucination.values() {
            assert!(
                (rates.token - 15.0 / 208.0).abs() < 1e-12 && (rates.token - 0.072).abs() < 2e-4
            );
            assert!((rates.sentence - 0.6).abs() < 1e-12);
            assert!((rates.response - 1.0).abs() < 1e-12);
        }
        assert_eq!(report.token_accuracy, Some(1.0));
    }

    #[test]
    fn a_model_of_last_tokens_is_measured_by_responses_alone() {
        let mut evaluation = Evaluation::of_last_tokens();
        add(&mut evaluation, "aBc", &[-3.0, -3.0, 1.0]);
        add(&mut evaluation, "ab", &[-3.0, 1.0]);
        let report = evaluation.report(0.5);
        assert_eq!(report.response_accuracy, Some(0.5));
        assert_eq!(
            (report.token_accuracy, report.by_taxonomy["counting"].response_accuracy),
            (None, 0.0)
        );
    }
}
