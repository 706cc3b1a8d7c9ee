use similar::{Algorithm, DiffOp, capture_diff_slices};
use sleuth_core::ByteSpan;
use unicode_segmentation::UnicodeSegmentation;

/// The words of `new` that `old` does not bear out, as byte spans of `new` in order.
///
/// The rule, which TLDR section 4 leaves open: both texts are cut into words (Unicode UAX 29, which
/// leaves punctuation and spaces out), compared without case by Myers' algorithm. A word put in or
/// changed is marked whole, also where one letter changed. What was left out marks the next word,
/// or the last where nothing follows, unless that word is marked already. Texts that differ only in
/// punctuation, space or case do not differ.
pub fn changed_words(old: &str, new: &str) -> Vec<ByteSpan> {
    let (old, new) = (words(old), words(new));
    let folded = |words: &[(usize, &str)]| -> Vec<String> {
        words.iter().map(|(_, word)| word.to_lowercase()).collect()
    };
    let mut marked = vec![false; new.len()];
    for op in capture_diff_slices(Algorithm::Myers, &folded(&old), &folded(&new)) {
        match op {
            DiffOp::Equal { .. } => {}
            DiffOp::Insert { new_index, new_len, .. }
            | DiffOp::Replace { new_index, new_len, .. } => {
                marked[new_index..new_index + new_len].fill(true);
            }
            DiffOp::Delete { new_index, .. } => {
                let next = new_index.min(new.len().saturating_sub(1));
                if let Some(word) = marked.get_mut(next) {
                    *word = true;
                }
            }
        }
    }
    let spans = new.iter().zip(marked).filter(|(_, marked)| *marked);
    spans
        .filter_map(|((start, word), _)| {
            ByteSpan::try_new(*start as u32, (start + word.len()) as u32).ok()
        })
        .collect()
}

/// How many words a text has.
pub(super) fn word_count(text: &str) -> usize {
    text.unicode_words().count()
}

fn words(text: &str) -> Vec<(usize, &str)> {
    text.unicode_word_indices().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marked(old: &str, new: &str) -> Vec<String> {
        changed_words(old, new)
            .iter()
            .map(|s| new[s.start() as usize..s.end() as usize].to_owned())
            .collect()
    }

    #[test]
    fn a_changed_word_is_marked_whole() {
        assert_eq!(marked("Two cats sit.", "Three cats sit."), ["Three"]);
        // One letter is enough for all of the word, and only for it.
        assert_eq!(marked("A red car, parked.", "A rod car, parked."), ["rod"]);
        assert_eq!(marked("left of the tree", "right of the tree"), ["right"]);
    }

    #[test]
    fn exchanged_attributes_are_marked_at_both_places() {
        let (old, new) = ("a red cup and a blue ball", "a blue cup and a red ball");
        assert_eq!(marked(old, new), ["blue", "red"]);
    }

    #[test]
    fn what_was_put_in_is_marked() {
        assert_eq!(marked("There is a dog.", "There is not a dog."), ["not"]);
    }

    #[test]
    fn what_was_left_out_marks_the_next_word_or_the_last() {
        assert_eq!(marked("There is no dog here.", "There is dog here."), ["dog"]);
        assert_eq!(marked("A dog on a red sofa", "A dog"), ["dog"]);
        assert_eq!(marked("A dog", ""), Vec::<String>::new());
    }

    #[test]
    fn punctuation_space_and_case_are_no_difference() {
        assert!(marked("A dog, a cat.", "a dog;  A cat").is_empty());
    }

    #[test]
    fn words_of_any_script_are_words() {
        assert_eq!(marked("ein gelbes Öhr", "ein grünes Öhr"), ["grünes"]);
        assert_eq!(marked("кот и пёс", "кот и лев"), ["лев"]);
    }

    proptest! {
        #[test]
        fn equal_texts_do_not_differ_and_spans_are_words(
            old in "[ab éI.,]{0,40}", new in "[ab éI.,]{0,40}",
        ) {
            prop_assert!(changed_words(&old, &old).is_empty());
            let mut end = 0;
            for span in changed_words(&old, &new) {
                prop_assert!(span.start() >= end);
                end = span.end();
                let word = &new[span.start() as usize..span.end() as usize];
                prop_assert_eq!(word.unicode_words().collect::<Vec<_>>(), [word]);
            }
            let fold = |text: &str| -> Vec<String> {
                text.unicode_words().map(str::to_lowercase).collect()
            };
            if !fold(&new).is_empty() {
                prop_assert_eq!(changed_words(&old, &new).is_empty(), fold(&old) == fold(&new));
            }
        }
    }
}
