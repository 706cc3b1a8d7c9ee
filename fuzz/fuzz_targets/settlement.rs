//! Any bytes as a response that arrives in pieces, cut as the first byte says, for a small BPE and a
//! small Unigram tokenizer: the tokens of the whole text, or an error where the whole has one.
#![no_main]

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use sleuth_input::{InputError, TextLimits, TextTokenizer};

static TOKENIZERS: LazyLock<[Arc<TextTokenizer>; 2]> = LazyLock::new(|| {
    [bpe(), unigram()].map(|file| {
        let limits = TextLimits::default();
        Arc::new(TextTokenizer::from_json(file.as_bytes(), limits).expect("a valid tokenizer"))
    })
});

fuzz_target!(|input: &[u8]| {
    let Some((&seed, bytes)) = input.split_first() else { return };
    for tokenizer in TOKENIZERS.iter() {
        let whole = std::str::from_utf8(bytes).ok().and_then(|text| whole(tokenizer, text));
        assert_eq!(grown(tokenizer, seed, bytes).ok(), whole);
    }
});

type Tokens = Vec<(u32, Range<usize>)>;

fn whole(tokenizer: &TextTokenizer, text: &str) -> Option<Tokens> {
    let encoded = tokenizer.encode_response(text).ok()?;
    Some(encoded.ids.into_iter().zip(encoded.spans.iter().map(|span| span.range())).collect())
}

/// Pieces of 0 to 7 bytes, another length each time.
fn grown(tokenizer: &Arc<TextTokenizer>, seed: u8, bytes: &[u8]) -> Result<Tokens, InputError> {
    let mut response = tokenizer.grow();
    let mut tokens = Tokens::new();
    let mut rest = bytes;
    let mut state = seed;
    while !rest.is_empty() {
        state = state.wrapping_mul(5).wrapping_add(seed | 1);
        let (piece, after) = rest.split_at(usize::from(state >> 5).min(rest.len()));
        let encoded = response.push(piece)?;
        tokens.extend(encoded.ids.into_iter().zip(encoded.spans.iter().map(|span| span.range())));
        rest = after;
    }
    assert_eq!(response.bytes(), bytes);
    let encoded = response.finish()?;
    tokens.extend(encoded.ids.into_iter().zip(encoded.spans.iter().map(|span| span.range())));
    Ok(tokens)
}

const NAMES: [&str; 4] = ["<unk>", "<bos>", "<eos>", "<image>"];

/// BPE with byte fallback, spaces as U+2581, and a run of newlines as an added token.
fn bpe() -> String {
    let merges = [("▁", "a"), ("a", "b"), ("▁a", "b"), (".", "\\n"), ("\\n", "\\n"), ("<", "b")];
    let own = NAMES.map(String::from).into_iter();
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let chars = ["▁", "a", "b", "c", "e", "o", "s", ".", "<", ">", "\\n", "é"].map(String::from);
    let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let pieces: Vec<String> = own.chain(bytes).chain(chars).chain(merged).collect();
    let run = pieces.iter().position(|piece| piece == "\\n\\n").expect("a run of newlines");
    let vocab: Vec<String> =
        pieces.iter().enumerate().map(|(id, piece)| format!(r#""{piece}":{id}"#)).collect();
    let merges = merges.map(|(a, b)| format!(r#"["{a}","{b}"]"#));
    format!(
        r#"{{"version":"1.0","added_tokens":[{},{}],
            "normalizer":{{"type":"Replace","pattern":{{"String":" "}},"content":"▁"}},
            "model":{{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,
                "vocab":{{{}}},"merges":[{}]}}}}"#,
        added(),
        token(run, "\\n\\n", false),
        vocab.join(","),
        merges.join(",")
    )
}

/// Unigram without byte fallback, with a space put in front: unknown characters make runs.
fn unigram() -> String {
    let own = NAMES.map(|piece| format!(r#"["{piece}",0]"#));
    let words = ["▁", "▁a", "▁ab", "a", "ab", "b", "b<", "<", ">", "é", "eo", "s", "o", "e"];
    let words = words.iter().enumerate().map(|(n, piece)| format!(r#"["{piece}",-{n}.3]"#));
    let vocab: Vec<String> = own.into_iter().chain(words).collect();
    format!(
        r#"{{"version":"1.0","added_tokens":[{}],
            "pre_tokenizer":{{"type":"Metaspace","replacement":"▁","prepend_scheme":"always"}},
            "model":{{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[{}]}}}}"#,
        added(),
        vocab.join(",")
    )
}

fn added() -> String {
    let tokens: Vec<String> =
        NAMES.iter().enumerate().map(|(id, name)| token(id, name, true)).collect();
    tokens.join(",")
}

fn token(id: usize, content: &str, special: bool) -> String {
    format!(
        r#"{{"id":{id},"content":"{content}","single_word":false,"lstrip":false,
            "rstrip":false,"normalized":false,"special":{special}}}"#
    )
}
