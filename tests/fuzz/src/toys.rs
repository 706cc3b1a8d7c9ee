//! Small tokenizers, as `tokenizer.json`.

const NAMES: [&str; 4] = ["<unk>", "<bos>", "<eos>", "<image>"];

/// BPE with byte fallback, spaces as U+2581, and a run of newlines as an added token.
pub fn bpe() -> String {
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
pub fn unigram() -> String {
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

/// Unigram over bytes and a few pieces, with a space put in front.
pub fn fallback() -> String {
    let bytes = (0..=255).map(|byte| format!(r#"["<0x{byte:02X}>",0]"#));
    let own = NAMES.map(|piece| format!(r#"["{piece}",0]"#));
    let words = ["▁", "▁a", "a", "b", "<", ">", "é"].map(|piece| format!(r#"["{piece}",-2]"#));
    let vocab: Vec<String> = own.into_iter().chain(bytes).chain(words).collect();
    format!(
        r#"{{"version":"1.0","added_tokens":[{}],
            "pre_tokenizer":{{"type":"Metaspace","replacement":"▁","prepend_scheme":"always"}},
            "model":{{"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[{}]}}}}"#,
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
