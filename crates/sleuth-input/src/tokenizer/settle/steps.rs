//! What happens to a text before the model sees it, as far as a boundary is concerned.
//!
//! A closed set of normalisers and pre-tokenisers, in the forms in which they take each character by
//! itself or look only at what is known here. Each character becomes exactly one (or, at byte
//! level, its bytes), so that the tokens' spans have no gaps that a neighbour would fill.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;

use super::pairs::Pairs;

/// The steps, in order.
#[derive(Debug, Default)]
pub(super) struct Steps {
    list: Vec<Step>,
    /// The text of the model is bytes by now.
    is_bytes: bool,
    /// Something is put in front of each piece of a text: its start is special. Its end is not.
    pub(super) puts_in_front: bool,
}

/// What the model has on both sides of a boundary.
pub(super) struct Seen {
    pub(super) before: char,
    pub(super) after: char,
    /// The boundary certainly ends a text of the model.
    pub(super) is_split: bool,
}

#[derive(Debug)]
enum Step {
    /// Texts are looked for that hold these pairs.
    Together(Pairs),
    /// A character becomes another.
    Replace(char, char),
    /// A regular expression that cuts a text into words.
    Words(Words),
    /// UTF-8, each byte as a character.
    Bytes,
}

/// The expressions whose matches are known well enough.
#[derive(Clone, Copy, Debug)]
enum Words {
    Gpt2,
    Llama3,
}

#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum Normalizer {
    Replace { pattern: Pattern, content: String },
    Prepend { prepend: String },
    Sequence { normalizers: Vec<Self> },
}

#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum PreTokenizer {
    Metaspace {
        replacement: char,
        prepend_scheme: PrependScheme,
        #[serde(rename = "split")]
        _split: bool,
    },
    ByteLevel {
        add_prefix_space: bool,
        use_regex: bool,
        // A matter of the post-processor.
        #[serde(rename = "trim_offsets")]
        _trim_offsets: bool,
    },
    Split {
        pattern: Pattern,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
    Sequence {
        pretokenizers: Vec<Self>,
    },
}

/// A plain text, or a regular expression, of which one is in the set.
#[derive(Deserialize)]
enum Pattern {
    String(String),
    Regex(String),
}

// === impl Steps ===

impl Steps {
    /// Appends a search for texts with these pairs.
    pub(super) fn keep_together(&mut self, pairs: Pairs) {
        self.list.push(Step::Together(pairs));
    }

    /// Appends a normaliser, `None` if it is outside the set.
    pub(super) fn normalise(&mut self, form: &Value) -> Option<()> {
        self.normaliser(Option::<Normalizer>::deserialize(form).ok()?)
    }

    /// Appends a pre-tokeniser, `None` if it is outside the set.
    pub(super) fn pre_tokenise(&mut self, form: &Value) -> Option<()> {
        self.pre_tokeniser(Option::<PreTokenizer>::deserialize(form).ok()?)
    }

    /// The text after the replacements so far.
    pub(super) fn replaced(&self, text: &str) -> String {
        text.chars().map(|c| self.list.iter().fold(c, |c, step| step.replaced(c))).collect()
    }

    /// What the model sees at the boundary between `a` and `b`; `None` where a step may look across
    /// it.
    pub(super) fn between(&self, a: char, b: char) -> Option<Seen> {
        let mut seen = Seen { before: a, after: b, is_split: false };
        for step in &self.list {
            let (a, b) = (seen.before, seen.after);
            match step {
                Step::Together(pairs) if pairs.contains(a, b) => return None,
                Step::Together(_) => {}
                Step::Replace(..) => {
                    seen.before = step.replaced(a);
                    seen.after = step.replaced(b);
                }
                Step::Words(words) if words.end_between(a, b) => seen.is_split = true,
                Step::Words(_) => return None,
                Step::Bytes => (seen.before, seen.after) = (last_byte(a), first_byte(b)),
            }
        }
        Some(seen)
    }

    fn normaliser(&mut self, normalizer: Option<Normalizer>) -> Option<()> {
        match normalizer {
            None => {}
            Some(Normalizer::Replace { pattern: Pattern::String(from), content }) => {
                self.list.push(Step::Replace(only(&from)?, only(&content)?));
            }
            Some(Normalizer::Replace { pattern: Pattern::Regex(_), .. }) => return None,
            Some(Normalizer::Prepend { prepend }) => self.puts_in_front |= !prepend.is_empty(),
            Some(Normalizer::Sequence { normalizers }) => {
                normalizers.into_iter().try_for_each(|n| self.normaliser(Some(n)))?;
            }
        }
        Some(())
    }

    fn pre_tokeniser(&mut self, splitter: Option<PreTokenizer>) -> Option<()> {
        // Past this step a character is no longer one character.
        if self.is_bytes && splitter.is_some() {
            return None;
        }
        match splitter {
            None => {}
            // Splits before each replacement, which is a single character: nothing is looked for
            // that a boundary could lie in.
            Some(PreTokenizer::Metaspace { replacement, prepend_scheme, .. }) => {
                self.puts_in_front |= prepend_scheme != PrependScheme::Never;
                self.list.push(Step::Replace(' ', replacement));
            }
            Some(PreTokenizer::ByteLevel { add_prefix_space, use_regex, .. }) => {
                self.puts_in_front |= add_prefix_space;
                self.list.extend(use_regex.then_some(Step::Words(Words::Gpt2)));
                self.list.push(Step::Bytes);
                self.is_bytes = true;
            }
            Some(PreTokenizer::Split { pattern: Pattern::String(text), behavior, invert }) => {
                if invert || text.is_empty() || !keeps_all(behavior) {
                    return None;
                }
                self.list.push(Step::Together(Pairs::of([text.as_str()])));
            }
            Some(PreTokenizer::Split { pattern: Pattern::Regex(text), behavior, invert }) => {
                if invert || text != LLAMA_3 || behavior != SplitDelimiterBehavior::Isolated {
                    return None;
                }
                self.list.push(Step::Words(Words::Llama3));
            }
            Some(PreTokenizer::Sequence { pretokenizers }) => {
                pretokenizers.into_iter().try_for_each(|p| self.pre_tokeniser(Some(p)))?;
            }
        }
        Some(())
    }
}

// === impl Words ===

/// The expression of Llama 3's and tiktoken's newer tokenizers, as their files spell it.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Words {
    /// Whether the expression ends a match between `a` and `b` and finds the same on both sides if
    /// the text is cut there.
    ///
    /// GPT-2's, `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
    /// does where `a` is no white space and `b` is. Matches follow each other without a gap. A match
    /// that holds `a` is of one of the first six alternatives, none of which takes white space after
    /// its first character, so it ends before `b`, and none of which looks ahead, so it would also
    /// end at the end of the text. The runs of white space before `a` are each followed by a
    /// character up to `a`, so the look-ahead of `\s+(?!\S)` never passes `a`. Nothing looks back,
    /// so what starts at `b` does not depend on what is before it.
    ///
    /// Llama 3's does there too, but that its fourth alternative takes line ends after signs: before
    /// those only what is certainly a letter or a digit ends a match.
    ///
    /// Elsewhere they may not: `I'` and `ve`, a space and the word or space after it, letters and
    /// letters.
    fn end_between(self, a: char, b: char) -> bool {
        let is_end = !a.is_whitespace() && b.is_whitespace();
        match self {
            Self::Gpt2 => is_end,
            Self::Llama3 => is_end && (!matches!(b, '\r' | '\n') || a.is_ascii_alphanumeric()),
        }
    }
}

// === impl Step ===

impl Step {
    fn replaced(&self, c: char) -> char {
        match *self {
            Self::Replace(from, to) if c == from => to,
            _ => c,
        }
    }
}

/// Behaviours that lose nothing and in which a match is joined to at most the piece beside it. So a
/// boundary outside a match at most joins two pieces that a cut keeps apart, which the model's own
/// pairs then judge.
fn keeps_all(behavior: SplitDelimiterBehavior) -> bool {
    use SplitDelimiterBehavior::{
        Contiguous, Isolated, MergedWithNext, MergedWithPrevious, Removed,
    };
    match behavior {
        Isolated | MergedWithPrevious | MergedWithNext => true,
        Removed | Contiguous => false,
    }
}

/// The character of a text of one.
fn only(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

fn first_byte(c: char) -> char {
    spelled(c.encode_utf8(&mut [0; 4]).bytes().next())
}

fn last_byte(c: char) -> char {
    spelled(c.encode_utf8(&mut [0; 4]).bytes().next_back())
}

/// How byte-level vocabularies spell a byte: printable Latin-1 as itself, the others in order from
/// U+0100 on.
fn spelled(byte: Option<u8>) -> char {
    let Some(byte) = byte else { return '\0' };
    let is_printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if is_printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !is_printable(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or('\0')
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    use super::*;

    #[test]
    fn bytes_are_spelled_as_the_library_spells_them() {
        for byte in 0..0x80 {
            let c = char::from(byte);
            let mut text = PreTokenizedString::from(String::from(c));
            ByteLevel::new(false, false, false).pre_tokenize(&mut text).unwrap();
            let splits = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
            assert_eq!(splits[0].0, spelled(Some(byte)).to_string(), "{byte}");
        }
        let spellings: std::collections::BTreeSet<char> =
            (0..=255).map(|byte| spelled(Some(byte))).collect();
        assert_eq!(spellings, ByteLevel::alphabet().into_iter().collect());
        assert_eq!((first_byte('é'), last_byte('é')), ('Ã', '©'));
        assert_eq!((first_byte('😀'), last_byte('\u{a0}')), ('ð', 'ł'));
    }
}
