use sleuth_input::{Preprocessor, TextLimits, TextTokenizer};

const TEXT: &str = "A red cat, e\u{301} \u{1F600}.\n<eos>\0";

/// Any bytes as a `tokenizer.json`, and as a `preprocessor_config.json`: an error, or something that
/// encodes a fixed text without breaking its promises.
pub fn tokenizer_json(bytes: &[u8]) {
    if let Ok(preprocessor) = Preprocessor::from_json(bytes) {
        assert!((1..=Preprocessor::MAX_SIDE).contains(&preprocessor.height()));
    }
    if let Ok(tokenizer) = TextTokenizer::from_json(bytes, TextLimits::default()) {
        let _ = tokenizer.encode_prompt(TEXT);
        if let Ok(encoded) = tokenizer.encode_response(TEXT) {
            assert_eq!(encoded.ids.len(), encoded.spans.len());
            assert!(encoded.spans.iter().all(|span| TEXT.get(span.range()).is_some()));
        }
    }
}
