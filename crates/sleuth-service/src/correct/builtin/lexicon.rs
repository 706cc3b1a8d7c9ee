use std::num::NonZeroUsize;
use std::sync::Arc;

use sleuth_engine::{Stop, TokenSet, Units};
use sleuth_input::TextTokenizer;

/// What the tokens of a vocabulary spell, and which may stand where in a rewritten span.
#[derive(Debug)]
pub(super) struct Lexicon {
    spellings: Vec<Option<Vec<u8>>>,
    /// A space in front, or nothing else: they begin a word after a space.
    spaced: TokenSet,
    /// No white space in front.
    plain: TokenSet,
    /// All that a span may go on with: also a lone space.
    later: TokenSet,
    /// As `later`, without what ends a sentence.
    within: TokenSet,
    /// Those that hold the end of a sentence.
    sentence_ends: TokenSet,
    /// White space in front.
    starts: TokenSet,
    /// What ends an answer, `<eos>` first.
    ends: Arc<[u32]>,
}

/// How the token at the beginning of a span begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// With the space in front of the span.
    Space,
    /// With the span's own text.
    Text,
}

const SENTENCE_ENDS: [char; 9] =
    ['.', '!', '?', '\u{3002}', '\u{ff01}', '\u{ff1f}', '\u{61f}', '\u{964}', '\u{6d4}'];

// === impl Lexicon ===

impl Lexicon {
    /// Of a tokenizer, for a model that knows `vocabulary` ids.
    pub(super) fn new(tokenizer: &TextTokenizer, vocabulary: usize) -> Self {
        let spellings = tokenizer.spellings();
        let set = |holds: &dyn Fn(&[u8]) -> bool| {
            TokenSet::new(vocabulary, |id| {
                let spelling = spellings.get(id as usize).and_then(Option::as_deref);
                spelling.is_some_and(|bytes| is_one_line(bytes) && holds(bytes))
            })
        };
        let in_one = |bytes: &[u8]| !bytes.is_empty() && !bytes[1..].contains(&b' ');
        let leads = |bytes: &[u8]| bytes.first() == Some(&b' ');
        let ends = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes).chars().any(|c| SENTENCE_ENDS.contains(&c))
        };
        Self {
            spaced: set(&|b| leads(b) && in_one(b)),
            plain: set(&|b| !leads(b) && in_one(b)),
            later: set(&in_one),
            within: set(&|b| in_one(b) && !ends(b)),
            sentence_ends: set(&ends),
            starts: set(&leads),
            ends: Arc::clone(tokenizer.end_ids()),
            spellings,
        }
    }

    /// What ends a rewritten span of at most `words` words: one too many, `<eos>`, and the end of a
    /// sentence where the span itself holds none.
    pub(super) fn stop(&self, lead: Lead, span: &str, words: NonZeroUsize) -> Stop {
        let first = match lead {
            Lead::Space => &self.spaced,
            Lead::Text => &self.plain,
        };
        let holds_end = span.contains(SENTENCE_ENDS);
        Stop {
            tokens: Arc::clone(&self.ends),
            ends: (!holds_end).then(|| self.sentence_ends.clone()),
            first: Some(first.clone()),
            later: Some(if holds_end { self.later.clone() } else { self.within.clone() }),
            units: Some(Units { starts: self.starts.clone(), most: words }),
        }
    }

    /// What ends a whole response, which holds nothing but text.
    pub(super) fn stop_at_end(&self, vocabulary: usize) -> Stop {
        let text = TokenSet::new(vocabulary, |id| self.spelling(id).is_some());
        Stop {
            tokens: Arc::clone(&self.ends),
            later: Some(text.clone()),
            first: Some(text),
            ..Stop::default()
        }
    }

    /// What ends a whole response.
    pub(super) fn eos(&self) -> u32 {
        self.ends[0]
    }

    /// The bytes of a token; `None` for one that no text becomes.
    pub(super) fn spelling(&self, id: u32) -> Option<&[u8]> {
        self.spellings.get(id as usize).and_then(Option::as_deref)
    }

    /// Whether a token begins with a space.
    pub(super) fn lead(&self, id: u32) -> Lead {
        let spaced = self.spelling(id).is_some_and(|bytes| bytes.first() == Some(&b' '));
        if spaced { Lead::Space } else { Lead::Text }
    }

    /// The text of some tokens, and for each the byte where it ends. `None` where one spells nothing
    /// or they end inside a character.
    pub(super) fn read(&self, tokens: &[u32]) -> Option<(String, Vec<usize>)> {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for &id in tokens {
            bytes.extend_from_slice(self.spelling(id)?);
            ends.push(bytes.len());
        }
        Some((String::from_utf8(bytes).ok()?, ends))
    }

    /// As [`Lexicon::read`] of as many tokens as end between characters.
    pub(super) fn read_start(&self, tokens: &[u32]) -> Option<(String, Vec<usize>)> {
        (1..=tokens.len()).rev().take(4).find_map(|count| self.read(&tokens[..count]))
    }
}

/// No line break or other control character, no white space but plain spaces.
fn is_one_line(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    !text.chars().any(|c| c.is_control() || c.is_whitespace() && c != ' ')
}
