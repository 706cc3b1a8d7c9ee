//! The bytes of a text that a token stands for, by the token alone.

use serde_json::Value;

use super::TextTokenizer;
use super::pieces::{Pieces, is_byte_name};

/// How a vocabulary writes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// As characters, with U+2581 for a space; single bytes as `<0x0A>`.
    SentencePiece,
    /// A character for each byte, as GPT-2's.
    Bytes,
}

// === impl TextTokenizer ===

impl TextTokenizer {
    /// For each id up to the largest, the bytes that it stands for within a text; `None` for ids that
    /// no text becomes. A space in front belongs to them, also where it is one that the tokenizer
    /// puts before a text.
    pub fn spellings(&self) -> Vec<Option<Vec<u8>>> {
        (0..self.vocab_size()).map(|id| self.pieces.spelling(id)).collect()
    }
}

// === impl Pieces ===

impl Pieces {
    fn spelling(&self, id: u32) -> Option<Vec<u8>> {
        let token = self.token(id)?;
        match self.alphabet() {
            Alphabet::Bytes => token.chars().map(byte_of).collect(),
            Alphabet::SentencePiece if is_byte_name(&token) => {
                u8::from_str_radix(token.get(3..5)?, 16).ok().map(|byte| vec![byte])
            }
            Alphabet::SentencePiece => Some(token.replace('\u{2581}', " ").into_bytes()),
        }
    }
}

// === impl Alphabet ===

impl Alphabet {
    /// By a tokenizer's pre-tokenizer and decoder as JSON, either of which may be absent.
    pub(super) fn of(parts: &[Option<Value>; 2]) -> Self {
        fn names_byte_level(value: &Value) -> bool {
            match value {
                Value::Object(fields) => {
                    fields.get("type").is_some_and(|kind| kind == "ByteLevel")
                        || fields.values().any(names_byte_level)
                }
                Value::Array(values) => values.iter().any(names_byte_level),
                _ => false,
            }
        }
        if parts.iter().flatten().any(names_byte_level) { Self::Bytes } else { Self::SentencePiece }
    }
}

/// The byte that a character of GPT-2's alphabet stands for: printable Latin-1 for itself, the
/// others, in order, from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c) {
        code @ ..0x100 => u8::try_from(code).ok().filter(|&byte| is_printable(byte)),
        code => (0..=u8::MAX).filter(|&byte| !is_printable(byte)).nth((code - 0x100) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::super::toy;
    use super::*;
    use crate::TextLimits;

    #[test]
    fn spellings_of_a_text_without_a_dummy_space_are_the_text() {
        for (name, toy) in [("gemma", toy::gemma()), ("gpt2", toy::gpt2())] {
            let tokenizer =
                TextTokenizer::from_json(&toy::bytes(&toy), TextLimits::default()).unwrap();
            let spellings = tokenizer.spellings();
            for text in ["a ab  a\n", " a é “x” 红猫 👍", "<0x41> <eos>", "\tab"] {
                let ids = tokenizer.encode_response(text).unwrap().ids;
                let bytes: Vec<u8> =
                    ids.iter().flat_map(|&id| spellings[id as usize].clone().unwrap()).collect();
                assert_eq!(String::from_utf8_lossy(&bytes), text, "{name}");
            }
            for id in [tokenizer.eos_id(), tokenizer.bos_id(), tokenizer.image_id()] {
                assert_eq!(spellings[id as usize], None, "{name}");
            }
        }
    }

    #[test]
    fn every_byte_has_its_character() {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut bytes: Vec<u8> = alphabet.into_iter().map(|c| byte_of(c).unwrap()).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<_>>());
        assert_eq!(
            (byte_of('Ġ'), byte_of('Ċ'), byte_of('a')),
            (Some(b' '), Some(b'\n'), Some(b'a'))
        );
        assert_eq!((byte_of(' '), byte_of('\u{150}'), byte_of('红')), (None, None, None));
    }
}
