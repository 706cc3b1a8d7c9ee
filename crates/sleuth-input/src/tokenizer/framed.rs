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
