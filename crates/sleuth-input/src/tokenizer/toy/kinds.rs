//! Variants of the toys: settings in which tokenizers differ.

use serde_json::{Value, json};

use super::{gemma, gpt2, llama, merges, numbered, on_top, strings, unigram};

/// Tokenizers of which something is settled before the end.
pub(crate) fn settling() -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("gemma", gemma()),
        ("llama", llama()),
        ("gpt2", gpt2()),
        ("tiktoken", super::llama3()),
        ("unigram with bytes", unigram(true)),
        ("unigram", unigram(false)),
        ("dropping", super::dropping()),
    ];
    all.extend(unknowns());
    all.extend(pre_tokenisers());
    all.extend(byte_levels());
    let mut toy = gemma();
    for token in toy["added_tokens"].as_array_mut().unwrap() {
        token["normalized"] = json!(true);
    }
    all.push(("gemma, added tokens normalised", toy));
    all.push(("gpt2, a phrase", phrase(&gpt2(), false)));
    all.push(("gemma, a phrase", phrase(&gemma(), false)));
    all.push(("gemma, a phrase normalised", phrase(&gemma(), true)));
    all.push(("unigram, bare", with(&unigram(true), "pre_tokenizer", &Value::Null)));
    all
}

/// Tokenizers of which nothing is settled before the end: a part looks further than is known here.
pub(crate) fn waiting() -> Vec<(&'static str, Value)> {
    let normalizers = [
        ("NFC", json!({"type": "NFC"})),
        ("NFKC", json!({"type": "NFKC"})),
        ("lowercase", json!({"type": "Lowercase"})),
        ("strip", json!({"type": "Strip", "strip_left": true, "strip_right": true})),
        ("replaced runs", json!({"type": "Replace", "pattern": {"Regex": " +"}, "content": "▁"})),
        ("a pair", json!({"type": "Replace", "pattern": {"String": "ab"}, "content": "c"})),
        ("removed", json!({"type": "Replace", "pattern": {"String": "a"}, "content": ""})),
        ("one to two", json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁▁"})),
        ("in a list", json!({"type": "Sequence", "normalizers": [{"type": "NFD"}]})),
    ];
    let splitters = [
        ("white space", json!({"type": "WhitespaceSplit"})),
        ("digits", json!({"type": "Digits", "individual_digits": false})),
        ("regular expression", split(&json!({"Regex": "a+| b"}), "Isolated")),
        ("removed matches", split(&json!({"String": "a"}), "Removed")),
        ("runs of matches", split(&json!({"String": "a"}), "Contiguous")),
        (
            "bytes in between",
            json!({"type": "Sequence", "pretokenizers": [byte_level(false, true), metaspace("never")]}),
        ),
    ];
    let mut all: Vec<(&str, Value)> = Vec::new();
    all.extend(normalizers.iter().map(|(name, n)| (*name, with(&gemma(), "normalizer", n))));
    all.extend(splitters.iter().map(|(name, s)| (*name, with(&gpt2(), "pre_tokenizer", s))));
    for field in ["lstrip", "rstrip", "single_word"] {
        let mut toy = gemma();
        let tokens = toy["added_tokens"].as_array_mut().unwrap();
        tokens.iter_mut().find(|t| t["content"] == "\n\n").unwrap()[field] = json!(true);
        all.push((field, toy));
    }
    let mut toy = llama();
    for token in toy["added_tokens"].as_array_mut().unwrap() {
        token["normalized"] = json!(true);
    }
    all.push(("added tokens with a prefix", toy));
    all.push(("whole words", model(&gemma(), "ignore_merges", &json!(true))));
    let toy = gemma();
    let vocab = &toy["model"]["vocab"];
    let words = json!({"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"});
    all.push(("words", with(&toy, "model", &words)));
    all
}

pub(crate) fn mini() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/mini/tokenizer.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// As [`gemma`], with few characters and with merges of pieces chosen by number; some also merge
/// what stands for unknown characters.
pub(crate) fn random_bpe(chosen: &[(u8, u8)]) -> Value {
    let mut toy = gemma();
    let mut pieces = strings(&["<pad>", "<eos>", "<bos>", "<unk>"]);
    pieces.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    let mut parts = strings(&["a", "b", "c", "▁", "<"]);
    pieces.extend(parts.iter().cloned());
    if chosen.len() % 4 == 1 {
        parts.extend(strings(&["<unk>", "<0xC3>", "<0xA9>", "<0xE4>"]));
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    for &(a, b) in chosen {
        let pair = [a, b].map(|nth| parts[usize::from(nth) % parts.len()].clone());
        parts.push(pair.concat());
        let [a, b] = pair;
        pairs.push((a, b));
    }
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    toy["model"]["merges"] = merges(&mut pieces, &pairs);
    toy["model"]["vocab"] = numbered(&pieces);
    toy["added_tokens"].as_array_mut().unwrap().retain(|token| {
        ["<pad>", "<eos>", "<bos>", "<unk>"].iter().any(|&name| token["content"] == name)
    });
    toy["added_tokens"].as_array_mut().unwrap().extend([0, 1].map(|nth| on_top(pieces.len(), nth)));
    toy
}

/// As [`unigram`], with more pieces.
pub(crate) fn random_unigram(byte_fallback: bool, pieces: &[(String, f64)]) -> Value {
    let mut toy = unigram(byte_fallback);
    let vocab = toy["model"]["vocab"].as_array_mut().unwrap();
    vocab.extend(pieces.iter().map(|(piece, score)| json!([piece, score])));
    let len = vocab.len();
    let tokens = toy["added_tokens"].as_array_mut().unwrap();
    tokens.truncate(3);
    tokens.extend([0, 1].map(|nth| on_top(len, nth)));
    toy
}

/// What becomes of characters without a piece.
fn unknowns() -> Vec<(&'static str, Value)> {
    let no_bytes = model(&gemma(), "byte_fallback", &json!(false));
    let mut some_bytes = gemma();
    some_bytes["model"]["vocab"].as_object_mut().unwrap().remove("<0xE4>");
    vec![
        ("gemma, unknown runs", no_bytes.clone()),
        ("gemma, unknown characters", model(&no_bytes, "fuse_unk", &json!(false))),
        ("gemma, some bytes", some_bytes),
        ("gemma, unknown merges", merging(&no_bytes, &[("<unk>", "a"), ("<unk>", "<unk>")])),
        ("gemma, bytes merge", merging(&gemma(), &[("<0xB8>", "<0xAD>"), ("<0xAD>", "a")])),
    ]
}

fn pre_tokenisers() -> Vec<(&'static str, Value)> {
    let bare = with(&gemma(), "normalizer", &Value::Null);
    let spaces = json!({"String": " "});
    let word = json!({"String": "lo"});
    let kinds = [
        ("gemma, split at spaces", gemma(), split(&spaces, "MergedWithPrevious")),
        ("bare, split at spaces", bare.clone(), split(&spaces, "MergedWithPrevious")),
        ("bare, split before", bare.clone(), split(&word, "MergedWithNext")),
        ("bare, split around", bare.clone(), split(&word, "Isolated")),
        ("bare, metaspace", bare.clone(), metaspace("never")),
        ("bare, metaspace first", bare.clone(), metaspace("first")),
        ("bare, metaspace always", bare, metaspace("always")),
        (
            "gemma, split and metaspace",
            gemma(),
            json!({"type": "Sequence", "pretokenizers": [split(&word, "Isolated"), metaspace("always")]}),
        ),
    ];
    kinds.into_iter().map(|(name, toy, s)| (name, with(&toy, "pre_tokenizer", &s))).collect()
}

fn byte_levels() -> Vec<(&'static str, Value)> {
    let list = |steps: [Value; 2]| json!({"type": "Sequence", "pretokenizers": steps});
    let kinds = [
        ("gpt2, space in front", byte_level(true, true)),
        ("gpt2, no words", byte_level(false, false)),
        ("gpt2, metaspace", list([metaspace("never"), byte_level(false, false)])),
        ("gpt2, metaspace and words", list([metaspace("always"), byte_level(false, true)])),
        (
            "gpt2, split",
            list([split(&json!({"String": " a"}), "Isolated"), byte_level(true, true)]),
        ),
    ];
    let mut all: Vec<(&str, Value)> =
        kinds.iter().map(|(name, s)| (*name, with(&gpt2(), "pre_tokenizer", s))).collect();
    all.push(("gpt2, whole words", model(&gpt2(), "ignore_merges", &json!(true))));
    all
}

/// An added token over a space, which the vocabulary holds as raw text only.
fn phrase(toy: &Value, normalized: bool) -> Value {
    const PHRASE: &str = "b a";
    let mut toy = toy.clone();
    toy["model"]["vocab"][PHRASE] = json!(1000);
    let mut added = super::token(1000, PHRASE, false);
    added["normalized"] = json!(normalized);
    toy["added_tokens"].as_array_mut().unwrap().push(added);
    toy
}

fn merging(toy: &Value, pairs: &[(&str, &str)]) -> Value {
    let mut toy = toy.clone();
    let vocab = toy["model"]["vocab"].as_object_mut().unwrap();
    for (n, (a, b)) in pairs.iter().enumerate() {
        // Ids past those of the added tokens.
        vocab.insert(format!("{a}{b}"), json!(1000 + n));
    }
    let merges = toy["model"]["merges"].as_array_mut().unwrap();
    merges.extend(pairs.iter().map(|(a, b)| json!([a, b])));
    toy
}

fn with(toy: &Value, part: &str, value: &Value) -> Value {
    let mut toy = toy.clone();
    toy[part] = value.clone();
    toy
}

fn model(toy: &Value, field: &str, value: &Value) -> Value {
    let mut toy = toy.clone();
    toy["model"][field] = value.clone();
    toy
}

fn split(pattern: &Value, behavior: &str) -> Value {
    json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": false})
}

fn metaspace(scheme: &str) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true})
}

fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true,
        "use_regex": use_regex})
}
