use std::sync::LazyLock;

use sleuth_input::{TextLimits, TextTokenizer};

use crate::toys;

static TOKENIZER: LazyLock<TextTokenizer> = LazyLock::new(|| {
    let limits = TextLimits::default();
    TextTokenizer::from_json(toys::fallback().as_bytes(), limits).expect("a valid tokenizer")
});

/// Any text as a response, for a small tokenizer with byte fallback: it is encoded, and its spans
/// cover it in order.
pub fn response_text(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(encoded) = TOKENIZER.encode_response(text) else {
        assert!(text.is_empty() || text.len() > TextLimits::default().max_response_tokens / 2);
        return;
    };
    assert_eq!(encoded.ids.len(), encoded.spans.len());
    let mut covered = 0;
    for span in &encoded.spans {
        assert!(text.get(span.range()).is_some());
        assert!(span.start() as usize <= covered);
        covered = covered.max(span.end() as usize);
    }
    assert_eq!(covered, text.len());
}
