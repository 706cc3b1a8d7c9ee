use super::{Colour, Kind, Size};

/// Words other than names of kinds, colours and sizes that texts and questions are made of.
const OTHER: [&str; 37] = [
    "a", "above", "absent", "an", "and", "are", "at", "below", "bottom", "colour", "four", "has",
    "image", "in", "is", "it", "its", "left", "many", "no", "not", "number", "object", "objects",
    "of", "on", "one", "present", "right", "shows", "size", "the", "there", "three", "to", "top",
    "two",
];
/// Words that start a sentence or a question.
const OPENING: [&str; 9] = ["A", "An", "Describe", "How", "Is", "The", "There", "What", "Where"];

/// Every word that any text or prompt of a scene can hold, as it is written: lower case, and with
/// a capital where it can stand first. The only other characters are space, `.` and `?`.
pub fn vocabulary() -> Vec<&'static str> {
    let kinds = Kind::ALL.into_iter().flat_map(|k| [k.word(), k.plural()]);
    let colours = Colour::ALL.into_iter().map(Colour::word);
    let sizes = Size::ALL.into_iter().map(Size::word);
    OPENING.into_iter().chain(OTHER).chain(kinds).chain(colours).chain(sizes).collect()
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
                    used.extend(text.split([' ', '.', '?']).map(str::to_owned));
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
