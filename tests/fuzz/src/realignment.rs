use sleuth_core::{ByteSpan, PolicyTokens, Realignment, TokenReward, realign, spans_of_ends};

use crate::reader::Reader;

/// Any bytes as a policy's tokens of any text: a mismatch, or ends that ascend to the end of the
/// text, and a reward for each of them from any tokens of a reward model.
///
/// The bytes are: whether the text starts the response, the text, pieces, ends, and tokens of the
/// reward model to the end.
pub fn realignment(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let first = reader.byte() & 1 == 1;
    let text = reader.bytes();
    let pieces = reader.list(|r| r.bytes().to_vec());
    let mut ends = reader.list(|r| u32::from(r.word()));
    let tokens = tokens(&mut reader);
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
    for end in &mut ends {
        *end %= text.len() as u32 + 1;
    }
    ends.sort_unstable();
    ends.push(text.len() as u32);
    assert!(check(&PolicyTokens::Ends(ends), text, first, &tokens));
}

/// Whether they fit the text.
fn check(policy: &PolicyTokens, text: &[u8], first: bool, tokens: &[TokenReward]) -> bool {
    let ends = match policy.ends(text, first) {
        Ok(ends) => ends,
        Err(mismatch) => {
            assert!(mismatch.index <= policy.len());
            assert!(!mismatch.to_string().is_empty());
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
            assert!(
                reward
                    .covered
                    .is_none_or(|c| c.logit.is_finite() && (0.0..=1.0).contains(&c.reward))
            );
        }
    }
    true
}

/// Spans that never go back, with any finite logits.
fn tokens(reader: &mut Reader<'_>) -> Vec<TokenReward> {
    let (mut start, mut end) = (0, 0);
    let mut tokens = Vec::new();
    while !reader.is_empty() {
        let steps = reader.byte();
        start += u32::from(steps & 3);
        end = start.max(end + u32::from(steps >> 2 & 3));
        let span = ByteSpan::try_new(start, end).expect("it ends behind its start");
        let logit = reader.float();
        tokens.push(TokenReward::from_logit(span, if logit.is_finite() { logit } else { 0.0 }));
    }
    tokens
}
