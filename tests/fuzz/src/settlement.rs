use std::ops::Range;
use std::sync::{Arc, LazyLock};

use sleuth_input::{InputError, TextLimits, TextTokenizer};

use crate::toys;

static TOKENIZERS: LazyLock<[Arc<TextTokenizer>; 2]> = LazyLock::new(|| {
    [toys::bpe(), toys::unigram()].map(|file| {
        let limits = TextLimits::default();
        Arc::new(TextTokenizer::from_json(file.as_bytes(), limits).expect("a valid tokenizer"))
    })
});

type Tokens = Vec<(u32, Range<usize>)>;

/// Any bytes as a response that arrives in pieces, cut as the first byte says, for a small BPE and a
/// small Unigram tokenizer: the tokens of the whole text, or an error where the whole has one.
pub fn settlement(input: &[u8]) {
    let Some((&seed, bytes)) = input.split_first() else { return };
    for tokenizer in TOKENIZERS.iter() {
        let whole = str::from_utf8(bytes).ok().and_then(|text| whole(tokenizer, text));
        assert_eq!(grown(tokenizer, seed, bytes).ok(), whole);
    }
}

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
