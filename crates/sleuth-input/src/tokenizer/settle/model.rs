//! What a model joins across a boundary: pieces, and unknown characters.

use std::collections::HashSet;

use serde::Deserialize;
use tokenizers::Model;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;

use super::super::pieces::is_byte_name;
use super::pairs::Pairs;

/// The length of the name of a byte's token, such as `<0x0A>`.
const NAME: usize = 6;

/// What a model may join.
#[derive(Debug)]
pub(super) struct Joins {
    pairs: Pairs,
    unknown: Unknown,
    /// The characters that are pieces, sorted.
    known: Box<[char]>,
    /// Only the ends of the model's texts: it first looks whether all of a text is one piece.
    only_splits: bool,
    restarts: bool,
}

/// What becomes of characters without a piece.
#[derive(Debug, PartialEq, Eq)]
enum Unknown {
    /// Each has tokens of its own.
    Apart,
    /// Some that follow each other become one token, or change places. Unigram takes its unknown
    /// token for one of them where a text spells it, here by its first and last character.
    Runs(Option<(char, char)>),
    /// Their tokens merge with others.
    Merged,
}

// === impl Joins ===

impl Joins {
    /// `None` for models and settings outside the closed set: BPE and Unigram.
    pub(super) fn of(model: &ModelWrapper) -> Option<Self> {
        match model {
            ModelWrapper::BPE(bpe) => Self::of_bpe(bpe),
            ModelWrapper::Unigram(unigram) => Self::of_unigram(unigram),
            ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) => None,
        }
    }

    /// Whether tokens after a boundary are those of the text after it by itself. Unigram's sums
    /// round otherwise from another start.
    pub(super) fn restarts(&self) -> bool {
        self.restarts
    }

    /// Whether the model keeps the two apart, seeing them next to each other or (`is_split`) not.
    pub(super) fn settles(&self, a: char, b: char, is_split: bool) -> bool {
        if self.pairs.contains(a, b) || (self.only_splits && !is_split) {
            return false;
        }
        match self.unknown {
            Unknown::Apart => true,
            Unknown::Runs(spelled) => {
                let ends = spelled.is_some_and(|(_, last)| a == last) || !self.knows(a);
                let starts = spelled.is_some_and(|(first, _)| b == first) || !self.knows(b);
                !(ends && starts)
            }
            Unknown::Merged => self.knows(a) && self.knows(b),
        }
    }

    fn of_bpe(bpe: &BPE) -> Option<Self> {
        let is_set = |affix: &Option<String>| affix.as_ref().is_some_and(|s| !s.is_empty());
        if is_set(&bpe.continuing_subword_prefix) || is_set(&bpe.end_of_word_suffix) {
            return None;
        }
        let vocabulary = bpe.get_vocab();
        // Merges go by ids: two pieces of one id would merge where their texts do not say so.
        let ids: HashSet<u32> = vocabulary.values().copied().collect();
        if ids.len() != vocabulary.len() {
            return None;
        }
        let all_bytes = (0..=255).all(|byte| vocabulary.contains_key(&format!("<0x{byte:02X}>")));
        let apart = if bpe.byte_fallback { all_bytes } else { !bpe.fuse_unk };
        let unknown = if vocabulary.keys().any(|piece| merges_unknown(bpe, piece)) {
            Unknown::Merged
        } else if apart {
            Unknown::Apart
        } else {
            Unknown::Runs(None)
        };
        let only_splits = bpe.ignore_merges;
        Some(Self { only_splits, restarts: true, ..Self::with(unknown, vocabulary.keys()) })
    }

    fn of_unigram(unigram: &Unigram) -> Option<Self> {
        // With these it draws one of several ways.
        if unigram.alpha.is_some() || unigram.nbest_size.is_some() {
            return None;
        }
        let vocabulary = unigram.get_vocab();
        let unknown = unknown_piece(unigram)?;
        let ends = unknown.chars().next().zip(unknown.chars().next_back());
        Some(Self::with(Unknown::Runs(ends), vocabulary.keys()))
    }

    fn with<'a>(unknown: Unknown, pieces: impl Iterator<Item = &'a String> + Clone) -> Self {
        let single = |piece: &String| {
            let mut chars = piece.chars();
            chars.next().filter(|_| chars.next().is_none())
        };
        let mut known: Vec<char> = pieces.clone().filter_map(single).collect();
        known.sort_unstable();
        let pairs = Pairs::of(pieces.map(String::as_str));
        Self { pairs, unknown, known: known.into(), only_splits: false, restarts: false }
    }

    fn knows(&self, c: char) -> bool {
        self.known.binary_search(&c).is_ok()
    }
}

/// Whether a piece may be made of the token of an unknown character, or of one of its bytes, and
/// another token. The text of such a piece is not the text it stands for.
fn merges_unknown(bpe: &BPE, piece: &str) -> bool {
    let holds_unknown = |unknown: &String| piece.len() > unknown.len() && piece.contains(unknown);
    let mut names = piece.match_indices("<0x").filter_map(|(at, _)| piece.get(at..at + NAME));
    bpe.unk_token.as_ref().is_some_and(holds_unknown)
        || (bpe.byte_fallback && piece.len() > NAME && names.any(is_byte_name))
}

/// The text of Unigram's unknown token, empty if it has none; `None` where that cannot be told.
fn unknown_piece(unigram: &Unigram) -> Option<String> {
    #[derive(Deserialize)]
    struct Form {
        unk_id: Option<usize>,
    }
    // The library keeps it to itself, but writes it.
    let form: Form = serde_json::from_slice(&serde_json::to_vec(unigram).ok()?).ok()?;
    let Some(id) = form.unk_id else { return Some(String::new()) };
    unigram.iter().nth(id).map(|(piece, _)| piece.clone())
}
