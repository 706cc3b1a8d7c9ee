use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation as _;

use super::*;
use crate::spans_of_ends;

/// The tokens' texts make up the response.
fn cut<const N: usize>(rule: SentenceRule, texts: [&str; N]) -> Vec<Range<usize>> {
    let mut end = 0;
    let ends = texts.map(|text| {
        end += text.len() as u32;
        end
    });
    sentences(rule, &texts.concat(), &spans_of_ends(&ends))
}

#[test]
fn sentences_cover_every_token_once() {
    let got = cut(SentenceRule::Period, ["a", " b", ".", " c", " d.", " e"]);
    assert_eq!(got, vec![0..3, 3..5, 5..6]);
    assert!(cut(SentenceRule::Period, []).is_empty());
    assert!(cut(SentenceRule::Unicode, []).is_empty());
}

#[test]
fn a_space_goes_with_the_word_behind_it() {
    let got = cut(SentenceRule::Unicode, ["Hi", "!", " The", " cat", ".", " So", "?"]);
    assert_eq!(got, vec![0..2, 2..5, 5..7]);
}

#[test]
fn what_is_no_sentence_end_cuts_only_by_periods() {
    let texts = ["About", " 3", ".", "5", " m", ",", " approx", ".", " so"];
    assert_eq!(cut(SentenceRule::Unicode, texts), vec![0..9]);
    assert_eq!(cut(SentenceRule::Period, texts), vec![0..3, 3..8, 8..9]);
}

#[test]
fn tokens_without_bytes_stay_with_those_before_them() {
    let got = cut(SentenceRule::Unicode, ["", "A.", "", " B.", "", ""]);
    assert_eq!(got, vec![0..3, 3..6]);
}

#[test]
fn a_token_over_several_sentences_belongs_to_its_last() {
    let got = cut(SentenceRule::Unicode, ["A. B. C", " d", ".", " E"]);
    assert_eq!(got, vec![0..3, 3..4]);
}

#[test]
fn byte_tokens_of_one_character_stay_together() {
    let whole = |n| std::iter::repeat_n(ByteSpan::try_new(4, 7).unwrap(), n);
    let spans: Vec<_> = spans_of_ends(&[1, 2, 4]).into_iter().chain(whole(3)).collect();
    let got = sentences(SentenceRule::Unicode, "a。\u{300}字", &[]);
    assert!(got.is_empty());
    assert_eq!(sentences(SentenceRule::Unicode, "a!\u{300}字", &spans), vec![0..3, 3..6]);
}

#[test]
fn long_runs_after_a_period_take_no_longer_than_others() {
    for run in [" ", "\"", "()", "”", " \u{300}", "\u{3000}\u{a0}"] {
        let run = run.repeat(100_000);
        let response = format!("a.{run}1. B");
        let ends = [2, 2 + run.len() as u32, response.len() as u32];
        let got = sentences(SentenceRule::Unicode, &response, &spans_of_ends(&ends));
        assert_eq!(got, vec![0..2, 2..3], "{:?}", run.chars().next());
    }
}

#[test]
fn no_character_moves_the_boundaries_by_repetition() {
    for c in '\0'..=char::MAX {
        for text in [format!("A.{c}{c}{c} B"), format!("A.){c} {c}{c}b"), format!("A. {c}) {c}B")] {
            let want: Vec<_> = text.split_sentence_bound_indices().map(|(at, _)| at).collect();
            assert_eq!(sentence_starts(&text), want, "{text:?}");
        }
    }
}

proptest! {
    #[test]
    fn every_token_belongs_to_the_sentence_of_its_last_byte(
        response in "([a-cA-C1é字ªः .!?。\"')(“”,;\n\r\t\u{300}\u{200d}\u{3000}\u{85}🙂]|\\PC){0,40}",
        steps in prop::collection::vec((0_usize..3, 0_usize..4), 0..30),
    ) {
        let (mut start, mut end) = (0, 0);
        let spans: Vec<ByteSpan> = steps
            .into_iter()
            .map(|(from, to)| {
                start = (start + from).min(response.len());
                end = start.max(end + to).min(response.len());
                ByteSpan::try_new(start as u32, end as u32).unwrap()
            })
            .collect();
        let starts: Vec<usize> =
            response.split_sentence_bound_indices().map(|(at, _)| at).collect();
        let mut sentence = 0;
        let mut want: Vec<Vec<usize>> = Vec::new();
        for (index, span) in spans.iter().enumerate() {
            let before = sentence;
            if !span.is_empty() {
                sentence = starts.iter().filter(|&&s| s < span.end() as usize).count();
            }
            match want.last_mut() {
                Some(last) if sentence == before || before == 0 => last.push(index),
                _ => want.push(vec![index]),
            }
        }
        let got = sentences(SentenceRule::Unicode, &response, &spans);
        let got: Vec<Vec<usize>> = got.into_iter().map(Iterator::collect).collect();
        prop_assert_eq!(got, want);
    }
}
