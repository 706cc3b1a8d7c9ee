//! From the bytes a tokenizer says its tokens come from to spans that keep their promises.

use std::ops::Range;

use sleuth_core::ByteSpan;

/// Spans on character boundaries that never go back and together cover `text`; see
/// [`TextTokenizer::encode_response`](crate::TextTokenizer::encode_response). `None` where no token
/// comes from any text.
pub(super) fn cover(text: &str, ranges: &[Range<usize>]) -> Option<Vec<ByteSpan>> {
    let mut spans = in_order(text, ranges);
    let full: Vec<usize> = (0..spans.len()).filter(|&i| !spans[i].is_empty()).collect();
    fill_gaps(text, &mut spans, &full);
    place_empty(&mut spans);
    let covered = full.last().map(|&last| spans[last].end)?;
    if covered != text.len() {
        return None;
    }
    spans.into_iter().map(|s| ByteSpan::try_new(s.start as u32, s.end as u32).ok()).collect()
}

/// Whole characters, in order; a span begins before the end of the one before it only to share that
/// one's last character.
fn in_order(text: &str, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut last = 0..0;
    let mut out = Vec::with_capacity(ranges.len());
    for range in ranges {
        if range.is_empty() {
            out.push(range.clone());
            continue;
        }
        let mut start = text.floor_char_boundary(range.start);
        let end = text.ceil_char_boundary(range.end).max(last.end);
        if start < last.end {
            let shared = text.floor_char_boundary(last.end.saturating_sub(1));
            start = if start >= shared || start == last.start { start } else { last.end };
            start = start.max(last.start);
        }
        let span = start..end;
        if !span.is_empty() {
            last = span.clone();
        }
        out.push(span);
    }
    out
}

/// Gives what no token covers to a neighbour: white space to the token after it, all else, and what
/// ends the text, to the one before it. `full` are the indices of the spans that are not empty.
fn fill_gaps(text: &str, spans: &mut [Range<usize>], full: &[usize]) {
    let mut covered = 0;
    for (n, &i) in full.iter().enumerate() {
        let start = spans[i].start;
        if start > covered {
            let is_space = text[covered..start].chars().all(char::is_whitespace);
            if is_space || n == 0 {
                let sharing = full[n..].iter().take_while(|&&j| spans[j].start == start).count();
                full[n..n + sharing].iter().for_each(|&j| spans[j].start = covered);
            } else {
                extend_to(start, spans, &full[..n]);
            }
        }
        covered = covered.max(spans[i].end);
    }
    if covered < text.len() {
        extend_to(text.len(), spans, full);
    }
}

/// Moves the end of the last span, and of those that end with it, to `end`.
fn extend_to(end: usize, spans: &mut [Range<usize>], full: &[usize]) {
    let Some(&last) = full.last() else { return };
    let old = spans[last].end;
    let sharing = full.iter().rev().take_while(|&&j| spans[j].end == old).count();
    full[full.len() - sharing..].iter().for_each(|&j| spans[j].end = end);
}

/// Empty spans stand where the span before them ends.
fn place_empty(spans: &mut [Range<usize>]) {
    let mut end = 0;
    for span in spans {
        if span.start == span.end {
            *span = end..end;
        }
        end = span.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(text: &str, ranges: &[Range<usize>]) -> Vec<(u32, u32)> {
        cover(text, ranges).unwrap().iter().map(|s| (s.start(), s.end())).collect()
    }

    #[test]
    fn parts_of_a_character_all_span_it() {
        assert_eq!(spans("é!", &[0..1, 1..2, 2..3]), [(0, 2), (0, 2), (2, 3)]);
    }

    #[test]
    fn removed_white_space_goes_to_the_token_after_it() {
        assert_eq!(spans(" a  b ", &[1..2, 4..5]), [(0, 2), (2, 6)]);
    }

    #[test]
    fn a_removed_mark_goes_to_the_token_before_it() {
        assert_eq!(spans("e\u{301}x", &[0..1, 3..4]), [(0, 3), (3, 4)]);
    }

    #[test]
    fn tokens_of_no_text_have_empty_spans_in_order() {
        assert_eq!(spans("ab  c", &[0..0, 0..2, 4..4, 4..5]), [(0, 0), (0, 2), (2, 2), (2, 5)]);
    }

    #[test]
    fn ranges_that_go_back_are_put_in_order() {
        assert_eq!(spans("abcdef", &[0..4, 1..3, 4..6]), [(0, 4), (4, 4), (4, 6)]);
    }

    #[test]
    fn no_text_behind_any_token_is_no_cover() {
        assert_eq!(cover("abc", &[0..0, 0..0]), None);
    }
}
