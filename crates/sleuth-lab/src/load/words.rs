use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Bits that one word tells.
const WORD_BITS: usize = 6;
/// 2^[`WORD_BITS`] words.
const WORDS: [&str; 1 << WORD_BITS] = [
    "the", "red", "ball", "lies", "near", "a", "small", "table", "with", "two", "green", "chairs",
    "under", "wide", "window", "where", "light", "falls", "on", "old", "floor", "and", "some",
    "books", "stand", "left", "of", "lamp", "while", "black", "cat", "sleeps", "behind", "blue",
    "box", "that", "holds", "three", "apples", "beside", "round", "plate", "in", "front", "white",
    "wall", "there", "is", "brown", "door", "above", "open", "garden", "tall", "tree", "shows",
    "its", "yellow", "leaves", "to", "people", "who", "walk", "past",
];
/// Fewest words of a sentence but the last.
const LEAST_SENTENCE: usize = 6;
/// By how many words sentences differ at most.
const SENTENCE_RANGE: u32 = 7;

/// A response of `words` plain English words in sentences that end with periods; empty where
/// `words` is 0.
///
/// The same arguments give the same text. Under one seed no two items have the same one, as long
/// as they are below 2^(6 · `words`): the first words spell the item's number, so that no cache can
/// answer one item with another's rewards.
pub fn response(item: u64, words: usize, seed: u64) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(item);
    let bits = words.saturating_mul(WORD_BITS).min(64) as u32;
    let number = scatter(item, bits, seed);
    let mut text = String::with_capacity(words.saturating_mul(6));
    let mut left_of_sentence = 0;
    for at in 0..words {
        let starts = left_of_sentence == 0;
        if starts {
            left_of_sentence = LEAST_SENTENCE + (rng.next_u32() % SENTENCE_RANGE) as usize;
        }
        left_of_sentence -= 1;
        let told = at * WORD_BITS;
        let drawn = if told < 64 { number >> told } else { u64::from(rng.next_u32()) };
        if at > 0 {
            text.push(' ');
        }
        push(&mut text, WORDS[drawn as usize % WORDS.len()], starts);
        if left_of_sentence == 0 || at + 1 == words {
            text.push('.');
        }
    }
    text
}

fn push(text: &mut String, word: &str, starts: bool) {
    let mut letters = word.chars();
    if starts {
        text.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
    }
    text.push_str(letters.as_str());
}

/// A permutation of the numbers of so many bits (at most 64), so that neighbouring items share no
/// words; items are taken modulo 2^`bits`.
fn scatter(item: u64, bits: u32, seed: u64) -> u64 {
    let mask = u64::MAX.checked_shr(64 - bits).unwrap_or(0);
    let key = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut x = (item ^ key ^ (key >> 32)) & mask;
    // Each step can be undone: an odd factor modulo a power of two, and a right shift by at least
    // one bit that is added to itself.
    for factor in [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB] {
        x = x.wrapping_mul(factor) & mask;
        x ^= x >> (bits / 2).max(1);
    }
    x
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn plain(text: &str) -> String {
        text.to_lowercase().replace('.', "")
    }

    #[test]
    fn every_item_has_its_own_text() {
        for (words, items) in [(1, 64), (2, 4096), (3, 20_000), (5, 20_000), (30, 20_000)] {
            let texts: HashSet<String> =
                (0..items).map(|item| plain(&response(item, words, 3))).collect();
            assert_eq!(texts.len() as u64, items, "{words} words");
        }
    }

    #[test]
    fn a_text_has_so_many_words_in_sentences() {
        for words in 1..60 {
            let text = response(7, words, 5);
            assert_eq!(text.split_whitespace().count(), words);
            assert!(text.ends_with('.') && text.starts_with(|c: char| c.is_ascii_uppercase()));
            assert!(text.split('.').all(|s| s.split_whitespace().count() <= 12), "{text}");
        }
        assert_eq!(response(7, 0, 5), "");
    }

    #[test]
    fn a_text_is_fixed_by_its_arguments() {
        assert_eq!(response(1, 20, 2), response(1, 20, 2));
        assert_ne!(response(1, 20, 2), response(1, 20, 3));
    }

    #[test]
    fn no_word_stands_twice_in_the_list() {
        assert_eq!(WORDS.iter().collect::<HashSet<_>>().len(), WORDS.len());
    }
}
