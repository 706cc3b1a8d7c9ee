//! Prompts inside what a model puts around them.

use super::pieces::Pieces;
use crate::chat::Frame;

/// How a prompt becomes ids.
#[derive(Debug)]
pub(super) enum PromptLayout {
    /// `<bos>`, prompt, newline.
    Line,
    /// Special tokens and texts, one of which holds the prompt.
    Framed(Vec<FramePart>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FramePart {
    Token(u32),
    Text(String),
    /// The prompt, with the texts that touch it: they are tokenised as one.
    Prompt {
        before: String,
        after: String,
    },
}

// === impl PromptLayout ===

impl PromptLayout {
    /// Finds the special tokens of a frame, as transformers finds them in a text.
    pub(super) fn framed(frame: &Frame, pieces: &Pieces) -> Self {
        let mut parts = pieces.special_parts(&frame.before);
        let mut rest = pieces.special_parts(&frame.after);
        let before = match parts.pop_if(|part| matches!(part, FramePart::Text(_))) {
            Some(FramePart::Text(text)) => text,
            _ => String::new(),
        };
        let after = match rest.first() {
            Some(FramePart::Text(text)) => text.clone(),
            _ => String::new(),
        };
        rest.drain(..usize::from(!after.is_empty()));
        parts.push(FramePart::Prompt { before, after });
        parts.extend(rest);
        Self::Framed(parts)
    }
}

/// The ids of a prompt; `None` where the tokenizer fails or would drop a character.
pub(super) fn encode(parts: &[FramePart], prompt: &str, pieces: &Pieces) -> Option<Vec<u32>> {
    let mut ids = Vec::new();
    for part in parts {
        let text = match part {
            FramePart::Token(id) => {
                ids.push(*id);
                continue;
            }
            FramePart::Text(text) => text.clone(),
            FramePart::Prompt { before, after } => [before, prompt, after].concat(),
        };
        if !text.is_empty() {
            ids.extend(pieces.encode(&text)?.into_iter().map(|(id, _)| id));
        }
    }
    Some(ids)
}

// === impl Pieces ===

impl Pieces {
    /// A text that may hold special tokens, taken apart at them: at each place the longest.
    fn special_parts(&self, text: &str) -> Vec<FramePart> {
        let (mut parts, mut from, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            let Some((id, len)) = self.special_at(&text[at..]) else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            if from < at {
                parts.push(FramePart::Text(text[from..at].to_owned()));
            }
            parts.push(FramePart::Token(id));
            at += len;
            from = at;
        }
        if from < text.len() {
            parts.push(FramePart::Text(text[from..].to_owned()));
        }
        parts
    }

    /// The longest reserved token that `text` begins with, and its bytes.
    fn special_at(&self, text: &str) -> Option<(u32, usize)> {
        let reserved = self.reserved.iter().filter(|(_, content)| text.starts_with(*content));
        reserved.map(|(&id, content)| (id, content.len())).max_by_key(|&(_, len)| len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::toy;
    use crate::{TextLimits, TextTokenizer};

    #[test]
    fn texts_that_touch_the_prompt_are_tokenised_with_it_and_special_tokens_are_found() {
        let toy = toy::bytes(&toy::llama3());
        let tokenizer = TextTokenizer::from_json(&toy, TextLimits::default()).unwrap();
        let frame = Frame {
            before: "<|begin_of_text|>b<|image|>a".to_owned(),
            after: "b<|eot_id|>a <|nothing|>".to_owned(),
        };
        let PromptLayout::Framed(parts) = PromptLayout::framed(&frame, &tokenizer.pieces) else {
            panic!("a frame gives parts")
        };
        let text = |text: &str| FramePart::Text(text.to_owned());
        let prompt = FramePart::Prompt { before: "a".to_owned(), after: "b".to_owned() };
        let [bos, eos, image] =
            [tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.image_id()].map(FramePart::Token);
        assert_eq!(parts, [bos, text("b"), image, prompt, eos, text("a <|nothing|>")]);
        let got = encode(&parts, "x<|image|>", &tokenizer.pieces).unwrap();
        let plain = |text: &str| tokenizer.encode_response(text).unwrap().ids;
        let want = [
            vec![tokenizer.bos_id()],
            plain("b"),
            vec![tokenizer.image_id()],
            plain("ax<|image|>b"),
            vec![tokenizer.eos_id()],
            plain("a <|nothing|>"),
        ];
        assert_eq!(got, want.concat());
    }
}
