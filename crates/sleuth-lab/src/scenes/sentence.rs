use sleuth_core::ByteSpan;

use super::fact::{Counted, Description, Fact, Half, Place, Relation};

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

const NUMBERS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

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
            Fact::Pattern { what, pattern } => {
                the(&mut w, what);
                w.extend(["is", pattern.word()]);
            }
            Fact::Stance { what, turned } => {
                the(&mut w, what);
                w.extend(if turned {
                    ["is", "upside", "down"].as_slice()
                } else {
                    &["is", "upright"]
                });
            }
            Fact::Colours { first, second } => {
                the(&mut w, first.0);
                w.extend(["is", first.1.word(), "and"]);
                the(&mut w, second.0);
                w.extend(["is", second.1.word()]);
            }
            Fact::Overview([a, b, c]) => {
                w.extend(
                    [
                        ["the", "image", "shows"].as_slice(),
                        &["here", "are"],
                        &["you", "can", "see"],
                    ][usize::from(self.wording % 3)],
                );
                an(&mut w, a);
                w.push(",");
                an(&mut w, b);
                w.push("and");
                an(&mut w, c);
            }
            Fact::Relation { a, relation, b } => relate(&mut w, a, relation, b, self.wording),
            Fact::Place { what, place } => {
                if self.wording.is_multiple_of(2) {
                    the(&mut w, what);
                } else {
                    an(&mut w, what);
                }
                w.push("is");
                place_words(&mut w, place);
            }
            Fact::Written(word) => {
                w.extend(
                    [
                        ["a", "sign", "says"].as_slice(),
                        &["the", "sign", "says"],
                        &["the", "word", "on", "the", "sign", "is"],
                    ][usize::from(self.wording % 3)],
                );
                w.push(word.text());
            }
            Fact::Sign(there) => {
                w.extend(["there", "is", if there { "a" } else { "no" }, "sign"]);
                if !self.wording.is_multiple_of(2) {
                    w.extend(["in", "the", "image"]);
                }
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
                counted(&mut w, what, true);
                w.extend(["are", "there"]);
            }
            Fact::Pattern { what, .. } => {
                w.extend(["what", "pattern", "has"]);
                the(&mut w, what);
            }
            Fact::Written(_) => w.extend(["what", "does", "the", "sign", "say"]),
            Fact::Sign(_) => w.extend(["is", "there", "a", "sign"]),
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
            Fact::Colours { first, second } => {
                w.extend(["what", "colours", "have"]);
                the(&mut w, first.0);
                w.push("and");
                the(&mut w, second.0);
            }
            Fact::Overview(_) | Fact::Stance { .. } => return None,
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

fn count(w: &mut Words, what: Counted, number: u8, wording: u8) {
    let word = NUMBERS[usize::from(number.clamp(1, 6)) - 1];
    match wording % 3 {
        0 => w.extend(["there", if number == 1 { "is" } else { "are" }]),
        1 => w.extend(["the", "image", "shows"]),
        _ => {
            w.extend(["the", "number", "of"]);
            counted(w, what, true);
            w.extend(["is", word]);
            return;
        }
    }
    w.push(word);
    counted(w, what, number != 1);
}

fn counted(w: &mut Words, what: Counted, several: bool) {
    let objects = if several { "objects" } else { "object" };
    match what {
        Counted::Objects => w.push(objects),
        Counted::Coloured(colour) => w.extend([colour.word(), objects]),
        Counted::Described(d) => {
            adjectives(w, d);
            w.push(if several { d.kind.plural() } else { d.kind.word() });
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

fn place_words(w: &mut Words, place: Place) {
    match place {
        Place::Half(Half::Left) => w.extend(["on", "the", "left"]),
        Place::Half(Half::Right) => w.extend(["on", "the", "right"]),
        Place::Half(Half::Top) => w.extend(["at", "the", "top"]),
        Place::Half(Half::Bottom) => w.extend(["at", "the", "bottom"]),
        Place::Corner(vertical, horizontal) => w.extend([
            "in",
            "the",
            if vertical == Half::Top { "top" } else { "bottom" },
            if horizontal == Half::Left { "left" } else { "right" },
            "corner",
        ]),
    }
}

fn adjectives(w: &mut Words, what: Description) {
    w.extend(what.size.map(super::Size::word));
    w.extend(what.colour.map(super::Colour::word));
    w.extend(what.pattern.map(super::Pattern::word));
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

/// Appends words to a text as one sentence: a capital first, `end` last, no space before a comma.
/// Returns where each word stands.
pub(crate) fn append(text: &mut String, words: &[&str], end: char) -> Vec<ByteSpan> {
    let mut spans = Vec::with_capacity(words.len());
    for (i, word) in words.iter().enumerate() {
        if !text.is_empty() && *word != "," {
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
    use super::super::{Colour, Kind, Pattern, SignWord, Size};
    use super::*;

    fn text(sentence: Sentence) -> String {
        let mut out = String::new();
        append(&mut out, &sentence.words(), '.');
        out
    }

    const CROSS: Description =
        Description { colour: Some(Colour::Orange), ..Description::of(Kind::Cross) };
    const CIRCLE: Description =
        Description { size: Some(Size::Small), kind: Kind::Circle, ..CROSS };

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
        let two = Fact::Count { what: Counted::Described(CROSS), number: 2 };
        assert_eq!(say(two, 0), "There are two orange crosses.");
        let red = Counted::Coloured(Colour::Red);
        assert_eq!(say(Fact::Count { what: red, number: 1 }, 0), "There is one red object.");
        assert_eq!(say(two, 2), "The number of orange crosses is two.");
        let place = |place| say(Fact::Place { what: CROSS, place }, 0);
        assert_eq!(place(Place::Half(Half::Top)), "The orange cross is at the top.");
        let corner = Place::Corner(Half::Top, Half::Left);
        assert_eq!(place(corner), "The orange cross is in the top left corner.");
        let house = Description {
            size: Some(Size::Large),
            pattern: Some(Pattern::Striped),
            ..Description::of(Kind::House)
        };
        let overview = Fact::Overview([house, CROSS, Description::of(Kind::Key)]);
        assert_eq!(
            say(overview, 0),
            "The image shows a large striped house, an orange cross and a key."
        );
        let turned = Fact::Stance { what: house, turned: true };
        assert_eq!(say(turned, 0), "The large striped house is upside down.");
        let word = SignWord::all().next().unwrap();
        assert_eq!(say(Fact::Written(word), 0), "A sign says OPEN.");
        assert_eq!(say(Fact::Sign(false), 1), "There is no sign in the image.");
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
