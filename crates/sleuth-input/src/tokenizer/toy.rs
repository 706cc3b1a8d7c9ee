//! Small tokenizers of the kinds that models have, as `tokenizer.json`.

use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

pub(crate) mod kinds;

/// Added at the end of every toy: their text must stay text. The first is marked special, the
/// second only added, as PaliGemma's locations are.
const ON_TOP: [(&str, bool); 2] = [("<image>", true), ("<loc0001>", false)];

/// BPE with byte fallback; spaces become U+2581, nothing is put in front; runs of spaces and
/// newlines are added tokens of the model's own vocabulary.
pub(crate) fn gemma() -> Value {
    sentencepiece_bpe(&json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}))
}

/// As [`gemma`], but a U+2581 is put in front, as Llama 2's tokenizer does.
pub(crate) fn llama() -> Value {
    sentencepiece_bpe(&json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]}))
}

/// As [`gemma`], without byte fallback and without an unknown token: what it lacks, it drops.
pub(crate) fn dropping() -> Value {
    let mut toy = gemma();
    toy["model"]["byte_fallback"] = json!(false);
    toy["model"]["unk_token"] = Value::Null;
    toy
}

/// Byte-level BPE; some merges join parts of characters, across characters too.
pub(crate) fn gpt2() -> Value {
    let mut alphabet: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    alphabet.sort_unstable();
    let mut pieces = strings(&["<pad>", "<eos>", "<bos>", "<unk>"]);
    pieces.extend(alphabet);
    // "Ġâ" ends inside a curly quote, "ðŁ" inside an emoji.
    let merges = merges(
        &mut pieces,
        &[("Ġ", "a"), ("Ġ", "â"), ("â", "Ģ"), ("ð", "Ł"), ("Ã", "©"), ("a", "b"), ("Ċ", "Ċ")],
    );
    let mut toy = assemble(
        &json!({"type": "BPE", "vocab": numbered(&pieces), "merges": merges,
               "byte_fallback": false, "fuse_unk": false}),
        &added(pieces.len()),
        &Value::Null,
    );
    toy["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": true, "use_regex": true});
    toy
}

/// Byte-level BPE as Llama 3's: words by its regular expression, whole ones looked up first, special
/// tokens past the vocabulary.
pub(crate) fn llama3() -> Value {
    const SPECIAL: [&str; 7] = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|image|>",
        "<|reserved|>",
    ];
    const WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let mut toy = gpt2();
    let vocab = toy["model"]["vocab"].as_object_mut().unwrap();
    vocab.retain(|piece, _| !(piece.starts_with('<') && piece.len() > 1));
    let first = 1 + vocab.values().filter_map(Value::as_u64).max().unwrap() as usize;
    toy["model"]["ignore_merges"] = json!(true);
    toy["added_tokens"] =
        SPECIAL.iter().enumerate().map(|(n, name)| special(first + n, name)).collect();
    toy["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]});
    toy
}

/// Unigram with Metaspace; without byte fallback runs of unknown characters become one `<unk>`.
pub(crate) fn unigram(byte_fallback: bool) -> Value {
    let mut vocab = vec![json!(["<unk>", 0.0]), json!(["<bos>", 0.0]), json!(["<eos>", 0.0])];
    if byte_fallback {
        vocab.extend((0..=255).map(|byte| json!([format!("<0x{byte:02X}>"), 0.0])));
    }
    let words =
        ["▁", "▁a", "▁ab", "a", "b", "c", ".", "<", ">", "é", "\n", "s", "o", "e", "0", "x"];
    vocab.extend(words.iter().enumerate().map(|(i, word)| json!([word, -2.0 - i as f64 / 8.0])));
    let len = vocab.len();
    let mut toy = assemble(
        &json!({"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": byte_fallback}),
        &json!([
            special(0, "<unk>"),
            special(1, "<bos>"),
            special(2, "<eos>"),
            on_top(len, 0),
            on_top(len, 1)
        ]),
        &Value::Null,
    );
    toy["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁",
        "prepend_scheme": "always", "split": true});
    toy
}

pub(crate) fn bytes(toy: &Value) -> Vec<u8> {
    serde_json::to_vec(toy).unwrap()
}

fn sentencepiece_bpe(normalizer: &Value) -> Value {
    let mut pieces = strings(&["<pad>", "<eos>", "<bos>", "<unk>"]);
    pieces.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    pieces.extend("▁abcdelos.<>/0x\né😀".chars().map(String::from));
    let spaces: Vec<String> = (2..6).map(|n| "▁".repeat(n)).collect();
    let lines: Vec<String> = (2..4).map(|n| "\n".repeat(n)).collect();
    pieces.extend(spaces.iter().chain(&lines).cloned());
    // The model's own location token, as in PaliGemma's vocabulary.
    pieces.push("<loc0000>".to_owned());
    let merges = merges(
        &mut pieces,
        &[
            ("▁", "a"),
            ("a", "b"),
            ("▁a", "b"),
            ("▁", "c"),
            ("l", "o"),
            ("lo", "c"),
            ("e", "o"),
            (".", "\n"),
            ("<", "lo"),
        ],
    );
    let own: Vec<&str> = spaces.iter().chain(&lines).map(String::as_str).collect();
    let mut tokens = added(pieces.len());
    let list = tokens.as_array_mut().unwrap();
    let id = |piece: &str| pieces.iter().position(|p| p == piece).unwrap();
    list.extend(own.iter().map(|piece| token(id(piece), piece, false)));
    list.push(token(id("<loc0000>"), "<loc0000>", false));
    list.sort_by_key(|token| token["id"].as_u64());
    assemble(
        &json!({"type": "BPE", "vocab": numbered(&pieces), "merges": merges,
               "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>"}),
        &tokens,
        normalizer,
    )
}

fn assemble(model: &Value, added_tokens: &Value, normalizer: &Value) -> Value {
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens,
           "normalizer": normalizer, "pre_tokenizer": null, "post_processor": null,
           "decoder": null, "model": model})
}

/// Appends each merge's result to the vocabulary if it is new.
fn merges(pieces: &mut Vec<String>, pairs: &[(&str, &str)]) -> Value {
    for (a, b) in pairs {
        let merged = format!("{a}{b}");
        if !pieces.contains(&merged) {
            pieces.push(merged);
        }
    }
    pairs.iter().map(|(a, b)| json!([a, b])).collect()
}

fn numbered(pieces: &[String]) -> Value {
    pieces.iter().enumerate().map(|(id, piece)| (piece.clone(), json!(id))).collect()
}

fn added(len: usize) -> Value {
    let names = ["<pad>", "<eos>", "<bos>", "<unk>"];
    let own = names.iter().enumerate().map(|(id, name)| special(id, name));
    own.chain([on_top(len, 0), on_top(len, 1)]).collect()
}

fn on_top(len: usize, nth: usize) -> Value {
    let (name, is_special) = ON_TOP[nth];
    token(len + nth, name, is_special)
}

fn special(id: usize, content: &str) -> Value {
    token(id, content, true)
}

fn token(id: usize, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": special})
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&s| s.to_owned()).collect()
}
