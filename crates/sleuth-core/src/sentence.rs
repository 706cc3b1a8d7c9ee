use std::ops::Range;

use crate::ByteSpan;
use bounds::sentence_starts;

mod bounds;

/// How a response is cut into sentences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SentenceRule {
    /// A sentence ends at a token that holds a period (TLDR section 3).
    #[default]
    Period,
    /// Unicode's sentence boundaries (UAX 29). A token belongs to the sentence of its last byte, so
    /// that a space in front of a word goes with the word.
    Unicode,
}

/// Cuts tokens into sentences: ranges of token indices that cover all tokens, in order, each with
/// at least one token.
///
/// `spans` are the tokens' places in `response`, in bytes, in order; one without bytes belongs to
/// the sentence of the token before it, or to the first. What follows the last boundary is a
/// sentence of its own. Takes time linear in the response and the tokens.
pub fn sentences(rule: SentenceRule, response: &str, spans: &[ByteSpan]) -> Vec<Range<usize>> {
    let cuts = match rule {
        SentenceRule::Period => after_periods(response, spans),
        SentenceRule::Unicode => at_boundaries(response, spans),
    };
    let mut start = 0;
    let mut out = Vec::with_capacity(cuts.len() + 1);
    for end in cuts.into_iter().chain([spans.len()]) {
        if start < end {
            out.push(start..end);
            start = end;
        }
    }
    out
}

/// One past each token that holds a period.
fn after_periods(response: &str, spans: &[ByteSpan]) -> Vec<usize> {
    let holds = |span: &ByteSpan| {
        response.as_bytes().get(span.range()).is_some_and(|bytes| bytes.contains(&b'.'))
    };
    (1..).zip(spans).filter(|(_, span)| holds(span)).map(|(end, _)| end).collect()
}

/// Each token whose last byte lies in a later sentence than those of all tokens before it.
fn at_boundaries(response: &str, spans: &[ByteSpan]) -> Vec<usize> {
    let mut starts = sentence_starts(response).into_iter().peekable();
    let mut cuts = Vec::new();
    let mut first = true;
    for (index, span) in spans.iter().enumerate().filter(|(_, span)| !span.is_empty()) {
        let mut later = false;
        while starts.next_if(|&start| start < span.end() as usize).is_some() {
            later = true;
        }
        if later && !first {
            cuts.push(index);
        }
        first = false;
    }
    cuts
}

#[cfg(test)]
mod tests;
