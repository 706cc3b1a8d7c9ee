use super::fact::{Counted, Description, Fact, Half, Place, Relation};
use super::{Colour, Kind, Pattern, SignWord, Size};

/// What a sentence claims, in any wording of [`Sentence`](super::Sentence), whatever its case and
/// whether `a` or `an` stands before a word; `None` where it is worded otherwise.
pub fn read_sentence(sentence: &str) -> Option<Fact> {
    let spaced = sentence.trim().trim_end_matches('.').replace(',', " , ").to_lowercase();
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let reader = Reader { words: &words };
    FORMS.iter().find_map(|form| form(reader))
}

/// The words that are left to read.
#[derive(Clone, Copy)]
struct Reader<'a> {
    words: &'a [&'a str],
}

type Form = fn(Reader<'_>) -> Option<Fact>;

/// One for each wording; each reads a sentence to its end.
const FORMS: [Form; 14] = [
    presence,
    absence,
    present_or_not,
    count,
    number_of,
    is_colour,
    colour_of,
    two_colours,
    size_pattern_or_stance,
    overview,
    relation,
    relation_has,
    place,
    sign,
];

// === impl Reader ===

impl<'a> Reader<'a> {
    fn skip(&mut self, words: &[&str]) -> Option<()> {
        let (head, rest) = self.words.split_at_checked(words.len())?;
        (head == words).then(|| self.words = rest)
    }

    fn skip_one_of(&mut self, all: &[&[&str]]) -> Option<()> {
        all.iter().find_map(|words| self.skip(words))
    }

    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    /// The next word where it names one of `all`.
    fn named<T: Copy>(
        &mut self,
        all: impl IntoIterator<Item = T>,
        name: fn(T) -> &'static str,
    ) -> Option<T> {
        let word = self.words.first()?;
        let found = all.into_iter().find(|&one| name(one).eq_ignore_ascii_case(word))?;
        self.next().map(|_| found)
    }

    fn colour(&mut self) -> Option<Colour> {
        self.named(Colour::ALL, Colour::word)
    }

    fn number(&mut self) -> Option<u8> {
        let numbers = ["one", "two", "three", "four", "five", "six"];
        self.named((1_u8..).zip(numbers), |(_, word)| word).map(|(number, _)| number)
    }

    fn noun(&mut self, kind: fn(Kind) -> &'static str) -> Option<Description> {
        Some(Description {
            size: self.named(Size::ALL, Size::word),
            colour: self.colour(),
            pattern: self.named(Pattern::ALL, Pattern::word),
            kind: self.named(Kind::ALL, kind)?,
        })
    }

    fn the(&mut self) -> Option<Description> {
        self.skip(&["the"])?;
        self.noun(Kind::word)
    }

    fn an(&mut self) -> Option<Description> {
        self.skip_one_of(&[&["a"], &["an"]])?;
        self.noun(Kind::word)
    }

    fn the_or_an(&mut self) -> Option<Description> {
        self.the().or_else(|| self.an())
    }

    fn counted(&mut self) -> Option<Counted> {
        let objects = |reader: &mut Self| reader.skip_one_of(&[&["objects"], &["object"]]);
        if objects(self).is_some() {
            return Some(Counted::Objects);
        }
        let mut coloured = *self;
        if let Some(colour) = coloured.colour()
            && objects(&mut coloured).is_some()
        {
            *self = coloured;
            return Some(Counted::Coloured(colour));
        }
        let mut several = *self;
        if let Some(what) = several.noun(Kind::plural) {
            *self = several;
            return Some(Counted::Described(what));
        }
        self.noun(Kind::word).map(Counted::Described)
    }

    fn relation(&mut self) -> Option<Relation> {
        let words = [
            (Relation::LeftOf, ["left", "of"].as_slice()),
            (Relation::RightOf, &["right", "of"]),
            (Relation::Above, &["above"]),
            (Relation::Below, &["below"]),
        ];
        words.into_iter().find_map(|(relation, words)| self.skip(words).map(|()| relation))
    }

    /// `fact` where nothing is left.
    fn end(self, fact: Fact) -> Option<Fact> {
        self.words.is_empty().then_some(fact)
    }
}

fn presence(mut r: Reader<'_>) -> Option<Fact> {
    r.skip_one_of(&[&["there", "is"], &["the", "image", "shows"]])?;
    let what = r.an()?;
    r.end(Fact::Presence { what, present: true })
}

fn absence(mut r: Reader<'_>) -> Option<Fact> {
    r.skip_one_of(&[&["there", "is", "no"], &["the", "image", "shows", "no"]])?;
    let what = r.noun(Kind::word)?;
    r.end(Fact::Presence { what, present: false })
}

fn present_or_not(mut r: Reader<'_>) -> Option<Fact> {
    let what = r.an()?;
    r.skip(&["is"])?;
    let present = match r.words {
        ["present"] | ["in", "the", "image"] => true,
        ["absent"] | ["not", "in", "the", "image"] => false,
        _ => return None,
    };
    Some(Fact::Presence { what, present })
}

fn count(mut r: Reader<'_>) -> Option<Fact> {
    r.skip_one_of(&[&["there", "is"], &["there", "are"], &["the", "image", "shows"]])?;
    let number = r.number()?;
    let what = r.counted()?;
    r.end(Fact::Count { what, number })
}

fn number_of(mut r: Reader<'_>) -> Option<Fact> {
    r.skip(&["the", "number", "of"])?;
    let what = r.counted()?;
    r.skip(&["is"])?;
    let number = r.number()?;
    r.end(Fact::Count { what, number })
}

fn is_colour(mut r: Reader<'_>) -> Option<Fact> {
    let what = r.the()?;
    r.skip(&["is"])?;
    let colour = r.colour()?;
    r.end(Fact::Colour { what, colour })
}

fn colour_of(mut r: Reader<'_>) -> Option<Fact> {
    r.skip(&["the", "colour", "of"])?;
    is_colour(r)
}

fn two_colours(mut r: Reader<'_>) -> Option<Fact> {
    let mut one = || {
        let what = r.the()?;
        r.skip(&["is"])?;
        let colour = r.colour()?;
        let _ = r.skip(&["and"]);
        Some((what, colour))
    };
    let (first, second) = (one()?, one()?);
    r.end(Fact::Colours { first, second })
}

fn size_pattern_or_stance(mut r: Reader<'_>) -> Option<Fact> {
    let what = r.the()?;
    r.skip(&["is"])?;
    match r.words {
        ["upside", "down"] => return Some(Fact::Stance { what, turned: true }),
        ["upright"] => return Some(Fact::Stance { what, turned: false }),
        _ => {}
    }
    if let Some(size) = r.named(Size::ALL, Size::word) {
        return r.end(Fact::Size { what, size });
    }
    let pattern = r.named(Pattern::ALL, Pattern::word)?;
    r.end(Fact::Pattern { what, pattern })
}

fn overview(mut r: Reader<'_>) -> Option<Fact> {
    r.skip_one_of(&[&["the", "image", "shows"], &["here", "are"], &["you", "can", "see"]])?;
    let a = r.an()?;
    r.skip(&[","])?;
    let b = r.an()?;
    r.skip(&["and"])?;
    let c = r.an()?;
    r.end(Fact::Overview([a, b, c]))
}

fn relation(mut r: Reader<'_>) -> Option<Fact> {
    let a = r.the_or_an()?;
    r.skip(&["is"])?;
    let relation = r.relation()?;
    let b = r.the_or_an()?;
    r.end(Fact::Relation { a, relation, b })
}

fn relation_has(mut r: Reader<'_>) -> Option<Fact> {
    let b = r.the()?;
    r.skip(&["has"])?;
    let a = r.an()?;
    let relation = match r.words {
        ["to", "its", "left"] => Relation::LeftOf,
        ["to", "its", "right"] => Relation::RightOf,
        ["above", "it"] => Relation::Above,
        ["below", "it"] => Relation::Below,
        _ => return None,
    };
    Some(Fact::Relation { a, relation, b })
}

fn place(mut r: Reader<'_>) -> Option<Fact> {
    let what = r.the_or_an()?;
    r.skip(&["is"])?;
    let half = |word: &str| match word {
        "left" => Some(Half::Left),
        "right" => Some(Half::Right),
        "top" => Some(Half::Top),
        "bottom" => Some(Half::Bottom),
        _ => None,
    };
    let place = match r.words {
        ["on", "the", side @ ("left" | "right")] | ["at", "the", side @ ("top" | "bottom")] => {
            Place::Half(half(side)?)
        }
        ["in", "the", v @ ("top" | "bottom"), h @ ("left" | "right"), "corner"] => {
            Place::Corner(half(v)?, half(h)?)
        }
        _ => return None,
    };
    Some(Fact::Place { what, place })
}

fn sign(mut r: Reader<'_>) -> Option<Fact> {
    match r.words {
        ["there", "is", "a", "sign"] | ["there", "is", "a", "sign", "in", "the", "image"] => {
            return Some(Fact::Sign(true));
        }
        ["there", "is", "no", "sign"] | ["there", "is", "no", "sign", "in", "the", "image"] => {
            return Some(Fact::Sign(false));
        }
        _ => {}
    }
    r.skip_one_of(&[
        &["a", "sign", "says"],
        &["the", "sign", "says"],
        &["the", "word", "on", "the", "sign", "is"],
    ])?;
    let word = r.named(SignWord::all(), SignWord::text)?;
    r.end(Fact::Written(word))
}

#[cfg(test)]
mod tests {
    use super::super::sentence::{Sentence, append};
    use super::super::{Scene, Split, Truth, example, question_example};
    use super::*;

    #[test]
    fn every_sentence_said_of_a_scene_reads_back_with_its_truth() {
        for index in 0..400 {
            let captions = example(Split::Test, 5, index, 8);
            let answers = question_example(Split::Test, 5, index, 4);
            let scene = Scene::draw(Split::Test, 5, index);
            for item in captions.items.iter().chain(&answers.items) {
                let mut at = 0;
                for sentence in item.text.split_inclusive('.') {
                    let range = at..at + sentence.len();
                    at = range.end;
                    let labelled = |l: &crate::data::Label| range.contains(&(l.start as usize));
                    let expected =
                        if item.labels.iter().any(labelled) { Truth::False } else { Truth::True };
                    let fact = read_sentence(sentence);
                    let truth = fact.map(|fact| fact.truth(&scene));
                    assert_eq!(truth, Some(expected), "{sentence} of {}: {fact:?}", item.text);
                }
            }
        }
    }

    #[test]
    fn every_wording_reads_back_as_its_claim() {
        let what = Description {
            size: Some(Size::Small),
            colour: Some(Colour::Orange),
            pattern: Some(Pattern::Dotted),
            kind: Kind::Umbrella,
        };
        let other = Description { size: None, pattern: None, kind: Kind::Key, ..what };
        let facts = [
            Fact::Presence { what, present: true },
            Fact::Presence { what, present: false },
            Fact::Overview([what, other, what]),
            Fact::Count { what: Counted::Objects, number: 1 },
            Fact::Count { what: Counted::Coloured(Colour::Red), number: 6 },
            Fact::Count { what: Counted::Described(what), number: 1 },
            Fact::Count { what: Counted::Described(what), number: 2 },
            Fact::Colour { what, colour: Colour::Red },
            Fact::Size { what: other, size: Size::Large },
            Fact::Pattern { what: other, pattern: Pattern::Plain },
            Fact::Stance { what, turned: true },
            Fact::Stance { what, turned: false },
            Fact::Colours { first: (what, Colour::Red), second: (other, Colour::Blue) },
            Fact::Written(SignWord::all().last().unwrap()),
            Fact::Sign(true),
            Fact::Sign(false),
        ];
        let relations =
            Relation::ALL.map(|relation| Fact::Relation { a: what, relation, b: other });
        let places = Place::all().map(|place| Fact::Place { what, place });
        for fact in facts.into_iter().chain(relations).chain(places) {
            for wording in 0..12 {
                let mut text = String::new();
                append(&mut text, &Sentence { fact, wording }.words(), '.');
                assert_eq!(read_sentence(&text), Some(fact), "{text}");
            }
        }
    }

    #[test]
    fn what_is_worded_otherwise_is_not_read() {
        for text in ["", "A cat.", "The heart is.", "There is a red.", "The red heart is red blue."]
        {
            assert_eq!(read_sentence(text), None, "{text}");
        }
    }
}
