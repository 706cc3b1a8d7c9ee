//! Any bytes as a policy's tokens of any text: a mismatch, or ends that ascend to the end of the
//! text, and a reward for each of them from any tokens of a reward model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sleuth_core::{ByteSpan, PolicyTokens, Realignment, TokenReward, realign, spans_of_ends};

type Input<'a> = (&'a [u8], bool, Vec<Vec<u8>>, Vec<u32>, Vec<(u8, u8, u32)>);

fuzz_target!(|input: Input<'_>| {
    let (text, first, pieces, mut ends, steps) = input;
    let tokens = tokens(&steps);
    check(&PolicyTokens::Pieces(pieces.clone()), text, first, &tokens);
    check(&PolicyTokens::Ends(ends.clone()), text, first, &tokens);
    // Any pieces spell what they make up, and any ends lie in the text once cut to it.
    let spelled = pieces.concat();
    let whole = PolicyTokens::Pieces(pieces.clone()).ends(&spelled, first);
    let lengths = pieces.iter().scan(0, |at, piece| {
        *at += piece.len() as u32;
        Some(*at)
    });
    assert!(whole.is_ok_and(|ends| lengths.eq(ends)));
    ends.iter_mut().for_each(|end| *end %= text.len() as u32 + 1);
    ends.sort_unstable();
    ends.push(text.len() as u32);
    assert!(check(&PolicyTokens::Ends(ends), text, first, &tokens));
});

/// Whether they fit the text.
fn check(policy: &PolicyTokens, text: &[u8], first: bool, tokens: &[TokenReward]) -> bool {
    let ends = match policy.ends(text, first) {
        Ok(ends) => ends,
        Err(mismatch) => {
            assert!(mismatch.index <= policy.len());
            return false;
        }
    };
    assert_eq!(ends.len(), policy.len());
    assert!(ends.is_sorted());
    assert_eq!(ends.last().copied().unwrap_or(0) as usize, text.len());
    let spans = spans_of_ends(&ends);
    for how in Realignment::ALL {
        let rewards = realign(tokens, &spans, how);
        assert_eq!(rewards.len(), spans.len());
        for (reward, span) in rewards.iter().zip(&spans) {
            assert_eq!(reward.span, *span);
            assert!((0.0..=1.0).contains(&reward.coverage));
            assert_eq!(reward.covered.is_none(), reward.coverage == 0.0);
            let covered = reward.covered.iter();
            assert!(
                covered.clone().all(|c| c.logit.is_finite() && (0.0..=1.0).contains(&c.reward))
            );
        }
    }
    true
}

/// Spans that never go back, with any finite logits.
fn tokens(steps: &[(u8, u8, u32)]) -> Vec<TokenReward> {
    let (mut start, mut end) = (0, 0);
    let token = |&(from, to, bits): &(u8, u8, u32)| {
        start += u32::from(from % 4);
        end = start.max(end + u32::from(to % 4));
        let span = ByteSpan::try_new(start, end).expect("it ends behind its start");
        let logit = f32::from_bits(bits);
        TokenReward::from_logit(span, if logit.is_finite() { logit } else { 0.0 })
    };
    steps.iter().map(token).collect()
}
