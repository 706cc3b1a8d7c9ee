//! Which added tokens of a `tokenizer.json` a text may become.

use std::collections::HashMap;

use tokenizers::models::ModelWrapper;
use tokenizers::{AddedToken, AddedVocabulary, Model, Tokenizer};

/// Ids that a text may not become, with the text that spells each.
pub(super) type Reserved = HashMap<u32, String>;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Takes the reserved tokens out of what the tokenizer looks for in a text, and switches BPE
/// dropout off.
pub(super) fn reserve(tokenizer: &mut Tokenizer) -> Result<Reserved, Error> {
    let mut ordinary = Vec::new();
    let mut reserved = Reserved::new();
    for (&id, token) in tokenizer.get_added_vocabulary().get_added_tokens_decoder() {
        let own = tokenizer.get_model().token_to_id(&token.content) == Some(id);
        if own && is_ordinary(token) {
            ordinary.push((id, token.clone()));
        } else {
            reserved.insert(id, token.content.clone());
        }
    }
    ordinary.sort_unstable_by_key(|&(id, _)| id);
    let mut vocabulary = AddedVocabulary::new();
    vocabulary.add_tokens(
        ordinary.into_iter().map(|(_, token)| token),
        tokenizer.get_model(),
        tokenizer.get_normalizer(),
    )?;
    tokenizer.with_added_vocabulary(vocabulary);
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        tokenizer.with_model(bpe);
    }
    Ok(reserved)
}

/// Runs of spaces or newlines and words are ordinary; what is marked special or looks like markup
/// for the model (`<loc0001>`, `<unused7>`, `[MASK]`) is not.
fn is_ordinary(token: &AddedToken) -> bool {
    let text = token.content.as_str();
    let bracketed = |open, close| text.starts_with(open) && text.ends_with(close);
    !token.special && !bracketed('<', '>') && !bracketed('[', ']')
}
