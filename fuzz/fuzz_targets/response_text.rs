//! Any text as a response, for a small tokenizer with byte fallback: it is encoded, and its spans
//! cover it in order.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sleuth_input::{TextLimits, TextTokenizer};

static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(|| {
    TextTokenizer::from_json(file().as_bytes(), TextLimits::default()).expect("a valid tokenizer")
});

fuzz_target!(|text: &str| {
    let Ok(encoded) = TOKENIZER.encode_response(text) else {
        assert!(text.is_empty() || text.len() > TextLimits::default().max_response_tokens / 2);
        return;
    };
    let mut covered = 0;
    for span in &encoded.spans {
        assert!(text.get(span.range()).is_some());
        assert!(span.start() as usize <= covered);
        covered = covered.max(span.end() as usize);
    }
    assert_eq!(covered, text.len());
});

/// Unigram over bytes and a few pieces, with a space put in front.
fn file() -> String {
    let bytes = (0..=255).map(|byte| format!(r#"["<0x{byte:02X}>",0]"#));
    let own = ["<unk>", "<bos>", "<eos>", "<image>"].map(|piece| format!(r#"["{piece}",0]"#));
    let words = ["▁", "▁a", "a", "b", "<", ">", "é"].map(|piece| format!(r#"["{piece}",-2]"#));
    let vocab: Vec<String> = own.into_iter().chain(bytes).chain(words).collect();
    let added = ["<unk>", "<bos>", "<eos>", "<image>"].iter().enumerate().map(|(id, piece)| {
        format!(
            r#"{{"id":{id},"content":"{piece}","single_word":false,"lstrip":false,
                "rstrip":false,"normalized":false,"special":true}}"#
        )
    });
    format!(
        r#"{{"version":"1.0","added_tokens":[{}],
            "pre_tokenizer":{{"type":"Metaspace","replacement":"▁","prepend_scheme":"always"}},
            "model":{{"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[{}]}}}}"#,
        added.collect::<Vec<_>>().join(","),
        vocab.join(",")
    )
}
