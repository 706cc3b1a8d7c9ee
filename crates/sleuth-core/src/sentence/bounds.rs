use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation as _;

/// What a character is to the rules on what may follow a period (UAX 29, table 4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `ATerm`: a period.
    Period,
    /// `Close`: quotes and brackets.
    Close,
    /// `Sp`.
    Space,
    /// `Extend` and `Format`, which belong to the character before them.
    Mark,
    Other,
}

/// Where sentences start in `text`, in bytes, ascending; none for an empty text.
pub(super) fn sentence_starts(text: &str) -> Vec<usize> {
    let (thin, dropped) = thin(text);
    let mut dropped = dropped.into_iter().peekable();
    let mut bytes = 0;
    let mut starts = Vec::new();
    for (at, _) in thin.split_sentence_bound_indices() {
        while let Some((_, more)) = dropped.next_if(|&(place, _)| place <= at) {
            bytes += more;
        }
        starts.push(at + bytes);
    }
    starts
}

/// Shortens what follows a period, without moving a boundary, and tells what was left out: places
/// in the shortened text, ascending, and how many bytes are missing in front of each.
///
/// Rule SB8 lets a sentence go on after `ATerm Close* Sp*` where the next letter is lower case. The
/// segmenter looks for that letter anew at every character of `Close* Sp*`, which takes quadratic
/// time: seconds for some kilobytes of spaces. To the rules a run of `Close` or of `Sp` is as good
/// as one of it, and marks in it are nothing (SB5).
fn thin(text: &str) -> (Cow<'_, str>, Vec<(usize, usize)>) {
    let mut kept = String::new();
    let mut copied = 0;
    let mut dropped = Vec::new();
    let mut last = Kind::Other;
    for (at, character) in text.char_indices() {
        let next = match (last, character) {
            (Kind::Other, c) if !is_period(c) => continue,
            (_, c) => kind(c),
        };
        let needless = match next {
            Kind::Mark => true,
            Kind::Close | Kind::Space => next == last,
            Kind::Period | Kind::Other => false,
        };
        if needless {
            kept.push_str(&text[copied..at]);
            copied = at + character.len_utf8();
            match dropped.last_mut() {
                Some((place, bytes)) if *place == kept.len() => *bytes += character.len_utf8(),
                _ => dropped.push((kept.len(), character.len_utf8())),
            }
            continue;
        }
        last = match (last, next) {
            (Kind::Space, Kind::Close) => Kind::Other,
            _ => next,
        };
    }
    if dropped.is_empty() {
        return (Cow::Borrowed(text), dropped);
    }
    kept.push_str(&text[copied..]);
    (Cow::Owned(kept), dropped)
}

fn is_period(c: char) -> bool {
    matches!(c, '.' | '\u{2024}' | '\u{FE52}' | '\u{FF0E}')
}

fn kind(c: char) -> Kind {
    match c {
        '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => Kind::Other,
        '(' | ')' | '[' | ']' | '{' | '}' | '"' | '\'' => Kind::Close,
        _ if is_period(c) => Kind::Period,
        _ if c.is_whitespace() => Kind::Space,
        _ if c.is_ascii() => Kind::Other,
        _ => observed(c),
    }
}

/// The segmenter does not tell a character's class, but shows it by where it cuts.
fn observed(c: char) -> Kind {
    let cuts = |text: String| text.split_sentence_bound_indices().map(|(at, _)| at).nth(1);
    let after = 1 + c.len_utf8();
    let ends_nothing = cuts(format!("9{c}B")).is_none();
    let goes_with_the_end = cuts(format!("!{c}B")) == Some(after);
    if !(ends_nothing && goes_with_the_end) {
        Kind::Other
    } else if cuts(format!("! {c}B")) == Some(2) {
        Kind::Close
    } else {
        Kind::Mark
    }
}
