use sleuth_core::ByteSpan;

use super::fact::{Description, Fact, Half, Relation};

/// A claim and the way it is worded. Everything said of a scene is a list of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// What is claimed.
    pub fact: Fact,
    /// Which of the claim's wordings; taken modulo their number.
    pub wording: u8,
}

/// Words of a sentence, without capital and full stop.
pub(crate) type Words = Vec<&'static str>;

const NUMBERS: [&str; 4] = ["one", "two", "three", "four"];

// === impl Sentence ===

impl Sentence {
    /// The words, in lower case, without the full stop.
    pub(crate) fn words(&self) -> Words {
        let mut w = Words::with_capacity(12);
        match self.fact {
            Fact::Presence { what, present } => presence(&mut w, what, present, self.wording),
            Fact::Count { what, number } => count(&mut w, what, number, self.wording),
            Fact::Colour { what, colour } => {
                if self.wording.is_multiple_of(2) {
                    the(&mut w, what);
                    w.push("is");
                } else {
                    w.extend(["the", "colour", "of"]);
                    the(&mut w, what);
                    w.push("is");
                }
                w.push(colour.word());
            }
            Fact::Size { what, size } => {
                the(&mut w, what);
                w.extend(["is", size.word()]);
            }
            Fact::Colours { first, second } => {
                the(&mut w, first.0);
                w.extend(["is", first.1.word(), "and"]);
                the(&mut w, second.0);
                w.extend(["is", second.1.word()]);
            }
            Fact::Relation { a, relation, b } => relate(&mut w, a, relation, b, self.wording),
            Fact::Place { what, half } => {
                if self.wording.is_multiple_of(2) {
                    the(&mut w, what);
                } else {
                    an(&mut w, what);
                }
                w.push("is");
                w.extend(half_words(half));
            }
        }
        w
    }

    /// The question that the sentence answers, without capital and question mark; `None` where it
    /// answers none.
    pub(crate) fn question(&self) -> Option<Words> {
        let mut w = Words::with_capacity(10);
        match self.fact {
            Fact::Presence { what, .. } => {
                w.extend(["is", "there"]);
                an(&mut w, what);
            }
            Fact::Count { what, .. } => {
                w.extend(["how", "many"]);
                plural(&mut w, what);
                w.extend(["are", "there"]);
            }
            Fact::Colour { what, .. } => {
                w.extend(["what", "colour", "is"]);
                the(&mut w, what);
            }
            Fact::Size { what, .. } => {
                w.extend(["what", "size", "is"]);
                the(&mut w, what);
            }
            Fact::Relation { relation, b, .. } => {
                w.extend(["what", "is"]);
                w.extend(relation_words(relation));
                the(&mut w, b);
            }
            Fact::Place { what, .. } => {
                w.extend(["where", "is"]);
                the(&mut w, what);
            }
            Fact::Colours { .. } => return None,
        }
        Some(w)
    }
}

fn presence(w: &mut Words, what: Description, present: bool, wording: u8) {
    match wording % 4 {
        0 | 3 => {
            w.extend(if wording.is_multiple_of(4) {
                ["there", "is"].as_slice()
            } else {
                &["the", "image", "shows"]
            });
            if present {
                an(w, what);
            } else {
                w.push("no");
                noun(w, what);
            }
        }
        1 => {
            an(w, what);
            w.extend(["is", if present { "present" } else { "absent" }]);
        }
        _ => {
            an(w, what);
            w.push("is");
            if !present {
                w.push("not");
            }
            w.extend(["in", "the", "image"]);
        }
    }
}

fn count(w: &mut Words, what: Option<Description>, number: u8, wording: u8) {
    let word = NUMBERS[usize::from(number.clamp(1, 4)) - 1];
    let counted = |w: &mut Words| {
        w.push(word);
        match (what, number) {
            (None, 1) => w.push("object"),
            (Some(d), 1) => noun(w, d),
            (what, _) => plural(w, what),
        }
    };
    match wording % 3 {
        0 => {
            w.extend(["there", if number == 1 { "is" } else { "are" }]);
            counted(w);
        }
        1 => {
            w.extend(["the", "image", "shows"]);
            counted(w);
        }
        _ => {
            w.extend(["the", "number", "of"]);
            plural(w, what);
            w.extend(["is", word]);
        }
    }
}

fn relate(w: &mut Words, a: Description, relation: Relation, b: Description, wording: u8) {
    match wording % 4 {
        0 => {
            an(w, a);
            w.push("is");
            w.extend(relation_words(relation));
            an(w, b);
        }
        1 => {
            the(w, a);
            w.push("is");
            w.extend(relation_words(relation));
            the(w, b);
        }
        2 => {
            the(w, b);
            w.push("has");
            an(w, a);
            w.extend(match relation {
                Relation::LeftOf => ["to", "its", "left"].as_slice(),
                Relation::RightOf => &["to", "its", "right"],
                Relation::Above => &["above", "it"],
                Relation::Below => &["below", "it"],
            });
        }
        _ => {
            an(w, a);
            w.push("is");
            w.extend(relation_words(relation));
            the(w, b);
        }
    }
}

const fn relation_words(relation: Relation) -> &'static [&'static str] {
    match relation {
        Relation::LeftOf => &["left", "of"],
        Relation::RightOf => &["right", "of"],
        Relation::Above => &["above"],
        Relation::Below => &["below"],
    }
}

const fn half_words(half: Half) -> [&'static str; 3] {
    match half {
        Half::Left => ["on", "the", "left"],
        Half::Right => ["on", "the", "right"],
        Half::Top => ["at", "the", "top"],
        Half::Bottom => ["at", "the", "bottom"],
    }
}

fn adjectives(w: &mut Words, what: Description) {
    w.extend(what.size.map(super::Size::word));
    w.extend(what.colour.map(super::Colour::word));
}

fn noun(w: &mut Words, what: Description) {
    adjectives(w, what);
    w.push(what.kind.word());
}

fn the(w: &mut Words, what: Description) {
    w.push("the");
    noun(w, what);
}

fn an(w: &mut Words, what: Description) {
    let at = w.len();
    w.push("a");
    noun(w, what);
    if w[at + 1].starts_with(['a', 'e', 'i', 'o', 'u']) {
        w[at] = "an";
    }
}

fn plural(w: &mut Words, what: Option<Description>) {
    match what {
        None => w.push("objects"),
        Some(d) => {
            adjectives(w, d);
            w.push(d.kind.plural());
        }
    }
}

/// Appends words to a text as one sentence: a capital first, `end` last. Returns where each word
/// stands.
pub(crate) fn append(text: &mut String, words: &[&str], end: char) -> Vec<ByteSpan> {
    let mut spans = Vec::with_capacity(words.len());
    for (i, word) in words.iter().enumerate() {
        if !text.is_empty() {
            text.push(' ');
        }
        let start = text.len();
        if i == 0 {
            text.push_str(&word[..1].to_ascii_uppercase());
            text.push_str(&word[1..]);
        } else {
            text.push_str(word);
        }
        spans.extend(ByteSpan::try_new(start as u32, text.len() as u32));
    }
    text.push(end);
    spans
}

/// For each word of `edited`, whether the edit changed it. A word that was only deleted marks the
/// one after it, or the last one where it stood at the end.
pub(crate) fn changed(original: &[&str], edited: &[&str]) -> Vec<bool> {
    if original.len() == edited.len() {
        return original.iter().zip(edited).map(|(a, b)| a != b).collect();
    }
    let shorter = original.len().min(edited.len());
    let head = original.iter().zip(edited).take_while(|(a, b)| a == b).count();
    let tail = original
        .iter()
        .rev()
        .zip(edited.iter().rev())
        .take(shorter - head)
        .take_while(|(a, b)| a == b)
        .count();
    let mut marks = vec![false; edited.len()];
    let middle = head..edited.len() - tail;
    if middle.is_empty() {
        if let Some(last) = edited.len().checked_sub(1) {
            marks[head.min(last)] = true;
        }
    } else {
        marks[middle].fill(true);
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::super::{Colour, Kind, Size};
    use super::*;

    fn text(sentence: Sentence) -> String {
        let mut out = String::new();
        append(&mut out, &sentence.words(), '.');
        out
    }

    const CIRCLE: Description =
        Description { size: Some(Size::Small), colour: Some(Colour::Orange), kind: Kind::Circle };
    const CROSS: Description =
        Description { size: None, colour: Some(Colour::Orange), kind: Kind::Cross };

    #[test]
    fn sentences_read_as_english() {
        let say = |fact, wording| text(Sentence { fact, wording });
        let absent = Fact::Presence { what: CROSS, present: false };
        assert_eq!(say(absent, 0), "There is no orange cross.");
        assert_eq!(say(absent, 1), "An orange cross is absent.");
        assert_eq!(say(absent, 2), "An orange cross is not in the image.");
        assert_eq!(say(absent, 3), "The image shows no orange cross.");
        let relation = Fact::Relation { a: CIRCLE, relation: Relation::LeftOf, b: CROSS };
        assert_eq!(say(relation, 0), "A small orange circle is left of an orange cross.");
        assert_eq!(say(relation, 2), "The orange cross has a small orange circle to its left.");
        let two = Fact::Count { what: Some(CROSS), number: 2 };
        assert_eq!(say(two, 0), "There are two orange crosses.");
        assert_eq!(say(Fact::Count { what: None, number: 1 }, 0), "There is one object.");
        assert_eq!(say(two, 2), "The number of orange crosses is two.");
        let place = Fact::Place { what: CROSS, half: Half::Top };
        assert_eq!(say(place, 0), "The orange cross is at the top.");
    }

    #[test]
    fn a_deletion_marks_the_next_word() {
        let (with, without) = (["a", "is", "not", "in"], ["a", "is", "in"]);
        assert_eq!(changed(&with, &without), [false, false, true]);
        assert_eq!(changed(&without, &with), [false, false, true, false]);
        assert_eq!(changed(&["a", "b"], &["a"]), [true]);
    }

    #[test]
    fn a_replacement_marks_what_differs() {
        assert_eq!(changed(&["a", "red", "star"], &["an", "orange", "star"]), [true, true, false]);
    }
}
