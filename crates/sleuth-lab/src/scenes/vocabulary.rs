use super::{Colour, Kind, Pattern, SignWord, Size};

/// Words other than names of kinds, colours, patterns, sizes and signs that texts and questions are
/// made of.
const OTHER: [&str; 53] = [
    "a", "above", "absent", "an", "and", "are", "at", "below", "bottom", "can", "colour",
    "colours", "corner", "does", "down", "five", "four", "has", "have", "image", "in", "is", "it",
    "its", "left", "many", "no", "not", "number", "object", "objects", "of", "on", "one",
    "pattern", "present", "right", "say", "says", "see", "shows", "sign", "six", "size", "the",
    "there", "three", "to", "top", "two", "upright", "upside", "word",
];
/// Words that start a sentence or a question.
const OPENING: [&str; 11] =
    ["A", "An", "Describe", "Here", "How", "Is", "The", "There", "What", "Where", "You"];

/// Every word that any text or prompt of a scene can hold, as it is written: lower case, with a
/// capital where it can stand first, in capitals where it stands on signs. The only other
/// characters are space, `.`, `,` and `?`.
pub fn vocabulary() -> Vec<&'static str> {
    let kinds = Kind::ALL.into_iter().flat_map(|k| [k.word(), k.plural()]);
    let colours = Colour::ALL.into_iter().map(Colour::word);
    let patterns = Pattern::ALL.into_iter().map(Pattern::word);
    let sizes = Size::ALL.into_iter().map(Size::word);
    let signs = SignWord::all().map(SignWord::text);
    let mut words: Vec<_> = OPENING
        .into_iter()
        .chain(OTHER)
        .chain(kinds)
        .chain(colours)
        .chain(patterns)
        .chain(sizes)
        .chain(signs)
        .collect();
    // One kind's plural is its singular.
    words.sort_unstable();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Split, example, question_example};
    use super::*;

    #[test]
    fn the_vocabulary_is_exactly_what_texts_use() {
        let mut used = BTreeSet::new();
        for index in 0..6000 {
            let texts = example(Split::Test, 6, index, 4).items;
            let asked = question_example(Split::Test, 6, index, 4).items;
            for item in texts.iter().chain(&asked) {
                for text in [&item.prompt, &item.text] {
                    used.extend(text.split([' ', '.', ',', '?']).map(str::to_owned));
                }
            }
        }
        used.remove("");
        let listed: BTreeSet<String> = vocabulary().into_iter().map(str::to_owned).collect();
        assert_eq!(listed.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(used.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(listed.len(), vocabulary().len());
    }
}
