use serde::{Deserialize, Serialize};
use sleuth_core::ByteSpan;

/// What is known of a span of a response.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Label {
    /// First UTF-8 byte of the response.
    pub start: u32,
    /// One past the last byte; above `start`.
    pub end: u32,
    /// Whether the image bears the span out.
    pub good: bool,
    /// What kind of error it is, for a bad span; see [`super::Taxonomy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taxonomy: Option<String>,
    /// Who says so: a generator, a model, a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// Projects labels onto tokens: for each token, whether it is good. A token is bad if it shares a
/// byte with a bad span; bytes that no label covers are good.
pub fn token_labels(tokens: &[ByteSpan], labels: &[Label]) -> Vec<bool> {
    tokens
        .iter()
        .map(|t| !labels.iter().any(|l| !l.good && t.start() < l.end && l.start < t.end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(start: u32, end: u32, good: bool) -> Label {
        Label { start, end, good, taxonomy: None, source: None }
    }

    #[test]
    fn a_token_is_bad_if_it_shares_a_byte_with_a_bad_span() {
        let tokens: Vec<ByteSpan> = [(0, 2), (2, 5), (5, 6), (6, 9)]
            .map(|(s, e)| ByteSpan::try_new(s, e).unwrap())
            .to_vec();
        let labels = [label(4, 6, false), label(6, 9, true)];
        assert_eq!(token_labels(&tokens, &labels), [true, false, false, true]);
        assert_eq!(token_labels(&tokens, &[]), [true; 4]);
    }
}
