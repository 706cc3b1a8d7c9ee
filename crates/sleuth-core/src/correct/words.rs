use unicode_segmentation::UnicodeSegmentation as _;

use crate::ByteSpan;

/// A piece of a text by Unicode's word boundaries (UAX 29).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit<'a> {
    pub(super) text: &'a str,
    pub(super) span: ByteSpan,
    pub(super) kind: UnitKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnitKind {
    /// Holds a letter or a digit. Of scripts without spaces it is a character or a cluster of them.
    Word,
    /// Punctuation and symbols.
    Mark,
    Space,
}

/// All of a text in pieces, in order.
pub(super) fn units(text: &str) -> Vec<Unit<'_>> {
    text.split_word_bound_indices()
        .filter_map(|(at, piece)| {
            let start = u32::try_from(at).ok()?;
            let end = u32::try_from(at + piece.len()).ok()?;
            let kind = if piece.chars().any(char::is_alphanumeric) {
                UnitKind::Word
            } else if piece.chars().all(char::is_whitespace) {
                UnitKind::Space
            } else {
                UnitKind::Mark
            };
            Some(Unit { text: piece, span: ByteSpan::try_new(start, end).ok()?, kind })
        })
        .collect()
}

/// The words of a text.
pub fn words(text: &str) -> Vec<ByteSpan> {
    units(text).into_iter().filter(|u| u.kind == UnitKind::Word).map(|u| u.span).collect()
}

/// What is flagged, as spans of whole words: in order, disjoint, on character boundaries.
///
/// `flagged` are places in the text, in order, such as those of flagged tokens. Each flags the words
/// and the punctuation it shares a byte with. Flagged pieces with nothing or only space between them
/// are one span. A span that holds a word begins and ends with one, so that a full stop stays where
/// it is; one of punctuation alone is whole. White space alone flags nothing.
pub fn flagged_words(text: &str, flagged: &[ByteSpan]) -> Vec<ByteSpan> {
    let units = units(text);
    let mut marked = vec![false; units.len()];
    for span in flagged.iter().filter(|span| !span.is_empty()) {
        let first = units.partition_point(|unit| unit.span.end() <= span.start());
        for (unit, mark) in units.iter().zip(&mut marked).skip(first) {
            if unit.span.start() >= span.end() {
                break;
            }
            *mark |= unit.kind != UnitKind::Space;
        }
    }
    merged(&units, &marked)
}

fn merged(units: &[Unit<'_>], flagged: &[bool]) -> Vec<ByteSpan> {
    let mut out = Vec::new();
    let mut run: Vec<Unit<'_>> = Vec::new();
    for (unit, &is_flagged) in units.iter().zip(flagged) {
        if is_flagged {
            run.push(*unit);
        } else if unit.kind != UnitKind::Space {
            out.extend(span_of(&run));
            run.clear();
        }
    }
    out.extend(span_of(&run));
    out
}

/// From the first word to the last, or of all marks where there is no word.
fn span_of(run: &[Unit<'_>]) -> Option<ByteSpan> {
    let is_word = |unit: &&Unit<'_>| unit.kind == UnitKind::Word;
    let first = run.iter().find(is_word).or(run.first())?;
    let last = run.iter().rfind(is_word).or(run.last())?;
    Some(first.span.to(last.span))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Scored, TokenReward};

    /// Tokens that end at `ends`, of which those at `bad` are flagged.
    fn tokens(ends: &[u32], bad: &[usize]) -> Vec<TokenReward> {
        let mut start = 0;
        let token = |(at, &end): (usize, &u32)| {
            let logit = if bad.contains(&at) { -1.0 } else { 1.0 };
            let token = TokenReward::from_logit(ByteSpan::try_new(start, end).unwrap(), logit);
            start = end;
            token
        };
        ends.iter().enumerate().map(token).collect()
    }

    /// The flagged words of a text cut at `ends`.
    fn flagged<'a>(text: &'a str, ends: &[u32], bad: &[usize]) -> Vec<&'a str> {
        let spans = flagged_words(text, &Scored::flagged_spans(&tokens(ends, bad), 0.5));
        spans.into_iter().map(|span| &text[span.range()]).collect()
    }

    #[test]
    fn part_of_a_word_flags_the_word_and_adjacent_words_are_one_span() {
        let text = "The red heart is large.";
        let ends = [3, 5, 7, 13, 16, 22, 23];
        assert_eq!(flagged(text, &ends, &[2]), ["red"], "a half of it");
        assert_eq!(flagged(text, &ends, &[1, 3]), ["red heart"]);
        assert_eq!(flagged(text, &ends, &[1, 5]), ["red", "large"]);
        assert_eq!(flagged(text, &ends, &[5, 6]), ["large"], "the full stop stays");
        assert_eq!(flagged(text, &ends, &[]), Vec::<&str>::new());
        assert_eq!(flagged(text, &ends, &[0, 1, 2, 3, 4, 5, 6]), ["The red heart is large"]);
    }

    #[test]
    fn punctuation_stands_for_itself_and_space_for_nothing() {
        let text = "a, b - c";
        let ends = [1, 2, 4, 5, 6, 8];
        assert_eq!(flagged(text, &ends, &[1]), [","]);
        assert_eq!(flagged(text, &ends, &[3]), Vec::<&str>::new());
        assert_eq!(flagged(text, &ends, &[4]), ["-"]);
        assert_eq!(flagged(text, &ends, &[0, 1, 2]), ["a, b"]);
        assert_eq!(flagged("3.5", &[1, 3], &[0]), ["3.5"], "one word by UAX 29");
        assert_eq!(flagged("red.", &[1, 4], &[1]), ["red"], "a token of letters and a stop");
    }

    #[test]
    fn scripts_without_spaces_are_cut_by_character_or_cluster() {
        assert_eq!(flagged("一只红猫。", &[3, 6, 9, 12, 15], &[2]), ["红"]);
        assert_eq!(flagged("一只红猫。", &[3, 6, 9, 12, 15], &[2, 3]), ["红猫"]);
        // The byte-fallback tokens of a character all span it.
        let span = ByteSpan::try_new(3, 6).unwrap();
        let pieces = [-1.0, 2.0, 2.0].map(|logit| TokenReward::from_logit(span, logit));
        let got = flagged_words("红猫", &Scored::flagged_spans(&pieces, 0.5));
        assert_eq!(got, [span]);
        assert_eq!(flagged("แมวสีแดง", &[9, 15, 24], &[2]), ["แดง"]);
        assert_eq!(flagged("Ein Häuschen", &[4, 6, 13], &[2]), ["Häuschen"]);
        assert_eq!(flagged("قطة حمراء", &[6, 17], &[1]), ["حمراء"]);
    }

    #[test]
    fn words_hold_letters_or_digits() {
        let text = "It's 3.5 m — ok? 👍";
        let got: Vec<&str> = words(text).into_iter().map(|w| &text[w.range()]).collect();
        assert_eq!(got, ["It's", "3.5", "m", "ok"]);
        assert!(words(" .!\n").is_empty());
    }

    proptest! {
        #[test]
        fn spans_are_whole_ordered_disjoint_and_cover_what_is_flagged(
            text in prop_oneof![".{0,60}", "([a-z]{1,4}[ .,]{0,2}){0,20}", "[红猫一。 a]{0,30}"],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            bad in prop::collection::vec(any::<bool>(), 16),
        ) {
            let mut ends: Vec<u32> =
                cuts.iter().map(|cut| cut.index(text.len() + 1) as u32).collect();
            ends.push(text.len() as u32);
            ends.sort_unstable();
            let bad: Vec<usize> = (0..ends.len()).filter(|at| bad[*at]).collect();
            let tokens = tokens(&ends, &bad);
            let spans = flagged_words(&text, &Scored::flagged_spans(&tokens, 0.5));
            let units = units(&text);
            for pair in spans.windows(2) {
                let between = &text[pair[0].end() as usize..pair[1].start() as usize];
                prop_assert!(!between.trim().is_empty(), "adjacent spans are one");
            }
            for span in &spans {
                prop_assert!(units.iter().any(|u| u.span.start() == span.start()));
                prop_assert!(units.iter().any(|u| u.span.end() == span.end()));
                prop_assert!(tokens.iter().any(|t| !t.is_good(0.5) && t.span.overlaps(*span)));
            }
            for token in tokens.iter().filter(|t| !t.is_good(0.5)) {
                for unit in units.iter().filter(|u| u.kind == UnitKind::Word) {
                    if unit.span.overlaps(token.span) {
                        prop_assert!(spans.iter().any(|s| s.to(unit.span) == *s));
                    }
                }
            }
        }
    }
}
