//! From a text to tokens and the bytes of the text they come from.
//!
//! The steps of a tokenizer (normalise, split, model) are run one by one rather than through its
//! own `encode`, which adds and truncates as `tokenizer.json` says, and trusts its model to account
//! for every byte.

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::tokenizer::normalizer::Range as Of;
use tokenizers::{Model, NormalizedString, OffsetType, PreTokenizer, Result, Token, Tokenizer};

use super::settle::Settlement;
use super::spelling::Alphabet;
use super::vocabulary::{Reserved, reserve};

/// How often a text is cut again because the model made a reserved token of it.
const MAX_CUTS_DEEP: usize = 16;

/// A tokenizer that makes plain text of every text.
pub(super) struct Pieces {
    tokenizer: Tokenizer,
    pub(super) reserved: Reserved,
    alphabet: Alphabet,
}

// === impl Pieces ===

impl Pieces {
    pub(super) fn new(mut tokenizer: Tokenizer) -> Result<Self> {
        let reserved = reserve(&mut tokenizer)?;
        let alphabet = Alphabet::of(&[
            tokenizer.get_pre_tokenizer().map(serde_json::to_value).transpose()?,
            tokenizer.get_decoder().map(serde_json::to_value).transpose()?,
        ]);
        Ok(Self { tokenizer, reserved, alphabet })
    }

    /// How the vocabulary writes bytes.
    pub(super) fn alphabet(&self) -> Alphabet {
        self.alphabet
    }

    /// An id's own text; `None` for ids that no text becomes.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        if self.reserved.contains_key(&id) {
            return None;
        }
        self.tokenizer.id_to_token(id)
    }

    /// Where a text that grows can be cut.
    pub(super) fn settlement(&self) -> Settlement {
        Settlement::of(&self.tokenizer, &self.reserved)
    }

    /// Ids, each with the bytes of `text` that it comes from; `None` where the tokenizer fails or
    /// would drop a character.
    ///
    /// Ranges may share a character or leave out what the normaliser removed.
    pub(super) fn encode(&self, text: &str) -> Option<Vec<(u32, Range<usize>)>> {
        // Normalisers index with offsets of their own making; a slip there must cost one item only.
        let encoding = catch_unwind(AssertUnwindSafe(|| {
            let tokenizer = &self.tokenizer;
            let mut pieces = tokenizer
                .get_added_vocabulary()
                .extract_and_normalize(tokenizer.get_normalizer(), text);
            if let Some(splitter) = tokenizer.get_pre_tokenizer() {
                splitter.pre_tokenize(&mut pieces)?;
            }
            pieces.tokenize(|split| self.split(split))?;
            pieces.into_encoding(None, 0, OffsetType::Byte)
        }));
        let encoding = encoding.ok()?.ok()?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Some(encoding.get_ids().iter().copied().zip(ranges).collect())
    }

    /// The tokens of one split; offsets are bytes of the normalised split.
    fn split(&self, split: &NormalizedString) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        self.model(split.get(), 0, 0, &mut tokens)?;
        if let Some(first) = tokens.first_mut()
            && is_dummy_prefix(split, first.offsets.1)
        {
            first.offsets = (0, 0);
        }
        Ok(tokens)
    }

    /// Appends the model's tokens for `text`, which starts at byte `base` of its split.
    fn model(&self, text: &str, base: usize, depth: usize, out: &mut Vec<Token>) -> Result<()> {
        let mut tokens = self.tokenizer.get_model().tokenize(text)?;
        spread_bytes(&mut tokens);
        require_every_byte(&tokens, text.len())?;
        let cuts: Vec<usize> = tokens.iter().filter_map(|token| self.cut(token, text)).collect();
        if cuts.is_empty() {
            out.extend(tokens.into_iter().map(|mut token| {
                token.offsets = (token.offsets.0 + base, token.offsets.1 + base);
                token
            }));
            return Ok(());
        }
        if depth == MAX_CUTS_DEEP {
            return Err("the text spells special tokens in a way that cannot be taken apart".into());
        }
        let mut start = 0;
        for end in cuts.into_iter().chain([text.len()]) {
            self.model(&text[start..end], base + start, depth + 1, out)?;
            start = end;
        }
        Ok(())
    }

    /// Where to cut `text` so that it no longer spells this token, if the token is reserved and
    /// the text spells it: after the first character.
    fn cut(&self, token: &Token, text: &str) -> Option<usize> {
        let slice = text.get(token.offsets.0..token.offsets.1)?;
        let spelled = match self.reserved.get(&token.id) {
            Some(content) => content.as_str(),
            // A byte's own token, where the text spells its name instead of holding the byte.
            None if is_byte_name(&token.value) => token.value.as_str(),
            None => return None,
        };
        let first = spelled.chars().next()?.len_utf8();
        let at = slice.find(spelled)?;
        (first < spelled.len()).then_some(token.offsets.0 + at + first)
    }
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces").field("reserved", &self.reserved.len()).finish_non_exhaustive()
    }
}

/// Unigram gives all bytes of a run of unknown characters the offsets of the run: give each its
/// own.
fn spread_bytes(tokens: &mut [Token]) {
    for run in tokens.chunk_by_mut(|a, b| a.offsets == b.offsets) {
        let (start, end) = run[0].offsets;
        if end - start == run.len() && run.iter().all(|token| is_byte_name(&token.value)) {
            for (token, at) in run.iter_mut().zip(start..) {
                token.offsets = (at, at + 1);
            }
        }
    }
}

/// Tokens must follow each other without a gap: BPE drops characters it has no token for.
fn require_every_byte(tokens: &[Token], len: usize) -> Result<()> {
    let mut end = 0;
    for token in tokens {
        if token.offsets.0 != end {
            return Err("the tokenizer's tokens do not follow each other".into());
        }
        end = token.offsets.1;
    }
    if end == len { Ok(()) } else { Err("the tokenizer drops a part of the text".into()) }
}

/// Whether the first `len` bytes of a split are a space that the tokenizer itself put in front:
/// then they come from the same character of the text as what follows.
fn is_dummy_prefix(split: &NormalizedString, len: usize) -> bool {
    let Some((prefix, rest)) = split.get().split_at_checked(len) else { return false };
    let is_space = |c: char| matches!(c, ' ' | '\u{2581}' | '\u{120}');
    let Some(next) = rest.chars().next() else { return false };
    len > 0
        && prefix.chars().all(is_space)
        && split.convert_offsets(Of::Normalized(0..len))
            == split.convert_offsets(Of::Normalized(len..len + next.len_utf8()))
}

/// `<0x0A>` and its like.
pub(super) fn is_byte_name(value: &str) -> bool {
    value
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'))
        .is_some_and(|hex| hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}
