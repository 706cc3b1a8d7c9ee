use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use sleuth_core::Encoded;
use tokenizers::Tokenizer;

use crate::chat::Frame;
use crate::error::TextPart;
use crate::{FolderError, InputError, TextLimits};
use framed::PromptLayout;
use pieces::Pieces;
use settle::Settlement;

mod align;
mod framed;
mod growing;
mod pieces;
mod settle;
mod spelling;
mod vocabulary;

pub use growing::GrowingResponse;

/// The reward model's tokenizer, for texts from users: whatever they hold is plain text.
///
/// - No special token is ever added to a response, and a prompt gets `<bos>` only.
/// - Text that spells a special token (`<eos>`, `<image>`), or another token in `<…>` or `[…]` or
///   outside the model's own vocabulary that `tokenizer.json` adds (`<loc0001>`), is encoded as the
///   plain characters it is, also where transformers would make it that token. Other added tokens,
///   such as Gemma's runs of spaces and newlines, are encoded as transformers does. Only a special
///   token of a single character cannot be told from its text.
/// - Every byte of a text belongs to at least one token; an unknown token counts. A text of which
///   the tokenizer would drop a character (no unknown token, no byte fallback) is refused.
/// - Truncation, padding, the post-processor and BPE dropout of `tokenizer.json` are not applied.
#[derive(Debug)]
pub struct TextTokenizer {
    pieces: Pieces,
    settlement: Settlement,
    prompt: PromptLayout,
    bos: u32,
    eos: u32,
    /// What ends an answer, `eos` first.
    ends: Arc<[u32]>,
    image: u32,
    vocab_size: u32,
    limits: TextLimits,
}

/// The names of start, end and image: Gemma's and PaliGemma's.
const GEMMA: [&str; 3] = ["<bos>", "<eos>", "<image>"];
/// Llama 3's; an answer ends with its turn.
const LLAMA: [&str; 3] = ["<|begin_of_text|>", "<|eot_id|>", "<|image|>"];

// === impl TextTokenizer ===

impl TextTokenizer {
    /// Parses the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`FolderError::Tokenizer`] where it is none, [`FolderError::TokenMissing`] where it has no
    /// `<bos>`, `<eos>` or `<image>`, nor Llama's names for them.
    pub fn from_json(bytes: &[u8], limits: TextLimits) -> Result<Self, FolderError> {
        // The parser asserts some of what it expects of a file instead of reporting it.
        let parsed = catch_unwind(AssertUnwindSafe(|| Tokenizer::from_bytes(bytes)))
            .unwrap_or_else(|_| Err("the file is inconsistent".into()));
        let mut tokenizer = parsed.map_err(FolderError::Tokenizer)?;
        // The library keeps what it saw in a cache per thread, 10,000 texts each. Without a
        // pre-tokenizer these are whole responses: much memory, hardly a hit.
        let mut model = tokenizer.get_model().clone();
        model.resize_cache(0);
        tokenizer.with_model(model);
        let id = |name| tokenizer.token_to_id(name).ok_or(FolderError::TokenMissing(name));
        let is_llama = tokenizer.token_to_id(LLAMA[0]).is_some();
        let [bos, eos, image] = if is_llama { LLAMA } else { GEMMA }.map(id);
        let (bos, eos, image) = (bos?, eos?, image?);
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        let pieces = Pieces::new(tokenizer).map_err(FolderError::Tokenizer)?;
        let settlement = pieces.settlement();
        let prompt = if is_llama {
            PromptLayout::framed(&Frame::bare_mllama(), &pieces)
        } else {
            PromptLayout::Line
        };
        Ok(Self {
            pieces,
            settlement,
            prompt,
            bos,
            eos,
            ends: Arc::from([eos]),
            image,
            vocab_size: largest.saturating_add(1),
            limits,
        })
    }

    /// Reads and parses a `tokenizer.json`.
    ///
    /// # Errors
    /// [`FolderError::Read`], or as [`TextTokenizer::from_json`].
    pub fn from_file(path: &Path, limits: TextLimits) -> Result<Self, FolderError> {
        Self::from_json(&crate::prepare::read(path)?, limits)
    }

    /// Encodes a response, with the bytes of it that each token stands for.
    ///
    /// Spans lie on character boundaries, never go back, and together cover the whole response.
    /// Two spans overlap only where each token holds a part of one character (byte fallback,
    /// byte-level pieces, a normaliser that makes one character several): all of them span it. A
    /// token that stands for no text, such as the space that some tokenizers put in front, has an
    /// empty span. What a normaliser removes belongs to the token after it if it is white space,
    /// else to the token before it.
    ///
    /// # Errors
    /// [`InputError::ResponseEmpty`], [`InputError::TextTooManyBytes`],
    /// [`InputError::TextTooManyTokens`] or [`InputError::TextNotEncodable`].
    pub fn encode_response(&self, text: &str) -> Result<Encoded, InputError> {
        let part = TextPart::Response;
        if text.is_empty() {
            return Err(InputError::ResponseEmpty);
        }
        within_bytes(part, text.len(), self.limits.max_response_bytes)?;
        self.encode_within(text, self.limits.max_response_tokens)
    }

    /// Encodes a prompt in the model's layout. The prompt may be empty.
    ///
    /// PaliGemma's is `<bos>`, then the prompt and a newline, tokenised as one text: the ids
    /// transformers' `PaliGemmaProcessor` gives after its image tokens. Mllama's is that of its chat
    /// template, with `<|image|>` and up to the reply: the ids `MllamaProcessor` gives without
    /// special tokens of its own. In both special-token text in the prompt stays text.
    ///
    /// # Errors
    /// [`InputError::TextTooManyBytes`], [`InputError::TextTooManyTokens`] or
    /// [`InputError::TextNotEncodable`].
    pub fn encode_prompt(&self, prompt: &str) -> Result<Arc<[u32]>, InputError> {
        let part = TextPart::Prompt;
        within_bytes(part, prompt.len(), self.limits.max_prompt_bytes)?;
        let ids = match &self.prompt {
            PromptLayout::Line => self.pieces.encode(&format!("{prompt}\n")).map(|pieces| {
                std::iter::once(self.bos).chain(pieces.into_iter().map(|(id, _)| id)).collect()
            }),
            PromptLayout::Framed(parts) => framed::encode(parts, prompt, &self.pieces),
        };
        let ids: Vec<u32> = ids.ok_or(InputError::TextNotEncodable { part })?;
        within_tokens(part, ids.len(), self.limits.max_prompt_tokens)?;
        Ok(ids.into())
    }

    /// Puts prompts into the folder's chat template, where the model has one: Llama's do.
    ///
    /// # Errors
    /// [`FolderError::ChatTemplate`] where the template fails, or does not hold the image and the
    /// prompt once each.
    pub(crate) fn with_template_of(mut self, folder: &Path) -> Result<Self, FolderError> {
        if let PromptLayout::Framed(_) = self.prompt
            && let Some(frame) = Frame::from_folder(folder, LLAMA[0], LLAMA[1])?
        {
            let images = [&frame.before, &frame.after].map(|text| text.matches(LLAMA[2]).count());
            if images != [1, 0] {
                let problem = "must give `<|image|>` once, before the prompt".to_owned();
                return Err(FolderError::ChatTemplate { file: "chat template", problem });
            }
            self.prompt = PromptLayout::framed(&frame, &self.pieces);
        }
        Ok(self)
    }

    /// Takes on what ends an answer by the folder's `generation_config.json`, beside `<eos>`.
    ///
    /// # Errors
    /// [`FolderError::Generation`].
    pub(crate) fn with_ends_of(mut self, folder: &Path) -> Result<Self, FolderError> {
        let mut ends = vec![self.eos];
        for id in crate::ends::from_folder(folder)? {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
        self.ends = ends.into();
        Ok(self)
    }

    /// Id of `<bos>` or what stands for it.
    pub fn bos_id(&self) -> u32 {
        self.bos
    }

    /// Id of `<eos>` or what stands for it.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }

    /// The tokens that end an answer: `<eos>` first, then those of `generation_config.json`.
    pub fn end_ids(&self) -> &Arc<[u32]> {
        &self.ends
    }

    /// Id of `<image>` or what stands for it.
    pub fn image_id(&self) -> u32 {
        self.image
    }

    /// One more than the largest id: a model needs at least as many embedding rows.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// The limits on texts.
    pub fn limits(&self) -> &TextLimits {
        &self.limits
    }

    /// A response, or a part of one, that is not empty.
    fn encode_within(&self, text: &str, max_tokens: usize) -> Result<Encoded, InputError> {
        let part = TextPart::Response;
        let refused = || InputError::TextNotEncodable { part };
        let pieces = self.pieces.encode(text).ok_or_else(refused)?;
        within_tokens(part, pieces.len(), max_tokens)?;
        let (ids, ranges): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
        let spans = align::cover(text, &ranges).ok_or_else(refused)?;
        Ok(Encoded { ids, spans })
    }
}

fn within_bytes(part: TextPart, bytes: usize, limit: usize) -> Result<(), InputError> {
    // Spans count bytes in 32 bits.
    let limit = limit.min(u32::MAX as usize - 1);
    if bytes > limit {
        return Err(InputError::TextTooManyBytes { part, bytes, limit });
    }
    Ok(())
}

fn within_tokens(part: TextPart, tokens: usize, limit: usize) -> Result<(), InputError> {
    if tokens > limit {
        return Err(InputError::TextTooManyTokens { part, tokens, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod toy;
