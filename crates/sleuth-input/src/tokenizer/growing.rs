//! A response that arrives in pieces, tokenised as far as its tokens are settled.

use std::ops::Range;
use std::str;
use std::sync::Arc;

use sleuth_core::{ByteSpan, Encoded};

use super::{TextTokenizer, within_bytes, within_tokens};
use crate::InputError;
use crate::error::TextPart;

const PART: TextPart = TextPart::Response;

/// A response that arrives in pieces.
///
/// Tokens come out as soon as nothing that may follow can change them. All that
/// [`push`](Self::push) and [`finish`](Self::finish) give, one after the other, is what
/// [`TextTokenizer::encode_response`] gives for the whole text, ids and spans. A text that it
/// refuses is refused here too, as soon as that is known: where two things are wrong with a text,
/// the one that shows first is named, and counts are those at that moment.
///
/// After an error the value stays failed: each further call gives the same error again, and tokens
/// given before it are void.
///
/// Where the tokenizer allows it, each piece is tokenised from the last settled boundary on. Where
/// it puts something in front of a text, or is Unigram, the text is tokenised from its start on,
/// but only when more of it is settled. Memory is bounded by
/// [`TextLimits::max_response_bytes`](crate::TextLimits::max_response_bytes) and one piece.
#[derive(Debug)]
pub struct GrowingResponse {
    tokenizer: Arc<TextTokenizer>,
    bytes: Vec<u8>,
    /// Bytes of whole characters; up to three more may begin one.
    whole: usize,
    /// The last whole character.
    last: Option<char>,
    /// Bytes whose tokens have been given.
    settled: usize,
    /// Tokens given.
    given: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    Finished,
    Failed(InputError),
}

// === impl TextTokenizer ===

impl TextTokenizer {
    /// Begins a response that arrives in pieces.
    pub fn grow(self: &Arc<Self>) -> GrowingResponse {
        GrowingResponse::new(Arc::clone(self))
    }
}

// === impl GrowingResponse ===

impl GrowingResponse {
    /// A response of which nothing has arrived.
    pub fn new(tokenizer: Arc<TextTokenizer>) -> Self {
        let bytes = Vec::new();
        Self { tokenizer, bytes, whole: 0, last: None, settled: 0, given: 0, state: State::Open }
    }

    /// Takes the next bytes, which may be none or end inside a character. Gives the tokens that are
    /// settled now and were not before, maybe none; spans are bytes of the whole response.
    ///
    /// # Errors
    /// [`InputError::ResponseNotUtf8`] where it can no longer become UTF-8,
    /// [`InputError::TextTooManyBytes`], [`InputError::TextTooManyTokens`] (of settled tokens) or
    /// [`InputError::TextNotEncodable`]; [`InputError::ResponseEnded`] for bytes after
    /// [`finish`](Self::finish), which changes nothing.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Encoded, InputError> {
        match &self.state {
            State::Open => {
                let given = self.take(bytes).and_then(|to| match to {
                    Some(to) => self.settle(to),
                    None => Ok(Encoded::default()),
                });
                self.keep(given)
            }
            State::Finished if bytes.is_empty() => Ok(Encoded::default()),
            State::Finished => Err(InputError::ResponseEnded),
            State::Failed(error) => Err(again(error)),
        }
    }

    /// Gives the tokens of the rest, once nothing more comes. Gives none the second time.
    ///
    /// # Errors
    /// [`InputError::ResponseEmpty`], [`InputError::ResponseNotUtf8`] where it ends inside a
    /// character, [`InputError::TextTooManyTokens`] or [`InputError::TextNotEncodable`].
    pub fn finish(&mut self) -> Result<Encoded, InputError> {
        match &self.state {
            State::Open => {
                let given = self.rest();
                if given.is_ok() {
                    self.state = State::Finished;
                }
                self.keep(given)
            }
            State::Finished => Ok(Encoded::default()),
            State::Failed(error) => Err(again(error)),
        }
    }

    /// All bytes received so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The whole text, once it has ended well.
    pub fn text(&self) -> Option<&str> {
        match self.state {
            State::Finished => str::from_utf8(&self.bytes).ok(),
            State::Open | State::Failed(_) => None,
        }
    }

    /// Bytes received whose tokens have not been given.
    pub fn held_back(&self) -> usize {
        self.bytes.len() - self.settled
    }

    /// Appends bytes, and gives the last settled boundary among the new characters.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, InputError> {
        self.bytes.extend_from_slice(bytes);
        let limit = self.tokenizer.limits.max_response_bytes;
        let new = whole_characters(&self.bytes[self.whole..])
            .map_err(|good| InputError::ResponseNotUtf8 { valid_up_to: self.whole + good })?;
        within_bytes(PART, self.bytes.len(), limit)?;
        let mut boundary = None;
        for (at, c) in new.char_indices() {
            if self.last.is_some_and(|last| self.tokenizer.settlement.settles(last, c)) {
                boundary = Some(self.whole + at);
            }
            self.last = Some(c);
        }
        self.whole += new.len();
        Ok(boundary)
    }

    /// Gives the tokens up to `end`, a settled boundary or the end of the text.
    fn settle(&mut self, end: usize) -> Result<Encoded, InputError> {
        let refused = || InputError::TextNotEncodable { part: PART };
        let (start, known) =
            if self.tokenizer.settlement.restarts() { (self.settled, 0) } else { (0, self.given) };
        let text = self.bytes.get(start..end).and_then(|b| str::from_utf8(b).ok());
        let limit = self.tokenizer.limits.max_response_tokens;
        let mut encoded = self.tokenizer.encode_within(text.ok_or_else(refused)?, usize::MAX)?;
        let total = self.given - known + encoded.ids.len();
        within_tokens(PART, total, limit)?;
        // From the start on, what has been given comes again, and no less.
        if encoded.ids.len() < known {
            return Err(refused());
        }
        encoded.ids.drain(..known);
        encoded.spans.drain(..known);
        for span in &mut encoded.spans {
            *span = moved(span.range(), start).ok_or_else(refused)?;
        }
        self.given = total;
        self.settled = end;
        Ok(encoded)
    }

    fn rest(&mut self) -> Result<Encoded, InputError> {
        if self.bytes.is_empty() {
            return Err(InputError::ResponseEmpty);
        }
        if self.whole < self.bytes.len() {
            return Err(InputError::ResponseNotUtf8 { valid_up_to: self.whole });
        }
        self.settle(self.bytes.len())
    }

    /// Remembers a failure.
    fn keep(&mut self, given: Result<Encoded, InputError>) -> Result<Encoded, InputError> {
        given.inspect_err(|error| self.state = State::Failed(again(error)))
    }
}

/// The whole characters that `bytes` begins with, where the rest may become one; else the length of
/// what is good.
fn whole_characters(bytes: &[u8]) -> Result<&str, usize> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if error.error_len().is_some() => Err(error.valid_up_to()),
        Err(error) => {
            let good = error.valid_up_to();
            str::from_utf8(&bytes[..good]).map_err(|_| good)
        }
    }
}

fn moved(range: Range<usize>, by: usize) -> Option<ByteSpan> {
    let at = |end: usize| u32::try_from(end + by).ok();
    ByteSpan::try_new(at(range.start)?, at(range.end)?).ok()
}

/// The same error once more: errors cannot be cloned, as those of images hold others.
fn again(error: &InputError) -> InputError {
    match *error {
        InputError::ResponseEmpty => InputError::ResponseEmpty,
        InputError::ResponseNotUtf8 { valid_up_to } => InputError::ResponseNotUtf8 { valid_up_to },
        InputError::TextTooManyBytes { part, bytes, limit } => {
            InputError::TextTooManyBytes { part, bytes, limit }
        }
        InputError::TextTooManyTokens { part, tokens, limit } => {
            InputError::TextTooManyTokens { part, tokens, limit }
        }
        // What else a text can be refused for.
        _ => InputError::TextNotEncodable { part: PART },
    }
}

#[cfg(test)]
mod tests;
