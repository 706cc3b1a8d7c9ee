use std::sync::Arc;

use serde_json::Value;

use crate::tokenizer::toy::{self, kinds};
use crate::{TextLimits, TextTokenizer};

const ENGLISH: &str = "The response names the small red circle above the blue square, and it's \
    right: there are two squares below it. However, the green triangle isn't \"large\" (it is \
    small), so the answer gets one of its three claims wrong.\n\nAsked again, the model says that \
    all of the diamonds are orange; the picture has none.";

fn load(toy: &Value) -> Arc<TextTokenizer> {
    Arc::new(TextTokenizer::from_json(&toy::bytes(toy), TextLimits::default()).unwrap())
}

/// Bytes whose tokens are known, after each byte of a text.
fn settled(tokenizer: &Arc<TextTokenizer>, text: &str) -> Vec<usize> {
    let mut response = tokenizer.grow();
    let mut ends = Vec::new();
    for (n, byte) in text.bytes().enumerate() {
        response.push(&[byte]).unwrap();
        ends.push(n + 1 - response.held_back());
    }
    ends
}

/// The share of words whose end is settled by the space after it.
fn share(tokenizer: &Arc<TextTokenizer>, text: &str) -> f64 {
    let settled = settled(tokenizer, text);
    let spaces: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).collect();
    let good = spaces.iter().filter(|&&at| settled[at] == at).count();
    good as f64 / spaces.len() as f64
}

#[test]
fn words_of_english_are_settled_by_the_space_after_them() {
    for (name, toy) in [("mini", kinds::mini()), ("gemma", toy::gemma()), ("gpt2", toy::gpt2())] {
        let share = share(&load(&toy), ENGLISH);
        println!("{name}: {share}");
        assert!(share >= 0.8, "{name}: {share}");
    }
}

#[test]
fn each_kind_of_the_closed_set_settles_something() {
    for (name, toy) in kinds::settling() {
        let tokenizer = load(&toy);
        let boundaries = [('o', ' '), ('c', ' '), ('o', '\n')];
        assert!(boundaries.iter().any(|&(a, b)| tokenizer.settlement.settles(a, b)), "{name}");
    }
}

#[test]
fn what_looks_further_than_is_known_settles_nothing() {
    let chars: Vec<char> = (' '..='~').chain("\n\té中▁😀".chars()).collect();
    for (name, toy) in kinds::waiting() {
        let tokenizer = load(&toy);
        for (&a, &b) in chars.iter().flat_map(|a| chars.iter().map(move |b| (a, b))) {
            assert!(!tokenizer.settlement.settles(a, b), "{name}: {a:?} {b:?}");
        }
    }
}

#[test]
fn only_what_looks_at_no_start_begins_again_at_a_boundary() {
    let restarts = |toy: &Value| load(toy).settlement.restarts();
    assert!(restarts(&toy::gemma()) && restarts(&toy::gpt2()) && restarts(&kinds::mini()));
    assert!(!restarts(&toy::llama()) && !restarts(&toy::unigram(true)));
    for (name, toy) in kinds::settling() {
        let front =
            ["in front", "first", "always", "and words", "and metaspace", "llama", "unigram"];
        let special = front.iter().any(|part| name.contains(part)) || name == "gpt2, split";
        assert_eq!(restarts(&toy), !special, "{name}");
    }
}

#[test]
fn a_piece_or_an_added_token_holds_its_neighbours_together() {
    let tokenizer = load(&toy::gemma());
    // "▁a", ".\n", the run of newlines, "<image>", "<loc0001>".
    for (a, b) in [(' ', 'a'), ('.', '\n'), ('\n', '\n'), ('m', 'a'), ('0', '0'), ('<', 'l')] {
        assert!(!tokenizer.settlement.settles(a, b), "{a:?} {b:?}");
    }
    for (a, b) in [('b', ' '), ('a', '中'), ('中', '文'), ('.', ' '), ('b', 'b')] {
        assert!(tokenizer.settlement.settles(a, b), "{a:?} {b:?}");
    }
}

#[test]
fn unknown_characters_are_kept_together_where_they_make_one_token() {
    let kinds = kinds::settling();
    let tokenizer = |name| load(&kinds.iter().find(|kind| kind.0 == name).unwrap().1);
    for name in ["gemma, unknown runs", "gemma, some bytes", "unigram", "unigram with bytes"] {
        let settlement = &tokenizer(name).settlement;
        assert!(!settlement.settles('中', '文') && settlement.settles('a', '中'), "{name}");
    }
    // Unigram takes a spelled `<unk>` for the token.
    assert!(!tokenizer("unigram").settlement.settles('>', '中'));
    assert!(tokenizer("gemma, unknown characters").settlement.settles('中', '文'));
    for name in ["gemma, unknown merges", "gemma, bytes merge"] {
        let settlement = &tokenizer(name).settlement;
        assert!(!settlement.settles('a', '中') && !settlement.settles('中', 'a'), "{name}");
    }
}

#[test]
fn words_of_gpt2_end_where_white_space_follows() {
    let tokenizer = load(&toy::gpt2());
    for (a, b) in [('o', ' '), ('.', '\n'), ('é', '\u{2003}'), ('\'', '\t')] {
        assert!(tokenizer.settlement.settles(a, b), "{a:?} {b:?}");
    }
    for (a, b) in [(' ', 'o'), (' ', ' '), ('o', 'l'), ('o', '.'), ('o', '\''), ('\'', 's')] {
        assert!(!tokenizer.settlement.settles(a, b), "{a:?} {b:?}");
    }
}
