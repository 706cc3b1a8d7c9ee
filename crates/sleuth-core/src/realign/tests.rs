use proptest::prelude::*;

use super::*;

fn span(start: u32, end: u32) -> ByteSpan {
    ByteSpan::try_new(start, end).unwrap()
}

fn token(start: u32, end: u32, logit: f32) -> TokenReward {
    TokenReward::from_logit(span(start, end), logit)
}

fn logit(tokens: &[TokenReward], how: Realignment) -> f32 {
    realign(tokens, &[span(0, 9)], how)[0].covered.unwrap().logit
}

#[test]
fn rewards_come_from_the_tokens_that_share_a_byte() {
    let tokens = [token(0, 2, 1.0), token(2, 2, -9.0), token(2, 5, -1.0), token(6, 8, 3.0)];
    let policy = [span(0, 1), span(1, 4), span(4, 8), span(8, 8), span(8, 9)];
    let got = realign(&tokens, &policy, Realignment::Min);
    let logits: Vec<_> = got.iter().map(|p| p.covered.map(|c| c.logit)).collect();
    assert_eq!(logits, [Some(1.0), Some(-1.0), Some(-1.0), None, None]);
    let coverage: Vec<_> = got.iter().map(|p| p.coverage).collect();
    assert_eq!(coverage, [1.0, 1.0, 0.75, 0.0, 0.0]);
}

#[test]
fn equal_rewards_give_the_least_logit() {
    let tokens = [token(0, 1, 200.0), token(1, 2, 100.0), token(2, 3, 300.0)];
    assert_eq!(logit(&tokens, Realignment::Min).to_bits(), 100.0_f32.to_bits());
}

#[test]
fn extreme_logits_stay_finite_and_exact() {
    let of = |logits: &[f32]| -> Vec<TokenReward> {
        (0..).zip(logits).map(|(i, &x)| token(i, i + 1, x)).collect()
    };
    let close = |got: f32, want: f32| assert!((got - want).abs() <= want.abs() * 1e-6, "{got}");
    for x in [290.0, 310.0, 1e4, 1e30] {
        close(logit(&of(&[x, x]), Realignment::Mean), x);
        close(logit(&of(&[-x, -x]), Realignment::Mean), -x);
        close(logit(&of(&[x, x]), Realignment::Product), x - 2.0_f32.ln());
        close(logit(&of(&[-x, -x]), Realignment::Product), -2.0 * x);
        close(logit(&of(&[x, -x]), Realignment::Product), -x);
    }
    close(logit(&of(&[1e4, -1e4]), Realignment::Mean) + 1.0, 1.0);
    for how in Realignment::ALL {
        for x in [f32::MAX, f32::MIN] {
            assert!(logit(&of(&[x, x, x]), how).is_finite());
        }
    }
}

#[test]
fn names_parse_back() {
    for how in Realignment::ALL {
        assert_eq!(how.to_string().parse::<Realignment>().unwrap(), how);
    }
    let message = "max".parse::<Realignment>().unwrap_err().to_string();
    assert_eq!(message, "no realignment is named `max`; there are min, mean, product");
}

#[test]
fn ends_become_spans_without_gaps() {
    assert_eq!(spans_of_ends(&[2, 2, 5]), [span(0, 2), span(2, 2), span(2, 5)]);
    assert_eq!(spans_of_ends(&[2, 1, 5]), [span(0, 2), span(2, 2), span(2, 5)]);
}

/// Spans that never go back: they repeat, overlap, nest at an edge, leave gaps, or are empty.
fn tokens() -> impl Strategy<Value = Vec<TokenReward>> {
    let logits = prop_oneof![-12.0_f32..12.0, Just(0.0), Just(3.0)];
    prop::collection::vec((0_u32..3, 0_u32..4, logits), 0..24).prop_map(|steps| {
        let (mut start, mut end) = (0, 0);
        let step = |(from, to, logit): (u32, u32, f32)| {
            start += from;
            end = start.max(end + to);
            token(start, end, logit)
        };
        steps.into_iter().map(step).collect()
    })
}

/// Disjoint spans in order, with gaps and empty ones.
fn policy() -> impl Strategy<Value = Vec<ByteSpan>> {
    prop::collection::vec((0_u32..2, 0_u32..5), 0..16).prop_map(|steps| {
        let mut at = 0;
        let step = |(gap, len): (u32, u32)| {
            let start = at + gap;
            at = start + len;
            span(start, at)
        };
        steps.into_iter().map(step).collect()
    })
}

fn naive(rewards: &[f64], how: Realignment) -> f64 {
    match how {
        Realignment::Min => rewards.iter().copied().fold(1.0, f64::min),
        Realignment::Mean => rewards.iter().sum::<f64>() / rewards.len() as f64,
        Realignment::Product => rewards.iter().product(),
    }
}

proptest! {
    #[test]
    fn it_is_what_sets_of_bytes_give(tokens in tokens(), policy in policy()) {
        for how in Realignment::ALL {
            let got = realign(&tokens, &policy, how);
            prop_assert_eq!(got.len(), policy.len());
            for (reward, span) in got.iter().zip(&policy) {
                let bytes: Vec<usize> = span.range().collect();
                let near: Vec<&TokenReward> = tokens
                    .iter()
                    .filter(|t| bytes.iter().any(|b| t.span.range().contains(b)))
                    .collect();
                let covered =
                    bytes.iter().filter(|b| near.iter().any(|t| t.span.range().contains(b)));
                let share = covered.count() as f32 / bytes.len().max(1) as f32;
                prop_assert_eq!(reward.span, *span);
                prop_assert_eq!(reward.coverage.to_bits(), share.to_bits());
                prop_assert_eq!(reward.covered.is_none(), near.is_empty());
                let Some(found) = reward.covered else { continue };
                let from_logit = TokenReward::from_logit(*span, found.logit).reward;
                prop_assert_eq!(found.reward.to_bits(), from_logit.to_bits());
                let exact = near.iter().map(|t| 1.0 / (1.0 + (-f64::from(t.logit)).exp()));
                let want = naive(&exact.collect::<Vec<_>>(), how);
                let off = (f64::from(found.reward) - want).abs();
                prop_assert!(off <= 2e-6 * want, "{} for {}", found.reward, want);
                let odds = want.ln() - (-want).ln_1p();
                prop_assert!((f64::from(found.logit) - odds).abs() < 1e-4 * odds.abs().max(1.0));
                if near.len() == 1 || how == Realignment::Min {
                    prop_assert!(near.iter().any(|t| t.logit.to_bits() == found.logit.to_bits()));
                }
            }
        }
    }

    #[test]
    fn the_same_tokens_give_their_own_bits(tokens in tokens()) {
        let mut alone: Vec<TokenReward> = Vec::new();
        for t in tokens.iter().filter(|t| !t.span.is_empty()) {
            if alone.last().is_none_or(|l| l.span.end() <= t.span.start()) {
                alone.push(*t);
            }
        }
        let spans: Vec<ByteSpan> = alone.iter().map(|t| t.span).collect();
        for how in Realignment::ALL {
            for (got, want) in realign(&alone, &spans, how).iter().zip(&alone) {
                let found = got.covered.unwrap();
                prop_assert_eq!(found.reward.to_bits(), want.reward.to_bits());
                prop_assert_eq!(found.logit.to_bits(), want.logit.to_bits());
                prop_assert_eq!(got.coverage.to_bits(), 1.0_f32.to_bits());
            }
        }
    }
}
