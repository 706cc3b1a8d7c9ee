use proptest::prelude::*;
use sleuth_core::{Aggregation, ByteSpan, ErrorClass, Reason};

use super::*;

fn card() -> ModelCard {
    ModelCard {
        name: "mini".to_owned(),
        version: "v1".to_owned(),
        architecture: "Fake".to_owned(),
        adapter: None,
        prompt: "describe".to_owned(),
        threshold: 0.5,
        causal_suffix: true,
        max_prompt_tokens: 8,
        max_response_tokens: 8,
    }
}

fn encoded(lengths: &[u32]) -> Encoded {
    let mut at = 0;
    let spans = lengths.iter().map(|&len| {
        let span = ByteSpan::try_new(at, at + len).unwrap();
        at += len;
        span
    });
    Encoded { spans: spans.collect(), ids: vec![0; lengths.len()] }
}

fn judge(text: &str, lengths: &[u32], logits: &[f32], how: Aggregation) -> Result<Scored, Failure> {
    let options = Options { aggregation: how, ..Options::default() };
    let card = card();
    let (timing, cache) = (Timing::default(), CacheUse::default());
    let rules =
        Rules { card: &card, options, threshold: 0.5, batch_invariant: true, timing, cache };
    scored(text, &encoded(lengths), logits, rules)
}

#[test]
fn sentences_flags_and_the_reward_come_from_the_same_tokens() {
    let got = judge("a b. c", &[1, 2, 1, 2], &[2.0, -1.0, -3.0, 1.0], Aggregation::Min).unwrap();
    let span = |start, end| ByteSpan::try_new(start, end).unwrap();
    let sentences: Vec<_> = got.sentences.iter().map(|s| (s.span, s.reward)).collect();
    assert_eq!(sentences, [(span(0, 4), got.tokens[2].reward), (span(4, 6), got.tokens[3].reward)]);
    assert_eq!(got.flagged, [span(1, 4)]);
    assert_eq!(got.reward.to_bits(), got.tokens[2].reward.to_bits());
    assert_eq!((got.version.as_str(), got.batch_invariant), ("v1", true));
}

#[test]
fn a_logit_that_is_not_finite_gives_no_reward() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let failure = judge("ab", &[1, 1], &[1.0, bad], Aggregation::MeanLog).unwrap_err();
        assert_eq!((failure.class, failure.reason), (ErrorClass::ModelFailure, Reason::NOT_FINITE));
    }
}

#[test]
fn a_sum_that_leaves_the_range_gives_no_reward() {
    let failure = judge("ab", &[1, 1], &[f32::MIN, f32::MIN], Aggregation::LogSum).unwrap_err();
    assert_eq!(failure.reason, Reason::NOT_FINITE);
}

#[test]
fn another_number_of_logits_gives_no_reward() {
    let failure = judge("ab", &[1, 1], &[1.0], Aggregation::MeanLog).unwrap_err();
    assert_eq!(failure.reason, Reason::WORKER_FAILED);
}

fn any_logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        20 => any::<f32>(),
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ]
}

proptest! {
    #[test]
    fn every_reward_given_is_finite_and_a_probability(
        logits in proptest::collection::vec(any_logit(), 1..12),
        how in proptest::sample::select(Aggregation::ALL.to_vec()),
    ) {
        let finite = logits.iter().all(|x| x.is_finite());
        let text = "a.".repeat(logits.len());
        match judge(&text, &vec![2; logits.len()], &logits, how) {
            Ok(got) => {
                prop_assert!(finite);
                prop_assert_eq!(got.tokens.len(), logits.len());
                prop_assert!(got.tokens.iter().all(|t| (0.0..=1.0).contains(&t.reward)));
                let mut sums = got.sentences.iter().map(|s| s.reward).chain([got.reward]);
                prop_assert!(sums.all(f32::is_finite));
                let unbounded = matches!(how, Aggregation::LogSum | Aggregation::CountBelow);
                prop_assert!(unbounded || (0.0..=1.0).contains(&got.reward));
            }
            Err(failure) => {
                prop_assert_eq!(failure.reason, Reason::NOT_FINITE);
                prop_assert!(!finite || how == Aggregation::LogSum);
            }
        }
    }
}
