use std::ops::Range;

/// How a response is cut into sentences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SentenceRule {
    /// A sentence ends at a token that holds a period (TLDR section 3).
    #[default]
    Period,
}

/// Cuts tokens into sentences: ranges of token indices that cover all tokens, in order.
///
/// `texts` are the tokens' own texts. What follows the last period is a sentence of its own.
pub fn sentences<'a>(
    rule: SentenceRule,
    texts: impl IntoIterator<Item = &'a str>,
) -> Vec<Range<usize>> {
    let SentenceRule::Period = rule;
    let mut out = Vec::new();
    let mut start = 0;
    let mut end = 0;
    for text in texts {
        end += 1;
        if text.contains('.') {
            out.push(start..end);
            start = end;
        }
    }
    if start < end {
        out.push(start..end);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_cover_every_token_once() {
        let got = sentences(SentenceRule::Period, ["a", " b", ".", " c", " d.", " e"]);
        assert_eq!(got, vec![0..3, 3..5, 5..6]);
        assert!(sentences(SentenceRule::Period, []).is_empty());
    }
}
